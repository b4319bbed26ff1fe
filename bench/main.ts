/**
 * `deno task bench`: ours against plain Deno and, where they are installed,
 * Node, Go and Bun, in one interleaved run; prints a table. README.md says what
 * each row means.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { buildLoadgen } from "./harness/loadgen.ts";
import { describeMachine, findCores, output } from "./harness/machine.ts";
import { type Bench, type Sample, Skip } from "./harness/measure.ts";
import { NoNamespaceError } from "./harness/namespace.ts";
import { findPeers } from "./harness/peers.ts";
import { median, short } from "./harness/stats.ts";
import { table } from "./harness/table.ts";
import { type Bound, type Contestant, type Row, rows } from "./rows.ts";

const usage = `deno task bench [--runs 5] [--seconds 3] [--only ID,ID]
                [--peers raw,ours,node,go,bun]

rows: ${rows.map((row) => row.id).join(" ")}`;

/** From here on the client is the limit; the server may be faster. */
const FLOOR = 0.97;

/** All samples of one contestant, in the order of the runs. */
type Results = Map<Contestant, Sample[]>;

/** One run after the other, all contestants in each: A B C, A B C, … */
async function measureRow(
  bench: Bench,
  row: Row,
  runs: number,
): Promise<{ results: Results; skipped: string[] }> {
  const results: Results = new Map();
  const skipped = new Map<Contestant, string>();
  for (let run = 0; run < runs; run++) {
    for (const entry of row.entries) {
      if (!bench.peers.has(entry.peer) || skipped.has(entry)) continue;
      try {
        const sample = await row.measure(bench, entry);
        const samples = results.get(entry) ?? [];
        results.set(entry, [...samples, sample]);
        progress(`${row.title}, ${entry.label}: ${short(sample.value)}`);
      } catch (error) {
        // One that fails must not cost the results of all the others.
        const expected = error instanceof Skip ||
          error instanceof NoNamespaceError;
        if (!expected) Deno.exitCode = 1;
        const reason = expected ? error.message : `FAILED: ${error}`;
        skipped.set(entry, `${row.title}, ${entry.label}: ${reason}`);
        results.delete(entry);
      }
    }
  }
  return { results, skipped: [...skipped.values()] };
}

function progress(text: string): void {
  if (Deno.stderr.isTerminal()) console.error(text);
}

/** The lines of one row, a contestant each. */
function report(row: Row, results: Results): string[][] {
  return [...results].map(([entry, samples], i) => {
    const values = samples.map((sample) => sample.value);
    const base = entry.base ?? row.entries[0]!.label;
    const [, baseSamples] = [...results].find(([other]) =>
      other.label === base
    ) ?? [];
    // Run by run, so that what slows a whole run down cancels out.
    const ratio = median(
      values.map((v, run) => v / (baseSamples?.[run]?.value ?? NaN)),
    );
    const share = median(samples.map((sample) => sample.clientCpu ?? NaN));
    return [
      i === 0 ? row.title : "",
      entry.label,
      `${short(median(values))} ${row.unit}`,
      `${short(Math.min(...values))}–${short(Math.max(...values))}`,
      entry.label === base ? "1" : Number.isNaN(ratio) ? "–" : ratio.toFixed(2),
      verdict(entry, ratio, median(values)),
      Number.isNaN(share)
        ? ""
        : share.toFixed(2) + (share >= FLOOR ? " floor" : ""),
      notes(samples),
    ];
  });
}

function verdict(entry: Contestant, ratio: number, value: number): string {
  const checks: [string, Bound | undefined, number][] = [
    ["×", entry.ratio, ratio],
    ["", entry.value, value],
  ];
  return checks.flatMap(([unit, bound, measured]) => {
    if (!bound) return [];
    const [sign, limit, met] = "least" in bound
      ? ["≥", bound.least, measured >= bound.least]
      : ["≤", bound.most, measured <= bound.most];
    return [`${sign} ${limit}${unit} ${met ? "yes" : "NO"}`];
  }).join(", ");
}

function notes(samples: Sample[]): string {
  const names = Object.keys(samples[0]?.more ?? {});
  return names.map((name) => {
    const middle = median(samples.map((sample) => sample.more?.[name] ?? NaN));
    return `${name} ${short(middle)}`;
  }).join(", ");
}

function positive(text: string, name: string): number {
  const value = Number(text);
  if (value > 0 && value <= 100) return value;
  console.error(`--${name} ${text}: not between 0 and 100\n\n${usage}`);
  Deno.exit(2);
}

async function main(): Promise<void> {
  const options = parseArgs(Deno.args, {
    string: ["runs", "seconds", "only", "peers"],
    boolean: ["help"],
    default: { runs: "5", seconds: "3" },
  });
  if (options.help) return console.log(usage);
  const only = options.only?.split(",");
  const chosen = rows.filter((row) => only?.includes(row.id) ?? true);
  if (chosen.length < (only?.length ?? 1)) {
    console.error(`--only ${options.only}: no such row\n\n${usage}`);
    Deno.exit(2);
  }
  const runs = positive(options.runs, "runs");
  const temporary = await Deno.makeTempDir({ prefix: "switchboard-bench-" });
  try {
    const { peers, absent } = await findPeers(temporary);
    for (const name of peers.keys()) {
      if (options.peers?.split(",").includes(name) ?? true) continue;
      peers.delete(name);
    }
    const bench: Bench = {
      loadgen: await buildLoadgen(temporary),
      temporary,
      cores: await findCores(),
      peers,
      seconds: positive(options.seconds, "seconds"),
      files: Number(await output(["sh", "-c", "ulimit -Hn"])) || Infinity,
    };
    const lines: string[][] = [];
    const skipped = [...absent];
    for (const row of chosen) {
      const measured = await measureRow(bench, row, runs);
      lines.push(...report(row, measured.results));
      skipped.push(...measured.skipped);
    }
    const head = ["what", "who", "median", "min–max", "ratio", "promised"];
    console.log(table([...head, "client CPU", "notes"], lines));
    const versions = [...peers.values()]
      .filter(({ name }) => name !== "raw" && name !== "ours")
      .map(({ name, version }) => `${name} ${version}`);
    console.log(
      `\n${[await describeMachine(), ...versions].join("; ")}; ` +
        `${bench.cores.description}; ${runs} runs of ${bench.seconds} s`,
    );
    if (skipped.length) console.log(`\nLeft out:\n${skipped.join("\n")}`);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

await main();
