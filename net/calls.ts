/**
 * How calls end that are aborted, fail, or are not awaited.
 *
 * @module
 */

import { checkSignal } from "./check.ts";
import { OpError } from "./errors.ts";
import { type Link, Queue } from "./queue.ts";

/** Closes a connection that nobody wants; one that cannot be closed is gone. */
export function discard(conn: { close(): void }): void {
  try {
    forget(conn.close());
  } catch {
    // It was closed already, or is no connection: its maker's business.
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

const followers = new WeakMap<AbortSignal, Queue<Follower>>();

/**
 * Calls `cancel` when `signal` aborts; the result takes that back. One listener
 * serves all who follow a signal: to add or remove one the runtime looks at all
 * of them, which takes 10 us where 1,000 connections share a signal.
 *
 * @throws {TypeError} If it is no signal: a user may have passed it.
 */
export function onAbort(signal: AbortSignal, cancel: () => void): () => void {
  checkSignal(signal);
  let queue = followers.get(signal);
  if (queue === undefined) followers.set(signal, queue = new Queue());
  if (queue.head === null) signal.addEventListener("abort", cancelAll);
  const follower: Follower = { cancel, next: null, before: null };
  queue.push(follower);
  return () => leave(signal, queue, follower);
}

/** Takes out a follower, if it is still there; the last removes the listener. */
function leave(
  signal: AbortSignal,
  queue: Queue<Follower>,
  follower: Follower,
): void {
  if (queue.head === null) return;
  queue.remove(follower);
  if (queue.head === null) signal.removeEventListener("abort", cancelAll);
}

function cancelAll(this: AbortSignal): void {
  const queue = followers.get(this)!;
  while (queue.head) {
    const follower = queue.head;
    leave(this, queue, follower);
    try {
      follower.cancel();
    } catch (error) {
      reportError(error); // as for a listener of its own
    }
  }
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
