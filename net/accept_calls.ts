import { onAbort, reasonFirst } from "./calls.ts";
import type { Conn } from "./conn.ts";
import { isClosed } from "./errors.ts";
import type { Link } from "./queue.ts";

/** A caller that waits for a connection. It is settled once. */
export class AcceptCall implements Link<AcceptCall> {
  /** See {@linkcode Link}. */
  next: AcceptCall | null = null;
  /** See {@linkcode Link}. */
  before: AcceptCall | null = null;
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

  /** Here is a connection. */
  resolve(conn: Conn): void {
    this.#unfollow?.();
    this.#resolve(conn);
  }

  /** There will be none. */
  reject(error: unknown): void {
    this.#unfollow?.();
    this.#reject(reasonFirst(this.#signal, error));
  }
}

/** Accepts until the listener is closed; see Listener's async iterator. */
export function connsOf(
  enter: (caller: AcceptCall) => void,
  close: () => Promise<void>,
): AsyncIterableIterator<Conn> {
  return {
    next: () =>
      new Promise((resolve, reject) => {
        const take = (value: Conn) => resolve({ done: false, value });
        const end = (error: unknown) => {
          if (isClosed(error)) resolve({ done: true, value: undefined });
          else reject(error);
        };
        enter(new AcceptCall(take, end));
      }),
    return: async (value) => {
      await close();
      return { done: true, value };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
