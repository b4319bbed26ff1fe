/**
 * Builds and runs the load generator.
 *
 * @module
 */

import { exists } from "./machine.ts";

/** What it prints; which fields there are depends on the mode. */
export interface LoadReport {
  seconds: number;
  errors: number;
  last_error: number;
  client_cpu: number;
  rate: number;
  connections: number;
  p50_us: number;
  p99_us: number;
  max_us: number;
  quiet_max_us: number;
  least: number;
  most: number;
  alive: number;
  open: number;
}

/** Compiles it with the machine's `cc`; returns the program's path. */
export async function buildLoadgen(temporary: string): Promise<string> {
  if (!await exists("cc")) {
    throw new Error("the load generator needs a C compiler as `cc`");
  }
  const source = `${import.meta.dirname}/../loadgen/`;
  const files: string[] = [];
  for await (const { name } of Deno.readDir(source)) {
    if (name.endsWith(".c")) files.push(source + name);
  }
  const program = `${temporary}/loadgen`;
  const { success, stderr } = await new Deno.Command("cc", {
    args: ["-std=c11", "-O2", "-Wall", "-Wextra", "-o", program, ...files],
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return program;
}
