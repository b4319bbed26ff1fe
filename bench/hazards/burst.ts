import { Child } from "../harness/child.ts";
import type { LoadReport } from "../harness/loadgen.ts";
import type { Bench } from "../harness/measure.ts";
import { type Finding, type Hazard, release, serverOf } from "./hazard.ts";

async function connectAtOnce(
  bench: Bench,
  peer: "raw" | "ours",
  count: number,
): Promise<{ text: string; met: boolean }> {
  const mode = peer === "raw" ? "echo" : "copy";
  await using server = await serverOf(bench, peer, mode);
  await using clients = new Child(bench.cores.client([
    bench.loadgen,
    ...["idle", "-p", `${server.port}`, "-n", `${count}`, "-l", `${count}`],
    ...["-s", "64"],
  ]));
  const report = await clients.json<LoadReport>();
  await release(clients);
  return {
    text: `${report.connections} served, ${report.errors} refused, ` +
      `${report.seconds.toFixed(2)} s`,
    met: report.connections === count && report.errors === 0,
  };
}

function burst(id: string, count: number): Hazard {
  return {
    id,
    title: `${count.toLocaleString("en-US")} connects at once, one echo each`,
    promise: "none refused",
    async *run(bench): AsyncIterable<Finding> {
      if (bench.files < count + 100) return;
      const raw = await connectAtOnce(bench, "raw", count);
      yield { who: "raw Deno", measured: raw.text };
      const ours = await connectAtOnce(bench, "ours", count);
      yield { who: "ours", measured: ours.text, met: ours.met };
    },
  };
}

/** More clients than Deno's default queue holds, and than the kernel's. */
export const bursts: Hazard[] = [
  burst("burst-1000", 1_000),
  burst("burst-10000", 10_000),
];
