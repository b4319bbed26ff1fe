// Sends back what it is sent: one task per connection, a drain on Ctrl-C.
//
//   deno run --allow-net=127.0.0.1 examples/echo_server.ts --listen 127.0.0.1:7000
//
// In a second terminal:
//
//   nc 127.0.0.1 7000        (type a line; Ctrl-C ends it)

import { parseArgs } from "@std/cli/parse-args";
import { copy, listen, serve } from "@switchboard/tcp";

const args = parseArgs(Deno.args, {
  string: ["listen"],
  default: { listen: "127.0.0.1:7000" },
  unknown: (arg) => {
    throw new TypeError(`unknown argument: ${arg}`);
  },
});

const server = serve(await listen("tcp", args.listen), async (conn) => {
  const peer = String(conn.remoteAddr);
  console.log(`${peer} connected`);
  const bytes = await copy(conn, conn);
  console.log(`${peer} sent ${bytes} bytes`);
}, { maxConnections: 1000, idleTimeout: 60_000 });
console.log(`listening on ${server.addr}`);

Deno.addSignalListener("SIGINT", () => server.shutdown({ timeout: 1_000 }));
await server.finished;
