/**
 * The accept loop that nothing kills. {@linkcode listen} binds an address;
 * {@linkcode Listener} hands out connections, one caller after the other, and
 * keeps to itself what is not the caller's business: clients that reset before
 * anybody looked, and a full table of descriptors.
 *
 * @example
 * ```ts
 * import { handle, listen } from "@switchboard/tcp";
 *
 * const listener = await listen("tcp", "127.0.0.1:0");
 * const closing = listener.close(); // ends the loop; without it, it goes on
 * for await (const conn of listener) {
 *   handle(conn, async (conn) => {
 *     for await (const chunk of conn) await conn.write(chunk);
 *   }).catch(console.error);
 * }
 * await closing;
 * ```
 *
 * @module
 */

import { acceptErrorKind } from "./net/accept_errors.ts";
import { type Addr, type Network, toAddr } from "./net/addr.ts";
import { bind, type Bound } from "./net/bind.ts";
import { Alarm, type Clock, systemClock } from "./net/clock.ts";
import { Conn } from "./net/conn.ts";
import { ClosedError, isClosed, OpError } from "./net/errors.ts";
import { type Link, Queue } from "./net/queue.ts";
import { onAbort } from "./net/wire.ts";

/** What an accept loop met and survived. */
export interface AcceptErrorEvent {
  /** With op "accept"; its cause is the platform's error. */
  error: OpError;
  /**
   * "peer": one connection's own trouble, such as a client that has reset
   * already; one event each. "capacity": this process or host is at a limit
   * (EMFILE, ENFILE, ENOBUFS, ENOMEM); one event until a connection is
   * accepted again.
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
   * Told of what the loop survives. Nothing is lost without it: nobody can do
   * anything about a peer, and a limit shows in clients that wait. What it
   * throws is printed.
   */
  onAcceptError?: (event: AcceptErrorEvent) => void;
  /** Time source, for tests. @default {systemClock} */
  clock?: Clock;
}

/** Options of {@linkcode listen}. */
export interface ListenOptions extends ListenerOptions {
  /** Closes the listener when it aborts; loops end in silence. */
  signal?: AbortSignal;
  /**
   * How many connections may wait in the kernel's queue, at least 1. The
   * kernel has a limit of its own (Linux: net.core.somaxconn).
   *
   * @default {65535}
   */
  backlog?: number;
  /**
   * Sets SO_REUSEPORT: several processes may share the port. Needs
   * `--unstable-net`.
   *
   * @default {false}
   */
  reusePort?: boolean;
}

/** More than any kernel allows, so as large as it allows. */
const MAX_BACKLOG = 65_535;
/** The back-off of Go's `net/http`: 5 ms, doubling, at most 1 s. */
const MIN_RETRY_MS = 5;
const MAX_RETRY_MS = 1_000;
/** After so many bad peers in a row everybody else gets a turn. */
const PEER_BURST = 64;

/**
 * Binds an address and listens on it.
 *
 * The address is Go's: `host:port`, `:port` or `""` for all addresses of this
 * host (IPv4 and IPv6, where there is IPv6), `[::1]:port`, a service name as
 * the port, port 0 for one that is free. A host name binds its first IPv4
 * address, else its first. With "unix" it is a path, and the file goes when the
 * listener closes; `@name` is Linux's abstract namespace.
 *
 * "tcp6" on all addresses accepts IPv6 peers only: Deno cannot set
 * IPV6_V6ONLY, so IPv4 peers are accepted by the kernel and closed unseen.
 *
 * Everything is checked before a name is looked up, and before a socket is
 * opened: network, host and port, port, host, family.
 *
 * @param network `"tcp"`, `"tcp4"`, `"tcp6"` or `"unix"`.
 * @param address Where to listen.
 * @param options See {@linkcode ListenOptions}.
 * @returns The listener. The caller closes it.
 * @throws {OpError} With op "listen": EADDRINUSE, EADDRNOTAVAIL, EACCES, a
 * missing permission (the message names the flag), or a cause of
 * {@linkcode AddrError}, {@linkcode DnsError}, {@linkcode UnknownNetworkError}.
 * @throws {TypeError} If an option has the wrong type.
 * @throws {RangeError} If `backlog` is no positive integer.
 * @throws {AbortSignal["reason"]} If `options.signal` has aborted.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * await using client = await dial("tcp", String(listener.addr));
 * await using server = await listener.accept();
 * assertEquals(String(server.remoteAddr), String(client.localAddr));
 * ```
 */
export async function listen(
  network: Network,
  address: string,
  options: ListenOptions = {},
): Promise<Listener> {
  const { signal, backlog = MAX_BACKLOG, reusePort = false } = options;
  checkOptions(options);
  if (typeof network !== "string") throw new TypeError("network is no string");
  if (typeof address !== "string") throw new TypeError("address is no string");
  if (!Number.isInteger(backlog) || backlog < 1) {
    throw new RangeError(`backlog is no positive integer: ${backlog}`);
  }
  signal?.throwIfAborted();
  if (reusePort && !("listenDatagram" in Deno)) {
    // Deno ends the process instead of throwing, so it must not be asked.
    throw new OpError({
      op: "listen",
      network,
      reason: "reusePort: run again with --unstable-net",
    });
  }
  const bound = await bind(network, address, {
    signal: signal ?? new AbortController().signal,
    backlog: Math.min(backlog, MAX_BACKLOG),
    reusePort,
  });
  const listener = fromBound(bound, options);
  if (signal) closeOnAbort(listener, signal);
  return listener;
}

let fromBound: (bound: Bound, options: ListenerOptions) => Listener;
let closeOnAbort: (listener: Listener, signal: AbortSignal) => void;

/** Whose time counts for a listener. Not public. */
export let clockOf: (listener: Listener) => Clock;

/**
 * A listening socket. {@linkcode listen} makes it; `new Listener(inner)` makes
 * one of any `Deno.Listener`: a TLS one, too.
 *
 * `for await (const conn of listener)` accepts until it is closed. It never
 * throws because of a peer.
 */
export class Listener implements AsyncIterable<Conn>, AsyncDisposable {
  static {
    clockOf = (listener) => listener.#clock;
    fromBound = ({ inner, ipv6Only }, options) => {
      const listener = new Listener(inner, options);
      listener.#ipv6Only = ipv6Only;
      return listener;
    };
    closeOnAbort = (listener, signal) => {
      const unfollow = onAbort(signal, () => void listener.close());
      listener.#unfollow = unfollow;
    };
  }

  /** Where it listens; IPv4 and IPv6 on all addresses is `[::]:port`. */
  readonly addr: Addr;
  readonly #inner: Deno.Listener;
  readonly #options: ListenerOptions;
  readonly #clock: Clock;
  readonly #callers = new Queue<AcceptCall>();
  readonly #retry: Alarm;
  #ipv6Only = false;
  #unfollow: (() => void) | null = null;
  /** The accept under way, settled when it is over; one at most. */
  #pending: Promise<void> | null = null;
  /** The caller of the pending accept has gone, and it is unref'd. */
  #stale = false;
  #refd = true;
  /** A connection whose caller had gone. */
  #spare: Conn | null = null;
  #closing: Promise<void> | null = null;
  /** Bad peers since the last good one. */
  #badPeers = 0;
  /** What to wait after the next capacity error; 0 outside of an episode. */
  #retryMs = 0;
  readonly #onConn = (inner: Deno.Conn): void => this.#accepted(inner);
  readonly #onFailure = (error: unknown): void => this.#failed(error);

  /**
   * Takes over a listener; from now on only this object may use it.
   *
   * @param inner Any `Deno.Listener`. Closing this object closes it.
   * @param options See {@linkcode ListenerOptions}.
   * @throws {TypeError} If an option has the wrong type.
   */
  constructor(inner: Deno.Listener, options: ListenerOptions = {}) {
    checkOptions(options);
    this.#inner = inner;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#retry = new Alarm(this.#clock, () => this.#pump(), true);
    this.addr = toAddr(inner.addr);
  }

  /**
   * Accepts the next connection. Callers are served first come first served.
   *
   * Cancellation: an abort takes the caller out of the line. No connection is
   * lost: one that comes for a caller who has gone is the next caller's.
   *
   * @param options `signal` ends the wait.
   * @returns A connection. The caller closes it.
   * @throws {OpError} Only when the listener is closed (see
   * {@linkcode isClosed}) or broken, which closes it.
   * @throws {AbortSignal["reason"]} If `signal` aborts.
   */
  accept(options?: { signal?: AbortSignal }): Promise<Conn> {
    const signal = options?.signal;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#closing) return Promise.reject(this.#closedError());
    if (this.#spare && this.#callers.head === null) {
      const conn = this.#spare;
      this.#spare = null;
      return Promise.resolve(conn);
    }
    return new Promise((resolve, reject) => {
      const call = new AcceptCall(resolve, reject);
      if (signal) {
        call.unfollow = onAbort(signal, () => this.#leave(call, signal));
      }
      this.#callers.push(call);
      if (this.#stale) this.#setStale(false);
      this.#pump();
    });
  }

  /**
   * Closes the listener: every waiting caller is told at once, loops end.
   * Accepted connections live on; those still in the kernel's queue are reset.
   * Idempotent.
   *
   * @returns Settles when the port can be bound again.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close(() => this.#closedError());
  }

  /**
   * Accepts until the listener is closed, which ends the iteration in silence;
   * so does a signal. `break` closes the listener.
   *
   * @returns An iterator over accepted connections.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Conn> {
    return {
      next: () =>
        this.accept().then(
          (value) => ({ done: false, value }),
          (error): IteratorResult<Conn, undefined> => {
            if (isClosed(error)) return { done: true, value: undefined };
            throw error;
          },
        ),
      return: async (value) => {
        await this.close();
        return { done: true, value };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** An accept that waits keeps the process alive: the default. */
  ref(): void {
    this.#refd = true;
    if (!this.#stale) this.#inner.ref();
  }

  /** The process may end although an accept waits. */
  unref(): void {
    this.#refd = false;
    this.#inner.unref();
  }

  /** {@linkcode close} */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Starts an accept if a caller waits and none is under way. */
  #pump(): void {
    if (this.#pending || this.#closing || this.#callers.head === null) return;
    if (this.#retry.at !== Infinity) return;
    this.#pending = this.#inner.accept().then(this.#onConn, this.#onFailure);
  }

  #accepted(inner: Deno.Conn): void {
    this.#pending = null;
    if (this.#closing) return inner.close();
    this.#retryMs = 0;
    const conn = this.#admit(inner);
    if (conn !== null) {
      this.#badPeers = 0;
      if (this.#callers.head === null) this.#spare = conn;
      else this.#callers.shift().resolve(conn);
    }
    this.#pump();
  }

  /** Prepares a connection; `null` if it is not for the caller. */
  #admit(inner: Deno.Conn): Conn | null {
    const { noDelay = true, keepAlive = true } = this.#options;
    const conn = new Conn(inner, { clock: this.#clock });
    try {
      if (noDelay) conn.setNoDelay(true);
      if (keepAlive) conn.setKeepAlive(true);
    } catch (error) {
      // The peer has reset it already (EINVAL on macOS).
      conn.close();
      this.#badPeer(error);
      return null;
    }
    if (!this.#ipv6Only || isIpv6(inner.remoteAddr)) return conn;
    conn.close();
    return null;
  }

  #failed(error: unknown): void {
    this.#pending = null;
    if (this.#closing) return;
    switch (acceptErrorKind(error)) {
      case "peer":
        this.#badPeer(error);
        return this.#pump();
      case "capacity":
        return this.#backOff(error);
      case "closed": // by somebody who has the inner listener
        this.#closing = this.#close(() => this.#closedError());
        return;
      case "fatal": {
        const broken = this.#error(error);
        this.#closing = this.#close(() => broken);
      }
    }
  }

  #badPeer(error: unknown): void {
    this.#report(error, "peer", 0);
    if (++this.#badPeers % PEER_BURST === 0) this.#retry.setIn(0);
  }

  #backOff(error: unknown): void {
    if (this.#retryMs === 0) {
      this.#retryMs = MIN_RETRY_MS;
      this.#report(error, "capacity", MIN_RETRY_MS);
    }
    if (this.#callers.head) this.#retry.setIn(this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, MAX_RETRY_MS);
  }

  #report(cause: unknown, kind: AcceptErrorEvent["kind"], retryMs: number) {
    const { onAcceptError } = this.#options;
    if (!onAcceptError) return;
    try {
      onAcceptError({ error: this.#error(cause), kind, retryMs });
    } catch (thrown) {
      console.error("switchboard: onAcceptError failed:", thrown);
    }
  }

  /** A caller has lost interest. */
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
    if (stale) this.#inner.unref();
    else this.#inner.ref();
  }

  /** `why` makes the error of each caller that waits. */
  async #close(why: () => OpError): Promise<void> {
    this.#unfollow?.();
    this.#retry.clear();
    while (this.#callers.head) this.#callers.shift().reject(why());
    this.#spare?.close();
    this.#spare = null;
    try {
      this.#inner.close();
    } catch (error) {
      // Somebody closed it behind our back; it is closed, as was asked.
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
    // Until it has settled the port is not free.
    await this.#pending;
  }

  #closedError(): OpError {
    return this.#error(new ClosedError());
  }

  #error(cause: unknown): OpError {
    const { addr } = this;
    return new OpError({ op: "accept", network: addr.transport, addr, cause });
  }
}

/** One accept() that waits. */
class AcceptCall implements Link<AcceptCall> {
  next: AcceptCall | null = null;
  unfollow: (() => void) | null = null;
  readonly #resolve: (conn: Conn) => void;
  readonly #reject: (error: unknown) => void;

  constructor(
    resolve: (conn: Conn) => void,
    reject: (error: unknown) => void,
  ) {
    this.#resolve = resolve;
    this.#reject = reject;
  }

  resolve(conn: Conn): void {
    this.unfollow?.();
    this.#resolve(conn);
  }

  reject(error: unknown): void {
    this.unfollow?.();
    this.#reject(error);
  }
}

/** Whether a peer of a dual-stack socket came over IPv6. */
function isIpv6(addr: Deno.Addr): boolean {
  return addr.transport === "tcp" && addr.hostname.includes(":") &&
    !addr.hostname.startsWith("::ffff:");
}

function checkOptions(options: ListenerOptions & ListenOptions): void {
  for (const name of ["noDelay", "keepAlive", "reusePort"] as const) {
    const value: unknown = options[name];
    if (value !== undefined && typeof value !== "boolean") {
      throw new TypeError(`${name} is no boolean`);
    }
  }
  const { onAcceptError }: { onAcceptError?: unknown } = options;
  if (onAcceptError !== undefined && typeof onAcceptError !== "function") {
    throw new TypeError("onAcceptError is no function");
  }
}
