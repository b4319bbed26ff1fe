/**
 * The writing half of a connection.
 *
 * A pending write of the platform cannot be cancelled, may take fewer bytes
 * than given, and sends whatever the caller's buffer holds when the kernel has
 * room. So there is at most one operation, and three ways to feed it:
 *
 * - Small writes are gathered: all that are issued in one tick are copied into
 *   one piece of at most 64 KiB, and leave together.
 * - A large write that nothing can abandon goes out in place, 1 MiB at a time
 *   (2.6 × faster than in 64 KiB pieces). Large is 64 KiB: such a write fills a
 *   piece, so there is nothing that it could be gathered with.
 * - A large write that a signal or a deadline may abandon goes out in pieces
 *   of our own memory, so that its caller can have the buffer back at once and
 *   no more than one piece follows.
 *
 * A deadline that is set while a write goes out in place is too late: if it
 * passes, the connection ends, or what is the caller's again would be sent.
 *
 * Invariants: the queue holds the jobs in the order of their calls; bytes `done
 * … taken` of each are in the piece under way; an abandoned job ends there.
 *
 * @module
 */

import { discard } from "./calls.ts";
import { Deadline } from "./deadline.ts";
import { DeadlineExceededError } from "./errors.ts";
import { giveMemory, takeCopyMemory } from "./pool.ts";
import { Queue } from "./queue.ts";
import { countEnded } from "./stall.ts";
import { badCount, type Half, isCount, type Wire } from "./wire.ts";
import type { WriteJob } from "./write_calls.ts";

/** How much may still go out after its write was abandoned. */
export const PIECE = 64 * 1024;

/**
 * How much goes out in place at once. The kernel takes less by itself; other
 * kinds of Deno.Conn may take everything, and report nothing before the end.
 */
const IN_PLACE = 1024 * 1024;

/** Up to so many calls that fail together get an error each. */
const OWN_ERRORS = 16;

/** What may wait for a TLS handshake: with 64 KiB a reset makes Deno panic. */
const EARLY = 32 * 1024;

const SETTLED = Promise.resolve();

/**
 * Those with something to write when this tick ends. One promise job for all of
 * them saves 1 % with 64 busy connections.
 */
let due: WriteHalf[] = [];

function writeDue(): void {
  const halves = due;
  due = [];
  for (const half of halves) half.begin();
}

/** Writes with one queue and one operation; see the top of this file. */
export class WriteHalf implements Half {
  /** Whether FIN has been sent, or waits behind the last write. */
  finished = false;
  readonly #wire: Wire;
  #jobs = new Queue<WriteJob>();
  #deadline: Deadline | null = null;
  #pending = false;
  #scheduled = false;
  /** What is under way, in the pool's memory or a caller's. */
  #piece: Uint8Array | null = null;
  #memory: Uint8Array<ArrayBuffer> | null = null;
  /** Its size if it goes out in place, and to abandon it is to close; or 0. */
  #inPlace = 0;
  /** How much may go out at once: little until a TLS handshake is over. */
  #most: number;
  /** Socket options that have to wait until no operation is under way. */
  #deferred: Map<string, () => void> | null = null;
  readonly #onWritten = (n: number): void => this.#written(n);
  readonly #onFailure = (error: unknown): void => this.#failed(error);

  /** Starts no operation before the first call. */
  constructor(wire: Wire) {
    this.#wire = wire;
    this.#most = "handshake" in wire.inner ? EARLY : IN_PLACE;
    wire.writer = this;
  }

  /** Fails calls that wait too long; made on first use. */
  get deadline(): Deadline {
    return this.#deadline ??= new Deadline(
      this.#wire.clock,
      () => this.#expire(),
    );
  }

  /** Whether a deadline may end a call that waits. */
  get abandonable(): boolean {
    return this.#deadline !== null && this.#deadline.armed;
  }

  /** Whether a call waits. */
  get waiting(): boolean {
    return this.#jobs.head !== null;
  }

  /** Why a call must fail before it sends anything; `null` if it need not. */
  refusal(op: "write" | "close" = "write"): Error | null {
    if (this.#wire.closed) return this.#wire.closedError(op, 0);
    // As in Go: a FIN alone waits for nothing, so no deadline applies to it.
    const waits = op === "write" || this.waiting;
    if (waits && this.#deadline?.passed) return this.#timeout(op, 0);
    if (!this.finished || op === "close") return null;
    const cause = new Deno.errors.BrokenPipe("broken pipe");
    return this.#wire.error(op, cause, 0);
  }

  /** Queues a job; small ones start at the end of the tick. */
  add(job: WriteJob): void {
    this.#jobs.push(job);
    this.#deadline?.watch();
    if (this.#pending || this.#scheduled) return;
    if (job.owned || job.bytes === null || job.end >= PIECE) {
      this.#next();
    } else {
      this.#scheduled = true;
      if (due.push(this) === 1) SETTLED.then(writeDue);
    }
  }

  /** The tick is over: what has been gathered goes out. */
  begin(): void {
    this.#scheduled = false;
    if (!this.#pending) this.#next();
  }

  /**
   * Sets a socket option once no write is pending: until then Deno cannot get
   * at the socket ("Unable to get resources"). The last of each kind counts.
   */
  whenIdle(kind: string, set: () => void): void {
    if (!this.#pending) return set();
    (this.#deferred ??= new Map()).set(kind, set);
  }

  /** Takes a job back, except for what is under way. */
  abandon(job: WriteJob, error: unknown): void {
    if (job.taken === job.done) this.#jobs.remove(job);
    job.giveUp(error);
  }

  /** See {@linkcode Half}. */
  close(): void {
    this.#deadline?.clear();
    if (this.#jobs.head === null) return;
    const fail = this.#failing((op, done) => this.#wire.closedError(op, done));
    while (this.#jobs.head) fail(this.#jobs.shift());
  }

  /** Starts an operation for the head of the queue. */
  #next(): void {
    let job = this.#jobs.head;
    while (job?.detached) {
      this.#jobs.shift();
      job.reject(new TypeError("p was detached before it was written"));
      job = this.#jobs.head;
    }
    if (job === null) return;
    this.#pending = true;
    if (job.bytes === null) {
      job.taken = 1;
      this.#sendFin().then(() => this.#finSent(), this.#onFailure);
      return;
    }
    const rest = job.end - job.done;
    const abandonable = job.signal !== null || this.abandonable;
    const most = abandonable ? Math.min(this.#most, PIECE) : this.#most;
    if (job.owned || (rest >= PIECE && most > PIECE)) {
      const size = Math.min(rest, most);
      job.taken = job.done + size;
      this.#inPlace = job.owned && size <= PIECE ? 0 : size;
      this.#write(job.part());
    } else this.#write(this.#gather(job));
  }

  /** An odd Deno.Conn may throw here, or return nothing. */
  async #sendFin(): Promise<void> {
    const { inner, sendError } = this.#wire;
    // The runtime takes the kernel's refusal (ENOTCONN) for success.
    if (sendError !== null) throw sendError;
    await inner.closeWrite();
  }

  #write(piece: Uint8Array): void {
    this.#piece = piece;
    try {
      this.#wire.inner.write(piece).then(this.#onWritten, this.#onFailure);
    } catch (error) {
      // Only an odd Deno.Conn gets here; the others must still get their turn.
      Promise.reject(error).catch(this.#onFailure);
    }
  }

  /** Copies as much of the queue as fits in one piece. */
  #gather(head: WriteJob): Uint8Array {
    let size = 0;
    for (let job: WriteJob | null = head; job?.shareable; job = job.next) {
      size += job.end - job.done;
      if (size > PIECE) break;
    }
    size = Math.min(size, PIECE, this.#most);
    const memory = takeCopyMemory(size);
    let at = 0;
    for (let job = head; at < size; job = job.next!) {
      const n = Math.min(job.end - job.done, size - at);
      job.taken = job.done + n;
      memory.set(job.part(), at);
      at += n;
    }
    this.#memory = memory;
    return memory.length === size ? memory : memory.subarray(0, size);
  }

  #written(n: number): void {
    countEnded();
    this.#most = IN_PLACE;
    // What is in place may have been transferred: it has no length then.
    const size = this.#inPlace || this.#piece!.length;
    if (!this.#wire.closed) {
      if (!isCount(n, size)) return this.#failed(badCount("write", n));
      this.#wire.sent();
      // A job that settles may add the next one, or close the connection.
      this.#settle(n);
    }
    if (n < size && !this.#inPlace && !this.#wire.closed) {
      this.#write(this.#piece!.subarray(n));
    } else this.#idle();
  }

  /** The operation is over. */
  #idle(): void {
    if (this.#memory) giveMemory(this.#memory);
    this.#memory = this.#piece = null;
    this.#pending = false;
    this.#inPlace = 0;
    if (this.#deferred !== null) this.#setDeferred(this.#deferred);
    if (!this.#pending) this.#next(); // a setter may have led to a write
  }

  #setDeferred(deferred: Map<string, () => void>): void {
    this.#deferred = null;
    for (const set of deferred.values()) {
      if (this.#wire.closed) return;
      try {
        set();
      } catch {
        // Reset meanwhile (EINVAL on macOS): the next read or write fails.
      }
    }
  }

  /** Credits the `n` bytes that the kernel took to the jobs they came from. */
  #settle(n: number): void {
    let job = this.#jobs.head;
    while (n > 0 && job !== null) {
      const part = Math.min(n, job.taken - job.done);
      job.done += part;
      n -= part;
      if (job.done < job.end) return;
      this.#jobs.shift();
      if (!job.abandoned) job.resolve();
      job = this.#jobs.head;
    }
  }

  #finSent(): void {
    if (!this.#wire.closed) {
      const job = this.#jobs.shift();
      if (!job.abandoned) job.resolve();
    }
    this.#idle();
  }

  /** Fails every job that was under way; the next one finds out for itself. */
  #failed(error: unknown): void {
    countEnded();
    let job = this.#jobs.head;
    const op = job?.bytes === null ? "close" : "write";
    this.#wire.writeFailed(error);
    while (job !== null && job.taken > 0) {
      this.#jobs.shift();
      if (!job.abandoned) job.reject(this.#wire.error(op, error, job.done));
      job = this.#jobs.head;
    }
    this.#idle();
  }

  #timeout(op: "write" | "close", done: number): Error {
    return this.#wire.error(op, new DeadlineExceededError(), done);
  }

  /**
   * What fails the calls that wait. If they are many, as a slow reader's are,
   * those of which nothing is out share an error: one each, with the stack of
   * its caller, takes 40 us.
   */
  #failing(
    errorOf: (op: "write" | "close", done: number) => Error,
  ): (job: WriteJob) => void {
    const many = this.#jobs.isLongerThan(OWN_ERRORS);
    let shared: Error | undefined;
    return (job) => {
      if (job.abandoned) return;
      const op = job.bytes ? "write" : "close";
      const alike = many && op === "write" && job.done === 0;
      const error = alike ? shared ??= errorOf(op, 0) : errorOf(op, job.done);
      job.giveUp(error, many);
    };
  }

  #expire(): void {
    const fail = this.#failing((op, done) => this.#timeout(op, done));
    const jobs = this.#jobs;
    this.#jobs = new Queue();
    while (jobs.head) {
      const job = jobs.shift();
      if (job.taken > job.done) this.#jobs.push(job);
      fail(job);
    }
    if (this.#inPlace) discard(this.#wire);
  }
}
