import { Alarm, type Clock } from "./clock.ts";

/** The back-off of Go's `net/http`: 5 ms, doubling, at most 1 s. */
export const MIN_RETRY_MS = 5;
const MAX_RETRY_MS = 1_000;
/** After so many bad peers in a row others get a turn; it takes Deno 2.3 ms. */
const PEER_BURST = 1024;

/**
 * Decides when an accept loop goes on after a failure or a useless connection.
 * It holds a timer only for a caller that waits, and keeps the process alive as
 * an accept would.
 */
export class AcceptRetry {
  readonly #alarm: Alarm;
  /** Connections since the last good one that were of no use. */
  #badPeers = 0;
  /** The wait after the next capacity error; 0 outside of an episode. */
  #backOffMs = 0;

  /** Calls `again` when the wait is over. */
  constructor(clock: Clock, again: () => void) {
    this.#alarm = new Alarm(clock, again, true);
  }

  /** Whether the next accept has to wait. */
  get waits(): boolean {
    return this.#alarm.at !== Infinity;
  }

  /** A connection has come: no limit is in the way any more. */
  roomFound(): void {
    this.#backOffMs = 0;
  }

  /** A connection is of use. */
  goodPeer(): void {
    this.#badPeers = 0;
  }

  /** One was useless: on to the next, but after a burst others get a turn. */
  badPeer(callerWaits: boolean): void {
    if (++this.#badPeers % PEER_BURST > 0 || !callerWaits) return;
    this.#alarm.setIn(0);
  }

  /** There was no room for one. Returns whether an episode begins. */
  backOff(callerWaits: boolean): boolean {
    const ms = this.#backOffMs || MIN_RETRY_MS;
    const begins = this.#backOffMs === 0;
    if (callerWaits) this.#alarm.setIn(ms);
    this.#backOffMs = Math.min(ms * 2, MAX_RETRY_MS);
    return begins;
  }

  /** Nobody waits any more. */
  clear(): void {
    this.#alarm.clear();
  }

  /** Whether a wait keeps the process alive. */
  set refd(refd: boolean) {
    const { at } = this.#alarm;
    this.#alarm.clear();
    this.#alarm.keepAlive = refd;
    this.#alarm.set(at);
  }
}
