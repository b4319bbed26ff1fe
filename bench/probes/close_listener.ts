/**
 * From `close()` to the rejection of the pending accept():
 * `close_listener.ts raw|ours` prints the median of 500, in µs.
 *
 * @module
 */

import { listen } from "../../mod.ts";
import { median } from "../harness/stats.ts";

interface Closable {
  accept(): Promise<unknown>;
  close(): unknown;
}

const listeners: Record<string, () => Promise<Closable> | Closable> = {
  raw: () => Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  ours: () => listen("tcp", "127.0.0.1:0"),
};
const open = listeners[Deno.args[0] ?? ""]!;

const rejected: number[] = [];
const settled: number[] = [];
for (let i = 0; i < 600; i++) {
  const listener = await open();
  let end = NaN;
  const waiting = listener.accept().catch(() => end = performance.now());
  // A turn of the event loop, so that the accept is under way.
  await new Promise((resolve) => setTimeout(resolve, 0));
  const start = performance.now();
  const closing = listener.close();
  await waiting;
  await closing;
  // The first 100 are a warm-up for the compiler.
  if (i < 100) continue;
  rejected.push((end - start) * 1000);
  settled.push((performance.now() - start) * 1000);
}
console.log(JSON.stringify({
  value: median(rejected),
  more: { "µs until both are settled": median(settled) },
}));
