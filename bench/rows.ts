/**
 * What is measured: one entry per row of the table.
 *
 * @module
 */

import { Child } from "./harness/child.ts";
import {
  type Bench,
  dialling,
  type Entry,
  idle,
  load,
  probe,
  type Sample,
  Skip,
} from "./harness/measure.ts";
import type { PeerName } from "./harness/peers.ts";

/** One row, or rather one block of them: a line per contestant. */
export interface Row {
  /** For `--only`. */
  id: string;
  title: string;
  unit: string;
  entries: Contestant[];
  measure(bench: Bench, entry: Entry): Promise<Sample>;
}

/** Who is measured, against whom, and what was promised. */
export interface Contestant extends Entry {
  /** Label of the one its ratio is against. @default {"raw Deno"} */
  base?: string;
  /** What the ratio is to be. */
  ratio?: Bound;
  /** What the value is to be. */
  value?: Bound;
}

/** At least, or at most. */
export type Bound = { least: number } | { most: number };

const RAW = "raw Deno";

function contestant(
  label: string,
  peer: PeerName,
  args: string,
  more: Partial<Contestant> = {},
): Contestant {
  return { label, peer, args: args.split(" "), ...more };
}

/** The other runtimes, where all do the same in the same mode. */
function others(mode: string): Contestant[] {
  return [
    contestant("node:net", "node", mode),
    contestant("Go net", "go", mode),
    contestant("Bun.listen", "bun", mode),
  ];
}

function served(report: { least: number; most: number; p99_us: number }) {
  return {
    "least served": report.least,
    "most served": report.most,
    "p99 µs": report.p99_us,
  };
}

function echoRow(connections: number, promised: boolean): Row {
  const bound = (least: number) => promised ? { ratio: { least } } : {};
  return {
    id: `echo-${connections}`,
    title: `echo 64 B × ${connections.toLocaleString("en-US")}`,
    unit: "req/s",
    entries: [
      contestant(RAW, "raw", "echo"),
      contestant("ours: read, write", "ours", "echo", bound(0.95)),
      contestant("ours: copy", "ours", "copy", bound(0.98)),
      contestant("ours: deadline per read", "ours", "deadline", bound(0.93)),
      ...others("echo"),
      contestant("Go: deadline per read", "go", "deadline"),
    ],
    measure: (bench, entry) =>
      load(bench, entry, "echo", ["-n", `${connections}`], served),
  };
}

/** Limits what one turn of the runtime's loop polls; docs/operating.md. */
const fair = { env: { DENO_TOKIO_MAX_IO_EVENTS_PER_TICK: "100" } };

const fairness: Row = {
  id: "fairness",
  title: "echo 64 B × 1,000, ten quiet clients beside",
  unit: "req/s",
  entries: [
    contestant(RAW, "raw", "echo"),
    contestant(`${RAW}, 100 events a tick`, "raw", "echo", fair),
    contestant("ours", "ours", "copy"),
    contestant("ours, 100 events a tick", "ours", "copy", fair),
    contestant("node:net", "node", "echo"),
  ],
  measure: (bench, entry) =>
    load(bench, entry, "echo", ["-n", "1000", "-q", "100"], (report) => ({
      "least served": report.least,
      "most served": report.most,
      "ms a quiet one waited": report.quiet_max_us / 1000,
    })),
};

const churn: Row = {
  id: "churn",
  title: "connect, echo, close; 32 at a time",
  unit: "conn/s",
  entries: [
    contestant(RAW, "raw", "echo"),
    contestant("ours: accept loop", "ours", "copy", { ratio: { least: 1.05 } }),
    contestant("ours: serve()", "ours", "serve-copy"),
    contestant("ours: serve() / accept loop", "ours", "serve-copy", {
      base: "ours: accept loop",
      ratio: { least: 0.95 },
    }),
    ...others("echo"),
  ],
  measure: (bench, entry) => load(bench, entry, "churn", []),
};

const closers = [
  contestant(RAW, "raw", "close"),
  contestant(`${RAW}, options set`, "raw", "close-options"),
  contestant("ours", "ours", "close", { ratio: { least: 0.95 } }),
];

const accept: Row = {
  id: "accept",
  title: "accept and close; 32 at a time",
  unit: "conn/s",
  entries: closers,
  measure: (bench, entry) => load(bench, entry, "churn", ["-s", "0"]),
};

/** With a whole core every contestant would wait for the load generator. */
const acceptHalf: Row = {
  id: "accept-half",
  title: "accept and close, on half a core",
  unit: "conn/s",
  entries: closers,
  async measure(bench, entry) {
    if (!bench.cores.pinned) throw new Skip("a core to share is needed");
    const busy = ["sh", "-c", "while kill -0 $PPID 2>&-; do :; done"];
    await using _neighbor = new Child(bench.cores.server(busy));
    return await load(bench, entry, "churn", ["-s", "0"]);
  },
};

const stream: Row = {
  id: "stream",
  title: "stream echo, 64 KiB writes × 4",
  unit: "MB/s",
  entries: [
    contestant(RAW, "raw", "echo"),
    contestant("ours: copy", "ours", "copy", { ratio: { least: 1.1 } }),
    ...others("copy"),
  ],
  measure: (bench, entry) => load(bench, entry, "stream", []),
};

function sendRow(id: string, size: number, least?: number): Row {
  const mode = `send ${size}`;
  return {
    id,
    title: `send in ${id.replace("send-", "")} writes × 4`,
    unit: "MB/s",
    entries: [
      contestant(RAW, "raw", mode),
      contestant("ours", "ours", mode, least ? { ratio: { least } } : {}),
      ...others(mode),
    ],
    measure: (bench, entry) => load(bench, entry, "source", []),
  };
}

const tenWrites: Row = {
  id: "ten-writes",
  title: "reply of ten 64 B writes × 64",
  unit: "replies/s",
  entries: [
    contestant(RAW, "raw", "ten-writes"),
    contestant(`${RAW}, setNoDelay`, "raw", "ten-writes-nodelay"),
    contestant("ours", "ours", "ten-writes", { ratio: { least: 50 } }),
    contestant("ours, each awaited", "ours", "ten-writes-awaited"),
    ...others("ten-writes"),
  ],
  measure: (bench, entry) => load(bench, entry, "echo", ["-r", "640"]),
};

/** The bound is for those that never spoke: an echo grows V8's young space. */
function idleRow(id: string, title: string, requestSize: number): Row {
  const bound = requestSize === 0 ? { value: { most: 9 } } : {};
  return {
    id,
    title,
    unit: "KB/conn",
    entries: [
      contestant(RAW, "raw", "echo"),
      contestant("ours: copy", "ours", "copy", bound),
      contestant("ours: for await", "ours", "iterate", bound),
      ...others("echo"),
    ],
    measure: (bench, entry) => idle(bench, entry, 10_000, requestSize),
  };
}

const closing: Row = {
  id: "close",
  title: "close() to rejected accept()",
  unit: "µs",
  entries: [
    contestant(RAW, "raw", "raw"),
    contestant("ours", "ours", "ours", { ratio: { most: 2 } }),
  ],
  measure: (bench, entry) => probe(bench, entry, "close_listener.ts"),
};

const dialClose: Row = {
  id: "dial",
  title: "dial a literal and close; 32 at a time",
  unit: "dials/s",
  entries: [
    contestant(RAW, "raw", "raw"),
    contestant(`${RAW}, options set`, "raw", "raw-options"),
    contestant("ours", "ours", "ours", { ratio: { least: 0.9 } }),
  ],
  measure: dialling,
};

const hosts = "127.0.0.1 localhost three.test\n127.0.0.2 three.test\n" +
  "127.0.0.3 three.test\n";

const dialRace: Row = {
  id: "race",
  title: "dial [hangs, refuses, works]",
  unit: "ms",
  entries: [
    contestant(RAW, "raw", "raw"),
    contestant("ours", "ours", "ours", { value: { most: 275 } }),
    contestant("ours: a Dialer's second", "ours", "ours-again", {
      value: { most: 5 },
    }),
  ],
  measure: (bench, entry) =>
    probe(bench, entry, "dial_race.ts", [], {
      temporary: bench.temporary,
      files: { "/etc/hosts": hosts },
    }),
};

/** All rows, in the order of the table. */
export const rows: Row[] = [
  echoRow(1, false),
  echoRow(64, true),
  echoRow(1000, false),
  fairness,
  churn,
  accept,
  acceptHalf,
  stream,
  sendRow("send-64KiB", 64 * 1024),
  sendRow("send-1MiB", 1024 * 1024, 0.9),
  tenWrites,
  idleRow("idle", "10,000 idle, never spoke", 0),
  idleRow("idle-after-echo", "10,000 idle, after one echo", 64),
  closing,
  dialClose,
  dialRace,
];
