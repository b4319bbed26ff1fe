import { type Addr, toAddr } from "./addr.ts";
import { forget } from "./calls.ts";
import { checkClock, checkStream } from "./check.ts";
import { type Clock, systemClock } from "./clock.ts";
import { errorCode } from "./errno.ts";
import { ClosedError, OpError } from "./errors.ts";
import { countOpen } from "./stall.ts";

/** One direction of a connection, as far as its end is concerned. */
export interface Half {
  /** Fails all calls that wait; the wire is marked as closed by then. */
  close(): void;
}

/** Something that depends on a connection while it waits for another one. */
export interface Watcher {
  /** No call on `wire` can succeed any more, because of `cause`. */
  over(wire: Wire, cause: Error): void;
}

/**
 * The connection is lost, without a proper end: it was reset, or the kernel has
 * given up on it, with the last reason that ICMP gave (tcp(7), icmp(7)) or, in
 * IPv6, its routes (EINVAL: a blackhole, EPERM: IPsec). (EPIPE comes after the
 * peer's FIN, or our own.)
 */
const LOST: ReadonlySet<string | undefined> = new Set([
  "EACCES",
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "EINVAL",
  "ENETDOWN",
  "ENETUNREACH",
  "ENONET",
  "ENOPROTOOPT",
  "ENOTSUP",
  "EPERM",
  "EPROTO",
  "ETIMEDOUT",
]);

/** How the library itself makes a connection. */
export interface WireOptions {
  /** Time source. Default: that of the `Conn` inside, or the system's. */
  clock?: Clock;
  /** See {@linkcode Wire.plain}. */
  plain?: boolean;
}

/** What the two halves of a connection have in common. */
export class Wire {
  /** The platform's connection. */
  readonly inner: Deno.Conn;
  /** Time source. */
  readonly clock: Clock;
  /** Once true, always true; no call starts an operation any more. */
  closed = false;
  /**
   * Why no call can succeed any more: an idle timeout, or the end of the `Conn`
   * inside; after close(), its error, if anybody had to be told.
   */
  ended: Error | null = null;
  /**
   * It comes from the listener of listen(), or from `Deno.connect()`: what it
   * says about itself is true, and its close() sends all, then FIN. Others may
   * have to do something in their closeWrite() first.
   */
  readonly plain: boolean;
  /** It is being closed: an idle timeout no longer applies. */
  lingering = false;
  /**
   * Why the connection is lost, if a write has found out and no read yet. The
   * kernel says it once; without this the next read would get EOF.
   */
  untoldLoss: Error | null = null;
  /** Why nothing can be sent any more, if a call has found out. */
  sendError: Error | null = null;
  /** Called when bytes came or went. */
  activity: ((direction: "in" | "out") => void) | null = null;
  /** Called by close(). */
  onClose: (() => void) | null = null;
  /** The reading half, once somebody has read. */
  reader: Half | null = null;
  /** The writing half, once somebody has written. */
  writer: Half | null = null;
  /**
   * That of the `Conn` around this one (the last, should there be several):
   * bytes that leave here count there, too, and it ends with this one.
   */
  #around: Wire | null = null;
  #watchers: Set<Watcher> | null = null;
  #local: Addr | null = null;
  #remote: Addr | null = null;
  /** As they were at first: a `node:net` socket that is closed has none. */
  readonly #localAddr: Deno.Addr;
  readonly #remoteAddr: Deno.Addr;

  /**
   * @param inner The platform's connection.
   * @param inside The wire of `inner`, if that is a `Conn`.
   * @param options See {@linkcode WireOptions}.
   * @throws {TypeError} If it is not over TCP or a unix socket: without
   * addresses it could make no error later, not even a deadline's.
   */
  constructor(
    inner: Deno.Conn,
    inside: Wire | null,
    { clock, plain = false }: WireOptions,
  ) {
    // Each access to an address of the runtime's takes 0.7 µs: V8 has no shape
    // in store for these objects.
    if (!plain) checkStream(inner);
    checkClock(clock);
    this.plain = plain;
    this.#localAddr = inner.localAddr;
    this.#remoteAddr = inner.remoteAddr;
    this.inner = inner;
    this.clock = clock ?? inside?.clock ?? systemClock;
    countOpen(1);
    if (inside === null) return;
    inside.#around = this;
    this.ended = inside.#over;
  }

  /** Our address, made on first use; it stays valid after close. */
  get local(): Addr {
    return this.#local ??= toAddr(this.#localAddr);
  }

  /** The peer's address. */
  get remote(): Addr {
    return this.#remote ??= toAddr(this.#remoteAddr);
  }

  /** Closes both halves, then the platform's connection. Idempotent. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    countOpen(-1);
    this.onClose?.();
    this.reader?.close();
    this.writer?.close();
    if (this.#watchers?.size || this.#around) this.end(new ClosedError());
    try {
      forget(this.inner.close());
    } catch (error) {
      // Somebody closed it behind our back; it is closed, as was asked.
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }

  /** Tells `watcher` when this is over (maybe at once), until `unwatch()`. */
  watch(watcher: Watcher): void {
    const cause = this.#over;
    if (cause) watcher.over(this, cause);
    else (this.#watchers ??= new Set()).add(watcher);
  }

  /** See {@linkcode watch}. */
  unwatch(watcher: Watcher): void {
    this.#watchers?.delete(watcher);
  }

  /** All calls have failed because of `cause`, and so will later ones. */
  end(cause: Error): void {
    this.ended = cause;
    for (const watcher of this.#watchers ?? []) watcher.over(this, cause);
    this.#around?.end(cause);
  }

  /** Why no call can succeed any more; `null` if one can. */
  get #over(): Error | null {
    return this.closed ? new ClosedError() : this.ended;
  }

  /** Bytes went out. One write of the Conn around this one is many here. */
  sent(): void {
    this.activity?.("out");
    this.#around?.sent();
  }

  /** Notes the platform's error for a read. */
  readFailed(error: unknown): void {
    this.untoldLoss = null;
    if (LOST.has(errorCode(error))) this.sendError ??= error as Error;
  }

  /** Notes the platform's error for a write, or a FIN. */
  writeFailed(error: unknown): void {
    if (error === this.sendError) return; // a FIN, refused because of it
    const code = errorCode(error);
    if (LOST.has(code)) this.untoldLoss = this.sendError = error as Error;
    // The kernel also says EPIPE to all that comes after a reset.
    if (code === "EPIPE") this.sendError ??= error as Error;
  }

  /** Says what failed, where and why; both addresses, as in Go's `OpError`. */
  error(op: OpError["op"], cause: unknown, bytesWritten?: number): OpError {
    const { local, remote } = this;
    return new OpError({
      op,
      network: local.transport,
      source: local,
      addr: remote,
      cause,
      bytesWritten: op === "write" ? bytesWritten : undefined,
    });
  }

  /** The error of a call that comes after close(), or during it. */
  closedError(op: OpError["op"], bytesWritten?: number): OpError {
    return this.error(op, new ClosedError(), bytesWritten);
  }
}

/** Whether a Deno.Conn can have read or written `n` of `most` bytes. */
export function isCount(n: unknown, most: number): boolean {
  return Number.isInteger(n) && n as number > 0 && n as number <= most;
}

/** An odd Deno.Conn's count: if we believed it, we would ask again for ever. */
export function badCount(op: "read" | "write", n: unknown): Error {
  return new TypeError(`the connection's own ${op}() gave ${n}`);
}
