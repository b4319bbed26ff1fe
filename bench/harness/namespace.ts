/**
 * Linux namespaces, to give a process its own /etc/hosts and name server
 * without touching the machine's.
 *
 * @module
 */

import { output } from "./machine.ts";

/** What a process is to see. */
export interface Namespace {
  /** Directory to write the files to. */
  temporary: string;
  /** Contents by the path where they are to appear. */
  files: Record<string, string>;
  /** A network of its own, with nothing but loopback. */
  network?: boolean;
}

/** `unshare` with the namespaces: as root, or in a user namespace. */
async function unshare(network: boolean): Promise<string[] | null> {
  const flags = network ? "mn" : "m";
  for (const command of [["unshare", `-${flags}`], ["unshare", `-r${flags}`]]) {
    const setup = network ? "ip link set lo up" : "true";
    const check = `${setup} && mount --bind /etc/hosts /etc/hosts`;
    if (await output([...command, "sh", "-c", check]) !== null) return command;
  }
  return null;
}

/** Whether this machine lets us make one, with a network. */
export async function canEnterNamespace(): Promise<boolean> {
  return Deno.build.os === "linux" && await unshare(true) !== null;
}

/** The command that runs `command` in the namespace. */
export async function enterNamespace(
  { temporary, files, network = false }: Namespace,
  command: string[],
): Promise<string[]> {
  const prefix = await unshare(network);
  if (!prefix) throw new NoNamespaceError();
  const steps = network ? ["ip link set lo up"] : [];
  for (const [path, text] of Object.entries(files)) {
    const copy = `${temporary}/${path.replaceAll("/", "_")}`;
    await Deno.writeTextFile(copy, text);
    steps.push(`mount --bind "${copy}" ${path}`);
  }
  const script = [...steps, 'exec "$@"'].join(" && ");
  return [...prefix, "sh", "-c", script, "sh", ...command];
}

/** This machine does not let us make a namespace. */
export class NoNamespaceError extends Error {
  override name = "NoNamespaceError";
  constructor() {
    super("needs unshare with mount namespaces (Linux; root or user ones)");
  }
}
