import { onAbort, reasonFirst } from "./calls.ts";
import type { Conn } from "./conn.ts";
import { isClosed } from "./errors.ts";
import type { Link } from "./queue.ts";

/** A caller that waits for a connection. One of its methods is called, once. */
export interface AcceptWaiter extends Link<AcceptWaiter> {
  /** Here is a connection. */
  resolve(conn: Conn): void;
  /** There will be none. */
  reject(error: unknown): void;
}

/** One accept() that waits. */
export class AcceptCall implements AcceptWaiter {
  /** See {@linkcode Link}. */
  next: AcceptWaiter | null = null;
  /** See {@linkcode Link}. */
  before: AcceptWaiter | null = null;
  readonly #resolve: (conn: Conn) => void;
  readonly #reject: (error: unknown) => void;
  #signal: AbortSignal | null = null;
  #unfollow: (() => void) | null = null;

  /** Settles a promise with the connection. */
  constructor(
    resolve: (conn: Conn) => void,
    reject: (error: unknown) => void,
  ) {
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Calls `leave` when `signal` aborts before there is a connection. */
  follow(signal: AbortSignal, leave: () => void): void {
    this.#signal = signal;
    this.#unfollow = onAbort(signal, leave);
  }

  /** See {@linkcode AcceptWaiter}. */
  resolve(conn: Conn): void {
    this.#unfollow?.();
    this.#resolve(conn);
  }

  /** See {@linkcode AcceptWaiter}. */
  reject(error: unknown): void {
    this.#unfollow?.();
    this.#reject(reasonFirst(this.#signal, error));
  }
}

/** Accepts until the listener is closed; see Listener's async iterator. */
export function connsOf(
  enter: (caller: AcceptWaiter) => void,
  close: () => Promise<void>,
): AsyncIterableIterator<Conn> {
  return {
    next: () => {
      const call = new NextCall();
      enter(call);
      return call.result.promise;
    },
    return: async (value) => {
      await close();
      return { done: true, value };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** One step of an iteration that waits; it ends if the listener is closed. */
class NextCall implements AcceptWaiter {
  next: AcceptWaiter | null = null;
  before: AcceptWaiter | null = null;
  readonly result = Promise.withResolvers<IteratorResult<Conn, undefined>>();

  resolve(value: Conn): void {
    this.result.resolve({ done: false, value });
  }

  reject(error: unknown): void {
    if (isClosed(error)) this.result.resolve({ done: true, value: undefined });
    else this.result.reject(error);
  }
}
