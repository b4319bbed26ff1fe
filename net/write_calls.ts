import { onAbort } from "./calls.ts";
import { type WriteHalf, WriteJob } from "./write_half.ts";

/** One write() that a signal may abort; rejects if it is no signal. */
export function writeUntil(
  writer: WriteHalf,
  p: Uint8Array,
  signal: AbortSignal,
): Promise<number> {
  if (!(signal instanceof AbortSignal)) {
    return Promise.reject(new TypeError("signal is not an AbortSignal"));
  }
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const settled = <T>(settle: (value: T) => void) => (value: T) => {
    unfollow();
    settle(value);
  };
  const result = {
    promise,
    resolve: settled(resolve),
    reject: settled(reject),
  };
  const job = new WriteJob(p, result, false, signal);
  const unfollow = onAbort(signal, () => writer.abandon(job, signal.reason));
  writer.add(job);
  return promise;
}
