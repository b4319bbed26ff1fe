import type { ReadHalf, ReadWaiter } from "./read_half.ts";
import { onAbort, reasonFirst } from "./wire.ts";

/** One read() that waits. */
export class ReadCall implements ReadWaiter {
  /** See {@linkcode ReadWaiter}. */
  next: ReadWaiter | null = null;
  readonly #p: Uint8Array;
  readonly #resolve: (n: number | null) => void;
  #reject: (error: unknown) => void;
  #unfollow: (() => void) | null = null;

  /** Reads into `p`, which is not empty. */
  constructor(
    p: Uint8Array,
    resolve: (n: number | null) => void,
    reject: (error: unknown) => void,
  ) {
    this.#p = p;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Leaves the line when `signal` aborts. */
  follow(reader: ReadHalf, signal: AbortSignal): void {
    this.#reject = reasonFirst(signal, this.#reject);
    this.#unfollow = onAbort(signal, () => {
      reader.abandon(this);
      this.fail(signal.reason);
    });
  }

  /** Takes what fits. */
  ready(reader: ReadHalf): void {
    this.#unfollow?.();
    if (reader.unread === 0) this.#resolve(null);
    else if (this.#p.length > 0) this.#resolve(reader.copyTo(this.#p));
    else this.#reject(new TypeError("p was detached while it waited"));
  }

  /** There is nothing to take. */
  fail(error: unknown): void {
    this.#unfollow?.();
    this.#reject(error);
  }
}

/** All that comes, in the order of the calls; see Conn's async iterator. */
export function chunksOf(
  reader: ReadHalf,
): AsyncIterableIterator<Uint8Array<ArrayBuffer>> {
  return {
    next: () => {
      const refusal = reader.refusal();
      if (refusal) return Promise.reject(refusal);
      return new Promise((resolve, reject) =>
        reader.wait(new ChunkCall(resolve, reject))
      );
    },
    return: (value) => Promise.resolve({ done: true, value }),
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** One step of an iteration that waits. */
class ChunkCall implements ReadWaiter {
  /** See {@linkcode ReadWaiter}. */
  next: ReadWaiter | null = null;
  readonly #resolve: (
    result: IteratorResult<Uint8Array<ArrayBuffer>, undefined>,
  ) => void;
  /** There is nothing to take. */
  readonly fail: (error: unknown) => void;

  /** Takes all that there is. */
  constructor(
    resolve: (
      result: IteratorResult<Uint8Array<ArrayBuffer>, undefined>,
    ) => void,
    reject: (error: unknown) => void,
  ) {
    this.#resolve = resolve;
    this.fail = reject;
  }

  /** Takes all of it. */
  ready(reader: ReadHalf): void {
    this.#resolve(
      reader.unread > 0
        ? { done: false, value: reader.takeChunk() }
        : { done: true, value: undefined },
    );
  }
}
