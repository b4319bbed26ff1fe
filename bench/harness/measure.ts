/**
 * The ways to measure one contestant once: load on a server, connections held
 * by a server, or a probe that measures itself.
 *
 * @module
 */

import { ask, Child } from "./child.ts";
import type { LoadReport } from "./loadgen.ts";
import { type Cores, residentBytes } from "./machine.ts";
import { enterNamespace, type Namespace } from "./namespace.ts";
import { type Peer, type PeerName, ServerProcess } from "./peers.ts";

/** What every measurement can use. */
export interface Bench {
  loadgen: string;
  temporary: string;
  cores: Cores;
  peers: Map<PeerName, Peer>;
  seconds: number;
  /** How many descriptors a process may have. */
  files: number;
}

/** Who takes part in a row, and how. */
export interface Entry {
  label: string;
  peer: PeerName;
  /** The server's or the probe's arguments: the mode, and what it needs. */
  args: string[];
  env?: Record<string, string>;
}

/** One measurement. */
export interface Sample {
  value: number;
  /** Share of its core that the client used: near 1, it is the limit. */
  clientCpu?: number;
  /** More numbers, by name, for the notes. */
  more?: Record<string, number>;
}

/** Not measurable here, and why. */
export class Skip extends Error {
  override name = "Skip";
}

async function startServer(bench: Bench, entry: Entry): Promise<ServerProcess> {
  const peer = bench.peers.get(entry.peer);
  if (!peer) throw new Skip(`${entry.peer} is not installed`);
  const command = bench.cores.server([...peer.command, ...entry.args]);
  return await ServerProcess.start(command, { env: entry.env ?? {} });
}

/** Replies, connections or megabytes per second, depending on the mode. */
export async function load(
  bench: Bench,
  entry: Entry,
  mode: string,
  args: string[],
  more?: (report: LoadReport) => Record<string, number>,
): Promise<Sample> {
  await using server = await startServer(bench, entry);
  const report = await ask<LoadReport>(bench.cores.client([
    bench.loadgen,
    mode,
    ...["-p", `${server.port}`, "-d", `${bench.seconds}`],
    ...args,
  ]));
  if (report.errors > 0) {
    console.error(
      `${entry.label}: ${report.errors} errors, the last ${report.last_error}`,
    );
  }
  return {
    value: report.rate,
    clientCpu: report.client_cpu,
    ...(more ? { more: more(report) } : {}),
  };
}

/** Kilobytes that each idle connection costs. */
export async function idle(
  bench: Bench,
  entry: Entry,
  connections: number,
  requestSize: number,
): Promise<Sample> {
  if (bench.files < connections + 100) {
    throw new Skip(`ulimit -n is ${bench.files}`);
  }
  await using server = await startServer(bench, entry);
  const { pid } = server.child;
  await server.collectGarbage();
  const before = await residentBytes(pid);
  await using clients = new Child(bench.cores.client([
    bench.loadgen,
    "idle",
    ...["-p", `${server.port}`, "-n", `${connections}`],
    ...["-s", `${requestSize}`],
  ]));
  const report = await clients.json<LoadReport>();
  if (report.connections !== connections) {
    throw new Error(`${entry.label}: ${report.connections} connected`);
  }
  const resident = await settled(pid);
  await server.collectGarbage();
  const live = await settled(pid);
  await clients.endInput();
  const { alive } = await clients.json<LoadReport>();
  if (alive !== connections) {
    throw new Error(`${entry.label}: ${connections - alive} were closed`);
  }
  const each = (bytes: number) => (bytes - before) / connections / 1000;
  return { value: each(resident), more: { "KB after a GC": each(live) } };
}

/** Resident memory once it has not changed for a second: all are accepted. */
async function settled(pid: number): Promise<number> {
  let bytes = await residentBytes(pid);
  for (let same = 0; same < 5;) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    const next = await residentBytes(pid);
    // The runtime's threads come and go; this is 0.1 KB a connection.
    same = Math.abs(next - bytes) < 1_000_000 ? same + 1 : 0;
    if (same === 0) bytes = next;
  }
  return await residentBytes(pid);
}

const probes = `${import.meta.dirname}/../probes/`;

/** Runs `probes/NAME` with the entry's arguments; it prints a sample. */
export async function probe(
  bench: Bench,
  entry: Entry,
  name: string,
  args: string[] = [],
  namespace?: Namespace,
): Promise<Sample> {
  const command = [Deno.execPath(), "run", "-A", `${probes}${name}`];
  const pinned = bench.cores.server([...command, ...entry.args, ...args]);
  return await ask<Sample>(
    namespace ? await enterNamespace(namespace, pinned) : pinned,
  );
}

/** Dials per second, against a server that costs next to nothing. */
export async function dialling(bench: Bench, entry: Entry): Promise<Sample> {
  await using acceptor = new Child(
    bench.cores.client([bench.loadgen, "accept"]),
  );
  const port = await acceptor.line();
  const sample = await probe(bench, entry, "dial_close.ts", [
    port,
    `${bench.seconds}`,
  ]);
  await acceptor.endInput();
  const report = await acceptor.json<LoadReport>();
  if (report.open > 0) {
    throw new Error(`${entry.label}: ${report.open} left open`);
  }
  return sample;
}
