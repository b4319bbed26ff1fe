/**
 * Dials that are aborted at random moments, 50 at a time: `abort_dials.ts
 * raw|ours PORT COUNT` prints how they ended, and the sockets they left.
 *
 * @module
 */

import { dial } from "../../mod.ts";

const [who, port = "", count = "10000"] = Deno.args;

type Dial = (signal: AbortSignal) => Promise<Disposable>;
const dials: Record<string, Dial> = {
  raw: (signal) =>
    Deno.connect({ hostname: "127.0.0.1", port: Number(port), signal }),
  ours: (signal) => dial("tcp", `127.0.0.1:${port}`, { signal }),
};
const connect = dials[who ?? ""]!;

/**
 * How many TCP sockets this process has open, by its descriptor table. (The
 * runtime opens others for itself, half a second after its start.)
 */
function sockets(): number {
  const inodes = new Set(
    Deno.readTextFileSync("/proc/self/net/tcp").split("\n")
      .map((line) => line.trim().split(/ +/)[9]),
  );
  let found = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      const target = Deno.readLinkSync(`/proc/self/fd/${name}`);
      if (inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1])) found++;
    } catch (error) {
      // The descriptor of this very listing.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return found;
}

const outcome = { connected: 0, aborted: 0, failed: 0 };
let left = Number(count);

async function worker(): Promise<void> {
  while (left-- > 0) {
    const controller = new AbortController();
    const { signal } = controller;
    // About as long as 50 connects take together.
    const timer = setTimeout(() => controller.abort(), Math.random() * 8);
    try {
      (await connect(signal))[Symbol.dispose]();
      outcome.connected++;
    } catch (error) {
      if (error === signal.reason) outcome.aborted++;
      else outcome.failed++;
    } finally {
      clearTimeout(timer);
    }
  }
}

const before = sockets();
await Promise.all(Array.from({ length: 50 }, worker));
// What is cancelled may take a turn to be closed; what leaks stays.
await new Promise((resolve) => setTimeout(resolve, 500));
console.log(JSON.stringify({ ...outcome, left: sockets() - before }));
// Leaked ones would be closed only by a garbage collection, if ever.
Deno.exit(0);
