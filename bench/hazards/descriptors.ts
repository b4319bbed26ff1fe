import { Child } from "../harness/child.ts";
import type { LoadReport } from "../harness/loadgen.ts";
import { cpuSeconds } from "../harness/machine.ts";
import type { Bench } from "../harness/measure.ts";
import { ServerProcess } from "../harness/peers.ts";
import {
  type Finding,
  type Hazard,
  pause,
  release,
  roundTrip,
} from "./hazard.ts";

const EPISODES = 3;
const HOLD_MS = 2_000;
/** Retries that fit in that (5 ms, doubling), if each were reported. */
const RETRIES = 8;

interface Result {
  /** Round trips after an episode, in ms; fewer than episodes = dead. */
  recovered: number[];
  /** Share of a core used while the table was full. */
  cpu: number[];
  reports: number;
}

async function episodes(
  bench: Bench,
  command: string[],
): Promise<Result> {
  await using server = await ServerProcess.start([
    ...["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"],
    ...bench.cores.server(command),
  ], { errors: true });
  const { pid } = server.child;
  // With no descriptor left in its first half second Deno itself panics: that
  // is when it sets up its SIGUSR1 listener.
  await pause(1_500);
  const result: Result = { recovered: [], cpu: [], reports: 0 };
  try {
    for (let i = 0; i < EPISODES; i++) {
      await using clients = new Child(bench.cores.client([
        bench.loadgen,
        ...["idle", "-p", `${server.port}`, "-n", "100"],
      ]));
      await clients.json<LoadReport>();
      const before = await cpuSeconds(pid);
      const start = performance.now();
      await pause(HOLD_MS);
      const used = await cpuSeconds(pid) - before;
      result.cpu.push(used / (performance.now() - start) * 1000);
      await release(clients);
      result.recovered.push(await roundTrip(server.port));
    }
  } catch (error) {
    // It has died; how far it got says when.
    if (!(error instanceof Error)) throw error;
  }
  const isReport = (line: string) => line.includes('"capacity"');
  result.reports = server.child.errors.filter(isReport).length;
  return result;
}

function describe({ recovered, cpu }: Result): string {
  const share = `${(Math.max(...cpu) * 100).toFixed(1)} % of a core`;
  return recovered.length < EPISODES
    ? `dead in episode ${recovered.length + 1}`
    : `${share} meanwhile, served ${
      Math.max(...recovered).toFixed(0)
    } ms after`;
}

/** No descriptor left: EMFILE from accept(). */
export const descriptors: Hazard = {
  id: "descriptors",
  title: "100 clients under `ulimit -n 64`, in and out three times",
  promise: "serves again, < 20 % CPU, reports episodes, not retries",
  async *run(bench): AsyncIterable<Finding> {
    const raw = bench.peers.get("raw")!.command;
    const ours = bench.peers.get("ours")!.command;
    yield {
      who: "raw Deno",
      measured: describe(await episodes(bench, [...raw, "echo"])),
    };
    yield {
      who: "raw Deno, accept() again at once",
      measured: describe(await episodes(bench, [...raw, "retry-echo"])),
    };
    const result = await episodes(bench, [...ours, "copy"]);
    yield {
      who: "ours",
      measured: `${describe(result)}, ${result.reports} reports`,
      // Some give two: clients that were still queued fill the table again.
      met: result.recovered.length === EPISODES &&
        Math.max(...result.cpu) < 0.2 && result.reports >= EPISODES &&
        result.reports < EPISODES * RETRIES,
    };
  },
};
