import { Alarm, type Clock } from "./clock.ts";
import { isLate, type Limit, notLate, timeIsUp } from "./stall.ts";

/**
 * The deadline of one direction of a connection: Go's `SetReadDeadline` and
 * `SetWriteDeadline`. It is absolute, for pending calls and later ones.
 *
 * The alarm runs only while a call waits or after one has: moving the deadline
 * before every read, or lifting it after every one, costs a look at the clock.
 * It never keeps the process alive; the pending operation does.
 *
 * If the process stood still meanwhile, a pending call gets what has arrived
 * before it fails; see `stall.ts`.
 */
export class Deadline implements Limit {
  readonly #clock: Clock;
  readonly #expire: () => void;
  #at = Infinity;
  /** Whether nobody can move it any more. */
  #fixed = false;
  #alarm: Alarm | null = null;
  readonly #ring = (due: number): void =>
    timeIsUp(this, this.#clock.now() - due);

  /**
   * No deadline yet.
   *
   * @param clock Time source.
   * @param expire Fails all calls that wait.
   */
  constructor(clock: Clock, expire: () => void) {
    this.#clock = clock;
    this.#expire = expire;
  }

  /** Whether there is one; a call that waits may then be abandoned. */
  get armed(): boolean {
    return this.#at !== Infinity;
  }

  /** Whether it has passed: calls then fail before they look at any data. */
  get passed(): boolean {
    return this.#at !== Infinity && this.#at <= this.#clock.now();
  }

  /**
   * Moves it; `Infinity` lifts it. `waiting` says whether a call waits: if none
   * does, a timer that runs is left alone, and will find nothing to do.
   */
  set(at: number, waiting: boolean): void {
    if (this.#fixed) return;
    this.#at = at;
    if (!waiting) return;
    if (at === Infinity) this.#alarm?.clear();
    else if (this.passed) this.#expire();
    else this.watch();
  }

  /** A call begins to wait: from now on the alarm has to run. */
  watch(): void {
    if (this.#at === Infinity || this.#fixed) return;
    if (isLate(this) && this.passed) return; // its last turns are counted
    notLate(this);
    this.#alarm ??= new Alarm(this.#clock, this.#ring, false, "now");
    this.#alarm.set(this.#at);
  }

  /**
   * Lifts it for good: it never passes, even if it had, and cannot be moved.
   * Large writes go on in pieces, as under any deadline, and can be abandoned.
   */
  liftForGood(): void {
    this.clear();
    this.#at = Number.MAX_VALUE;
    this.#fixed = true;
  }

  /** Makes it pass for good: it cannot be moved. */
  expireForGood(): void {
    this.clear();
    this.#at = -Infinity;
    this.#fixed = true;
    this.#expire();
  }

  /** Leaves no timer behind. */
  clear(): void {
    notLate(this);
    this.#alarm?.clear();
  }

  /** Never early: the clock may have stepped back, or the deadline moved. */
  end(): void {
    notLate(this);
    if (this.passed) this.#expire();
    else this.watch();
  }
}

/**
 * Reads what a caller gave as a deadline.
 *
 * @returns Milliseconds since the epoch; `Infinity` for none.
 * @throws {TypeError} If it is not a Date, a number or null.
 * @throws {RangeError} If it is an invalid Date or NaN.
 */
export function deadlineTime(t: Date | number | null): number {
  if (t === null) return Infinity;
  const at = t instanceof Date ? t.getTime() : t;
  if (typeof at !== "number") {
    throw new TypeError("a deadline is a Date, epoch milliseconds or null");
  }
  if (Number.isNaN(at)) throw new RangeError("a deadline cannot be NaN");
  return at;
}
