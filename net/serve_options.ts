/**
 * The options of servers, and their checks.
 *
 * @module
 */

import { checkCount, checkType } from "./check.ts";
import type { Conn } from "./conn.ts";
import { printable } from "./errors.ts";

/** Options of {@linkcode serve}. */
export interface ServeOptions {
  /** Starts a graceful shutdown with the default timeout when it aborts. */
  signal?: AbortSignal;
  /**
   * How many connections may be open at once. A slot is taken before a
   * connection is accepted, and held until its handler has ended, even if that
   * has closed it long before, and the connection is closed: up to 5 s later,
   * if the peer is slow to close. All others wait in the kernel's queue.
   *
   * @default {Infinity}
   */
  maxConnections?: number;
  /**
   * How many connections one IP address may have at once. Any more are closed
   * right away and reported to `onError`, as an OpError with op "accept". (They
   * first wait a few turns of the event loop, no more of them than the host may
   * have, and while `maxConnections` leaves a slot: if a client closes and
   * dials again, the runtime often reports the new connection before the old
   * one's end.) Unix peers are not counted.
   *
   * @default {Infinity}
   */
  maxConnectionsPerHost?: number;
  /**
   * Milliseconds, at least 1. After this time without a byte in either
   * direction, all calls of the handler on its connection fail as timed out,
   * and so does a copy, or a pipe from another connection's `readable`. If a
   * large write is under way, the connection ends, as with a deadline set late.
   *
   * - Incoming bytes count when the handler reads them: a handler that works
   *   for longer between two calls is timed out.
   * - Outgoing bytes count when the kernel takes them: for a slow reader it
   *   takes none until a good part of its own buffer (megabytes, on Linux) is
   *   free.
   * - If the whole process stood still, bytes that arrived meanwhile count.
   * - The close after the handler has its own limit of 5 s.
   *
   * @default {Infinity}
   */
  idleTimeout?: number;
  /**
   * Called at once with every failure: what a handler threw, with its
   * connection, which is then closed, unless it was detached; that a host has
   * too many connections; without a connection, what broke the listener. What
   * our own shutdown causes is no failure, but a handler that reads on after
   * closing its own connection does fail, with an error for which `isClosed` is
   * true. If the callback throws, or its promise rejects, that is printed.
   *
   * Default: `console.error` with the peer's address and the error's stack.
   */
  onError?: (error: unknown, conn?: Conn) => void;
}

/** Options of {@linkcode Server.prototype.shutdown | Server.shutdown}. */
export interface ShutdownOptions {
  /**
   * Milliseconds until what is left is closed by force; `Infinity`: never.
   *
   * @default {10000}
   */
  timeout?: number;
}

/** Refuses anything but a number of connections. */
export function checkLimit(name: string, value: unknown): void {
  if (value !== Infinity) checkCount(name, value);
}

/** Refuses anything but a number of milliseconds, `min` or more. */
export function checkDuration(name: string, value: number, min: number): void {
  checkType(name, value, "number");
  if (!(value >= min)) {
    throw new RangeError(`${name} is less than ${min} ms: ${value}`);
  }
}

/** The default of `onError`. */
export function printError(error: unknown, conn?: Conn): void {
  // A unix peer has no name: say which server it is.
  const whom = conn &&
    printable(String(conn.remoteAddr) || `${conn.localAddr}`);
  // Not in the first text: there a peer's `%c` would swallow the error.
  if (conn) console.error("switchboard: serving", `${whom}:`, error);
  else console.error("switchboard: the listener broke:", error);
}
