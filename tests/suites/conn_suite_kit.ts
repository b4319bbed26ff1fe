/**
 * What the parts of the connection suite have in common.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import type { Conn } from "../../net/conn.ts";
import { isClosed, isTimeout, OpError } from "../../net/errors.ts";
import { turn } from "../support.ts";

export { bytes, turn } from "../support.ts";

/** Two ends of one connection. */
export interface Pair {
  /** One end. */
  a: Conn;
  /** The other. */
  b: Conn;
  /** Called after both ends are closed. */
  stop?: () => void | Promise<void>;
}

/** Options of `connSuite()`. */
export interface ConnSuiteOptions {
  /** Skips the suite. @default {false} */
  ignore?: boolean;
  /**
   * More bytes than the two ends hold between them when nobody has read yet: a
   * write of so many does not end. Linux holds 3.7 MiB for TCP.
   *
   * @default {8388608}
   */
  flood?: number;
  /**
   * Whether FIN takes a few turns of the event loop, so that a deadline that
   * has passed may come first.
   *
   * @default {false}
   */
  slowFin?: boolean;
}

/** What each part is given. */
export interface Suite {
  /** Registers one test over a fresh pair, which is closed afterwards. */
  test(name: string, run: (a: Conn, b: Conn) => Promise<void>): void;
  /** See {@linkcode ConnSuiteOptions.flood}. */
  flood: number;
  /** See {@linkcode ConnSuiteOptions.slowFin}. */
  slowFin: boolean;
}

/** What may still go out after a write was reported as failed. */
export const PIECE = 64 * 1024;

/** The text of some bytes. */
export function text(p: Uint8Array): string {
  return new TextDecoder().decode(p);
}

// New memory costs more than what is done with it: 3 ms per MiB.
let noughts = new Uint8Array(0);
let changed = new Uint8Array(0);
let patterned = new Uint8Array(0);

/** `n` zeros that nobody changes. */
export function zeros(n: number): Uint8Array<ArrayBuffer> {
  if (noughts.length < n) noughts = new Uint8Array(n);
  return noughts.subarray(0, n);
}

/** `n` ones that a test may change: the next test's are in the same memory. */
export function ones(n: number): Uint8Array<ArrayBuffer> {
  if (changed.length < n) changed = new Uint8Array(n);
  return changed.subarray(0, n).fill(1);
}

/** `n` bytes with a pattern in which every shift and every gap shows. */
export function pattern(n: number): Uint8Array<ArrayBuffer> {
  if (patterned.length < n) {
    patterned = new Uint8Array(n);
    // xorshift32: it does not repeat within any length used here.
    for (let i = 0, x = 0x9e3779b9; i < n; i++) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      patterned[i] = x;
    }
  }
  return patterned.subarray(0, n);
}

/** Whether two arrays are equal; fast, and a failure does not print 1 MiB. */
export function same(p: Uint8Array, q: Uint8Array): boolean {
  if (p.length !== q.length) return false;
  for (let i = 0; i < p.length; i++) if (p[i] !== q[i]) return false;
  return true;
}

/** Reads exactly `n` bytes, or as many as come before EOF. */
export async function readFull(
  conn: Conn,
  n: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const p = new Uint8Array(n);
  let at = 0;
  while (at < n) {
    const got = await conn.read(p.subarray(at));
    if (got === null) break;
    at += got;
  }
  return p.subarray(0, at);
}

/** Reads a short text, in one read. */
export async function readText(conn: Conn): Promise<string | null> {
  const p = new Uint8Array(1024);
  const n = await conn.read(p);
  return n === null ? null : text(p.subarray(0, n));
}

/** Reads until EOF; each run of equal bytes as `[value, length]`. */
export async function readRuns(conn: Conn): Promise<[number, number][]> {
  const runs: [number, number][] = [];
  let value = -1, length = 0;
  for await (const chunk of conn) {
    for (let i = 0; i < chunk.length; i++) {
      if (chunk[i] === value) length++;
      else {
        if (length > 0) runs.push([value, length]);
        value = chunk[i]!;
        length = 1;
      }
    }
  }
  if (length > 0) runs.push([value, length]);
  return runs;
}

/** Drops `limit` bytes, or what comes before EOF; returns how many. */
export async function drain(conn: Conn, limit = Infinity): Promise<number> {
  const p = new Uint8Array(PIECE);
  let count = 0;
  while (count < limit) {
    const n = await conn.read(p.subarray(0, Math.min(PIECE, limit - count)));
    if (n === null) break;
    count += n;
  }
  return count;
}

/** Sends back what comes, until EOF, and then FIN. */
export async function echo(conn: Conn): Promise<void> {
  for await (const chunk of conn) await conn.write(chunk);
  await conn.closeWrite();
}

/** What a promise rejects with. */
export function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then((value) => {
    throw new Error(`it succeeded: ${value}`);
  }, (error) => error);
}

/** Whether a promise settles before the event loop has turned. */
export async function settlesAtOnce(
  promise: Promise<unknown>,
): Promise<boolean> {
  let settled = false;
  promise.then(() => settled = true, () => settled = true);
  await turn();
  return settled;
}

/** Checks the error of a deadline in full. */
export function assertTimedOut(
  error: unknown,
  op: OpError["op"],
  conn: Conn,
): void {
  assertOpError(error, op, conn);
  assert(isTimeout(error), `${error}`);
  assert(!isClosed(error), `${error}`);
  assertEquals(error.timeout, true);
  assertEquals((error.cause as Error).name, "TimeoutError");
  assertEquals(error.message, `${prefix(op, conn)}: i/o timeout`);
}

/** Checks the error of a call on a closed connection in full. */
export function assertClosed(
  error: unknown,
  op: OpError["op"],
  conn: Conn,
): void {
  assertOpError(error, op, conn);
  assert(isClosed(error), `${error}`);
  assertEquals([error.timeout, error.temporary], [false, false]);
  assertEquals(
    error.message,
    `${prefix(op, conn)}: use of closed network connection`,
  );
}

/** Checks an OpError of this connection. */
export function assertOpError(
  error: unknown,
  op: OpError["op"],
  conn: Conn,
): asserts error is OpError {
  assertInstanceOf(error, OpError);
  assertEquals(error.op, op);
  assertEquals(error.network, conn.network);
  assertEquals(String(error.source), String(conn.localAddr));
  assertEquals(String(error.addr), String(conn.remoteAddr));
  assertEquals(
    typeof error.bytesWritten,
    op === "write" ? "number" : "undefined",
  );
}

function prefix(op: string, { network, localAddr, remoteAddr }: Conn): string {
  return `${op} ${network} ${localAddr}->${remoteAddr}`;
}
