/**
 * Scripted dials: what each address does, and when. No socket, no real time;
 * afterwards every connection but the winner's must be closed.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { type Connector, dial, type DialOptions } from "../dialer.ts";
import type { Network } from "../net/addr.ts";
import type { Conn } from "../net/conn.ts";
import { FakeClock } from "../testing/mod.ts";

/**
 * What each address does after so many ms: connect, refuse, never answer; or
 * ("deaf") connect although the attempt was aborted meanwhile.
 */
export type Script = Record<
  string,
  readonly [ms: number, outcome: "ok" | "refused" | "hang" | "deaf"]
>;

/** A platform connection that only knows whether it is open. */
class FakeConn {
  readonly localAddr = { transport: "tcp", hostname: "10.9.9.9", port: 9 };
  readonly remoteAddr: Deno.NetAddr;
  open = true;
  constructor(hostname: string, port: number) {
    this.remoteAddr = { transport: "tcp", hostname, port };
  }
  close() {
    assertEquals(this.open, true, `${this.remoteAddr.hostname} closed twice`);
    this.open = false;
  }
}

/** How a scripted dial went. */
export interface Played {
  /** Who won, at which millisecond. */
  winner?: [hostname: string, atMs: number];
  /** Why nobody did. */
  error?: unknown;
  /** When the outcome was known. */
  endMs: number;
  /** Addresses and the millisecond of their start. */
  starts: [hostname: string, ms: number][];
}

/** Scripted addresses and a clock for them. */
export class Scenario {
  readonly clock = new FakeClock(0);
  readonly starts: [string, number][] = [];
  readonly #script: Script;
  readonly #conns: FakeConn[] = [];
  readonly #running = new Set<Promise<Deno.Conn>>();

  constructor(script: Script) {
    this.#script = script;
  }

  /** The script as a {@linkcode Connector}. */
  readonly connect: Connector = (addr, { signal }) => {
    const { hostname, port } = addr as Deno.NetAddr;
    this.starts.push([hostname, this.clock.monotonic()]);
    const [ms, outcome] = this.#script[hostname]!;
    const { promise, resolve, reject } = Promise.withResolvers<Deno.Conn>();
    this.#running.add(promise);
    const timer = outcome === "hang" ? null : this.clock.setTimeout(() => {
      this.#running.delete(promise);
      if (outcome === "refused") {
        return reject(
          new Deno.errors.ConnectionRefused(
            "Connection refused (os error 111)",
          ),
        );
      }
      const conn = new FakeConn(hostname, port);
      this.#conns.push(conn);
      resolve(conn as unknown as Deno.Conn);
    }, ms);
    signal.addEventListener("abort", () => {
      if (outcome === "deaf") return;
      this.#running.delete(promise);
      if (timer !== null) this.clock.clearTimeout(timer);
      reject(signal.reason);
    });
    return promise;
  };

  /** Dials `target.test:80`, whose addresses are the script's. */
  dial(options: DialOptions = {}, network: Network = "tcp"): Promise<Conn> {
    return dial(network, "target.test:80", {
      resolve: () => Promise.resolve(Object.keys(this.#script)),
      connect: this.connect,
      clock: this.clock,
      ...options,
    });
  }

  /** Dials, lets `ms` milliseconds pass, and returns what happened. */
  async play(
    options: DialOptions = {},
    { ms = 200_000, network }: { ms?: number; network?: Network } = {},
  ): Promise<Played> {
    let settled: Played | undefined;
    const dialling = this.dial(options, network).then((conn) => {
      const { hostname } = conn.remoteAddr as Deno.NetAddr;
      const endMs = this.clock.monotonic();
      settled = { winner: [hostname, endMs], endMs, starts: this.starts };
      return conn;
    }, (error) => {
      settled = { error, endMs: this.clock.monotonic(), starts: this.starts };
      return null;
    });
    await this.clock.advance(ms);
    assertEquals(settled === undefined, false, "the dial has not ended");
    this.check(await dialling);
    return settled!;
  }

  /**
   * Fails unless all is closed but the winner, every attempt has ended or was
   * aborted, and no timer is left.
   */
  check(winner: Conn | null): void {
    const open = this.#conns.filter((conn) => conn.open);
    assertEquals(
      open.map(({ remoteAddr }) => remoteAddr.hostname),
      winner ? [(winner.remoteAddr as Deno.NetAddr).hostname] : [],
      "open connections",
    );
    assertEquals(this.#running.size, 0, "attempts under way");
    winner?.close();
    assertEquals(this.clock.pending, 0, "timers left");
  }
}
