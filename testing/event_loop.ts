/**
 * The event loop as tests in memory meet it: turns, the only real time they
 * cannot do without.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { turnsUnderWay } from "../net/turns.ts";

// The real one, even while a test fakes it.
const { setTimeout } = globalThis;

/**
 * After this many operations of one kind in a row everybody else gets a turn.
 * Fakes settle in promise jobs: two peers that answer each other for ever would
 * let no timer and no signal through, and the test would hang without a word.
 */
const BURST = 1_000;

/** How many turns may pass before a clock stops waiting for what is delayed. */
const MAX_TURNS = 100;

/** Lets the event loop turn once; timers of 0 ms that were set before fire. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** How many calls of {@linkcode afterTurn} are to come. */
let late = 0;

/**
 * Calls back after a turn; a test may end before, unlike with a timer. (While
 * two ends in memory talk without a pause, real sockets are rarely looked at.)
 */
export function afterTurn(callback: () => void): void {
  late++;
  setImmediate(() => {
    late--;
    callback();
  });
}

/** Lets everything that needs no time happen: promise jobs run to their end. */
export async function settle(): Promise<void> {
  await turn();
  const underWay = () => turnsUnderWay() || late > 0;
  for (let n = 0; underWay() && n < MAX_TURNS; n++) await turn();
}

/** Lets promises settle at once, except every thousandth, which waits. */
export class Pace {
  #count = 0;

  /** Calls `settle` now or, after too many in a row, a turn later. */
  run(settle: () => void): void {
    if (++this.#count % BURST !== 0) return settle();
    afterTurn(settle);
  }
}
