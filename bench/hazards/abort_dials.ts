import { ask, Child } from "../harness/child.ts";
import type { Bench } from "../harness/measure.ts";
import type { Finding, Hazard } from "./hazard.ts";

interface Outcome {
  connected: number;
  aborted: number;
  failed: number;
  left: number;
}

async function dialAndAbort(bench: Bench, who: string): Promise<Outcome> {
  await using acceptor = new Child(
    bench.cores.client([bench.loadgen, "accept"]),
  );
  const probe = `${import.meta.dirname}/../probes/abort_dials.ts`;
  return await ask<Outcome>(bench.cores.server([
    ...[Deno.execPath(), "run", "-A", probe],
    ...[who, await acceptor.line(), "10000"],
  ]));
}

function describe({ connected, aborted, failed, left }: Outcome): string {
  return `${left} sockets left (${connected} connected, ${aborted} aborted, ` +
    `${failed} failed)`;
}

/** Aborts that race with the connection being established. */
export const abortDials: Hazard = {
  id: "abort-dials",
  title: "10,000 dials aborted at random moments, 50 at a time",
  promise: "no socket left",
  async *run(bench): AsyncIterable<Finding> {
    yield {
      who: "Deno.connect",
      measured: describe(await dialAndAbort(bench, "raw")),
    };
    const ours = await dialAndAbort(bench, "ours");
    yield {
      who: "ours",
      measured: describe(ours),
      met: ours.left === 0 && ours.failed === 0 && ours.aborted > 0,
    };
  },
};
