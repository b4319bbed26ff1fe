/**
 * What becomes of calls that are aborted, fail, or are not awaited.
 *
 * @module
 */

import { OpError } from "./errors.ts";
import { type Link, Queue } from "./queue.ts";

/** Closes a connection that nobody wants; one that cannot be closed is gone. */
export function discard(conn: { close(): void }): void {
  try {
    forget(conn.close());
  } catch {
    // It was closed already, or is not a connection: its maker's business.
  }
}

/** An odd Deno.Conn's close() may be async, and fail when nobody listens. */
export function forget(closing: unknown): void {
  if (closing instanceof Promise) tolerate(closing);
}

/** What is to be called when a signal aborts. */
interface Follower extends Link<Follower> {
  readonly cancel: () => void;
}

/** All that follow one signal, and the one listener for them. */
class Followers {
  readonly #queue = new Queue<Follower>();
  readonly #signal: AbortSignal;
  readonly #listener = (): void => this.#cancelAll();

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Returns a function that undoes it. */
  add(cancel: () => void): () => void {
    const follower: Follower = { cancel, next: null, before: null };
    if (this.#queue.head === null) {
      this.#signal.addEventListener("abort", this.#listener);
    }
    this.#queue.push(follower);
    return () => this.#remove(follower);
  }

  /** If it is still there; the last one takes the listener along. */
  #remove(follower: Follower): void {
    if (this.#queue.head === null) return;
    this.#queue.remove(follower);
    if (this.#queue.head !== null) return;
    this.#signal.removeEventListener("abort", this.#listener);
  }

  #cancelAll(): void {
    while (this.#queue.head) {
      const follower = this.#queue.head;
      this.#remove(follower);
      try {
        follower.cancel();
      } catch (error) {
        reportError(error); // as for a listener of its own
      }
    }
  }
}

const followers = new WeakMap<AbortSignal, Followers>();

/**
 * Calls `cancel` when `signal` aborts; the returned function undoes that. One
 * listener serves all who follow a signal: to add or remove one, the runtime
 * looks at all of them, which takes 10 us where 1,000 connections share one.
 */
export function onAbort(signal: AbortSignal, cancel: () => void): () => void {
  let all = followers.get(signal);
  if (all === undefined) followers.set(signal, all = new Followers(signal));
  return all.add(cancel);
}

/**
 * Why a call with a signal fails: if that has aborted, its reason comes first.
 * The same signal may have closed what the call waits for, which heard it
 * earlier.
 */
export function reasonFirst(
  signal: AbortSignal | null,
  error: unknown,
): unknown {
  return signal?.aborted ? signal.reason : error;
}

/**
 * Rejects a call's promise; the reason of `signal` comes first, see
 * {@linkcode reasonFirst}. The stack of an error of ours then shows who awaits
 * it, as the platform's errors do. V8 looks for that as the stack is captured,
 * along promises that are resolved to each other and have one reaction each. So
 * the capture gets a job of its own, after the resolving.
 *
 * @param atOnce Whether the next call in the queue settles in this tick. Then
 * there is no time for a job: this one has to reject first.
 */
export function failCall<T>(
  { promise, resolve, reject }: PromiseWithResolvers<T>,
  error: unknown,
  signal: AbortSignal | null,
  atOnce = false,
): void {
  if (atOnce || signal?.aborted || !(error instanceof OpError)) {
    tolerate(promise);
    return reject(reasonFirst(signal, error));
  }
  resolve(
    SETTLED.then(() => {}).then(function fail() {
      try {
        Error.captureStackTrace(error, fail);
      } catch {
        // The program has replaced it; the error has a stack already.
      }
      tolerate(promise);
      throw error;
    }),
  );
}

const SETTLED = Promise.resolve();

/**
 * Calls on a connection need not be awaited one by one: writes of one tick, the
 * FIN after them, a read given up after another failure, a pipe, a copy. If
 * nobody awaits one, its failure must not end the process as an unhandled
 * rejection: whoever uses the connection next learns of it.
 */
export function tolerate<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
