/**
 * Turns of the event loop. They are real ones, whatever clock a test has: what
 * has arrived is seen after a few, and what has failed is over.
 *
 * @module
 */

import { Alarm, systemClock } from "./clock.ts";

/** How many are under way in this process. */
let underWay = 0;

/** Whether something waits for turns; a test's clock lets it come first. */
export function turnsUnderWay(): boolean {
  return underWay > 0;
}

/** Calls back after some turns of the event loop. */
export class Turns {
  #left = 0;
  readonly #alarm: Alarm;

  /** Starts nothing; `ring` is called once for each start, unless cleared. */
  constructor(ring: () => void) {
    this.#alarm = new Alarm(systemClock, () => {
      if (--this.#left > 0) return this.#alarm.setIn(0);
      underWay--;
      ring();
    }, true);
  }

  /** Counts `turns` from now on. */
  start(turns: number): void {
    if (this.#left === 0) underWay++;
    this.#left = turns;
    this.#alarm.setIn(0);
  }

  /** Calls back no more; no timer is left. */
  clear(): void {
    if (this.#left === 0) return;
    this.#left = 0;
    underWay--;
    this.#alarm.clear();
  }
}
