/**
 * Dials a literal and closes, 32 at a time: `dial_close.ts WHO PORT SECONDS`,
 * WHO being raw, raw-options or ours, prints how often in a second.
 *
 * @module
 */

import { dial } from "../../mod.ts";

const [who, port = "", seconds = "3"] = Deno.args;
const warmUpMs = 1_000;

const dials: Record<string, () => Promise<Disposable>> = {
  raw: () => Deno.connect({ hostname: "127.0.0.1", port: Number(port) }),
  // What ours sets by default: two calls of the kernel.
  "raw-options": async () => {
    const conn = await Deno.connect({
      hostname: "127.0.0.1",
      port: Number(port),
    });
    conn.setNoDelay(true);
    conn.setKeepAlive(true);
    return conn;
  },
  ours: () => dial("tcp", `127.0.0.1:${port}`),
};
const connect = dials[who ?? ""]!;

let done = 0;
async function worker(until: number): Promise<void> {
  while (performance.now() < until) {
    (await connect())[Symbol.dispose]();
    done++;
  }
}

async function run(ms: number): Promise<number> {
  done = 0;
  const start = performance.now();
  await Promise.all(Array.from({ length: 32 }, () => worker(start + ms)));
  return done / (performance.now() - start) * 1000;
}

await run(warmUpMs);
console.log(JSON.stringify({ value: await run(Number(seconds) * 1000) }));
