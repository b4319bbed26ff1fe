import { type Clock, MAX_TIMEOUT } from "../net/clock.ts";
import { afterTurn, settle } from "./event_loop.ts";

/** A timer that has neither fired nor been cleared. */
interface Timer {
  readonly at: number;
  /** How many timers of 0 ms have set one another before it. */
  generation: number;
  readonly callback: () => void;
  readonly setBy: string;
}

/**
 * Far from the system's time: a deadline that is computed from `Date.now()` by
 * mistake never comes. Near it, it would come in some runs and not in others.
 */
const START = Date.UTC(2000, 0, 1);

/** A loop with more of them has no end, we think. */
const MAX_GENERATIONS = 1_000;

/** Where this package is; its own frames say nothing about a test. */
const HOME = new URL("../", import.meta.url).href;
const OWN_FRAME = /^(net|testing)\/|^(listener|dialer|handler|mod)\.ts/;

/**
 * A clock that stands still until it is told to move. Pass it to anything that
 * takes a {@linkcode Clock}: deadlines, attempt delays, back-off, idle and
 * drain timeouts then run on it, and a test can assert exact times.
 *
 * It runs only its own timers: `AbortSignal.timeout()` and `setTimeout()` are
 * the system's.
 *
 * @example A deadline that fires after exactly one second
 * ```ts
 * import { assertEquals, assertRejects } from "@std/assert";
 * import { OpError } from "@switchboard/tcp";
 * import { FakeClock, pipe } from "@switchboard/tcp/testing";
 *
 * const clock = new FakeClock();
 * const [client, server] = pipe({ clock });
 * client.setReadDeadline(clock.now() + 1_000);
 * const read = assertRejects(
 *   () => client.read(new Uint8Array(1)),
 *   OpError,
 *   "i/o timeout",
 * );
 * await clock.advance(999);
 * assertEquals(clock.pending, 1);
 * await clock.advance(1);
 * assertEquals(clock.pending, 0);
 * await read;
 * client.close();
 * server.close();
 * ```
 */
export class FakeClock implements Clock {
  readonly #start: number;
  readonly #timers = new Map<number, Timer>();
  #elapsed = 0;
  #lastId = 0;
  /** Of the timer that has fired last. */
  #generation = 0;
  #advancing: Promise<void> = Promise.resolve();

  /**
   * A clock that stands still.
   *
   * @param now What it shows, in milliseconds since the epoch. Default: the
   * beginning of the year 2000 (UTC), far from what `Date.now()` says.
   * @throws {RangeError} If `now` is not a finite number.
   */
  constructor(now: number = START) {
    if (!Number.isFinite(now)) throw new RangeError(`not a time: ${now}`);
    this.#start = now;
  }

  /** How many timers wait: neither fired nor cleared. */
  get pending(): number {
    return this.#timers.size;
  }

  /** One line for each timer that waits: when it is due, and who set it. */
  get timers(): string[] {
    return [...this.#timers.values()].map(({ at, setBy }) =>
      `timer due in ${at - this.#elapsed} ms, set ${setBy}`
    );
  }

  /** What it shows, in milliseconds since the epoch. */
  now(): number {
    return this.#start + this.#elapsed;
  }

  /** How far it has been moved, in milliseconds. */
  monotonic(): number {
    return this.#elapsed;
  }

  /**
   * Moves the clock. Timers, including those set on the way, fire in the order
   * in which they are due, each when the clock shows its time. Before the
   * first, after each and after the last, everything that needs no time runs:
   * promise jobs, and one turn of the event loop, or more while a server waits
   * for some. `advance(0)` does just that, and fires what is due.
   *
   * Calls are queued: each starts where the previous one stopped.
   *
   * @param ms How far, in milliseconds.
   * @returns Settles when the clock is there.
   * @throws {RangeError} If `ms` is negative or not finite.
   * @throws What a timer's callback throws; the clock stays at its time.
   * @throws {Error} After 1,000 timers of 0 ms that set one another: on a real
   * clock such a loop takes time, on this one it would never end.
   */
  advance(ms: number): Promise<void> {
    if (!(ms >= 0 && ms < Infinity)) {
      return Promise.reject(new RangeError(`not a duration: ${ms}`));
    }
    const advanced = this.#advancing.then(() => this.#advance(ms))
      .finally(() => this.#generation = 0);
    this.#advancing = advanced.catch(() => {}); // the caller gets it
    return advanced;
  }

  /**
   * Calls `callback` once the clock has been moved by `ms`.
   *
   * @param callback What to call.
   * @param ms At most 2^31 - 1, the limit of the real `setTimeout()`.
   * @returns What `clearTimeout()` takes.
   * @throws {RangeError} If `ms` is more than that, or NaN.
   */
  setTimeout(callback: () => void, ms: number): number {
    if (!(ms <= MAX_TIMEOUT)) throw new RangeError(`not a timeout: ${ms}`);
    this.#timers.set(++this.#lastId, {
      at: this.#elapsed + Math.max(0, ms),
      generation: ms > 0 ? 0 : this.#generation + 1,
      callback,
      setBy: caller(),
    });
    return this.#lastId;
  }

  /** Cancels a timer; one that has fired is no error. */
  clearTimeout(id: unknown): void {
    this.#timers.delete(id as number);
  }

  /** Does nothing: a fake timer keeps no process alive. */
  unrefTimer(_id: unknown): void {}

  async #advance(ms: number): Promise<void> {
    const end = this.#elapsed + ms;
    await settle();
    for (;;) {
      const next = this.#next();
      if (next === undefined || next[1].at > end) break;
      const [id, { at, callback, generation, setBy }] = next;
      if (generation > MAX_GENERATIONS) {
        next[1].generation = 0; // the next advance() may go on
        throw new Error(
          `${MAX_GENERATIONS} timers of 0 ms in a row, the last set ${setBy}`,
        );
      }
      this.#elapsed = at;
      this.#generation = generation;
      this.#timers.delete(id);
      callback();
      // A turn takes a millisecond or two: timers of one time share it.
      await new Promise<void>(afterTurn);
      if (this.#next()?.[1].at !== at) await settle();
    }
    this.#elapsed = end;
  }

  /** The timer that is due first; of several, the one that was set first. */
  #next(): [number, Timer] | undefined {
    let first: [number, Timer] | undefined;
    for (const entry of this.#timers) {
      if (first === undefined || entry[1].at < first[1].at) first = entry;
    }
    return first;
  }
}

/** The first frame outside of this package: `at myTest (my_test.ts:7:3)`. */
function caller(): string {
  const frames = deepStack().split("\n");
  const foreign = frames.find((frame) => {
    const url = /((?:file|https?):[^)]*)\)?$/.exec(frame)?.[1];
    if (url === undefined) return false; // the runtime's own
    return !url.startsWith(HOME) || !OWN_FRAME.test(url.slice(HOME.length));
  });
  return foreign?.trim() ?? "by this package, on its own";
}

/** A timer may be more than V8's 10 frames away from the test that set it. */
function deepStack(): string {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 30;
  const { stack = "" } = new Error();
  Error.stackTraceLimit = limit;
  return stack;
}
