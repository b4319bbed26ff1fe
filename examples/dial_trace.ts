// Draws what a dial did: one bar per address, with its outcome at the end. The
// dialer sees a name's addresses only if all of the network is granted.
//
//   deno run --allow-net examples/dial_trace.ts localhost:7000
//
// Before that, in another terminal (or not at all, to see them refused):
//
//   nc -lk 127.0.0.1 7000
//
// `--json` prints the raw trace; `--delay` and `--timeout` are milliseconds.

import { parseArgs } from "@std/cli/parse-args";
import { dial, DialError, type DialTrace } from "@switchboard/tcp";

const usage =
  "usage: dial_trace.ts [--json] [--delay ms] [--timeout ms] host:port";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["_", "delay", "timeout"],
  boolean: ["json"],
  default: { delay: "250", timeout: "10000" },
  unknown: (arg, flag) => flag && exit(arg === "--help" ? 0 : 2),
});
const [address, extra] = args._;
const attemptDelay = Number(args.delay); // ms
const timeout = Number(args.timeout);
if (!address || extra || !(Math.min(attemptDelay, timeout) > 0)) exit(2);

const WIDTH = 50;
function show(trace: DialTrace): void {
  if (args.json) return console.log(JSON.stringify(trace));
  const { resolveMs, totalMs, attempts } = trace;
  const column = (ms: number) => Math.round(ms / totalMs * WIDTH);
  const width = Math.max(7, ...attempts.map(({ addr }) => addr.length));
  const row = (name: string, from: number, to: number, end: string) => {
    const bar = "=".repeat(Math.max(1, column(to) - column(from)));
    const took = `${(to - from).toFixed(1)} ms`;
    const line = `${" ".repeat(column(from))}${bar} ${end} ${took}`;
    console.log(`${name.padEnd(width)} |${line}`);
  };
  console.log(`${trace.address} (${trace.mode}): ${totalMs.toFixed(1)} ms`);
  if (resolveMs > 0) row("resolve", 0, resolveMs, "found");
  for (const { addr, startMs, durationMs, outcome, code } of attempts) {
    const end = outcome === "failed" ? `failed (${code})` : outcome;
    if (outcome !== "not-started") {
      row(addr, startMs, startMs + durationMs, end);
    } else console.log(`${addr.padEnd(width)} | ${end}`);
  }
}

const aborter = new AbortController();
Deno.addSignalListener("SIGINT", () => aborter.abort(new Error("interrupted")));
// A process's first timer takes 20 ms, which would show in the first attempt.
await new Promise((resolve) => setTimeout(resolve, 0));
try {
  const options = { attemptDelay, timeout, signal: aborter.signal };
  using conn = await dial("tcp", address, options);
  show(conn.dialTrace!);
} catch (error) {
  if (error instanceof DialError) show(error.trace);
  console.error(`dial_trace: ${(error as Error).message}`);
  Deno.exitCode = 1;
}
