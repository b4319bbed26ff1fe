/**
 * A `Deno.Conn` that does nothing by itself: each operation waits until the
 * test ends it, and every operation is recorded.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { turn } from "./support.ts";

/** A read under way. */
export interface InnerRead {
  /** Where the bytes go: the memory itself, not a copy. */
  p: Uint8Array;
  resolve(n: number | null): void;
  reject(error: unknown): void;
}

/** A write under way. */
export interface InnerWrite {
  /** What goes out: the memory itself, not a copy. */
  p: Uint8Array;
  resolve(n: number): void;
  reject(error: unknown): void;
}

export class InnerConn implements Deno.Conn {
  readonly localAddr: Deno.NetAddr = address(1);
  readonly remoteAddr: Deno.NetAddr = address(2);
  /** The operations under way, oldest first. */
  readonly reads: InnerRead[] = [];
  readonly writes: InnerWrite[] = [];
  readonly fins: PromiseWithResolvers<void>[] = [];
  /** How large the memory of each read was. */
  readonly readSizes: number[] = [];
  /** How large each write was. */
  readonly writeSizes: number[] = [];
  /** "ref" and "unref", in the order of the calls. */
  readonly refs: string[] = [];
  closes = 0;

  get readable(): never {
    throw new Error("not used");
  }

  get writable(): never {
    throw new Error("not used");
  }

  read(p: Uint8Array): Promise<number | null> {
    this.readSizes.push(p.length);
    return new Promise((resolve, reject) =>
      this.reads.push({ p, resolve, reject })
    );
  }

  write(p: Uint8Array): Promise<number> {
    this.writeSizes.push(p.length);
    return new Promise((resolve, reject) =>
      this.writes.push({ p, resolve, reject })
    );
  }

  closeWrite(): Promise<void> {
    const fin = Promise.withResolvers<void>();
    this.fins.push(fin);
    return fin.promise;
  }

  ref(): void {
    this.refs.push("ref");
  }

  unref(): void {
    this.refs.push("unref");
  }

  close(): void {
    this.closes++;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Ends the only read under way with these bytes, or with EOF. */
  async deliver(bytes: Uint8Array | null): Promise<void> {
    const { p, resolve } = only(this.reads);
    if (bytes) p.set(bytes);
    resolve(bytes && bytes.length);
    await turn();
  }

  /** Ends the only read under way with a failure. */
  async failRead(error: unknown): Promise<void> {
    only(this.reads).reject(error);
    await turn();
  }

  /** Ends the only write under way: `n` bytes of it are out, or all. */
  async take(n?: number): Promise<Uint8Array> {
    const { p, resolve } = only(this.writes);
    const taken = p.slice(0, n);
    resolve(taken.length);
    await turn();
    return taken;
  }

  /** Ends the only write under way with a failure. */
  async failWrite(error: unknown): Promise<void> {
    only(this.writes).reject(error);
    await turn();
  }
}

/** The only operation under way: there must never be two. */
function only<T>(operations: T[]): T {
  assertEquals(operations.length, 1, "operations under way");
  return operations.shift()!;
}

function address(port: number): Deno.NetAddr {
  return { transport: "tcp", hostname: "127.0.0.1", port };
}
