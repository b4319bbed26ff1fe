/**
 * How calls end that are aborted, fail, or are not awaited.
 *
 * @module
 */

import { checkSignal } from "./check.ts";
import { OpError } from "./errors.ts";

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

/**
 * Calls `cancel` when `signal` aborts; the result removes the listener.
 *
 * @throws {TypeError} If it is no signal: a user may have passed it.
 */
export function onAbort(signal: AbortSignal, cancel: () => void): () => void {
  checkSignal(signal);
  signal.addEventListener("abort", cancel);
  return () => signal.removeEventListener("abort", cancel);
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
