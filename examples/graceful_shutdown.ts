// Echoes what it reads, after a while. Ctrl-C or SIGTERM drains: requests that
// have arrived are answered, all clients get "bye", new ones are refused, and a
// receipt is printed. A second signal ends the wait at once.
//
//   deno run --allow-net=127.0.0.1 examples/graceful_shutdown.ts \
//     --listen 127.0.0.1:7004 --work 3000 --timeout 10000
//
// In a second terminal, type a line, then press Ctrl-C in the first:
//
//   nc 127.0.0.1 7004

import { delay } from "@std/async/delay";
import { parseArgs } from "@std/cli/parse-args";
import { type Conn, isTimeout, listen, serve } from "@switchboard/tcp";

const usage =
  "usage: graceful_shutdown.ts [--listen host:port] [--work ms] [--timeout ms]";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["listen", "work", "timeout"],
  default: { listen: "127.0.0.1:7004", work: "3000", timeout: "10000" },
  unknown: (arg) => exit(arg === "--help" ? 0 : 2),
});
const work = Number(args.work); // ms
const timeout = Number(args.timeout);
if (!args.listen || !(Math.min(work, timeout) > 0)) exit(2);

const listener = await listen("tcp", args.listen)
  .catch((error) => exit(1, `graceful_shutdown: ${error.message}`));
const server = serve(listener, async (conn, { signal }) => {
  const p = new Uint8Array(1024);
  for (;;) {
    const n = await next(conn, p, signal);
    if (n === null) break;
    console.log(`${conn.remoteAddr} sent a request`);
    await delay(work); // a request under way is finished
    await conn.write(p.subarray(0, n));
  }
  await conn.write(new TextEncoder().encode("bye\n"));
});

/** Reads; once the server shuts down, only what arrives within 50 ms. */
async function next(conn: Conn, p: Uint8Array, signal: AbortSignal) {
  try {
    return await conn.read(p, { signal });
  } catch (error) {
    if (error !== signal.reason) throw error;
  }
  try {
    return await conn.read(p, { signal: AbortSignal.timeout(50) });
  } catch (error) {
    if (isTimeout(error)) return null;
    throw error;
  }
}
console.log(`listening on ${server.addr}`);

let draining = false;
const drain = async () => {
  if (draining) return server.close();
  draining = true;
  const receipt = server.shutdown({ timeout });
  console.log(`draining ${server.connections.size} connections`);
  const report = await receipt;
  console.log(report);
  Deno.exit(report.forced > 0 ? 1 : 0); // a forced handler may still work
};
Deno.addSignalListener("SIGINT", drain);
Deno.addSignalListener("SIGTERM", drain);
