import { failCall, onAbort, tolerate } from "./calls.ts";
import type { ReadHalf, ReadWaiter } from "./read_half.ts";

/** One read() that waits. */
export class ReadCall implements ReadWaiter {
  /** See {@linkcode ReadWaiter}. */
  next: ReadWaiter | null = null;
  /** See {@linkcode ReadWaiter}. */
  before: ReadWaiter | null = null;
  /** The caller's promise, which need not be awaited. */
  readonly promise: Promise<number | null>;
  readonly #p: Uint8Array;
  readonly #resolve: (n: number | null | Promise<number | null>) => void;
  readonly #reject: (error: unknown) => void;
  #signal: AbortSignal | null = null;
  #unfollow: (() => void) | null = null;

  /** Reads into `p`, which is not empty. */
  constructor(p: Uint8Array) {
    const { promise, resolve, reject } = Promise.withResolvers<number | null>();
    this.promise = promise;
    this.#p = p;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Leaves the queue when `signal` aborts; if it is none, fails: `false`. */
  follow(reader: ReadHalf, signal: AbortSignal): boolean {
    try {
      this.#unfollow = onAbort(signal, () => {
        reader.abandon(this);
        this.fail(signal.reason);
      });
    } catch (error) {
      this.fail(error);
      return false;
    }
    this.#signal = signal;
    return true;
  }

  /** Takes what fits. */
  ready(reader: ReadHalf): void {
    this.#unfollow?.();
    if (reader.unread === 0) this.#resolve(null);
    else if (this.#p.length > 0) this.#resolve(reader.copyTo(this.#p));
    else this.#reject(new TypeError("p was detached while it waited"));
  }

  /** Nothing will come. */
  fail(error: unknown, atOnce = false): void {
    this.#unfollow?.();
    const { promise } = this;
    failCall(promise, this.#resolve, this.#reject, error, this.#signal, atOnce);
  }
}

type Chunk = Uint8Array<ArrayBuffer>;

/** All that arrives, in the order of the calls; see Conn's async iterator. */
export function chunksOf(reader: ReadHalf): AsyncIterableIterator<Chunk> {
  let returned = false;
  const iterator: AsyncIterableIterator<Chunk> = {
    next: () => {
      if (returned) return Promise.resolve({ done: true, value: undefined });
      const refusal = reader.refusal();
      if (refusal) return tolerate(Promise.reject(refusal));
      const call = new ChunkCall(iterator);
      reader.wait(call);
      return call.promise;
    },
    return: (value) => {
      returned = true;
      for (const call of reader.line) {
        if (!(call instanceof ChunkCall && call.iterator === iterator)) {
          continue;
        }
        // What arrives is for whoever reads next.
        reader.abandon(call);
        call.end();
      }
      return Promise.resolve({ done: true, value });
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
  return iterator;
}

type Step = IteratorResult<Chunk, undefined>;

/** One step of an iteration that waits. */
class ChunkCall implements ReadWaiter {
  next: ReadWaiter | null = null;
  before: ReadWaiter | null = null;
  /** The caller's promise, which need not be awaited. */
  readonly promise: Promise<Step>;
  /** The iteration that it is a step of. */
  readonly iterator: AsyncIterator<Chunk>;
  readonly #resolve: (step: Step | Promise<Step>) => void;
  readonly #reject: (error: unknown) => void;

  /** A step that waits. */
  constructor(iterator: AsyncIterator<Chunk>) {
    const { promise, resolve, reject } = Promise.withResolvers<Step>();
    this.promise = promise;
    this.iterator = iterator;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Takes all that there is. */
  ready(reader: ReadHalf): void {
    if (reader.unread === 0) return this.end();
    this.#resolve({ done: false, value: reader.takeChunk() });
  }

  /** Nothing more will come. */
  end(): void {
    this.#resolve({ done: true, value: undefined });
  }

  /** Nothing will come. */
  fail(error: unknown, atOnce = false): void {
    failCall(this.promise, this.#resolve, this.#reject, error, null, atOnce);
  }
}
