import { Alarm, type Clock } from "./clock.ts";
import { type Limit, notLate, timeIsUp } from "./stall.ts";

/**
 * How long a peer may be silent, for dials, idle timeouts and lingering closes;
 * {@linkcode clear} has to be called in the end.
 */
export class Patience implements Limit {
  #ms: number;
  readonly #over: () => void;
  readonly #alarm: Alarm;

  /** Calls `over` after `ms` milliseconds (finite) without a `renew()`. */
  constructor(clock: Clock, ms: number, over: () => void, keepAlive = false) {
    this.#ms = ms;
    this.#over = over;
    const ring = (due: number) => timeIsUp(this, clock.monotonic() - due);
    this.#alarm = new Alarm(clock, ring, keepAlive);
    this.renew();
  }

  /** The peer has given a sign of life. */
  renew(): void {
    notLate(this);
    this.#alarm.setIn(this.#ms);
  }

  /** Its time is over for good. */
  end(): void {
    notLate(this);
    this.#over();
  }

  /** The connection is over: no timer is left, and none will come. */
  clear(): void {
    this.#ms = Infinity;
    notLate(this);
    this.#alarm.clear();
  }
}
