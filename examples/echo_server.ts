// Sends back what it receives: one task per connection, a drain on Ctrl-C.
//
//   deno run --allow-net=127.0.0.1 examples/echo_server.ts --listen 127.0.0.1:7000
//
// In a second terminal:
//
//   nc 127.0.0.1 7000        (type a line; Ctrl-C ends it)

import { parseArgs } from "@std/cli/parse-args";
import { copy, listen, serve } from "@switchboard/tcp";

const usage = "usage: echo_server.ts [--listen host:port]";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["listen"],
  default: { listen: "127.0.0.1:7000" },
  unknown: (arg) => exit(arg === "--help" ? 0 : 2),
});
if (!args.listen) exit(2);

const listener = await listen("tcp", args.listen)
  .catch((error) => exit(1, `echo_server: ${error.message}`));
const server = serve(listener, async (conn, { signal }) => {
  const peer = String(conn.remoteAddr);
  console.log(`${peer} connected`);
  const bytes = await copy(conn, conn, { signal }); // a shutdown ends it
  console.log(`${peer} sent ${bytes} bytes`);
}, { maxConnections: 1000, idleTimeout: 60_000 });
console.log(`listening on ${server.addr}`);

Deno.addSignalListener("SIGINT", () => server.shutdown({ timeout: 1_000 }));
await server.finished;
