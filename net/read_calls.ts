import { failCall, onAbort, tolerate } from "./calls.ts";
import { GROWTH } from "./pool.ts";
import type { ReadHalf, ReadWaiter } from "./read_half.ts";

/** The most that an iteration, or a stream, gets at once, as from Deno. */
export const CHUNK_SIZE = 64 * 1024;

/** One read() that waits. */
export class ReadCall implements ReadWaiter {
  /** See {@linkcode ReadWaiter}. */
  next: ReadWaiter | null = null;
  /** See {@linkcode ReadWaiter}. */
  before: ReadWaiter | null = null;
  /** What the caller gets; it need not be awaited. */
  readonly result = Promise.withResolvers<number | null>();
  readonly #p: Uint8Array;
  #signal: AbortSignal | null = null;
  #unfollow: (() => void) | null = null;

  /** Reads into `p`, which is not empty. */
  constructor(p: Uint8Array) {
    this.#p = p;
  }

  /** See {@linkcode ReadWaiter}. */
  get most(): number {
    return this.#p.length * GROWTH;
  }

  /** Leaves the queue when `signal` aborts. */
  follow(reader: ReadHalf, signal: AbortSignal): void {
    this.#signal = signal;
    this.#unfollow = onAbort(signal, () => {
      reader.abandon(this);
      this.fail(signal.reason);
    });
  }

  /** Takes what fits. */
  ready(reader: ReadHalf): void {
    this.#unfollow?.();
    const { resolve, reject } = this.result;
    if (reader.unread === 0) resolve(null);
    else if (this.#p.length > 0) resolve(reader.copyTo(this.#p));
    else reject(new TypeError("p was detached while it waited"));
  }

  /** Nothing will come. */
  fail(error: unknown, atOnce = false): void {
    this.#unfollow?.();
    failCall(this.result, error, this.#signal, atOnce);
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
      return call.result.promise;
    },
    return: (value) => {
      returned = true;
      for (const call of reader.waiters) {
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

/** One step of an iteration that waits. */
class ChunkCall implements ReadWaiter {
  next: ReadWaiter | null = null;
  before: ReadWaiter | null = null;
  readonly most = CHUNK_SIZE;
  /** What the caller gets; it need not be awaited. */
  readonly result = Promise.withResolvers<IteratorResult<Chunk, undefined>>();
  /** The iteration that it is a step of. */
  readonly iterator: AsyncIterator<Chunk>;

  /** A step that waits. */
  constructor(iterator: AsyncIterator<Chunk>) {
    this.iterator = iterator;
  }

  /** Takes all that there is. */
  ready(reader: ReadHalf): void {
    if (reader.unread === 0) return this.end();
    this.result.resolve({ done: false, value: reader.takeChunk() });
  }

  /** Nothing more will come. */
  end(): void {
    this.result.resolve({ done: true, value: undefined });
  }

  /** Nothing will come. */
  fail(error: unknown, atOnce = false): void {
    failCall(this.result, error, null, atOnce);
  }
}
