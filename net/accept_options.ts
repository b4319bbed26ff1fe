/**
 * The options of listeners, their checks, and what serve() sees of one.
 *
 * @module
 */

import {
  checkClock,
  checkCount,
  checkOption,
  checkSignal,
  checkType,
  takeOptions,
} from "./check.ts";
import type { Clock } from "./clock.ts";
import type { Conn } from "./conn.ts";
import type { OpError } from "./errors.ts";
import type { Hold } from "./hold.ts";

/** An error that an accept loop has survived. */
export interface AcceptErrorEvent {
  /** With op "accept"; its cause is the platform's error. */
  error: OpError;
  /**
   * "peer": trouble with one connection, such as a client that has already
   * reset; one event for each. "capacity": this process or host is at a limit
   * (EMFILE, ENFILE, ENOBUFS, ENOMEM); one event until a connection is accepted
   * again.
   */
  kind: "peer" | "capacity";
  /** Milliseconds until the next try: 0 for "peer", 5 for "capacity". */
  retryMs: number;
}

/** Options of `new Listener()`. */
export interface ListenerOptions {
  /** Sets TCP_NODELAY on accepted connections. @default {true} */
  noDelay?: boolean;
  /** Sets SO_KEEPALIVE on accepted connections. @default {true} */
  keepAlive?: boolean;
  /**
   * Called for each error that the loop survives. Nothing is lost without it:
   * nobody can do anything about a peer, and a limit shows in clients that
   * wait. If it throws, or its promise rejects, that is printed.
   */
  onAcceptError?: (event: AcceptErrorEvent) => void;
  /** Time source, for tests. Default: the system's. */
  clock?: Clock;
}

/** Options of {@linkcode listen}. */
export interface ListenOptions extends ListenerOptions {
  /** Closes the listener when it aborts; loops just end. */
  signal?: AbortSignal;
  /**
   * How many connections may wait in the kernel's queue, at least 1. The kernel
   * has a limit of its own (Linux: net.core.somaxconn). TCP only; for unix
   * sockets the runtime sets it. Default: as many as the kernel allows.
   */
  backlog?: number;
  /**
   * Sets SO_REUSEPORT: several processes may share the port. Needs
   * `--unstable-net`. TCP only.
   *
   * @default {false}
   */
  reusePort?: boolean;
}

/** What `serve()` may know of a listener. */
export interface ListenerParts {
  /** Time source. */
  clock: Clock;
  /** Settles when it begins to close. */
  closing: Promise<void>;
  /** For what waits before an accept, to hold the process as one would. */
  hold: Hold;
  /** Whether it has a server already. */
  served: boolean;
  /** Gives it one, which takes what a pending accept brings after close(). */
  serveWith(takeLate: (conn: Conn) => void): void;
}

const LISTENER_NAMES: Record<keyof ListenerOptions, true> = {
  noDelay: true,
  keepAlive: true,
  onAcceptError: true,
  clock: true,
};

const LISTEN_NAMES: Record<keyof ListenOptions, true> = {
  ...LISTENER_NAMES,
  signal: true,
  backlog: true,
  reusePort: true,
};

/**
 * Takes and checks the arguments of a listen(), before anything is opened.
 *
 * @returns A copy of the options.
 */
export function takeListen(
  network: string,
  address: string,
  options: ListenOptions,
): ListenOptions {
  const taken = takeOptions(options, LISTEN_NAMES);
  const { backlog, reusePort, signal } = taken;
  checkListenerOptions(taken);
  checkOption("reusePort", reusePort, "boolean");
  checkSignal(signal);
  if (backlog !== undefined) checkCount("backlog", backlog);
  signal?.throwIfAborted();
  checkType("network", network, "string");
  checkType("address", address, "string");
  return taken;
}

/** Takes and checks the options of `new Listener()`. */
export function takeListenerOptions(options: ListenerOptions): ListenerOptions {
  const taken = takeOptions(options, LISTENER_NAMES);
  checkListenerOptions(taken);
  return taken;
}

function checkListenerOptions(options: ListenerOptions): void {
  checkOption("noDelay", options.noDelay, "boolean");
  checkOption("keepAlive", options.keepAlive, "boolean");
  checkOption("onAcceptError", options.onAcceptError, "function");
  checkClock(options.clock);
}
