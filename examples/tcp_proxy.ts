// Passes connections on to another address, both ways, half-close included,
// and counts the bytes. A name is dialled with fallback across its addresses.
//
//   deno run --allow-net=127.0.0.1,localhost examples/tcp_proxy.ts \
//     --listen 127.0.0.1:7002 --to localhost:7000
//
// In two more terminals:
//
//   socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat
//   nc 127.0.0.1 7002

import { parseArgs } from "@std/cli/parse-args";
import {
  copyBidirectional,
  Dialer,
  listen,
  serve,
  splitHostPort,
} from "@switchboard/tcp";

const usage = "usage: tcp_proxy.ts [--listen host:port] [--to host:port]";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["listen", "to"],
  default: { listen: "127.0.0.1:7002", to: "localhost:7000" },
  unknown: (arg) => exit(arg === "--help" ? 0 : 2),
});
if (!args.listen || !args.to) exit(2);
try {
  splitHostPort(args.to);
} catch (error) {
  exit(2, `tcp_proxy: --to: ${(error as Error).message}`);
}

const listener = await listen("tcp", args.listen)
  .catch((error) => exit(1, `tcp_proxy: ${error.message}`));
const dialer = new Dialer({ timeout: 5_000 });
const server = serve(
  listener,
  async (client, { signal }) => {
    const peer = String(client.remoteAddr);
    await using upstream = await dialer.dial("tcp", args.to, { signal });
    console.log(`${peer} -> ${upstream.remoteAddr}`);
    const [up, down] = await copyBidirectional(client, upstream);
    console.log(`${peer} done: ${up} bytes up, ${down} bytes down`);
  },
  {
    idleTimeout: 300_000, // one side has gone, and the other never ends
    onError: (error, conn) =>
      console.log(`${conn?.remoteAddr} failed: ${(error as Error).message}`),
  },
);
console.log(`listening on ${server.addr}`);

Deno.addSignalListener("SIGINT", () => server.shutdown({ timeout: 1_000 }));
await server.finished;
