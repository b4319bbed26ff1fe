import { failCall, onAbort, tolerate } from "./calls.ts";
import { takeSignal } from "./check.ts";
import {
  type Conn,
  type IoOptions,
  readerOf,
  wireOf,
  writerOf,
} from "./conn.ts";
import { OpError } from "./errors.ts";
import { closeForGood } from "./linger.ts";
import { MAX_SIZE } from "./pool.ts";
import type { ReadHalf, ReadWaiter } from "./read_half.ts";
import type { Watcher, Wire } from "./wire.ts";
import { WriteJob } from "./write_calls.ts";
import { PIECE, type WriteHalf } from "./write_half.ts";

/**
 * Copies from one connection to another until EOF. Neither is closed, and EOF
 * is not passed on; see {@linkcode copyBidirectional} for that.
 *
 * The bytes are read into the library's memory and written from there, without
 * a copy, one piece at a time: a slow receiver slows the sender (backpressure).
 * `copy(conn, conn)` is an echo server. The copy ends when either connection is
 * closed, or times out as idle in {@linkcode serve}, even while the copy waits
 * for the other one.
 *
 * @param from The source; its read deadline applies. Nobody else should read
 * from it meanwhile: if the copy ends early, a piece whose write has not begun
 * is there for the next read only if no other read waits already.
 * @param to The destination; its write deadline applies. If that is set while a
 * large piece is under way, and passes, the connection ends.
 * @param options See {@linkcode IoOptions}. After an abort, what is under way
 * (at most 64 KiB) is still written, and the rest can still be read.
 * @returns How many bytes were copied.
 * @throws {TypeError} If either is not a {@linkcode Conn}.
 * @throws {OpError} From the side that failed: its op is "read" or "write", its
 * `bytesWritten` that of the last piece.
 * @throws {AbortSignal["reason"]} If `options.signal` aborts.
 *
 * @example An echo server
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { copy, dial, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * await using client = await dial("tcp", String(listener.addr));
 * await using server = await listener.accept();
 *
 * await client.write(new TextEncoder().encode("hello"));
 * await client.closeWrite();
 * assertEquals(await copy(server, server), 5);
 * ```
 */
export function copy(
  from: Conn,
  to: Conn,
  options?: IoOptions,
): Promise<number> {
  try {
    const signal = takeSignal(options);
    if (signal?.aborted) return tolerate(Promise.reject(signal.reason));
    return new Pump(from, to, signal).start();
  } catch (error) {
    return Promise.reject(error);
  }
}

/**
 * Copies both ways between two connections, as a proxy does, until both sides
 * are done: EOF from one is passed on to the other as FIN, while the opposite
 * direction goes on. If anything fails, or `signal` aborts, both are closed,
 * since half a conversation is useless. A side that is still up then sees EOF,
 * as after a normal end. If it was a write that found its peer gone, what that
 * peer had sent before, such as why it takes no more, goes through first.
 *
 * A FIN does not tell a peer that has closed from one that waits for an answer.
 * So if the other side never ends, neither does this: set the `idleTimeout` of
 * a server that one of them belongs to.
 *
 * @param a One side.
 * @param b The other side.
 * @param options See {@linkcode IoOptions}.
 * @returns How many bytes went from `a` to `b` and from `b` to `a`. The caller
 * closes both.
 * @throws {TypeError} If either is not a {@linkcode Conn}; neither is closed.
 * @throws {OpError} The first failure; both connections are closed.
 * @throws {AbortSignal["reason"]} If `options.signal` aborts.
 *
 * @example A proxy's handler
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { copyBidirectional, dial, listen, serve } from "@switchboard/tcp";
 *
 * await using backend = serve(
 *   await listen("tcp", "127.0.0.1:0"),
 *   (conn) => conn.write(new TextEncoder().encode("hi")),
 * );
 * await using proxy = serve(
 *   await listen("tcp", "127.0.0.1:0"),
 *   async (conn) => {
 *     await using upstream = await dial("tcp", String(backend.addr));
 *     await copyBidirectional(conn, upstream);
 *   },
 *   { idleTimeout: 300_000 },
 * );
 * await using client = await dial("tcp", String(proxy.addr));
 * await client.closeWrite();
 * assertEquals(await new Response(client.readable).text(), "hi");
 * ```
 */
export function copyBidirectional(
  a: Conn,
  b: Conn,
  options?: IoOptions,
): Promise<[number, number]> {
  return tolerate(copyBoth(a, b, options));
}

async function copyBoth(
  a: Conn,
  b: Conn,
  options?: IoOptions,
): Promise<[number, number]> {
  wireOf(a);
  wireOf(b); // nothing is closed if one of them is not a Conn
  const signal = takeSignal(options);
  const close = () => {
    for (const conn of [a, b]) tolerate(closeForGood(conn));
  };
  // A FIN takes no signal, and it may be stuck behind others' writes.
  const unfollow = signal && onAbort(signal, close);
  try {
    signal?.throwIfAborted();
    return await bothWays(a, b);
  } catch (error) {
    close();
    throw signal?.aborted ? signal.reason : error;
  } finally {
    unfollow?.();
  }
}

async function bothWays(a: Conn, b: Conn): Promise<[number, number]> {
  const ways = [copyThenFin(a, b), copyThenFin(b, a)] as const;
  try {
    return await Promise.all(ways);
  } catch (error) {
    // A peer that is gone may have said why. That way ends by itself, in EOF or
    // in the reset. (After a read that found its peer gone, nothing is left.)
    const gone = wireOf(a).sendError ?? wireOf(b).sendError;
    const writing = error instanceof OpError && error.op === "write";
    if (writing && gone) await Promise.allSettled(ways);
    throw error;
  }
}

async function copyThenFin(from: Conn, to: Conn): Promise<number> {
  const n = await copy(from, to);
  // A FIN may be stuck behind others' writes; the end of `from` ends that, too.
  const { promise: ended, reject } = Promise.withResolvers<never>();
  const watcher: Watcher = {
    over: (wire, cause) => reject(wire.error("read", cause)),
  };
  tolerate(ended); // closeWrite() may throw
  wireOf(from).watch(watcher);
  try {
    await Promise.race([to.closeWrite(), ended]);
  } finally {
    wireOf(from).unwatch(watcher);
  }
  return n;
}

/**
 * One copy under way. It waits in the queues of both halves itself, by turns:
 * with no promise per piece, an echo keeps its raw speed.
 */
class Pump implements ReadWaiter, Watcher {
  next: ReadWaiter | null = null;
  before: ReadWaiter | null = null;
  readonly most = MAX_SIZE;
  readonly #reader: ReadHalf;
  readonly #from: Conn;
  readonly #to: Conn;
  /** Made for the first piece: most connections are idle, and need none. */
  #writer: WriteHalf | null = null;
  readonly #result = Promise.withResolvers<number>();
  readonly #signal: AbortSignal | null;
  readonly #unfollow: (() => void) | null = null;
  #over = false;
  #job: WriteJob | null = null;
  #piece: Uint8Array<ArrayBuffer> | null = null;
  #copied = 0;

  constructor(from: Conn, to: Conn, signal: AbortSignal | undefined) {
    this.#reader = readerOf(from);
    wireOf(to); // nothing is read if it is not a Conn
    this.#from = from;
    this.#to = to;
    this.#signal = signal ?? null;
    if (signal) {
      this.#unfollow = onAbort(signal, () => this.#stop(signal.reason));
    }
  }

  /** Copies; resolves to the number of bytes. */
  start(): Promise<number> {
    // While it waits for one connection, the other one may be closed.
    if (this.#from !== this.#to) {
      wireOf(this.#from).watch(this);
      if (!this.#over) wireOf(this.#to).watch(this);
    }
    if (!this.#over) this.#pull();
    return this.#result.promise;
  }

  over(wire: Wire, cause: Error): void {
    const op = wire === wireOf(this.#from) ? "read" : "write";
    this.#stop(wire.error(op, cause, 0));
  }

  #pull(): void {
    const refusal = this.#reader.refusal();
    if (refusal) this.fail(refusal);
    else this.#reader.wait(this);
  }

  ready(reader: ReadHalf): void {
    if (reader.unread === 0) {
      this.#end();
      return this.#result.resolve(this.#copied);
    }
    const writer = this.#writer ??= writerOf(this.#to);
    const refusal = writer.refusal();
    // The bytes stay where they are, for whoever reads next.
    if (refusal) return this.fail(refusal);
    // After an abort the piece still goes out whole, so it must be small.
    const abandonable = this.#signal !== null || writer.abandonable;
    this.#piece = reader.lend(abandonable ? PIECE : MAX_SIZE);
    this.#job = new WriteJob(this.#piece, this, true);
    writer.add(this.#job);
  }

  fail(error: unknown): void {
    if (this.#over) return; // stopped with a piece under way
    this.#end();
    failCall(this.#result, error, this.#signal);
  }

  /** A piece is out. */
  resolve(n: number): void {
    this.#copied += n;
    this.#reader.giveBack(this.#piece!);
    this.#piece = this.#job = null;
    if (!this.#over) this.#pull();
  }

  /** A piece will not go out, or not all of it. */
  reject(error: unknown): void {
    // A piece whose write has not begun can be read again.
    this.#reader.takeBack(this.#piece!, this.#job!.taken);
    this.#piece = this.#job = null;
    this.fail(error);
  }

  #stop(error: unknown): void {
    const job = this.#job;
    // A piece that waits in the queue is taken back: if it failed there later,
    // nobody would learn of it.
    if (job?.taken === 0) return this.#writer!.abandon(job, error);
    if (job === null) this.#reader.abandon(this);
    this.fail(error);
  }

  #end(): void {
    this.#over = true;
    this.#unfollow?.();
    wireOf(this.#from).unwatch(this);
    wireOf(this.#to).unwatch(this);
  }
}
