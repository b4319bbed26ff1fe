/**
 * How long a peer may be silent: the idle timeout, the lingering close.
 *
 * When a process has stood still (a handler that computed, a pause of the
 * machine) timers come before input, and what a peer has sent in time is still
 * to be read: one stall of a second would end thousands who were not silent. So
 * a peer whose alarm rings late has some more turns of the event loop: as many
 * as it takes to look at all connections.
 *
 * @module
 */

import { Alarm, type Clock, systemClock } from "./clock.ts";

/**
 * Deno polls 128 operations in a turn, and an answered message takes several:
 * the read, the write, and the next read.
 */
const CONNECTIONS_PER_TURN = 32;

/** All that are to be looked at. */
const patient = new Set<Patience>();
/** Those whose time was over late: for how many turns more they wait. */
const late = new Map<Patience, number>();
/** A turn is to come; one at a time, for it counts for all who are late. */
let turning = false;

function turn(): void {
  turning = false;
  for (const [patience, turns] of late) {
    if (turns > 0) late.set(patience, turns - 1);
    else patience.end();
  }
  if (late.size > 0) nextTurn();
}

function nextTurn(): void {
  if (turning) return;
  turning = true;
  systemClock.unrefTimer(systemClock.setTimeout(turn, 0));
}

/** One peer's time; {@linkcode clear} has to be called in the end. */
export class Patience {
  readonly #clock: Clock;
  #ms: number;
  readonly #over: () => void;
  readonly #alarm: Alarm;

  /** Calls `over` once nobody has called `renew()` for `ms` milliseconds. */
  constructor(clock: Clock, ms: number, over: () => void) {
    this.#clock = clock;
    this.#ms = ms;
    this.#over = over;
    this.#alarm = new Alarm(clock, (due) => this.#ring(due), false);
    patient.add(this);
    this.renew();
  }

  /** The peer has shown itself. */
  renew(): void {
    if (late.size > 0) late.delete(this);
    this.#alarm.setIn(this.#ms);
  }

  /** Its time is over for good. */
  end(): void {
    late.delete(this);
    this.#over();
  }

  /** It is over with the connection; no timer is left, and none to come. */
  clear(): void {
    this.#ms = Infinity;
    patient.delete(this);
    late.delete(this);
    this.#alarm.clear();
  }

  #ring(due: number): void {
    if (this.#clock.monotonic() <= due) return this.end();
    nextTurn();
    late.set(this, 1 + Math.ceil(patient.size / CONNECTIONS_PER_TURN));
  }
}
