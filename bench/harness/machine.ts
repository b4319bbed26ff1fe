/**
 * The machine: what it is, and which of its cores are for server and client.
 *
 * @module
 */

/** A line to print below the table: CPU, cores, kernel, runtime, date. */
export async function describeMachine(): Promise<string> {
  const info = await readProc("cpuinfo");
  const cpu = info.match(/^model name\s*:\s*(.*)$/m)?.[1] ?? Deno.build.arch;
  return [
    `${cpu}, ${navigator.hardwareConcurrency} cores`,
    `${Deno.build.os} ${Deno.osRelease()}`,
    `Deno ${Deno.version.deno}`,
    new Date().toISOString().slice(0, 10),
  ].join("; ");
}

/** How to start something on the server's core, or on the client's. */
export interface Cores {
  server(command: string[]): string[];
  client(command: string[]): string[];
  /** Whether server and client have a core each. */
  readonly pinned: boolean;
  /** What was done, in words. */
  readonly description: string;
}

/**
 * With `taskset` and two cores, one for each: if a server shares its core with
 * the load generator, the result depends on the scheduler.
 */
export async function findCores(): Promise<Cores> {
  const status = await readProc("self/status");
  const list = status.match(/^Cpus_allowed_list:\s*(.*)$/m)?.[1] ?? "";
  const [first, second] = list.split(",").flatMap((range) => {
    const [from = NaN, to = from] = range.split("-").map(Number);
    return from === to ? [from] : [from, from + 1];
  });
  const usable = first !== undefined && second !== undefined &&
    await exists("taskset");
  if (!usable) {
    const same = (command: string[]) => command;
    const description = "not pinned";
    return { server: same, client: same, pinned: false, description };
  }
  return {
    server: (command) => ["taskset", "-c", `${first}`, ...command],
    client: (command) => ["taskset", "-c", `${second}`, ...command],
    pinned: true,
    description: `server on core ${first}, client on core ${second}`,
  };
}

/** Whether a program can be started. */
export async function exists(program: string): Promise<boolean> {
  return (await output(["sh", "-c", `command -v ${program}`])) !== null;
}

/** What a command prints, trimmed; `null` if it cannot be run, or fails. */
export async function output(command: string[]): Promise<string | null> {
  const [program = "", ...args] = command;
  try {
    const { success, stdout } = await new Deno.Command(program, {
      args,
      stderr: "null",
    }).output();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** A file of /proc, or `""`; by `cat`: Deno reads there only with -A. */
async function readProc(path: string): Promise<string> {
  return await output(["cat", `/proc/${path}`]) ?? "";
}

/** Resident memory of a process, in bytes. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await readProc(`${pid}/status`);
  return Number(status.match(/^VmRSS:\s*(\d+) kB$/m)?.[1]) * 1024;
}

/** CPU time that a process has used, in seconds. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readProc(`${pid}/stat`);
  // Fields 14 and 15, in ticks; the name, field 2, may hold blanks.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // USER_HZ is 100 on every Linux that Deno runs on.
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
