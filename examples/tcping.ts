// How long a TCP handshake takes: a bar for each, then min, median and max. If
// the first one fails, it gives up.
//
//   deno run --allow-net=127.0.0.1 examples/tcping.ts --count 5 127.0.0.1:7000
//
// Before that, in another terminal:
//
//   nc -lk 127.0.0.1 7000    (or examples/echo_server.ts)

import { delay } from "@std/async/delay";
import { parseArgs } from "@std/cli/parse-args";
import { dial } from "@switchboard/tcp";

const usage =
  "usage: tcping.ts [--count n] [--interval ms] [--timeout ms] host:port";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["_", "count", "interval", "timeout"],
  default: { count: "5", interval: "200", timeout: "2000" },
  unknown: (arg, flag) => flag && exit(arg === "--help" ? 0 : 2),
});
const [address, extra] = args._;
const count = Number(args.count);
const interval = Number(args.interval); // ms
const timeout = Number(args.timeout);
if (!address || extra || !Number.isInteger(count)) exit(2);
if (!(Math.min(count, interval, timeout) > 0)) exit(2);

const aborter = new AbortController();
const { signal } = aborter;
Deno.addSignalListener("SIGINT", () => aborter.abort());

await delay(0); // a process's first timer takes 20 ms: not in the first dial
const times: number[] = [];
for (let i = 0; i < count && !signal.aborted; i++) {
  try {
    const conn = await dial("tcp", address, { timeout, signal });
    const { attempts } = conn.dialTrace!; // lookup and refusals do not count
    const ms = attempts.find((a) => a.outcome === "connected")!.durationMs;
    times.push(ms);
    const bar = "#".repeat(Math.max(1, Math.round(8 * Math.log2(1 + ms))));
    console.log(`${conn.remoteAddr} ${ms.toFixed(2).padStart(8)} ms ${bar}`);
    conn.close();
  } catch (error) {
    if (signal.aborted) break;
    console.error(`tcping: ${(error as Error).message}`);
    if (times.length === 0) Deno.exit(1);
  }
  await delay(interval, { signal }).catch(() => {});
}

times.sort((a, b) => a - b);
const [min, median, max] = [0, times.length >> 1, times.length - 1]
  .map((i) => times[i]?.toFixed(2) ?? "-");
console.log(
  `${times.length}/${count} handshakes, ` +
    `min/median/max ${min}/${median}/${max} ms`,
);
if (times.length === 0) Deno.exitCode = 1;
