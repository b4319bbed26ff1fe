/**
 * What all hazards use, and what they return; see claims.ts.
 *
 * @module
 */

import type { Child } from "../harness/child.ts";
import type { LoadReport } from "../harness/loadgen.ts";
import type { Bench } from "../harness/measure.ts";
import { ServerProcess } from "../harness/peers.ts";
import type { PeerName } from "../harness/peers.ts";

/** One line of the table. */
export interface Finding {
  who: string;
  measured: string;
  /** Whether it is as promised; absent where nothing was promised. */
  met?: boolean;
}

/** A way for things to go wrong, and what is promised then. */
export interface Hazard {
  id: string;
  title: string;
  promise: string;
  run(bench: Bench): AsyncIterable<Finding>;
}

/** Starts a server of ours or of the baseline, on the servers' core. */
export async function serverOf(
  bench: Bench,
  peer: PeerName,
  ...args: string[]
): Promise<ServerProcess> {
  const command = [...bench.peers.get(peer)!.command, ...args];
  return await ServerProcess.start(bench.cores.server(command), {
    errors: true,
  });
}

/** One new connection, one byte there and back; the milliseconds it took. */
export async function roundTrip(port: number): Promise<number> {
  const start = performance.now();
  using conn = await Deno.connect({ hostname: "127.0.0.1", port });
  await conn.write(new Uint8Array(1));
  if (await conn.read(new Uint8Array(1)) === null) {
    throw new Error("closed instead of a reply");
  }
  return performance.now() - start;
}

/** Ends a load generator that holds connections; how many were still open. */
export async function release(clients: Child): Promise<number> {
  await clients.endInput();
  const { alive } = await clients.json<LoadReport>();
  await clients.status;
  return alive;
}

/** Waits. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
