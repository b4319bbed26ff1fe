/**
 * How calls end that nobody waits for any more: aborted, failed, left alone.
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
 * Calls `cancel` when `signal` aborts; the result takes the listener away.
 *
 * @throws {TypeError} If it is no signal: a user's, of a call that waits.
 */
export function onAbort(signal: AbortSignal, cancel: () => void): () => void {
  checkSignal(signal);
  signal.addEventListener("abort", cancel);
  return () => signal.removeEventListener("abort", cancel);
}

/**
 * Why a call with a signal fails: once that has aborted its reason comes first.
 * The signal may be the one that closes what the call waits for, too, and was
 * heard there before.
 */
export function reasonFirst(
  signal: AbortSignal | null,
  error: unknown,
): unknown {
  return signal?.aborted ? signal.reason : error;
}

/**
 * Rejects a call's promise, `signal`'s reason first; see
 * {@linkcode reasonFirst}. The stack of an error of ours then shows who awaits
 * it, as the platform's errors do. V8 looks for that as the stack is captured,
 * along promises that have been resolved to each other and have one reaction
 * each: so the capture gets a job of its own, after the resolving.
 *
 * @param atOnce Whether a call behind it is told in this tick. Then there is no
 * time for a job: it has to be rejected before that one.
 */
export function failCall<T>(
  promise: Promise<T>,
  resolve: (value: Promise<T>) => void,
  reject: (error: unknown) => void,
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
        // The program has one of its own; the error has a stack already.
      }
      tolerate(promise);
      throw error;
    }),
  );
}

const SETTLED = Promise.resolve();

/**
 * Calls on a connection need not be awaited one by one: writes of one tick, the
 * FIN behind them, a read that another failure has left alone, a pipe, a copy.
 * The failure of one that nobody awaits must not end the process as an
 * unhandled rejection: whoever uses the connection next is told.
 */
export function tolerate<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
