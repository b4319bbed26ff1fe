/**
 * Time limits that run out while the process stands still: deadlines, dial
 * timeouts, idle timeouts, lingering closes.
 *
 * When a process has stood still (a handler computed, the machine paused),
 * timers come before input, and what peers have sent in time is still unread:
 * one stall of a second would end thousands that were not silent. So a limit
 * whose timer fires late gets some more turns of the event loop: as many as it
 * takes to look at all connections.
 *
 * @module
 */

import { Alarm, systemClock } from "./clock.ts";

/** A timer that is later, in ms, was held up; 2 ms are usual, and 9 happen. */
const STALL_MS = 10;

/**
 * Deno polls 128 operations in a turn, and an answered message takes several:
 * the read, the write, and the next read.
 */
const CONNECTIONS_PER_TURN = 32;

/** Something that must not take too long. */
export interface Limit {
  /** Time is up. Has to call {@linkcode notLate}. */
  end(): void;
}

/** How many limits there are whose time is running. */
let running = 0;
/** Those whose timer fired late, in order, and the turn that is their last. */
const late = new Map<Limit, number>();
/** How many turns there were while somebody was late. */
let turns = 0;
/** The next turn, while somebody is late; one at a time serves all of them. */
const turn = new Alarm(systemClock, () => {
  turns++;
  for (const [limit, last] of late) {
    if (last > turns) break; // whoever came later waits for those before
    limit.end();
  }
  if (late.size > 0) turn.setIn(0);
}, false);

/** One more limit whose time is running, or one less. */
export function countLimit(change: 1 | -1): void {
  running += change;
}

/** How many more turns there are if a limit's timer fires `behind` ms late. */
export function extraTurns(behind: number): number {
  if (behind <= STALL_MS) return 0;
  return 2 + Math.ceil(running / CONNECTIONS_PER_TURN);
}

/** Ends a limit whose timer has fired `behind` ms late: at once, or in turn. */
export function timeIsUp(limit: Limit, behind: number): void {
  const more = extraTurns(behind);
  if (more === 0) return limit.end();
  if (turn.at === Infinity) turn.setIn(0);
  late.set(limit, turns + more);
}

/**
 * The limit is kept, moved or over. With nobody late no turn is to come. (It
 * may never come: it was set with a test's fake timers, and these are gone.)
 */
export function notLate(limit: Limit): void {
  if (late.size === 0) return;
  if (late.delete(limit) && late.size === 0) turn.clear();
}
