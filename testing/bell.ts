import { onAbort } from "../net/calls.ts";
import { Alarm, type Clock } from "../net/clock.ts";
import { Hold } from "../net/hold.ts";

/** What is open, or waits, in the words of {@linkcode MemoryNetwork.check}. */
export type Open = Map<object, string>;

/** Wakes everything that waits. */
export class Bell {
  readonly #clock: Clock;
  readonly #open: Open;
  readonly #sleepers = new Set<() => void>();

  /** Nobody waits yet; whoever does is listed in `open`. */
  constructor(clock: Clock, open: Open) {
    this.#clock = clock;
    this.#open = open;
  }

  /** Wakes all. */
  ring(): void {
    for (const wake of this.#sleepers) wake();
  }

  /**
   * Waits for the next ring, at most `ms` milliseconds; an abort rejects with
   * its reason. No timer is left. Meanwhile `what` is open.
   */
  async wait(signal: AbortSignal, ms: number, what: string): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#open.set(promise, what);
    const alarm = new Alarm(this.#clock, () => resolve(), false);
    alarm.setIn(ms);
    const unfollow = onAbort(signal, () => reject(signal.reason));
    const hold = new Hold(this.#clock);
    this.#sleepers.add(resolve);
    hold.waiting = true;
    try {
      await promise;
    } finally {
      this.#open.delete(promise);
      alarm.clear();
      hold.waiting = false;
      this.#sleepers.delete(resolve);
      unfollow();
    }
  }
}
