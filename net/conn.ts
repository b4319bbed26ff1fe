/**
 * The connection: all that `Deno.Conn` has, and what it lacks: deadlines, reads
 * and writes that can be cancelled without losing a byte, writes that write
 * everything, a close that can be called twice. Its two halves, read_half.ts
 * and write_half.ts, know nothing of each other.
 *
 * @module
 */

import type { Addr } from "./addr.ts";
import { failCall, tolerate } from "./calls.ts";
import { checkType, ioMisuse } from "./check.ts";
import type { Clock } from "./clock.ts";
import { deadlineTime } from "./deadline.ts";
import type { DialTrace } from "./dial_trace.ts";
import { ClosedError, OpError } from "./errors.ts";
import { chunksOf, ReadCall } from "./read_calls.ts";
import { ReadHalf } from "./read_half.ts";
import { readableOf, writableOf } from "./streams.ts";
import { Wire } from "./wire.ts";
import { WriteJob } from "./write_calls.ts";
import { WriteHalf } from "./write_half.ts";

/** Options of reads, writes and copies. */
export interface IoOptions {
  /**
   * When it aborts, the call rejects with `signal.reason`. What a read would
   * have got goes to the next one; of a write, the peer gets a prefix.
   */
  signal?: AbortSignal;
}

/** Options of `new Conn()`. */
export interface ConnOptions {
  /** Time source, for tests. Default: an inner `Conn`'s, or the system's. */
  clock?: Clock;
  /** What the dialer tried, if it was dialled; see {@linkcode DialTrace}. */
  dialTrace?: DialTrace;
}

/** What both halves share, for the library's own files. */
export let wireOf: (conn: Conn) => Wire;
/** The reading half, made on first use; not public either. */
export let readerOf: (conn: Conn) => ReadHalf;
/** The writing half, made on first use; not public either. */
export let writerOf: (conn: Conn) => WriteHalf;

/**
 * A connection. `dial()` and listeners return one; `new Conn(inner)` wraps any
 * `Deno.Conn`: TCP, TLS, unix, your own. It is a `Deno.Conn` itself and goes
 * wherever one is accepted, except for `Deno.startTls()`, which needs the
 * runtime's own, and Node's `Duplex.from()` (use `Duplex.fromWeb()`).
 *
 * All methods may be called at any time, and by several callers at once: reads
 * are served first come, first served, writes never interleave. `null` from a
 * read is EOF. Every failure of the network is an {@linkcode OpError}. A
 * subclass may show other addresses. To change the bytes, wrap a `Deno.Conn`:
 * `readable`, iteration and `copy()` go through neither `read()` nor `write()`.
 *
 * @example Echo one message, with a deadline
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * await using client = await dial("tcp", String(listener.addr));
 * await using server = await listener.accept();
 *
 * await client.write(new TextEncoder().encode("hello"));
 * server.setReadDeadline(Date.now() + 5_000);
 * const p = new Uint8Array(64);
 * const n = await server.read(p);
 * assertEquals(new TextDecoder().decode(p.subarray(0, n!)), "hello");
 * ```
 */
export class Conn
  implements Deno.Conn<Addr>, AsyncIterable<Uint8Array>, AsyncDisposable {
  static {
    const check = (conn: Conn): Conn => {
      if (conn instanceof Conn) return conn;
      throw new TypeError(
        "not a Conn: await dial(), or make one with new Conn(inner); for " +
          "streams use pipeTo()",
      );
    };
    wireOf = (conn) => check(conn).#wire;
    readerOf = (conn) => check(conn).#reader;
    writerOf = (conn) => check(conn).#writer;
  }

  /** What the dialer tried on the way to this connection, if it was dialled. */
  readonly dialTrace?: DialTrace;
  readonly #wire: Wire;
  #readHalf: ReadHalf | null = null;
  #writeHalf: WriteHalf | null = null;
  #fin: Promise<void> | null = null;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | null = null;
  #writable: WritableStream<Uint8Array> | null = null;

  /**
   * Takes over a connection; from now on only this object may use it.
   *
   * @param inner Any `Deno.Conn` over TCP or a unix socket, TLS included.
   * Closing this object closes it. One of your own must leave `p` alone once
   * its `read(p)` or `write(p)` has settled: other connections use that memory
   * then. In both, the context of `AsyncLocalStorage` may be another caller's.
   * @param options See {@linkcode ConnOptions}.
   * @throws {TypeError} If `inner` is anything else, or `clock` is not a clock.
   * @throws {Deno.errors.NotConnected} If it no longer has an address.
   */
  constructor(inner: Deno.Conn, options: ConnOptions = {}) {
    const inside = inner instanceof Conn ? inner.#wire : null;
    this.#wire = new Wire(inner, inside, options);
    if (options.dialTrace) this.dialTrace = options.dialTrace;
  }

  /** `"tcp"` or `"unix"`. */
  get network(): "tcp" | "unix" {
    return this.#wire.local.transport;
  }

  /** Our own address; valid after close, too. */
  get localAddr(): Addr {
    return this.#wire.local;
  }

  /** The peer's address; valid after close, too. */
  get remoteAddr(): Addr {
    return this.#wire.remote;
  }

  /**
   * Reads some of what there is, up to `p.length` bytes; waits only if there is
   * nothing. It may be less than has arrived: the first read gets 1 KiB, later
   * ones follow the traffic. A read of no bytes gets 0.
   *
   * Cancellation: a deadline or `signal` ends the wait, never the connection,
   * and no byte is lost. Once the promise has settled, `p` is not touched. Like
   * {@linkcode write}, it need not be awaited.
   *
   * @param p Where to put the bytes.
   * @param options See {@linkcode IoOptions}.
   * @returns How many bytes (> 0); `null` at EOF, or after a reported reset.
   * @throws {OpError} With a cause of {@linkcode DeadlineExceededError},
   * {@linkcode ClosedError}, or the platform's error (ECONNRESET).
   * @throws {AbortSignal["reason"]} If `signal` aborts.
   * @throws {TypeError} If `p` is not a Uint8Array, or transferred meanwhile.
   */
  read(p: Uint8Array, options?: IoOptions): Promise<number | null> {
    const misuse = ioMisuse(p, options);
    if (misuse) return Promise.reject(misuse);
    const signal = options?.signal;
    if (signal?.aborted) return tolerate(Promise.reject(signal.reason));
    const reader = this.#readHalf ?? this.#reader;
    // Go: zero bytes can be read past the deadline, but not after close.
    if (p.length > 0 || this.#wire.closed) {
      const refusal = reader.refusal();
      if (refusal) return tolerate(Promise.reject(refusal));
    }
    if (p.length === 0) return Promise.resolve(0);
    if (reader.ready) {
      return Promise.resolve(reader.unread > 0 ? reader.copyTo(p) : null);
    }
    const call = new ReadCall(p);
    if (signal) call.follow(reader, signal);
    reader.wait(call);
    return call.result.promise;
  }

  /**
   * Writes all of `p`. Writes go out in the order of the calls and never
   * interleave; small ones without an `await` between them leave together.
   *
   * Do not change `p` before the promise settles; afterwards it is yours. The
   * promise need not be awaited: a failure is not an unhandled rejection (a
   * wrong argument is). If the connection is lost, later writes fail, too. The
   * next read fails instead of returning EOF, unless the peer sent FIN first.
   *
   * Cancellation: a deadline or `signal` ends the wait. The peer gets a prefix
   * of what was written: at most 64 KiB that were already under way still go
   * out. A deadline that is first set after a write of 64 KiB or more, without
   * a `signal`, has begun ends the connection if it passes.
   *
   * @param p The bytes.
   * @param options See {@linkcode IoOptions}.
   * @returns `p.length`: the kernel has the bytes; the peer may never.
   * @throws {OpError} `bytesWritten` says how many bytes the kernel is known to
   * have taken; what was under way may be out, too. After closeWrite(): EPIPE.
   * @throws {AbortSignal["reason"]} If `signal` aborts.
   * @throws {TypeError} If `p` is not a Uint8Array, or transferred meanwhile.
   */
  write(p: Uint8Array, options?: IoOptions): Promise<number> {
    const misuse = ioMisuse(p, options);
    if (misuse) return Promise.reject(misuse);
    const signal = options?.signal;
    if (signal?.aborted) return tolerate(Promise.reject(signal.reason));
    const writer = this.#writeHalf ?? this.#writer;
    const refusal = writer.refusal();
    if (refusal) return tolerate(Promise.reject(refusal));
    if (p.length === 0) return Promise.resolve(0);
    const result = Promise.withResolvers<number>();
    const job = new WriteJob(p, result);
    if (signal) job.follow(writer, signal);
    writer.add(job);
    return result.promise;
  }

  /**
   * Sets both deadlines; see {@linkcode setReadDeadline}.
   *
   * @param t A Date, or milliseconds since the epoch; `null` for none.
   * @throws {Error} As {@linkcode setReadDeadline}.
   */
  setDeadline(t: Date | number | null): void {
    const at = this.#deadlineTime(t);
    this.#reader.deadline.set(at, this.#reader.waiting);
    this.#writer.deadline.set(at, this.#writer.waiting);
  }

  /**
   * Sets the time after which reads fail with an error for which
   * {@linkcode isTimeout} is true, pending ones as well as later ones. If the
   * time is in the past, they fail before any data is looked at. The connection
   * stays usable: move the deadline, and read on from where you were.
   *
   * @param t A Date, or milliseconds since the epoch; `null` for none, which is
   * the default. A step of the system clock moves it.
   * @throws {OpError} After close.
   * @throws {TypeError} If `t` is anything else.
   * @throws {RangeError} If `t` is NaN or an invalid Date.
   */
  setReadDeadline(t: Date | number | null): void {
    const at = this.#deadlineTime(t);
    this.#reader.deadline.set(at, this.#reader.waiting);
  }

  /**
   * Sets the time after which writes fail; otherwise like
   * {@linkcode setReadDeadline}.
   *
   * @param t A Date, or milliseconds since the epoch; `null` for none.
   * @throws {Error} As {@linkcode setReadDeadline}.
   */
  setWriteDeadline(t: Date | number | null): void {
    const at = this.#deadlineTime(t);
    this.#writer.deadline.set(at, this.#writer.waiting);
  }

  /**
   * Sends FIN after all that was written, and settles when it is out: the peer
   * reads EOF. You can still read. Idempotent; later writes fail with EPIPE.
   * Like {@linkcode write}, it need not be awaited.
   *
   * @throws {OpError} If the connection is closed, a call has found it lost, or
   * the write deadline passes before FIN is out (held up by earlier writes, or
   * a TLS handshake); the next call tries again.
   */
  closeWrite(): Promise<void> {
    const writer = this.#writer;
    if (this.#fin && !this.#wire.closed) return this.#fin;
    const refusal = writer.refusal("close");
    if (refusal) return tolerate(Promise.reject(refusal));
    writer.finished = true;
    const result = Promise.withResolvers<void>();
    const job = new WriteJob(null, {
      resolve: () => result.resolve(),
      reject: (error) => {
        this.#fin = null;
        // A FIN under way (TLS: until the handshake) still goes out.
        writer.finished = job.abandoned && job.taken > 0;
        failCall(result, error, null);
      },
    });
    this.#fin = result.promise;
    writer.add(job);
    return result.promise;
  }

  /**
   * Closes the connection at once. Pending calls reject with an error for which
   * {@linkcode isClosed} is true. Idempotent.
   *
   * What the kernel has taken goes out, then FIN; un-awaited writes may not. If
   * bytes from the peer are unread (a TLS 1.3 client that only sends has some:
   * session tickets), a reset follows, and the end of what we sent may be lost.
   * To avoid both, await `closeWrite()` and read to EOF (`handle()` does).
   */
  close(): void {
    this.#wire.close();
  }

  /**
   * The reading half as a byte stream. It reads only while somebody waits for
   * it: once its reader is released, what arrives is left to others. Cancelling
   * it closes the connection, unless it has ended or failed. Deadlines apply; a
   * stream that has failed stays failed. As with {@linkcode write}, calls on it
   * or its reader need not be awaited, except `pipeTo()` with `preventCancel`.
   */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#readable ??= readableOf(this, this.#reader);
  }

  /**
   * The writing half as a stream. Closing it does what {@linkcode closeWrite}
   * does; aborting it closes the connection, unless it is closed or has failed.
   * When the connection closes, a pipe from another one's {@linkcode readable}
   * ends. Deadlines apply. Chunks (at run time, ArrayBuffers and all views)
   * wait for their turn in the stream: await the last one before a handler
   * returns. Otherwise, as with {@linkcode write}, calls on it or its writer
   * need not be awaited.
   */
  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= writableOf(this, this.#wire);
  }

  /**
   * Iterates over the bytes as they arrive, until EOF. Each chunk is yours to
   * keep. `break` closes nothing: what comes next can still be read.
   *
   * @returns An iterator over chunks of at most 64 KiB (256 after large reads).
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array<ArrayBuffer>> {
    return chunksOf(this.#reader);
  }

  /**
   * Switches TCP_NODELAY on or off: whether small writes leave at once. A write
   * under way is finished first. `dial()` and listeners switch it on. No effect
   * on unix sockets and TLS.
   *
   * @param on Whether to send at once. @default {true}
   * @throws {OpError} After close.
   * @throws {TypeError} If `on` is not a boolean.
   */
  setNoDelay(on = true): void {
    this.#set("setNoDelay", on);
  }

  /**
   * Switches SO_KEEPALIVE on or off: whether the kernel probes a silent peer.
   * Otherwise like {@linkcode setNoDelay}.
   *
   * @param on Whether to probe. @default {true}
   * @throws {OpError} After close.
   * @throws {TypeError} If `on` is not a boolean.
   */
  setKeepAlive(on = true): void {
    this.#set("setKeepAlive", on);
  }

  /** Keeps the process alive while a read waits: the default. */
  ref(): void {
    this.#reader.setRef(true);
  }

  /** Lets the process end even while a read waits. */
  unref(): void {
    this.#reader.setRef(false);
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Closes the connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close(); // a subclass's own may be async
  }

  // Each half is made on first use: many connections need only one. The busiest
  // methods look at the field first: a getter costs an echo 1 %.
  get #reader(): ReadHalf {
    return this.#readHalf ??= new ReadHalf(this.#wire);
  }

  get #writer(): WriteHalf {
    return this.#writeHalf ??= new WriteHalf(this.#wire);
  }

  #deadlineTime(t: Date | number | null): number {
    const at = deadlineTime(t);
    if (!this.#wire.closed) return at;
    // As in Go, only our address: the peer has no part in a deadline.
    const { local: addr } = this.#wire;
    const cause = new ClosedError();
    throw new OpError({ op: "set", network: addr.transport, addr, cause });
  }

  #set(option: "setNoDelay" | "setKeepAlive", on: boolean): void {
    checkType("on", on, "boolean");
    if (this.#wire.closed) throw this.#wire.closedError("set");
    const inner = this.#wire.inner as Partial<Deno.TcpConn>;
    try {
      this.#writer.whenIdle(option, () => inner[option]?.(on));
    } catch (error) {
      throw this.#wire.error("set", error);
    }
  }
}
