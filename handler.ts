/**
 * One task per connection: {@linkcode handle} runs a handler for one and
 * closes it; {@linkcode serve} does so for all that a listener accepts, with
 * limits, and shuts down with a receipt.
 *
 * @example An echo server that drains on Ctrl-C
 * ```ts
 * import { copy, listen, serve } from "@switchboard/tcp";
 *
 * const listener = await listen("tcp", "127.0.0.1:0");
 * await using server = serve(listener, async (conn) => {
 *   await copy(conn, conn);
 * });
 * Deno.addSignalListener("SIGINT", stop);
 * async function stop() {
 *   console.log(await server.shutdown());
 * }
 * Deno.removeSignalListener("SIGINT", stop);
 * ```
 *
 * @module
 */

import { clockOf, type Listener } from "./net/accept.ts";
import type { Addr } from "./net/addr.ts";
import type { Clock } from "./net/clock.ts";
import type { Conn } from "./net/conn.ts";
import { Drain, type Drainable, type ShutdownReport } from "./net/drain.ts";
import { isClosed, OpError } from "./net/errors.ts";
import { watchIdle } from "./net/idle.ts";
import { Context, type Handler, live } from "./net/life.ts";
import { onAbort } from "./net/wire.ts";

export type { Handler, HandlerContext } from "./net/life.ts";
export type { ShutdownReport } from "./net/drain.ts";

/** Options of {@linkcode handle}. */
export interface HandleOptions {
  /** Ends the connection: fires the context's signal, then closes. */
  signal?: AbortSignal;
}

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
   * at once and reported to `onError`. Does not count unix peers.
   *
   * @default {Infinity}
   */
  maxConnectionsPerHost?: number;
  /**
   * Milliseconds without a byte in either direction after which all calls of
   * the handler on its connection fail as timed out.
   *
   * @default {Infinity}
   */
  idleTimeout?: number;
  /**
   * Told of every failure: what a handler threw, with its connection; that a
   * host has too many connections; that the listener broke, without one. What
   * our own shutdown causes is no failure. It may throw: that is printed.
   *
   * Default: `console.error` with the peer's address and the error's stack.
   */
  onError?: (error: unknown, conn?: Conn) => void | Promise<void>;
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

const DEFAULT_SHUTDOWN_TIMEOUT = 10_000;

/**
 * Lives one connection's life: runs `handler`, then closes the connection,
 * exactly once, whether the handler returned, threw or rejected.
 *
 * What was written arrives: the close sends FIN and then, unless the peer has
 * closed already, reads and drops what it still sends until it closes too, at
 * most 1 MiB and 5 s (RFC 9112, section 9.6).
 *
 * Cancellation: an abort fires the context's signal and closes the connection
 * at once, so that the handler's calls fail as closed.
 *
 * @param conn Closed by this call, unless the handler detaches it.
 * @param handler What is done with it.
 * @param options See {@linkcode HandleOptions}.
 * @returns Settles when the connection is closed.
 * @throws What the handler threw.
 * @throws {AbortSignal["reason"]} If `options.signal` aborts first.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, handle, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * await using client = await dial("tcp", String(listener.addr));
 * await Promise.all([
 *   handle(await listener.accept(), async (conn) => {
 *     await conn.write(new TextEncoder().encode("bye"));
 *   }),
 *   client.closeWrite(),
 * ]);
 * assertEquals(await new Response(client.readable).text(), "bye");
 * ```
 */
export async function handle(
  conn: Conn,
  handler: Handler,
  options: HandleOptions = {},
): Promise<void> {
  checkHandler(handler);
  const { signal } = options;
  const context = new Context(conn);
  if (!signal) return await live(conn, handler, context);
  const aborted = Promise.withResolvers<never>();
  const unfollow = onAbort(signal, () => {
    context.abort(signal.reason);
    if (!context.detached) conn.close();
    aborted.reject(signal.reason);
  });
  try {
    if (signal.aborted) conn.close();
    signal.throwIfAborted();
    await Promise.race([live(conn, handler, context), aborted.promise]);
  } finally {
    unfollow();
  }
}

/**
 * Serves every connection that `listener` accepts, each with a task of its
 * own, until it is shut down. The server owns the listener from now on.
 *
 * Nothing that a handler does, not even a synchronous throw, reaches the
 * accept loop, another connection or `unhandledrejection`: failures go to
 * `onError`.
 *
 * @param listener Of {@linkcode listen}, or any `new Listener(inner)`.
 * @param handler Run for each connection; see {@linkcode handle}.
 * @param options See {@linkcode ServeOptions}.
 * @returns The running server. `await using` shuts it down.
 * @throws {TypeError} If `handler` or an option has the wrong type.
 * @throws {RangeError} If a limit is no positive integer.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { copy, dial, listen, serve } from "@switchboard/tcp";
 *
 * const listener = await listen("tcp", "127.0.0.1:0");
 * await using server = serve(listener, async (conn) => {
 *   await copy(conn, conn);
 * }, { maxConnections: 1000, idleTimeout: 60_000 });
 *
 * await using client = await dial("tcp", String(server.addr));
 * await client.write(new TextEncoder().encode("hello"));
 * await client.closeWrite();
 * assertEquals(await new Response(client.readable).text(), "hello");
 * ```
 */
export function serve(
  listener: Listener,
  handler: Handler,
  options: ServeOptions = {},
): Server {
  return new Server(listener, handler, options);
}

/** One connection that is being served. */
interface Session extends Drainable {
  readonly context: Context;
  readonly host: string | undefined;
  readonly unwatch: (() => void) | undefined;
}

/** A running server; {@linkcode serve} makes it. */
export class Server implements AsyncDisposable {
  /**
   * Settles when the server has stopped accepting and its last handler has
   * ended; rejects then if the listener broke. Never an unhandled rejection.
   */
  readonly finished: Promise<void>;
  readonly #listener: Listener;
  readonly #handler: Handler;
  readonly #options: ServeOptions;
  readonly #clock: Clock;
  readonly #sessions = new Map<Conn, Session>();
  readonly #hosts = new Map<string, number>();
  readonly #connections = new Set<Conn>();
  readonly #settleFinished: PromiseWithResolvers<void>;
  readonly #unfollow: (() => void) | undefined;
  #accepting = true;
  #paused = false;
  /** Lets the accept loop look again at pause, limit and shutdown. */
  #wake: (() => void) | null = null;
  #broken: { error: unknown } | null = null;
  #drain: Drain | null = null;

  /**
   * Use {@linkcode serve}.
   *
   * @param listener Whose connections are served.
   * @param handler Run for each of them.
   * @param options See {@linkcode ServeOptions}.
   */
  constructor(listener: Listener, handler: Handler, options: ServeOptions) {
    checkHandler(handler);
    checkLimit("maxConnections", options.maxConnections);
    checkLimit("maxConnectionsPerHost", options.maxConnectionsPerHost);
    checkDuration("idleTimeout", options.idleTimeout, 1);
    this.#listener = listener;
    this.#handler = handler;
    this.#options = options;
    this.#clock = clockOf(listener);
    this.#settleFinished = Promise.withResolvers();
    this.finished = this.#settleFinished.promise;
    this.finished.catch(() => {}); // Reported to onError as well.
    const { signal } = options;
    if (signal) this.#unfollow = onAbort(signal, () => this.#beginQuietly());
    if (signal?.aborted) this.#beginQuietly();
    this.#acceptAll();
  }

  /** Where it listens. */
  get addr(): Addr {
    return this.#listener.addr;
  }

  /** The connections whose handlers run, or that are being closed. */
  get connections(): ReadonlySet<Conn> {
    return this.#connections;
  }

  /**
   * Stops accepting: new connections wait in the kernel's queue (one may be
   * taken from it and wait here). Handlers go on. Idempotent.
   */
  pause(): void {
    this.#paused = true;
  }

  /** Accepts again after {@linkcode pause}. Idempotent. */
  resume(): void {
    this.#paused = false;
    this.#wake?.();
  }

  /**
   * Shuts down: stops accepting, aborts the signal of every handler, waits for
   * them, closes by force what is left when `timeout` is over, and reports.
   *
   * Idempotent: every call gives the report of the first. A shorter timeout
   * given later wins. A handler that goes on although its connection is gone
   * is not waited for; {@linkcode finished} does.
   *
   * @param options See {@linkcode ShutdownOptions}.
   * @returns What became of the connections that were open.
   * @throws {RangeError} If the timeout is negative or NaN.
   */
  // deno-lint-ignore require-await -- a bad timeout rejects
  async shutdown(options: ShutdownOptions = {}): Promise<ShutdownReport> {
    const { timeout = DEFAULT_SHUTDOWN_TIMEOUT } = options;
    checkDuration("timeout", timeout, 0);
    return this.#begin(timeout);
  }

  /** Shuts down without waiting for any handler; hurries one under way. */
  close(): Promise<ShutdownReport> {
    return this.shutdown({ timeout: 0 });
  }

  /** Keeps the process alive while it listens: the default. */
  ref(): void {
    this.#listener.ref();
  }

  /** Lets the process end although it listens. */
  unref(): void {
    this.#listener.unref();
  }

  /** {@linkcode shutdown} with the default timeout. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  /** The accept loop. It never rejects. */
  async #acceptAll(): Promise<void> {
    const { maxConnections = Infinity } = this.#options;
    try {
      for (;;) {
        while (
          this.#accepting &&
          (this.#paused || this.#sessions.size >= maxConnections)
        ) await this.#look();
        if (!this.#accepting) break;
        const conn = await this.#listener.accept();
        // One that was already being accepted when the pause began waits here.
        while (this.#accepting && this.#paused) await this.#look();
        if (this.#accepting) this.#serve(conn);
        else conn.close();
      }
    } catch (error) {
      // Closed by us or by its owner is not a failure.
      if (!isClosed(error)) {
        this.#broken = { error };
        this.#report(error);
      }
    }
    this.#accepting = false;
    this.#sessionEnded();
  }

  /** Waits until something may have changed. */
  async #look(): Promise<void> {
    await new Promise<void>((resolve) => this.#wake = resolve);
    this.#wake = null;
  }

  #serve(conn: Conn): void {
    const host = this.#hostOf(conn);
    if (host !== undefined && !this.#admit(conn, host)) return;
    const { idleTimeout = Infinity } = this.#options;
    const context = new Context(conn, () => this.#end(conn, session));
    const unwatch = idleTimeout === Infinity
      ? undefined
      : watchIdle(conn, idleTimeout);
    const session: Session = { context, host, unwatch, outcome: "running" };
    this.#sessions.set(conn, session);
    this.#connections.add(conn);
    live(conn, this.#handler, context).then(
      () => this.#end(conn, session, "drained"),
      (error) => {
        const silent = causedByShutdown(error, session);
        this.#end(conn, session, silent ? "drained" : "failed");
        if (!silent) this.#report(error, conn);
      },
    );
  }

  /** The host to be counted, where hosts are limited. */
  #hostOf(conn: Conn): string | undefined {
    if (this.#options.maxConnectionsPerHost === undefined) return undefined;
    const { remoteAddr } = conn;
    return remoteAddr.transport === "tcp" ? remoteAddr.hostname : undefined;
  }

  #admit(conn: Conn, host: string): boolean {
    const count = this.#hosts.get(host) ?? 0;
    const limit = this.#options.maxConnectionsPerHost!;
    if (count < limit) {
      this.#hosts.set(host, count + 1);
      return true;
    }
    conn.close();
    this.#report(
      new OpError({
        op: "accept",
        network: conn.network,
        addr: conn.remoteAddr,
        reason: `more than ${limit} connections from ${host}`,
      }),
      conn,
    );
    return false;
  }

  /** A handler has ended, or given its connection away. Once per session. */
  #end(
    conn: Conn,
    session: Session,
    outcome: "drained" | "failed" = "drained",
  ): void {
    if (session.outcome === "running") session.outcome = outcome;
    if (!this.#sessions.delete(conn)) return;
    this.#connections.delete(conn);
    session.unwatch?.();
    const { host } = session;
    if (host !== undefined) {
      const count = this.#hosts.get(host)! - 1;
      if (count === 0) this.#hosts.delete(host);
      else this.#hosts.set(host, count);
    }
    this.#wake?.();
    this.#sessionEnded();
  }

  #sessionEnded(): void {
    if (this.#sessions.size > 0) return;
    this.#drain?.ended();
    if (this.#accepting) return;
    this.#unfollow?.();
    if (this.#broken) this.#settleFinished.reject(this.#broken.error);
    else this.#settleFinished.resolve();
  }

  #begin(timeout = DEFAULT_SHUTDOWN_TIMEOUT): Promise<ShutdownReport> {
    this.#drain ??= this.#startDrain();
    this.#drain.hurry(timeout);
    return this.#drain.report;
  }

  /** For a shutdown that nobody waits for. */
  #beginQuietly(): void {
    this.#begin().catch((error) => this.#report(error));
  }

  #startDrain(): Drain {
    this.#accepting = false;
    this.#wake?.();
    const sessions = [...this.#sessions.values()];
    const drain = new Drain(
      this.#clock,
      sessions,
      this.#listener.close(),
      () => this.#forceAll(),
    );
    const reason = new DOMException("the server shuts down", "AbortError");
    for (const { context } of sessions) context.abort(reason);
    return drain;
  }

  #forceAll(): void {
    for (const [conn, session] of this.#sessions) {
      session.outcome = "forced";
      conn.close();
    }
  }

  /** Tells onError; what it does wrong itself is printed. */
  async #report(error: unknown, conn?: Conn): Promise<void> {
    try {
      if (this.#options.onError) await this.#options.onError(error, conn);
      else printError(error, conn);
    } catch (thrown) {
      console.error("switchboard: onError failed:", thrown);
    }
  }
}

/** Whether a handler fails because we have told it to end. */
function causedByShutdown(error: unknown, session: Session): boolean {
  const { reason } = session.context;
  if (reason === undefined) return false;
  return error === reason || (session.outcome === "forced" && isClosed(error));
}

function printError(error: unknown, conn?: Conn): void {
  if (conn) console.error(`switchboard: serving ${conn.remoteAddr}:`, error);
  else console.error("switchboard: the listener broke:", error);
}

function checkHandler(handler: unknown): void {
  if (typeof handler !== "function") {
    throw new TypeError("handler is not a function");
  }
}

function checkLimit(name: string, value: number | undefined): void {
  if (value === undefined || value === Infinity) return;
  if (typeof value !== "number") throw new TypeError(`${name} is not a number`);
  if (!Number.isInteger(value) || value < 1) {
    throw new RangeError(`${name} is not a positive integer: ${value}`);
  }
}

function checkDuration(
  name: string,
  value: number | undefined,
  min: number,
): void {
  if (value === undefined) return;
  if (typeof value !== "number") throw new TypeError(`${name} is not a number`);
  if (!(value >= min)) {
    throw new RangeError(`${name} is less than ${min} ms: ${value}`);
  }
}
