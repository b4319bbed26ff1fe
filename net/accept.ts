/**
 * The accept loop behind {@linkcode Listener}: a queue of callers, one accept
 * at a time, and retries for what is not the caller's business.
 *
 * An accept of the platform cannot be cancelled, and a second one beside it is
 * refused (Busy). So at most one is under way, for whoever is first in the
 * queue when it settles. If nobody waits, its connection is kept as the spare
 * for the next caller, and no further accept is started.
 *
 * @module
 */

import { AcceptCall, connsOf } from "./accept_calls.ts";
import { acceptErrorKind } from "./accept_errors.ts";
import {
  type AcceptErrorEvent,
  type ListenerOptions,
  type ListenerParts,
  type ListenOptions,
  takeListenerOptions,
} from "./accept_options.ts";
import { AcceptRetry, MIN_RETRY_MS } from "./accept_retry.ts";
import { type Addr, toAddr } from "./addr.ts";
import { discard, forget, onAbort, tolerate } from "./calls.ts";
import { checkListener, takeSignal } from "./check.ts";
import { type Clock, systemClock } from "./clock.ts";
import { Conn } from "./conn.ts";
import { ClosedError, OpError } from "./errors.ts";
import { Hold } from "./hold.ts";
import { Queue } from "./queue.ts";
import { setSocketOptions } from "./socket_options.ts";
import { countEnded } from "./stall.ts";
import { tell } from "./tell.ts";
import type { WireOptions } from "./wire.ts";

/** What serve() may see of a listener. Not public. */
export let listenerParts: (listener: Listener) => ListenerParts;

/**
 * The last step of listen(): a listener that its signal closes. Not public.
 *
 * @param inner Just opened; closed if the signal has aborted meanwhile.
 * @param options Checked by {@linkcode takeListen}.
 * @param ipv6Only Whether to turn IPv4 peers away.
 * @throws {AbortSignal["reason"]} If `options.signal` has aborted.
 */
export let makeListener: (
  inner: Deno.Listener,
  options: ListenOptions,
  ipv6Only?: boolean,
) => Listener;

/**
 * A listening socket. {@linkcode listen} makes one; `new Listener(inner)` wraps
 * any `Deno.Listener`, a TLS one, too.
 *
 * `for await (const conn of listener)` accepts until it is closed. It never
 * throws because of a peer. What is awaited in the loop holds up all others:
 * give `handle(conn, handler)` a `.catch()` instead, or use {@linkcode serve}.
 */
export class Listener implements AsyncIterable<Conn>, AsyncDisposable {
  static {
    listenerParts = (listener) => {
      if (!(listener instanceof Listener)) {
        throw new TypeError(
          "not a Listener: await listen(), or make one with new Listener(inner)",
        );
      }
      return {
        clock: listener.#clock,
        closing: listener.#closing.promise,
        hold: listener.#hold,
        served: listener.#takeLate !== null,
        serveWith: (takeLate) => listener.#takeLate = takeLate,
      };
    };
    makeListener = (inner, options, ipv6Only = false) => {
      const { signal } = options;
      if (signal?.aborted) {
        inner.close();
        throw signal.reason;
      }
      const listener = new Listener(inner, options);
      listener.#ipv6Only = ipv6Only;
      listener.#connOptions.plain = true;
      if (signal) {
        listener.#unfollow = onAbort(signal, () => listener.#closeUnasked());
      }
      return listener;
    };
  }

  /** Where it listens; IPv4 and IPv6 on all addresses is `[::]:port`. */
  readonly addr: Addr;
  readonly #inner: Deno.Listener;
  readonly #options: ListenerOptions;
  readonly #clock: Clock;
  /** Of each connection; "plain" if listen() made this listener. */
  readonly #connOptions: WireOptions;
  /** Nobody waits here but a server that does not accept. */
  readonly #hold: Hold;
  readonly #callers = new Queue<AcceptCall>();
  readonly #retry: AcceptRetry;
  /** Whether IPv4 peers are turned away. */
  #ipv6Only = false;
  #unfollow: (() => void) | null = null;
  /** The accept under way, settled when it is over; at most one. */
  #pending: Promise<void> | null = null;
  /** Nobody waits for the pending accept any more, and it is unref'd. */
  #stale = false;
  #refd = true;
  /** A server's: takes what a pending accept still brings after close(). */
  #takeLate: ((conn: Conn) => void) | null = null;
  /** A connection whose caller had gone; only while nobody waits. */
  #spare: Conn | null = null;
  /** What broke it while nobody waited. */
  #untold: OpError | null = null;
  /** What close() returned, if it was called. */
  #closed: Promise<void> | null = null;
  /** Settles when a close begins. */
  readonly #closing = Promise.withResolvers<void>();
  readonly #onConn = (inner: Deno.Conn): void => this.#accepted(inner);
  readonly #onFailure = (error: unknown): void => this.#failed(error);

  /**
   * Takes over a listener; from now on only this object may use it.
   *
   * @param inner Any `Deno.Listener`. Closing this object closes it, and waits
   * for its pending accept to settle.
   * @param options See {@linkcode ListenerOptions}.
   * @throws {TypeError} If an option or `inner` is of the wrong type.
   */
  constructor(inner: Deno.Listener, options: ListenerOptions = {}) {
    this.#options = takeListenerOptions(options);
    checkListener(inner);
    this.#inner = inner;
    this.#clock = this.#options.clock ?? systemClock;
    this.#connOptions = { clock: this.#clock };
    this.#hold = new Hold(this.#clock);
    this.#retry = new AcceptRetry(this.#clock, () => this.#pump());
    this.addr = toAddr(inner.addr);
  }

  /**
   * Accepts the next connection. Callers are served first come, first served.
   *
   * Cancellation: an abort takes the caller out of the queue. No connection is
   * lost: one that comes for a caller that has gone is for the next.
   *
   * @param options `signal` ends the wait.
   * @returns A connection. The caller closes it.
   * @throws {OpError} Only if the listener is closed (see {@linkcode isClosed})
   * or broken, which closes it.
   * @throws {AbortSignal["reason"]} If `signal` aborts.
   */
  accept(options?: { signal?: AbortSignal }): Promise<Conn> {
    return new Promise((resolve, reject) => {
      const signal = takeSignal(options);
      if (signal?.aborted) return reject(signal.reason);
      const call = new AcceptCall(resolve, reject);
      if (signal) call.follow(signal, () => this.#leave(call, signal));
      this.#enter(call);
    });
  }

  /**
   * Closes the listener: pending accepts reject at once, loops end. Accepted
   * connections live on; those still in the kernel's queue are reset.
   * Idempotent.
   *
   * @returns Settles when the port can be bound again.
   * @throws {Error} What the inner listener's own `close()` fails with.
   */
  close(): Promise<void> {
    if (this.#closed === null) {
      // Once, even if the inner listener's close() leads back to ours.
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#closed = promise;
      resolve(this.#close());
    }
    return this.#closed;
  }

  /**
   * Accepts until the listener is closed, be it by its signal; then the
   * iteration just ends. `break` closes the listener.
   *
   * @returns An iterator over accepted connections.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Conn> {
    return connsOf((caller) => this.#enter(caller), () => this.close());
  }

  /** Keeps the process alive while an accept waits: the default. */
  ref(): void {
    this.#setRef(true);
    if (!this.#stale) this.#inner.ref?.();
  }

  /** Lets the process end even while an accept waits. */
  unref(): void {
    this.#setRef(false);
    this.#inner.unref?.();
  }

  /** Closes the listener, as `close()` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Serves a caller, at once or in turn. */
  #enter(caller: AcceptCall): void {
    if (this.#closed) return caller.reject(this.#refusal());
    if (this.#spare) {
      const conn = this.#spare;
      this.#spare = null;
      return caller.resolve(conn);
    }
    this.#callers.push(caller);
    if (this.#stale) this.#setStale(false);
    this.#pump();
  }

  /** Starts an accept if a caller waits and none is under way. */
  #pump(): void {
    // A close rejects all callers and lets none in: if one waits, it is open.
    if (this.#pending || !this.#callers.head || this.#retry.waits) return;
    let accepting: Promise<Deno.Conn>;
    try {
      accepting = Promise.resolve(this.#inner.accept());
    } catch (error) {
      // Only an odd Deno.Listener throws here; callers must still be told.
      accepting = Promise.reject(error);
    }
    this.#pending = accepting.then(this.#onConn, this.#onFailure);
  }

  #accepted(inner: Deno.Conn): void {
    countEnded();
    this.#pending = null;
    if (this.#closed && this.#takeLate === null) return discard(inner);
    this.#retry.roomFound();
    let conn: Conn | null;
    try {
      conn = this.#admit(inner);
    } catch (error) {
      discard(inner); // what an odd Deno.Listener gave is not a Deno.Conn
      return this.#failed(error);
    }
    if (conn !== null) {
      this.#retry.goodPeer();
      // What an odd Deno.Conn did in the meantime may have closed us, too.
      if (this.#closed) (this.#takeLate ?? discard)(conn);
      else if (this.#callers.head === null) this.#spare = conn;
      else this.#callers.shift().resolve(conn);
    }
    this.#pump();
  }

  /** Prepares a connection; `null` if it is not for the caller. */
  #admit(inner: Deno.Conn): Conn | null {
    const conn = new Conn(inner, this.#connOptions);
    try {
      setSocketOptions(inner, this.#options);
    } catch (error) {
      discard(conn);
      this.#badPeer(error); // the peer has reset it
      return null;
    }
    // What came to us as ::ffff:127.0.0.1 is 127.0.0.1 here.
    if (!this.#ipv6Only || String(conn.remoteAddr).startsWith("[")) return conn;
    conn.close();
    this.#retry.badPeer(this.#callers.head !== null);
    return null;
  }

  #failed(error: unknown): void {
    countEnded();
    this.#pending = null;
    if (this.#closed) return;
    switch (acceptErrorKind(error)) {
      case "peer":
        this.#badPeer(error);
        return this.#pump();
      case "capacity":
        return this.#backOff(error);
      case "closed": // by somebody who has the inner listener
        return this.#closeUnasked();
      case "fatal":
        this.#untold = this.#error(error);
        this.#closeUnasked();
    }
  }

  #badPeer(error: unknown): void {
    this.#retry.badPeer(this.#callers.head !== null);
    this.#report(error, "peer", 0);
  }

  #backOff(error: unknown): void {
    const begins = this.#retry.backOff(this.#callers.head !== null);
    if (begins) this.#report(error, "capacity", MIN_RETRY_MS);
  }

  #report(cause: unknown, kind: AcceptErrorEvent["kind"], ms: number): void {
    const { onAcceptError } = this.#options;
    if (!onAcceptError) return;
    const event = { error: this.#error(cause), kind, retryMs: ms };
    tell("onAcceptError", () => onAcceptError(event));
  }

  /** A caller has aborted. */
  #leave(call: AcceptCall, { reason }: AbortSignal): void {
    this.#callers.remove(call);
    call.reject(reason);
    if (this.#callers.head) return;
    this.#retry.clear();
    if (this.#pending) this.#setStale(true);
  }

  /** With nobody waiting, a pending accept must not hold the process. */
  #setStale(stale: boolean): void {
    this.#stale = stale;
    if (!this.#refd) return;
    if (stale) this.#inner.unref?.();
    else this.#inner.ref?.();
  }

  #setRef(refd: boolean): void {
    this.#refd = this.#hold.refd = this.#retry.refd = refd;
  }

  /** A close that nobody waits for; if it fails, close() will say so. */
  #closeUnasked(): void {
    // A subclass's own may wait, or throw: callers are not to wait for that.
    tolerate(Listener.prototype.close.call(this));
  }

  async #close(): Promise<void> {
    let freed: unknown;
    this.#closing.resolve();
    this.#unfollow?.();
    this.#retry.clear();
    const broken = this.#untold;
    if (this.#callers.head) this.#untold = null; // they are told, all of them
    while (this.#callers.head) {
      this.#callers.shift().reject(broken ?? this.#closedError());
    }
    try {
      // Unref'd, the accept that we wait for would let the process end.
      if (this.#pending && (this.#stale || !this.#refd)) this.#inner.ref?.();
      freed = this.#inner.close(); // two sockets: see both_families.ts
      forget(freed); // should it fail before the accept has settled
    } catch (error) {
      // Somebody closed it behind our back; it is closed, as was asked.
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    } finally {
      this.#spare?.close();
      this.#spare = null;
    }
    // Until they have settled the port is not free.
    await this.#pending;
    await freed;
  }

  /** Why a call that comes too late must fail. */
  #refusal(): OpError {
    const why = this.#untold ?? this.#closedError();
    this.#untold = null;
    return why;
  }

  #closedError(): OpError {
    return this.#error(new ClosedError());
  }

  #error(cause: unknown): OpError {
    const { addr } = this;
    return new OpError({ op: "accept", network: addr.transport, addr, cause });
  }
}
