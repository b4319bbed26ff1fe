/**
 * What `serve()` starts: an accept loop that takes a slot before it takes a
 * connection, one task per connection, and a drain in the end.
 *
 * Invariants: a session is in `#sessions` from its connection's arrival until
 * its handler has ended and the connection is closed, or until it is detached.
 * All that time it takes one slot, and, from its handler's start, a place of
 * its host. One that is added after a shutdown has begun was accepted before.
 *
 * @module
 */

import { Listener, listenerParts } from "./accept.ts";
import type { Addr } from "./addr.ts";
import { discard, onAbort, tolerate } from "./calls.ts";
import { checkOptions, checkSignal, checkType } from "./check.ts";
import type { Clock } from "./clock.ts";
import { type Conn, wireOf } from "./conn.ts";
import {
  closeListener,
  Drain,
  type Drainable,
  mayWait,
  type ShutdownReport,
} from "./drain.ts";
import { isClosed, OpError, someCause } from "./errors.ts";
import type { Hold } from "./hold.ts";
import { HostLimit } from "./host_limit.ts";
import { watchIdle } from "./idle.ts";
import { closeForGood } from "./linger.ts";
import { type Entry, Roster } from "./roster.ts";
import { Context, type Handler, runHandler } from "./run_handler.ts";
import {
  checkDuration,
  checkLimit,
  printError,
  type ServeOptions,
  type ShutdownOptions,
} from "./serve_options.ts";
import { tell } from "./tell.ts";

const DEFAULT_SHUTDOWN_TIMEOUT = 10_000;

/** One connection that is being served. */
interface Session extends Drainable, Entry {
  readonly conn: Conn;
  readonly context: Context;
  /** Whose place it has, if hosts are limited. */
  host: string | undefined;
  /** Ends its idle timeout, if it has one. */
  readonly unwatch: (() => void) | undefined;
}

/** A running server; {@linkcode serve} makes it. */
export class Server implements AsyncDisposable {
  /**
   * Settles when the server has stopped accepting and its last handler has
   * ended (or detached its connection); it then rejects if the listener broke.
   * That is never an unhandled rejection.
   */
  readonly finished: Promise<void>;
  readonly #finished = Promise.withResolvers<void>();
  readonly #listener: Listener;
  readonly #handler: Handler;
  readonly #maxConnections: number;
  readonly #idleTimeout: number;
  readonly #onError: (error: unknown, conn?: Conn) => void;
  readonly #signal: AbortSignal | undefined;
  readonly #clock: Clock;
  readonly #hold: Hold;
  readonly #sessions = new Roster<Session>();
  readonly #hosts: HostLimit;
  /** Those of `#sessions`; kept up to date once somebody has asked for them. */
  #connections: Set<Conn> | null = null;
  readonly #unfollow: (() => void) | undefined;
  /** Whether no more connections will come. */
  #allTaken = false;
  /** True until the listener begins to close, whoever closes it. */
  #listening = true;
  #paused = false;
  /** Lets the accept loop look again at pause, limit and shutdown. */
  #wake: () => void = () => {};
  #broken: { error: unknown } | null = null;
  #drain: Drain | null = null;
  readonly #shutdownReason = new DOMException(
    "the server shuts down",
    "AbortError",
  );

  /**
   * Use {@linkcode serve}.
   *
   * @param listener Whose connections are served.
   * @param handler Run for each of them.
   * @param options See {@linkcode ServeOptions}.
   */
  constructor(listener: Listener, handler: Handler, options: ServeOptions) {
    checkOptions(options);
    const {
      signal,
      maxConnections = Infinity,
      maxConnectionsPerHost = Infinity,
      idleTimeout = Infinity,
      onError = printError,
    } = options;
    checkType("handler", handler, "function");
    checkLimit("maxConnections", maxConnections);
    checkLimit("maxConnectionsPerHost", maxConnectionsPerHost);
    checkDuration("idleTimeout", idleTimeout, 1);
    checkType("onError", onError, "function");
    checkSignal(signal);
    this.#listener = listener;
    this.#handler = handler;
    this.#maxConnections = maxConnections;
    this.#hosts = new HostLimit(maxConnectionsPerHost);
    this.#idleTimeout = idleTimeout;
    this.#onError = onError;
    this.#signal = signal;
    const { clock, closing, hold, served, serveWith } = listenerParts(listener);
    if (served) throw new TypeError("the listener has a server already");
    // What a subclass's accept() has not seen is not for the handler.
    const own = listener.accept !== Listener.prototype.accept;
    serveWith((conn) => own ? discard(conn) : this.#take(conn));
    this.#clock = clock;
    this.#hold = hold;
    closing.then(() => {
      this.#listening = false;
      this.#wake();
    });
    this.finished = tolerate(this.#finished.promise); // onError gets it, too
    if (signal) this.#unfollow = onAbort(signal, () => this.#beginQuietly());
    if (signal?.aborted) this.#beginQuietly();
    this.#acceptAll();
  }

  /** Where it listens. */
  get addr(): Addr {
    return this.#listener.addr;
  }

  /** The connections whose handlers run or are to run, or that are closing. */
  get connections(): ReadonlySet<Conn> {
    return this.#connections ??= new Set(
      this.#sessions.list().map(({ conn }) => conn),
    );
  }

  /**
   * Stops accepting: new connections wait in the kernel's queue, except for one
   * that may have left it already and waits in the server. Handlers go on.
   * Idempotent.
   */
  pause(): void {
    this.#paused = true;
  }

  /** Accepts again after {@linkcode pause}. Idempotent. */
  resume(): void {
    this.#paused = false;
    this.#wake();
  }

  /**
   * Shuts down: stops accepting, aborts the signal of every handler, waits for
   * them, closes by force what is left after `timeout`, and reports.
   *
   * Idempotent: every call returns the report of the first. A shorter timeout
   * given later wins. It does not wait for a handler that goes on after its
   * connection was closed by force; {@linkcode finished} does. A handler must
   * not await it: until the timeout, each would wait for the other.
   *
   * @param options See {@linkcode ShutdownOptions}.
   * @returns What became of the connections that were open.
   * @throws {TypeError} If an option has the wrong type.
   * @throws {RangeError} If `timeout` is negative or NaN.
   * @throws {Error} In the end, what the listener's `close()` rejected with, if
   * it did so in time.
   */
  // deno-lint-ignore require-await -- a bad timeout rejects
  async shutdown(options: ShutdownOptions = {}): Promise<ShutdownReport> {
    checkOptions(options);
    const { timeout = DEFAULT_SHUTDOWN_TIMEOUT } = options;
    checkDuration("timeout", timeout, 0);
    const drain = this.#drain ?? this.#startDrain();
    drain.hurry(timeout);
    return drain.report;
  }

  /** Shuts down without waiting for handlers; hurries a running shutdown. */
  close(): Promise<ShutdownReport> {
    return this.shutdown({ timeout: 0 });
  }

  /** Keeps the process alive while it listens: the default. */
  ref(): void {
    this.#listener.ref();
  }

  /** Lets the process end even while it listens. */
  unref(): void {
    this.#listener.unref();
  }

  /** {@linkcode shutdown} with the default timeout. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  /** The accept loop. It never rejects. */
  async #acceptAll(): Promise<void> {
    try {
      for (;;) {
        while (
          this.#listening &&
          (this.#paused || this.#sessions.size >= this.#maxConnections)
        ) await this.#change();
        if (this.#drain) break;
        let conn: Conn | null = await this.#listener.accept();
        // An accept cannot be taken back: if one was under way when a pause
        // began, its connection waits here.
        while (this.#listening && this.#paused) await this.#change();
        this.#take(conn);
        conn = null; // or it would be held until the next one comes
      }
    } catch (error) {
      // Being closed, by us or by its owner, is not a failure.
      if (!isClosed(error)) {
        this.#broken = { error };
        this.#report(error);
      }
    }
    // Brings in an accept under way. How it went is for the shutdown to say.
    await closeListener(this.#listener, this.#drain?.timeUp).catch(() => {});
    this.#allTaken = true;
    this.#checkEnd();
  }

  /** Begins to serve a connection, unless no more are to be served. */
  #take(conn: Conn): void {
    const late = this.#paused || this.#drain?.forced || this.#allTaken;
    if (late) return void tolerate(closeForGood(conn));
    try {
      this.#serve(conn);
    } catch (error) {
      wireOf(conn); // throws if it is not a Conn: its listener is of no use
      tolerate(closeForGood(conn));
      this.#report(error, conn);
    }
  }

  /** Waits until something may have changed; as alive as an accept is. */
  async #change(): Promise<void> {
    this.#hold.waiting = true;
    await new Promise<void>((resolve) => this.#wake = resolve);
    this.#hold.waiting = false;
  }

  #serve(conn: Conn): void {
    const host = this.#hosts.nameOf(conn); // may throw, so it comes first
    const context = new Context(conn, () => this.#end(session));
    const session: Session = {
      conn,
      context,
      host: undefined,
      unwatch: this.#idleTimeout === Infinity
        ? undefined
        : watchIdle(conn, this.#idleTimeout),
      outcome: "running",
      index: -1,
    };
    this.#sessions.add(session);
    this.#connections?.add(conn);
    // Accepted just as a shutdown began, it belongs to the shutdown.
    this.#drain?.add(session);
    if (host === undefined || this.#hosts.enter(host)) this.#run(session, host);
    else this.#waitForPlace(session, host);
  }

  async #waitForPlace(session: Session, host: string): Promise<void> {
    // In the last slot it would keep all other hosts waiting.
    const last = this.#sessions.size >= this.#maxConnections;
    if (!last && await this.#hosts.wait(host)) this.#run(session, host);
    else this.#refuse(session, host);
  }

  /** Runs the handler; `host` is whose place it has, if hosts are limited. */
  #run(session: Session, host: string | undefined): void {
    session.host = host;
    if (session.outcome === "forced") return this.#end(session); // it waited
    const { conn, context } = session;
    let failed = false;
    const fail = (error: unknown) => {
      if (this.#hasCaused(error, context.reason)) return;
      failed = true;
      this.#report(error, conn);
    };
    const end = () => this.#end(session, failed ? "failed" : "drained");
    runHandler(conn, this.#handler, context, fail).then(end, (error) => {
      fail(error); // from the close
      end();
    });
    if (this.#drain) this.#dismiss(context);
  }

  /** Tells a handler to end, unless its connection is no longer ours. */
  #dismiss(context: Context): void {
    if (!context.detached) context.abort(this.#shutdownReason);
  }

  /** Closes one connection too many. */
  #refuse(session: Session, host: string): void {
    const { conn } = session;
    // First: a subclass may have no address once it is closed.
    const error = session.outcome === "forced" ? null : new OpError({
      op: "accept",
      network: conn.network,
      addr: conn.remoteAddr,
      reason: `too many connections from ${host}, the limit is ` +
        this.#hosts.most,
    });
    tolerate(closeForGood(conn));
    this.#end(session, "failed");
    if (error) this.#report(error, conn);
  }

  /** A connection was closed, or detached. The first call counts. */
  #end(session: Session, outcome: "drained" | "failed" = "drained"): void {
    if (session.outcome === "running") session.outcome = outcome;
    if (!this.#sessions.delete(session)) return;
    this.#connections?.delete(session.conn);
    session.unwatch?.();
    if (session.host !== undefined) this.#hosts.leave(session.host);
    this.#wake();
    this.#checkEnd();
  }

  #checkEnd(): void {
    if (this.#sessions.size > 0 || !this.#allTaken) return;
    this.#drain?.ended();
    this.#unfollow?.();
    if (this.#broken) this.#finished.reject(this.#broken.error);
    else this.#finished.resolve();
  }

  /** For a shutdown that nobody waits for. */
  #beginQuietly(): void {
    this.shutdown().catch((error) => this.#report(error));
  }

  #startDrain(): Drain {
    // Code that learns of it, from the listener or in a handler, may ask for
    // the report at once, or force.
    const closed = Promise.withResolvers<void>();
    const drain = this.#drain = new Drain(
      this.#clock,
      closed.promise,
      () => this.#forceAll(),
    );
    const sessions = this.#sessions.list();
    for (const session of sessions) drain.add(session);
    if (mayWait(this.#listener)) drain.add({ outcome: "running" });
    closed.resolve(closeListener(this.#listener, drain.timeUp));
    for (const { context } of sessions) this.#dismiss(context);
    this.#checkEnd();
    return drain;
  }

  #forceAll(): void {
    this.#unfollow?.();
    for (const session of this.#sessions.list()) {
      session.outcome = "forced";
      session.unwatch?.(); // its handler may go on for ever
      const { conn } = session;
      // Should an odd one fail, the others must be closed, too.
      closeForGood(conn).catch((error) => this.#report(error, conn));
    }
  }

  /**
   * Whether a handler fails because it was told to end: by us, with `reason`,
   * or by the server's own signal, which its calls may have been given, too.
   */
  #hasCaused(error: unknown, reason: unknown): boolean {
    const told = reason !== undefined;
    const ours: unknown[] = told ? [reason] : [];
    if (this.#signal?.aborted) ours.push(this.#signal.reason);
    return (told && isClosed(error)) || ours.includes(error) || // of any type
      someCause(error, (cause) => ours.includes(cause));
  }

  #report(error: unknown, conn?: Conn): void {
    tell("onError", () => this.#onError(error, conn));
  }
}
