import { onAbort } from "../net/calls.ts";
import { Alarm, type Clock } from "../net/clock.ts";
import { Hold } from "../net/hold.ts";

/** Wakes everything that waits. */
export class Bell {
  readonly #clock: Clock;
  readonly #sleepers = new Set<() => void>();

  /** Nobody waits yet. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Wakes all. */
  ring(): void {
    for (const wake of this.#sleepers) wake();
  }

  /**
   * Waits for the next ring, at most `ms` milliseconds; an abort rejects with
   * its reason. No timer is left.
   */
  async wait(signal: AbortSignal, ms: number): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const alarm = new Alarm(this.#clock, () => resolve(), true);
    alarm.setIn(ms);
    const unfollow = onAbort(signal, () => reject(signal.reason));
    const hold = new Hold(this.#clock);
    this.#sleepers.add(resolve);
    hold.waiting = true;
    try {
      await promise;
    } finally {
      alarm.clear();
      hold.waiting = false;
      this.#sleepers.delete(resolve);
      unfollow();
    }
  }
}
