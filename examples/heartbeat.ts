// A server that pings a silent peer, and gives up on one that stays silent:
// every byte moves the read deadline.
//
//   deno run --allow-net=127.0.0.1 examples/heartbeat.ts \
//     --listen 127.0.0.1:7003 --interval 1000 --misses 3
//
// In a second terminal (type a line now and then, or none):
//
//   nc 127.0.0.1 7003

import { parseArgs } from "@std/cli/parse-args";
import { isTimeout, listen, type OpError, serve } from "@switchboard/tcp";

const usage =
  "usage: heartbeat.ts [--listen host:port] [--interval ms] [--misses n]";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["listen", "interval", "misses"],
  default: { listen: "127.0.0.1:7003", interval: "1000", misses: "3" },
  unknown: (arg) => exit(arg === "--help" ? 0 : 2),
});
const interval = Number(args.interval); // ms
const misses = Number(args.misses);
if (!args.listen || !(Math.min(interval, misses) > 0)) exit(2);

const listener = await listen("tcp", args.listen)
  .catch((error) => exit(1, `heartbeat: ${error.message}`));
const encoder = new TextEncoder();

const server = serve(listener, async (conn) => {
  const p = new Uint8Array(1024);
  let silent = 0;
  while (true) {
    conn.setReadDeadline(Date.now() + interval);
    try {
      if (await conn.read(p) === null) return;
      silent = 0;
    } catch (error) {
      // With a code, ETIMEDOUT, the kernel has given up on the peer.
      if (!isTimeout(error) || (error as OpError).code) throw error;
      // The connection is as good as before: ask, and read on.
      if (++silent > misses) break;
      await conn.write(encoder.encode(`ping ${silent}\n`));
    }
  }
  await conn.write(encoder.encode("gone\n"));
  console.log(`${conn.remoteAddr} missed ${misses} pings`);
});
console.log(`listening on ${server.addr}`);

Deno.addSignalListener("SIGINT", () => server.shutdown({ timeout: 1_000 }));
await server.finished;
