import { ask } from "../harness/child.ts";
import type { LoadReport } from "../harness/loadgen.ts";
import { type Finding, type Hazard, serverOf } from "./hazard.ts";

const TENTHS = 10;
const CONNECTIONS = 5_000;

/** What short connections leave behind. */
export const memory: Hazard = {
  id: "memory",
  title: "heap after GC over 50,000 short connections",
  promise: "last tenth within 5 % of the first",
  async *run(bench): AsyncIterable<Finding> {
    await using server = await serverOf(bench, "ours", "serve-copy");
    const heap: number[] = [];
    // One more, before the first: compiled code is on the heap, too.
    for (let tenth = 0; tenth <= TENTHS; tenth++) {
      await ask<LoadReport>(bench.cores.client([
        bench.loadgen,
        ...["churn", "-p", `${server.port}`, "-c", `${CONNECTIONS}`],
        ...["-d", "60"],
      ]));
      heap.push(await server.collectGarbage());
    }
    const [, first = NaN] = heap;
    const last = heap.at(-1) ?? NaN;
    const mb = (bytes: number) => (bytes / 1e6).toFixed(2);
    yield {
      who: "ours",
      measured: `${mb(first)} MB, then ${mb(last)} MB`,
      met: last < first * 1.05,
    };
  },
};
