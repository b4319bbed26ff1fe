/**
 * The reading half of a connection.
 *
 * A pending read of the platform cannot be cancelled: after a timeout it still
 * takes the next bytes, and nobody sees them. So there is at most one
 * operation, always into memory of our own, and callers wait in a queue. A
 * deadline or an abort takes a caller out of the queue and leaves the operation
 * alone: its bytes go to the next caller, and while nobody waits it is unref'd.
 * Copying a small message costs 25 ns; what needs no copy (iteration over large
 * chunks, copy()) borrows the memory instead.
 *
 * Invariants: `#start <= #end` bound the unread bytes of `#memory`; an
 * operation is pending only while there are none; callers wait only while
 * one is pending.
 *
 * @module
 */

import { Deadline } from "./deadline.ts";
import { DeadlineExceededError } from "./errors.ts";
import { giveMemory, GROWTH, MAX_SIZE, MIN_SIZE, takeMemory } from "./pool.ts";
import { type Link, Queue } from "./queue.ts";
import { countEnded } from "./stall.ts";
import { badCount, type Half, isCount, type Wire } from "./wire.ts";

/**
 * Operations up to this size are never made smaller for the caller's sake: one
 * may read a length of 4 bytes, and then what it says.
 */
const FAIR_SIZE = 16 * 1024;

/** A caller that waits for bytes. One of its methods is called, once. */
export interface ReadWaiter extends Link<ReadWaiter> {
  /**
   * The size of the largest operation that may be begun for it. What a fast
   * peer has sent the runtime reads at once, 128 operations in a row, and
   * callers are served from memory at once, too. Large operations for one that
   * takes lines of a few bytes would keep all others waiting for seconds.
   */
  readonly most: number;
  /** There is something to take from `half`: bytes, or EOF. */
  ready(half: ReadHalf): void;
  /** Nothing will come; `atOnce`: see {@linkcode failCall}. */
  fail(error: unknown, atOnce?: boolean): void;
}

/** Reads with one queue, one operation and memory sized to the traffic. */
export class ReadHalf implements Half {
  /** The peer's FIN has been read: nothing more will come. */
  eof = false;
  readonly #wire: Wire;
  readonly #waiters = new Queue<ReadWaiter>();
  #deadline: Deadline | null = null;
  #memory: Uint8Array<ArrayBuffer> | null = null;
  #start = 0;
  #end = 0;
  /** The last view of the memory's first bytes; see `#viewTo()`. */
  #head: Uint8Array<ArrayBuffer> | null = null;
  /** How many parts are lent out; if any, the next read takes new memory. */
  #loans = 0;
  /** The size of the memory for the next operation. */
  #size = MIN_SIZE;
  #pending = false;
  /** Nobody waits for the pending operation any more, and it is unref'd. */
  #stale = false;
  #refd = true;
  /** A failure that came when nobody waited; the next caller gets it. */
  #failure: { error: unknown } | null = null;
  readonly #onBytes = (n: number | null): void => this.#arrived(n);
  readonly #onFailure = (error: unknown): void => this.#failed(error);

  /** Starts no operation before the first call. */
  constructor(wire: Wire) {
    this.#wire = wire;
    wire.reader = this;
  }

  /** Fails calls that wait too long; made on first use. */
  get deadline(): Deadline {
    return this.#deadline ??= new Deadline(
      this.#wire.clock,
      () => this.#expire(),
    );
  }

  /** How many bytes can be taken without waiting. */
  get unread(): number {
    return this.#end - this.#start;
  }

  /** Whether a caller waits. */
  get waiting(): boolean {
    return this.#waiters.head !== null;
  }

  /** The callers that wait, in order. */
  get waiters(): ReadWaiter[] {
    const waiters: ReadWaiter[] = [];
    for (let at = this.#waiters.head; at !== null; at = at.next) {
      waiters.push(at);
    }
    return waiters;
  }

  /** Why a call must fail before it looks at data; `null` if it need not. */
  refusal(): Error | null {
    if (this.#wire.closed) return this.#wire.closedError("read");
    return this.#deadline?.passed ? this.#timeout() : null;
  }

  /** Whether a call can be answered without waiting. */
  get ready(): boolean {
    return this.#end > this.#start || this.eof;
  }

  /** Puts a caller at the end of the queue. */
  wait(waiter: ReadWaiter): void {
    this.#waiters.push(waiter);
    this.#serve();
  }

  /** Takes a caller out of the queue; no byte is lost. */
  abandon(waiter: ReadWaiter): void {
    this.#waiters.remove(waiter);
    this.#letGo();
  }

  /** Copies unread bytes to `p`; returns how many. */
  copyTo(p: Uint8Array): number {
    const n = Math.min(p.length, this.#end - this.#start);
    p.set(this.#viewTo(this.#start + n));
    this.#start += n;
    return n;
  }

  /**
   * Gives the unread bytes away for good. Full memory goes as it is. What is
   * not full is copied: the rest of it may hold what other connections have
   * read.
   */
  takeChunk(): Uint8Array<ArrayBuffer> {
    const memory = this.#memory!;
    const bytes = memory.subarray(this.#start, this.#end);
    this.#start = this.#end = 0;
    if (bytes.length < memory.length) return bytes.slice();
    this.#memory = this.#head = null;
    return bytes;
  }

  /** Lends the unread bytes, at most `limit`, until {@linkcode giveBack}. */
  lend(limit: number): Uint8Array<ArrayBuffer> {
    const view = this.#viewTo(Math.min(this.#end, this.#start + limit));
    this.#start += view.length;
    this.#loans++;
    return view;
  }

  /** Ends a loan. Memory replaced meanwhile does not become ours again. */
  giveBack(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#memory?.buffer !== bytes.buffer) return;
    if (--this.#loans === 0 && this.#wire.closed) this.#release();
  }

  /**
   * Revokes a loan: all but its first `used` bytes are unread again, unless
   * somebody has read on since, or waits. If any were used, a write may still
   * use them: the loan stays, and the memory is left to that write.
   */
  takeBack(bytes: Uint8Array<ArrayBuffer>, used: number): void {
    if (this.#memory?.buffer !== bytes.buffer) return;
    const end = bytes.byteOffset + bytes.length;
    if (this.#start === end) this.#start = bytes.byteOffset + used;
    if (used === 0) this.giveBack(bytes);
  }

  /** Sets whether operations keep the process alive while somebody waits. */
  setRef(refd: boolean): void {
    this.#refd = refd;
    if (this.#stale) return;
    if (refd) this.#wire.inner.ref?.();
    else this.#wire.inner.unref?.();
  }

  /** See {@linkcode Half}. */
  close(): void {
    this.#deadline?.clear();
    while (this.#waiters.head) {
      this.#waiters.shift().fail(this.#wire.closedError("read"));
    }
    if (!this.#pending && this.#loans === 0) this.#release();
  }

  #begin(): void {
    if (this.#size > FAIR_SIZE) this.#shrinkTo(this.#waiters.head!.most);
    if (this.#loans > 0 || this.#memory?.length !== this.#size) {
      this.#release();
      this.#memory = takeMemory(this.#size);
    }
    this.#pending = true;
    try {
      const read = this.#wire.inner.read(this.#memory!);
      read.then(this.#onBytes, this.#onFailure);
    } catch (error) {
      // Only an odd Deno.Conn gets here; whoever waits must still be told.
      Promise.reject(error).catch(this.#onFailure);
    }
  }

  #arrived(n: number | null): void {
    countEnded();
    this.#pending = false;
    if (this.#wire.closed) return this.#release();
    if (n !== null && !isCount(n, this.#memory!.length)) {
      return this.#failed(badCount("read", n));
    }
    if (n === null) {
      const { untoldLoss } = this.#wire;
      if (untoldLoss !== null) return this.#failed(untoldLoss);
      this.eof = true;
      this.#release();
    } else {
      this.#start = 0;
      this.#end = n;
      this.#adapt(n);
      this.#wire.activity?.("in");
    }
    this.#serve();
  }

  #failed(error: unknown): void {
    countEnded();
    this.#pending = false;
    this.#release();
    const { untoldLoss } = this.#wire;
    // TLS takes the EOF after a loss for a cut.
    const cut = error instanceof Deno.errors.UnexpectedEof;
    if (cut && untoldLoss !== null) error = untoldLoss;
    this.#wire.readFailed(error);
    this.#failure = { error };
    this.#serve();
  }

  #shrinkTo(most: number): void {
    while (this.#size > Math.max(most, FAIR_SIZE)) this.#size /= GROWTH;
  }

  /** A full read asks for more room; a nearly empty one gives some back. */
  #adapt(n: number): void {
    if (n === this.#size) {
      if (n < MAX_SIZE) this.#size = n * GROWTH;
    } else if (n * GROWTH * 2 < this.#size) {
      this.#size = Math.max(MIN_SIZE, this.#size / GROWTH);
    }
  }

  /** Hands out what there is, in order; reads on if somebody still waits. */
  #serve(): void {
    while (this.#waiters.head !== null) {
      if (this.#end > this.#start || this.eof) {
        this.#waiters.shift().ready(this);
      } else if (this.#failure) {
        const { error } = this.#failure;
        this.#failure = null;
        const waiter = this.#waiters.shift();
        waiter.fail(this.#wire.error("read", error), this.waiting);
      } else {
        this.#deadline?.watch(); // first: an odd read() may close us
        if (!this.#pending) this.#begin();
        if (this.#stale) {
          this.#stale = false;
          if (this.#refd) this.#wire.inner.ref?.();
        }
        return;
      }
    }
  }

  /** The unread bytes up to `to`; often as many as last time. */
  #viewTo(to: number): Uint8Array<ArrayBuffer> {
    const from = this.#start;
    if (from > 0) return this.#memory!.subarray(from, to);
    if (this.#head?.length !== to) this.#head = this.#memory!.subarray(0, to);
    return this.#head;
  }

  #timeout(): Error {
    return this.#wire.error("read", new DeadlineExceededError());
  }

  #expire(): void {
    while (this.#waiters.head) this.#waiters.shift().fail(this.#timeout());
    this.#letGo();
  }

  /** With nobody waiting, a pending operation must not hold the process. */
  #letGo(): void {
    if (!this.#pending || this.#waiters.head || this.#stale) return;
    this.#stale = true;
    if (this.#refd && !this.#wire.closed) this.#wire.inner.unref?.();
  }

  #release(): void {
    if (this.#memory && this.#loans === 0) giveMemory(this.#memory);
    this.#memory = this.#head = null;
    this.#loans = 0;
    this.#start = this.#end = 0;
  }
}
