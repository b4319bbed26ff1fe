/**
 * The options of servers, and their checks.
 *
 * @module
 */

import { checkCount, checkType } from "./check.ts";
import type { Conn } from "./conn.ts";

/** Options of {@linkcode serve}. */
export interface ServeOptions {
  /** Starts a graceful shutdown with the default timeout when it aborts. */
  signal?: AbortSignal;
  /**
   * How many connections may be open at once. A slot is taken before a
   * connection is accepted; the rest wait in the kernel's queue.
   *
   * @default {Infinity}
   */
  maxConnections?: number;
  /**
   * How many connections one IP address may have at once; one more is closed
   * at once and reported to `onError`: an OpError with op "accept". Does not
   * count unix peers.
   *
   * @default {Infinity}
   */
  maxConnectionsPerHost?: number;
  /**
   * Milliseconds, at least 1. After so long without a byte in either direction
   * all calls of the handler on its connection fail as timed out, and so does
   * a copy, or a pipe from another one's `readable`; a large write under way
   * ends the connection, as with a deadline set late. A process that stood
   * still meanwhile first looks for what has come. Bytes that came count when
   * the handler reads them: a handler that works for longer between two calls
   * is timed out. Written ones count when the kernel takes them: for a slow
   * reader it takes none until a good part of its own buffer, megabytes on
   * Linux, is free again. The close after the handler has a limit of its own,
   * 5 s.
   *
   * @default {Infinity}
   */
  idleTimeout?: number;
  /**
   * Told of every failure at once: what a handler threw, with its connection,
   * which is closed afterwards; that a host has too many connections; that the
   * listener broke, without a connection. What our own shutdown causes is no
   * failure; a handler that reads on after it has closed its connection itself
   * does fail, with an error for which `isClosed` is true. The callback may
   * throw, or return a promise that rejects: that is printed.
   *
   * Default: `console.error` with the peer's address and the error's stack.
   */
  onError?: (error: unknown, conn?: Conn) => void;
}

/** Options of {@linkcode Server.shutdown}. */
export interface ShutdownOptions {
  /**
   * Milliseconds until what still runs is closed by force. `Infinity` waits.
   *
   * @default {10000}
   */
  timeout?: number;
}

/** Refuses what is no number of connections. */
export function checkLimit(name: string, value: unknown): void {
  if (value !== Infinity) checkCount(name, value);
}

/** Refuses what is no number of milliseconds, or less than `min`. */
export function checkDuration(name: string, value: number, min: number): void {
  checkType(name, value, "number");
  if (!(value >= min)) {
    throw new RangeError(`${name} is less than ${min} ms: ${value}`);
  }
}
