/**
 * Time limits that run out while the process stands still: deadlines, dial
 * timeouts, idle timeouts, lingering closes.
 *
 * When a process has stood still (a handler computed, the machine paused),
 * timers come before input, and what peers have sent in time is still unread:
 * one stall of a second would end thousands that were not silent. So a limit
 * whose timer fires late gets some more turns of the event loop: until they
 * bring nothing, or all connections have had their turn.
 *
 * @module
 */

import { Alarm, systemClock } from "./clock.ts";

/** A timer that is later, in ms, was held up; 2 ms late is usual, 9 happens. */
const STALL_MS = 10;

/**
 * So many turns in which nothing came are proof that nothing is left. The
 * runtime may look for input only after 61 polls of its own: 9 turns were seen.
 */
const QUIET_TURNS = 20;

/**
 * Deno polls 128 operations in a turn, and an answered message takes several:
 * the read, the write, and the next read.
 */
const CONNECTIONS_PER_TURN = 32;

/** A turn as late as this was set with a test's fake timers, which are gone. */
const LOST_MS = 1_000;

/** Something that must not take too long. */
export interface Limit {
  /** Time is up. Has to call {@linkcode notLate}. */
  end(): void;
}

/** How many connections are open, and dials under way. */
let open = 0;
/** How many operations of theirs have ended. */
let ended = 0;
/** The same, at the last turn. */
let endedBefore = 0;
/** How many turns in a row have brought nothing. */
let quiet = 0;
/** How many turns there were while somebody was late. */
let turns = 0;
/** Those whose timer fired late, in order, and the turn in which it did. */
const late = new Map<Limit, number>();
/**
 * The next turn, while somebody is late; one at a time serves all of them. It
 * keeps the process alive: of a dial that waits for a lookup nothing else may.
 */
const turn = new Alarm(systemClock, takeTurn, true);

/** One more connection or dial, or one less. */
export function countOpen(change: 1 | -1): void {
  open += change;
}

/** An operation of a connection, a listener or a dial has ended. */
export function countEnded(): void {
  ended++;
}

/** Ends a limit whose timer has fired `behind` ms late: at once, or in turn. */
export function timeIsUp(limit: Limit, behind: number): void {
  if (behind <= STALL_MS) return limit.end();
  late.set(limit, turns);
  const overdue = systemClock.monotonic() - turn.at;
  if (turn.at === Infinity || overdue > LOST_MS) turn.setIn(0);
}

function takeTurn(): void {
  turns++;
  quiet = ended === endedBefore ? quiet + 1 : 0;
  endedBefore = ended;
  const most = 2 + Math.ceil(open / CONNECTIONS_PER_TURN);
  const patience = quiet < QUIET_TURNS ? most : Math.min(most, QUIET_TURNS);
  for (const [limit, since] of late) {
    if (turns - since < patience) break; // so have all that came later
    limit.end();
  }
  if (late.size > 0) turn.setIn(0);
}

/** Whether a limit has its last turns now. */
export function isLate(limit: Limit): boolean {
  return late.size > 0 && late.has(limit);
}

/** The limit is kept, moved or over. With nobody late no turn is to come. */
export function notLate(limit: Limit): void {
  if (late.size === 0) return;
  if (late.delete(limit) && late.size === 0) turn.clear();
}
