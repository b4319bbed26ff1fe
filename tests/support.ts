/**
 * What several test files need: connected pairs, a turn of the event loop,
 * child processes with the permissions that a test is about.
 *
 * @module
 */

import { once } from "node:events";
import { connect as nodeConnect, type Socket } from "node:net";
import { setImmediate } from "node:timers";
import { listen } from "../listener.ts";
import { Conn } from "../net/conn.ts";

/**
 * A test that takes this long is stuck: it waits for the very thing that it
 * tests. Run alone, it takes seconds at most.
 */
export const STUCK_MS = 30_000;

// Deno heeds it before NO_COLOR: what children print would be coloured.
Deno.env.delete("FORCE_COLOR");

/** Whether `::1` can be used. In a container, IPv6 is often switched off. */
export const hasIpv6 = (() => {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    console.warn("no ::1 here: tests that need it are skipped");
    return false;
  }
})();

/** A text's bytes. */
export function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** Reads to EOF; returns all of it as text. */
export function textOf(conn: Conn): Promise<string> {
  return new Response(conn.readable).text();
}

/** A client of a TCP listener, made with the platform's own dialer. */
export async function connect(listener: { addr: Deno.Addr }): Promise<Conn> {
  const { hostname, port } = listener.addr as Deno.NetAddr;
  return new Conn(await Deno.connect({ hostname, port }));
}

/**
 * An address that a test binds again right after a close. A port that the
 * system has chosen may go to any client of another test as soon as it is free;
 * one below the ephemeral range goes to nobody, and on Linux no other process
 * uses this host.
 *
 * @param port From 20,000 to 30,000, a different one in each test.
 */
export function ownAddr(port: number): { hostname: string; port: number } {
  const { build, pid } = Deno;
  const [a, b, c] = [pid >> 16 & 63, pid >> 8 & 255, pid & 255];
  const own = build.os === "linux" ? `127.${64 + a}.${b}.${c}` : "127.0.0.1";
  return { hostname: own, port };
}

/**
 * Listens where a listener was closed just now. Test files are threads of one
 * process: while another one starts a child, the child has a copy of all
 * descriptors until its exec, so the address is still in use. It may take some
 * tries; in a process of its own it takes one (listener_hazards_test.ts).
 */
export async function listenAnew<T>(listen: () => T | Promise<T>): Promise<T> {
  for (let left = 1_000;; left--) {
    try {
      return await listen();
    } catch (error) {
      const { code } = error as { code?: string };
      if (code !== "EADDRINUSE" || left === 0) throw error;
      await turn();
    }
  }
}

/** Two ends of one TCP connection: the client's, the server's. */
export async function pair(): Promise<[client: Conn, server: Conn]> {
  await using listener = await listen("tcp", "127.0.0.1:0");
  return await Promise.all([connect(listener), listener.accept()]);
}

/** A client that resets before anybody has accepted it. */
export async function reset({ addr }: { addr: Deno.Addr }): Promise<void> {
  const { hostname: host, port } = addr as Deno.NetAddr;
  const socket = nodeConnect({ host, port });
  await once(socket, "connect");
  await resetSocket(socket);
}

/**
 * Resets (SO_LINGER 0); returns when the reset has come in. While another test
 * starts a child, the child's copy of the descriptor holds the reset back: both
 * ends go from the kernel's table as it comes in.
 */
export async function resetSocket(socket: Socket): Promise<void> {
  const ports = [socket.localPort!, socket.remotePort!];
  const closed = once(socket, "close");
  socket.resetAndDestroy();
  await closed;
  while (Deno.build.os === "linux" && await hasSocket(ports));
}

/** Whether Linux has an IPv4 socket with these two ports, either way. */
async function hasSocket(ports: number[]): Promise<boolean> {
  const ends = ports.map((port) =>
    `:${port.toString(16).toUpperCase().padStart(4, "0")} `
  );
  const table = await printed("cat /proc/net/tcp");
  return table.split("\n").some((line) =>
    ends.every((end) => line.includes(end))
  );
}

/** A listener whose queue is full: on loopback, the next connect hangs. */
export async function blackHole(): Promise<
  AsyncDisposable & { port: number }
> {
  const hole = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 1 });
  const { port } = hole.addr;
  const filling = [
    await Deno.connect({ hostname: "127.0.0.1", port }),
    await Deno.connect({ hostname: "127.0.0.1", port }),
  ];
  return {
    port,
    [Symbol.asyncDispose]() {
      for (const resource of [hole, ...filling]) resource.close();
      return Promise.resolve();
    },
  };
}

/** Lets the event loop turn once. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** The unhandled rejections while `body` runs, and for a turn after it. */
export async function unhandledIn(
  body: () => void | Promise<void>,
): Promise<unknown[]> {
  const reasons: unknown[] = [];
  const note = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    reasons.push(event.reason);
  };
  addEventListener("unhandledrejection", note);
  try {
    await body();
    await turn();
    // A timer can overtake the news of a rejection; an immediate does not.
    await new Promise<void>((resolve) => setImmediate(resolve));
  } finally {
    removeEventListener("unhandledrejection", note);
  }
  return reasons;
}

/** Whether a program is installed: tests with real peers check first. */
export function installed(program: string): boolean {
  const paths = (Deno.env.get("PATH") ?? "").split(":");
  return paths.some((path) => {
    try {
      return Deno.statSync(`${path}/${program}`).isFile;
    } catch {
      return false; // not there, or not ours to look at
    }
  });
}

/** A command in a shell's words, whatever is in them. */
export function quote(command: string[]): string {
  return command
    .map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
}

/**
 * A C library that a child preloads, so that system calls fail on purpose.
 * `wrap` starts the child; environment variables may follow it.
 */
export async function preload(
  source: string,
): Promise<AsyncDisposable & { wrap: string[] }> {
  const folder = await Deno.makeTempDir({ prefix: "preload" });
  const remove = () => Deno.remove(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/fake.c`, source);
  const { success, stderr } = await new Deno.Command("cc", {
    args: ["-shared", "-fPIC", "-o", "fake.so", "fake.c", "-ldl"],
    cwd: folder,
  }).output();
  if (!success) {
    await remove();
    throw new Error(new TextDecoder().decode(stderr));
  }
  return {
    // A blank in LD_PRELOAD would end the path.
    wrap: ["env", `LD_LIBRARY_PATH=${folder}`, "LD_PRELOAD=fake.so"],
    [Symbol.asyncDispose]: remove,
  };
}

/** What a shell command prints, such as a setting that Deno does not tell. */
async function printed(command: string): Promise<string> {
  const sh = new Deno.Command("sh", { args: ["-c", command] });
  return new TextDecoder().decode((await sh.output()).stdout).trim();
}

/**
 * A setting of the Linux kernel. To read it, Deno itself would need all
 * permissions.
 */
export async function sysctl(name: string): Promise<number> {
  return Number(await printed(`cat /proc/sys/${name}`));
}

/**
 * Whether so many clients fit in a listener's queue (4096 since Linux 5.4), and
 * both their ends, beside other tests', in this process's descriptors.
 */
export async function canQueue(clients: number): Promise<boolean> {
  if (Deno.build.os !== "linux") return false;
  const files = Number(await printed("ulimit -Hn")) || Infinity; // "unlimited"
  return await sysctl("net/core/somaxconn") >= clients && files >= 3 * clients;
}

/** Whether a child may have a network of its own, with nothing on it. */
export function canUnshare(): boolean {
  if (Deno.build.os !== "linux" || !installed("unshare")) return false;
  return new Deno.Command("unshare", { args: ["-rn", "true"], stderr: "null" })
    .outputSync().success;
}

/** A signal that counts its listeners. */
export function countedSignal(): {
  controller: AbortController;
  signal: AbortSignal;
  listeners: () => number;
} {
  const controller = new AbortController();
  const { signal } = controller;
  let count = 0;
  const add = signal.addEventListener;
  const remove = signal.removeEventListener;
  signal.addEventListener = (...args: unknown[]) => {
    count++;
    return Reflect.apply(add, signal, args);
  };
  signal.removeEventListener = (...args: unknown[]) => {
    count--;
    return Reflect.apply(remove, signal, args);
  };
  return { controller, signal, listeners: () => count };
}

/**
 * Runs a program in a Deno process of its own, at the root of this package,
 * without prompts, and without deno.json: reading that and what it links takes
 * a quarter of a child's time. `wrap` is the command that starts it, if it is
 * not to start directly: `["sh", "-c", "...", "sh"]`.
 */
export async function runChild(
  program: string,
  { flags = [], wrap = [] }: { flags?: string[]; wrap?: string[] } = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  const run = ["run", "--quiet", "--no-prompt", "--no-config", ...flags, "-"];
  const [command, ...args] = [...wrap, Deno.execPath(), ...run];
  const child = new Deno.Command(command!, {
    args,
    cwd: new URL("../", import.meta.url),
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const stdin = child.stdin.getWriter();
  await stdin.write(bytes(program));
  await stdin.close();
  const { code, stdout, stderr } = await child.output();
  const text = (output: Uint8Array) => new TextDecoder().decode(output);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Makes random integers below `n` (mulberry32). */
export function randomOf(seed: number): (n: number) => number {
  return (n) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) / 2 ** 32 * n) | 0;
  };
}
