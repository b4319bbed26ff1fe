// Sends what you type and prints what comes back, both ways at once. Ctrl-D
// sends FIN, and the last answer still arrives; it ends when the peer closes.
//
//   deno run --allow-net=127.0.0.1 examples/echo_client.ts 127.0.0.1:7000
//
// Before that, in another terminal:
//
//   nc -l 127.0.0.1 7000     (or examples/echo_server.ts)

import { parseArgs } from "@std/cli/parse-args";
import { dial } from "@switchboard/tcp";

const usage = "usage: echo_client.ts [--timeout ms] host:port";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["_", "timeout"],
  default: { timeout: "5000" },
  unknown: (arg, flag) => flag && exit(arg === "--help" ? 0 : 2),
});
const [address, extra] = args._;
const timeout = Number(args.timeout); // ms
if (!address || extra || !(timeout > 0)) exit(2);

const aborter = new AbortController();
const { signal } = aborter;
Deno.addSignalListener("SIGINT", () => aborter.abort(new Error("interrupted")));
try {
  await using conn = await dial("tcp", address, { timeout, signal });
  console.error(`connected to ${conn.remoteAddr}`);
  const sending = Deno.stdin.readable.pipeTo(conn.writable, { signal });
  const receiving = conn.readable.pipeTo(Deno.stdout.writable, {
    signal,
    preventClose: true,
  });
  await Promise.race([receiving, sending.then(() => receiving)]);
} catch (error) {
  console.error(`echo_client: ${(error as Error).message}`);
  Deno.exitCode = 1;
} finally {
  aborter.abort(); // nobody reads what is typed from now on
}
