/**
 * How long a peer may be silent: for idle timeouts and lingering closes.
 *
 * When a process has stood still (a handler computed, the machine paused),
 * timers come before input, and what peers have sent in time is still unread:
 * one stall of a second would end thousands that were not silent. So a peer
 * whose alarm rings late gets some more turns of the event loop: as many as it
 * takes to look at all connections.
 *
 * @module
 */

import { Alarm, type Clock, systemClock } from "./clock.ts";

/**
 * Deno polls 128 operations in a turn, and an answered message takes several:
 * the read, the write, and the next read.
 */
const CONNECTIONS_PER_TURN = 32;

/** How many peers there are whose time is running. */
let patient = 0;
/** Those whose timer fired late, in order, and the turn that is their last. */
const late = new Map<Patience, number>();
/** How many turns there were while somebody was late. */
let turns = 0;
/** The next turn, while somebody is late; one at a time serves all of them. */
const turn = new Alarm(systemClock, () => {
  turns++;
  for (const [patience, last] of late) {
    if (last > turns) break; // whoever came later waits for those before
    patience.end();
  }
  if (late.size > 0) turn.setIn(0);
}, false);

/**
 * With nobody late no turn is to come. (It may never come: it was set with a
 * test's fake timers, and these are gone.)
 */
function notLate(patience: Patience): void {
  if (late.delete(patience) && late.size === 0) turn.clear();
}

/** One peer's time limit; {@linkcode clear} has to be called in the end. */
export class Patience {
  readonly #clock: Clock;
  #ms: number;
  readonly #over: () => void;
  readonly #alarm: Alarm;

  /** Calls `over` after `ms` milliseconds (finite) without a `renew()`. */
  constructor(clock: Clock, ms: number, over: () => void) {
    this.#clock = clock;
    this.#ms = ms;
    this.#over = over;
    this.#alarm = new Alarm(clock, (due) => this.#ring(due), false);
    patient++;
    this.renew();
  }

  /** The peer has given a sign of life. */
  renew(): void {
    if (late.size > 0) notLate(this);
    this.#alarm.setIn(this.#ms);
  }

  /** Its time is over for good. */
  end(): void {
    notLate(this);
    this.#over();
  }

  /** The connection is over: no timer is left, and none will come. */
  clear(): void {
    if (this.#ms !== Infinity) patient--;
    this.#ms = Infinity;
    notLate(this);
    this.#alarm.clear();
  }

  #ring(due: number): void {
    if (this.#clock.monotonic() <= due) return this.end();
    if (turn.at === Infinity) turn.setIn(0);
    const more = 2 + Math.ceil(patient / CONNECTIONS_PER_TURN);
    late.set(this, turns + more);
  }
}
