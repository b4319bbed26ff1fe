/**
 * Who is compared: plain Deno, ours, and what else is installed.
 *
 * @module
 */

import { Child, type ChildOptions } from "./child.ts";
import { output } from "./machine.ts";

/** The runtimes that have a server in `servers/`. */
export type PeerName = "raw" | "ours" | "node" | "go" | "bun";

/** One that is installed. */
export interface Peer {
  name: PeerName;
  version: string;
  /** The command that starts its server, without mode and size. */
  command: string[];
}

const servers = `${import.meta.dirname}/../servers/`;
const deno = [Deno.execPath(), "run", "-A", "--v8-flags=--expose-gc"];

/** What was found, and a line about each one that was not. */
export async function findPeers(
  temporary: string,
): Promise<{ peers: Map<PeerName, Peer>; absent: string[] }> {
  const goBinary = `${temporary}/go_server`;
  const candidates: [PeerName, string[], () => Promise<string | null>][] = [
    ["raw", [...deno, `${servers}raw_deno.ts`], denoVersion],
    ["ours", [...deno, `${servers}switchboard.ts`], denoVersion],
    ["node", ["node", "--expose-gc", `${servers}node.mjs`], nodeVersion],
    ["go", [goBinary], () => buildGo(goBinary)],
    ["bun", ["bun", `${servers}bun.js`], () => output(["bun", "--version"])],
  ];
  const peers = new Map<PeerName, Peer>();
  const absent: string[] = [];
  for (const [name, command, probe] of candidates) {
    const version = await probe();
    if (version !== null) peers.set(name, { name, version, command });
    else absent.push(`${name}: not installed, left out`);
  }
  return { peers, absent };
}

function denoVersion(): Promise<string> {
  return Promise.resolve(Deno.version.deno);
}

async function nodeVersion(): Promise<string | null> {
  return (await output(["node", "--version"]))?.replace("v", "") ?? null;
}

async function buildGo(binary: string): Promise<string | null> {
  const version = await output(["go", "version"]);
  if (version === null) return null;
  const built = await output([
    "go",
    "build",
    "-o",
    binary,
    `${servers}server.go`,
  ]);
  return built === null ? null : version.split(" ")[2]!.replace("go", "");
}

/** A running server. */
export class ServerProcess implements AsyncDisposable {
  private constructor(readonly child: Child, readonly port: number) {}

  /** Starts it and waits for its port. */
  static async start(
    command: string[],
    options?: ChildOptions,
  ): Promise<ServerProcess> {
    const child = new Child(command, options);
    try {
      return new ServerProcess(child, Number(await child.line()));
    } catch (error) {
      await child[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Makes it collect garbage; returns the bytes on its heap afterwards. */
  async collectGarbage(): Promise<number> {
    this.child.signal("SIGHUP");
    return Number(await this.child.line());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.child[Symbol.asyncDispose]();
  }
}
