/**
 * The one place where this library meets time. Everything that waits holds an
 * {@linkcode Alarm} on a {@linkcode Clock}; tests pass their own clock and move
 * it by hand.
 *
 * @module
 */

/**
 * A source of time and timers. The default is the system's; tests use
 * `FakeClock` from `@switchboard/tcp/testing`.
 */
export interface Clock {
  /** Epoch milliseconds, like `Date.now()`: the scale of deadlines. */
  now(): number;
  /** Milliseconds on a scale that never steps, like `performance.now()`. */
  monotonic(): number;
  /**
   * Calls `callback` once, `ms` (at most 2^31 - 1) from now. Later than that by
   * more than 10 ms counts as a stall of the process: some turns of the event
   * loop pass before anything is given up.
   */
  setTimeout(callback: () => void, ms: number): unknown;
  /** Cancels a timer from `setTimeout`; one that has fired is no error. */
  clearTimeout(id: unknown): void;
  /** Lets the process end even if this timer has not fired. */
  unrefTimer(id: unknown): void;
}

/** A system timer: a number or an object, depending on Deno's version. */
interface SystemTimer {
  readonly id: ReturnType<typeof setTimeout>;
  /**
   * Belongs to the `setTimeout()` that returned the id. A test may replace both
   * meanwhile; to another `clearTimeout()` the id is another timer, or none.
   */
  readonly clear: typeof clearTimeout;
}

/** The system's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout: (callback, ms): SystemTimer => ({
    id: setTimeout(callback, ms),
    clear: clearTimeout,
  }),
  clearTimeout: (timer) => {
    const { clear, id } = timer as SystemTimer;
    try {
      clear(id);
    } catch {
      // A fake that is no longer installed refuses; its timers are gone.
    }
  },
  unrefTimer: (timer) => Deno.unrefTimer((timer as SystemTimer).id),
};

/** setTimeout() takes a 32-bit count; a larger one would fire at once. */
export const MAX_TIMEOUT = 2 ** 31 - 1;

/**
 * A point in time that can be moved. Moving it later costs nothing: the running
 * timer finds out when it fires, and starts anew. (A timer for each read costs
 * a quarter of an echo server's rate, one lazy timer 1 %.)
 *
 * Invariant: `#timer` is set only while `at` is finite, and `#timerAt <= at`.
 */
export class Alarm {
  /** When it fires, on its scale; `Infinity` is never. */
  at = Infinity;
  readonly #clock: Clock;
  readonly #ring: (at: number) => void;
  /** Whether a timer that it starts keeps the process from ending. */
  keepAlive: boolean;
  readonly #scale: "monotonic" | "now";
  #timer: unknown;
  #timerAt = Infinity;

  /**
   * An alarm that is not set.
   *
   * @param clock Time source.
   * @param ring Called once when the time has come, with that time; the alarm
   * is then off.
   * @param keepAlive Whether a running alarm keeps the process from ending.
   * @param scale `clock.monotonic()`, which nobody can set, or `clock.now()`.
   */
  constructor(
    clock: Clock,
    ring: (at: number) => void,
    keepAlive: boolean,
    scale: "monotonic" | "now" = "monotonic",
  ) {
    this.#clock = clock;
    this.#ring = ring;
    this.keepAlive = keepAlive;
    this.#scale = scale;
  }

  /** Sets the alarm to ring at `at`, on its scale. */
  set(at: number): void {
    this.#set(at, this.#time());
  }

  /** Sets the alarm to ring in `ms` milliseconds; `Infinity` is never. */
  setIn(ms: number): void {
    const time = this.#time();
    this.#set(time + ms, time);
  }

  /** Turns the alarm off; no timer is left. */
  clear(): void {
    this.at = Infinity;
    if (this.#timer === undefined) return;
    this.#clock.clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #time(): number {
    return this.#scale === "now" ? this.#clock.now() : this.#clock.monotonic();
  }

  #set(at: number, time: number): void {
    if (at === Infinity) return this.clear();
    this.at = at;
    if (this.#timer !== undefined) {
      // If it should have fired by now, the clock was set ahead.
      const due = this.#timerAt <= time;
      if (this.#timerAt <= at && !due) return;
      this.#clock.clearTimeout(this.#timer);
    }
    this.#start(time);
  }

  #start(time: number): void {
    // Sums of fractions are off by less, and must not turn 250 ms into 251. But
    // a rest as small as that must not become 0: the clock might not move.
    const rest = this.at - time;
    const ms = rest <= 0 ? 0 : Math.max(1, Math.ceil(rest - 1e-6));
    this.#timerAt = ms > MAX_TIMEOUT ? time + MAX_TIMEOUT : this.at;
    this.#timer = this.#clock.setTimeout(
      () => this.#fired(),
      Math.min(ms, MAX_TIMEOUT),
    );
    if (!this.keepAlive) this.#clock.unrefTimer(this.#timer);
  }

  #fired(): void {
    this.#timer = undefined;
    if (this.#timerAt < this.at) return this.#start(this.#time());
    const { at } = this;
    this.at = Infinity;
    this.#ring(at);
  }
}
