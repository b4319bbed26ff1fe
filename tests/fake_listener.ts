/**
 * A scripted listener: no socket; the test decides what each accept gives.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { assert } from "@std/assert";

/** A connection that records what is done to it. */
export class FakeConn {
  /** What was done to it, in order. */
  readonly calls: string[] = [];
  readonly localAddr = { transport: "tcp", hostname: "::1", port: 1 } as const;
  readonly remoteAddr: Deno.NetAddr;
  readonly #broken: Error | undefined;

  constructor(hostname = "::1", broken?: Error) {
    this.remoteAddr = { transport: "tcp", hostname, port: 2 };
    this.#broken = broken;
  }

  setNoDelay(on: boolean): void {
    this.calls.push(`noDelay ${on}`);
    if (this.#broken) throw this.#broken;
  }

  setKeepAlive(on: boolean): void {
    this.calls.push(`keepAlive ${on}`);
  }

  close(): void {
    this.calls.push("close");
    if (this.#broken instanceof Deno.errors.BadResource) throw this.#broken;
  }
}

/** A listener whose accepts the test settles, one at a time. */
export class FakeListener {
  readonly addr = { transport: "tcp", hostname: "::1", port: 1 } as const;
  /** What was done to it, but for accepts, in order. */
  readonly calls: string[] = [];
  accepts = 0;
  #pending: PromiseWithResolvers<Deno.Conn> | null = null;
  #closeError: Error | undefined;

  constructor(closeError?: Error) {
    this.#closeError = closeError;
  }

  get inner(): Deno.Listener {
    return this as unknown as Deno.Listener;
  }

  get waiting(): boolean {
    return this.#pending !== null;
  }

  accept(): Promise<Deno.Conn> {
    assert(this.#pending === null, "a second accept: Busy");
    this.accepts++;
    this.#pending = Promise.withResolvers();
    return this.#pending.promise;
  }

  /** Settles the pending accept, and lets what follows from it happen. */
  async settle(result: FakeConn | Deno.Conn | Error): Promise<void> {
    assert(this.#pending !== null, "no accept is pending");
    const { resolve, reject } = this.#pending;
    this.#pending = null;
    if (result instanceof Error) reject(result);
    else resolve(result as unknown as Deno.Conn);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }

  close(): void {
    this.calls.push("close");
    if (this.#closeError) throw this.#closeError;
  }

  ref(): void {
    this.calls.push("ref");
  }

  unref(): void {
    this.calls.push("unref");
  }
}

/** A system error, as Deno makes one that it has no class for. */
export function errno(code: string): Error {
  return Object.assign(new Error(`${code} (os error 0)`), { code });
}

/** The platform's error for an accept that is pending at close(). */
export const closedInner = new Deno.errors.BadResource(
  "Listener has been closed",
);
