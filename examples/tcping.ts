// How long a TCP handshake takes: a bar for each, then min, median and max.
//
//   deno run --allow-net=127.0.0.1 examples/tcping.ts --count 5 127.0.0.1:7000
//
// In another terminal, before:
//
//   nc -lk 127.0.0.1 7000    (or examples/echo_server.ts)

import { delay } from "@std/async/delay";
import { parseArgs } from "@std/cli/parse-args";
import { dial } from "@switchboard/tcp";

const args = parseArgs(Deno.args, {
  string: ["_", "count", "interval", "timeout"],
  default: { count: "5", interval: "200", timeout: "2000" },
});
const address = args._[0];
if (address === undefined) {
  console.error(
    "usage: tcping.ts [--count n] [--interval ms] [--timeout ms] host:port",
  );
  Deno.exit(2);
}

const aborter = new AbortController();
const { signal } = aborter;
Deno.addSignalListener("SIGINT", () => aborter.abort());

const times: number[] = [];
for (let i = 0; i < Number(args.count) && !signal.aborted; i++) {
  try {
    const timeout = Number(args.timeout);
    const conn = await dial("tcp", address, { timeout, signal });
    const { attempts } = conn.dialTrace!; // lookup and refusals do not count
    const ms = attempts.find((a) => a.outcome === "connected")!.durationMs;
    times.push(ms);
    const bar = "#".repeat(Math.max(1, Math.round(8 * Math.log2(1 + ms))));
    console.log(`${conn.remoteAddr} ${ms.toFixed(2).padStart(8)} ms ${bar}`);
    conn.close();
  } catch (error) {
    if (!signal.aborted) console.log((error as Error).message);
  }
  await delay(Number(args.interval), { signal }).catch(() => {});
}

times.sort((a, b) => a - b);
const [min, median, max] = [0, times.length >> 1, times.length - 1]
  .map((i) => times[i]?.toFixed(2) ?? "-");
console.log(
  `${times.length}/${args.count} handshakes, ` +
    `min/median/max ${min}/${median}/${max} ms`,
);
if (times.length === 0) Deno.exitCode = 1;
