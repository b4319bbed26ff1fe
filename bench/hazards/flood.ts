import { ask } from "../harness/child.ts";
import type { LoadReport } from "../harness/loadgen.ts";
import type { Bench } from "../harness/measure.ts";
import {
  type Finding,
  type Hazard,
  pause,
  roundTrip,
  serverOf,
} from "./hazard.ts";

const TRIPS = 100;

async function during(
  bench: Bench,
  peer: "raw" | "ours",
): Promise<{ trips: number[]; skipped: number }> {
  await using server = await serverOf(
    bench,
    peer,
    peer === "raw" ? "echo" : "copy",
  );
  await roundTrip(server.port);
  const trips: number[] = [];
  const good = async () => {
    while (trips.length < TRIPS) {
      trips.push(await roundTrip(server.port));
      await pause(10);
    }
  };
  const [, flood] = await Promise.allSettled([
    good(),
    // Ten bursts of a hundred within the second that the good client takes.
    ask<LoadReport>(
      bench.cores.client([
        bench.loadgen,
        ...["flood", "-p", `${server.port}`, "-n", "1000", "-b", "100"],
        ...["-d", "1"],
      ]),
    ),
  ]);
  if (flood.status === "rejected") throw flood.reason;
  const skipped = server.child.errors.filter((line) => line.includes("peer"));
  return { trips, skipped: skipped.length };
}

/** Clients that connect, and reset before they are accepted. */
export const flood: Hazard = {
  id: "flood",
  title: "1,000 clients connect and reset, a good one connects 100 times",
  promise: "each round trip < 100 ms",
  async *run(bench): AsyncIterable<Finding> {
    const raw = await during(bench, "raw");
    yield {
      who: "raw Deno",
      measured: raw.trips.length < TRIPS
        ? `dead after ${raw.trips.length} round trips`
        : `slowest ${Math.max(...raw.trips).toFixed(1)} ms`,
    };
    const { trips, skipped } = await during(bench, "ours");
    const slowest = Math.max(...trips);
    yield {
      who: "ours",
      measured:
        `${trips.length} round trips, slowest ${slowest.toFixed(1)} ms, ` +
        `${skipped} resets met`,
      met: trips.length === TRIPS && slowest < 100,
    };
  },
};
