/**
 * The hazards that the README names, each provoked and measured, ours beside
 * plain Deno: `deno run -A bench/claims.ts [--only ID,ID]`.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { buildLoadgen } from "./harness/loadgen.ts";
import { describeMachine, findCores, output } from "./harness/machine.ts";
import type { Bench } from "./harness/measure.ts";
import { findPeers } from "./harness/peers.ts";
import { table } from "./harness/table.ts";
import { abortDials } from "./hazards/abort_dials.ts";
import { bursts } from "./hazards/burst.ts";
import { descriptors } from "./hazards/descriptors.ts";
import { drain } from "./hazards/drain.ts";
import { flood } from "./hazards/flood.ts";
import type { Hazard } from "./hazards/hazard.ts";
import { limit } from "./hazards/limit.ts";
import { memory } from "./hazards/memory.ts";
import { storm } from "./hazards/storm.ts";

const hazards: Hazard[] = [
  flood,
  storm,
  descriptors,
  ...bursts,
  abortDials,
  drain,
  limit,
  memory,
];

async function main(): Promise<void> {
  const { only } = parseArgs(Deno.args, { string: ["only"] });
  const temporary = await Deno.makeTempDir({ prefix: "switchboard-bench-" });
  try {
    const bench: Bench = {
      loadgen: await buildLoadgen(temporary),
      temporary,
      cores: await findCores(),
      peers: (await findPeers(temporary)).peers,
      seconds: 1,
      files: Number(await output(["sh", "-c", "ulimit -Hn"])) || Infinity,
    };
    const lines: string[][] = [];
    for (const hazard of hazards) {
      if (!(only?.split(",").includes(hazard.id) ?? true)) continue;
      let title = hazard.title;
      for await (const { who, measured, met } of hazard.run(bench)) {
        const kept = met === undefined ? "" : met ? "yes" : "NO";
        const promise = met === undefined ? "" : `${hazard.promise}: ${kept}`;
        if (met === false) Deno.exitCode = 1;
        lines.push([title, who, measured, promise]);
        title = "";
      }
    }
    console.log(table(["hazard", "who", "measured", "promised"], lines));
    console.log(`\n${await describeMachine()}`);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

await main();
