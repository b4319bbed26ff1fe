/**
 * The event loop as tests in memory meet it: turns, the only real time they
 * cannot do without, and what keeps a process alive.
 *
 * @module
 */

import { type Clock, MAX_TIMEOUT, systemClock } from "../net/clock.ts";

/**
 * After so many operations of one kind in a row everybody else gets a turn.
 * Fakes settle in promise jobs; two peers that answer each other for ever
 * would let no timer and no signal through, and a test hang without a word.
 */
const BURST = 1_000;

/** How many turns may pass before a clock stops waiting for what is delayed. */
const MAX_TURNS = 100;

/** Operations that a {@linkcode Pace} has put off to the next turn. */
let delayed = 0;

/** Lets the event loop turn once; timers of 0 ms that were set before fire. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Lets everything happen that needs no time: promise jobs run to their end. */
export async function settle(): Promise<void> {
  await turn();
  for (let turns = 0; delayed > 0 && turns < MAX_TURNS; turns++) await turn();
}

/** Lets promises settle at once, but for every thousandth, which waits. */
export class Pace {
  #count = 0;

  /** Calls `settle` now or, if it has been too many in a row, in a turn. */
  run(settle: () => void): void {
    if (++this.#count % BURST !== 0) return settle();
    delayed++;
    setTimeout(() => {
      delayed--;
      settle();
    }, 0);
  }
}

/**
 * Keeps the process alive while somebody waits, as a pending operation of the
 * platform does: a deadline's timer alone would let it end. On any clock but
 * the system's nobody waits for real time, and a test that waits for what
 * never comes had better end with Deno's own complaint than hang.
 */
export class Hold {
  readonly #real: boolean;
  #waiting = false;
  #refd = true;
  #timer: unknown;

  /** Nobody waits. */
  constructor(clock: Clock) {
    this.#real = clock === systemClock;
  }

  /** Whether somebody waits. */
  set waiting(waiting: boolean) {
    this.#waiting = waiting;
    this.#update();
  }

  /** Whether that keeps the process alive. */
  set refd(refd: boolean) {
    this.#refd = refd;
    this.#update();
  }

  #update(): void {
    const hold = this.#real && this.#waiting && this.#refd;
    if (hold && this.#timer === undefined) {
      this.#timer = systemClock.setTimeout(() => {}, MAX_TIMEOUT);
    } else if (!hold && this.#timer !== undefined) {
      systemClock.clearTimeout(this.#timer);
      this.#timer = undefined;
    }
  }
}
