// A chat room: what a guest says goes to all others. A write deadline drops a
// guest who reads nothing for a while, so that nobody holds up the room.
//
//   deno run --allow-net=127.0.0.1 examples/chat_server.ts --listen 127.0.0.1:7001
//
// In two more terminals: nc 127.0.0.1 7001

import { parseArgs } from "@std/cli/parse-args";
import {
  type Conn,
  isClosed,
  isTimeout,
  listen,
  serve,
} from "@switchboard/tcp";

const usage = "usage: chat_server.ts [--listen host:port] [--patience ms]";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["listen", "patience"],
  default: { listen: "127.0.0.1:7001", patience: "2000" },
  unknown: (arg) => exit(arg === "--help" ? 0 : 2),
});
const patience = Number(args.patience); // ms
if (!args.listen || !(patience > 0)) exit(2);

const listener = await listen("tcp", args.listen)
  .catch((error) => exit(1, `chat_server: ${error.message}`));
const room = new Map<Conn, { name: string; unsent: number }>();
let guests = 0;

async function say(from: Conn, text: string): Promise<void> {
  const others = [...room.keys()].filter((conn) => conn !== from);
  await Promise.all(others.map((to) => send(to, text)));
}

async function send(to: Conn, text: string): Promise<void> {
  const guest = room.get(to)!;
  try {
    if (guest.unsent++ === 0) to.setWriteDeadline(Date.now() + patience);
    await to.write(new TextEncoder().encode(`${text}\n`));
    if (--guest.unsent > 0) to.setWriteDeadline(Date.now() + patience);
  } catch (error) {
    const why = isTimeout(error) ? "reads too slowly" : "is gone";
    if (room.delete(to)) console.log(`${guest.name} ${why}`);
    to.close(); // its handler reads no more, and ends
  }
}

const server = serve(listener, async (conn) => {
  const name = `guest${++guests}`;
  room.set(conn, { name, unsent: 0 });
  send(conn, `you are ${name}`);
  say(conn, `* ${name} has joined`);
  try {
    let rest = "";
    const decoder = new TextDecoder();
    for await (const chunk of conn) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop()!;
      if (rest.length > 4096) throw new Error(`${name} never ends a line`);
      // No control characters: they could control the others' terminals.
      const printable = lines.map((line) => line.replace(/\p{Cc}/gu, ""));
      for (const line of printable) await say(conn, `${name}: ${line}`);
    }
  } finally {
    room.delete(conn);
    say(conn, `* ${name} has left`);
  }
}, {
  maxConnections: 200, // each line goes to all
  // If the guest was dropped, that has been logged already.
  onError: (error) => {
    if (!isClosed(error)) console.log((error as Error).message);
  },
});
console.log(`listening on ${server.addr}`);
Deno.addSignalListener("SIGINT", () => server.shutdown({ timeout: 100 }));
await server.finished;
