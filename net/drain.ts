import { Listener } from "./accept.ts";
import { Alarm, type Clock } from "./clock.ts";
import { Turns } from "./turns.ts";

/** What became of the connections that were open when a shutdown began. */
export interface ShutdownReport {
  /** Connections whose handlers returned in time, or detached them. */
  drained: number;
  /** Connections closed by force: handler or peer was not done in time. */
  forced: number;
  /**
   * Connections whose handlers failed in time, but not because of the shutdown,
   * and those that were closed for `maxConnectionsPerHost` meanwhile.
   */
  failed: number;
  /** Milliseconds from the shutdown's start to its end. */
  durationMs: number;
}

/** How a connection's handler has ended, or that it still runs. */
export type Outcome = "running" | "drained" | "forced" | "failed";

/** What a drain waits for. */
export interface Drainable {
  /** Kept up to date by its owner. */
  outcome: Outcome;
}

/** One drain under way: a deadline that only moves closer, and a report. */
export class Drain {
  /** Settles when everything has ended, or was forced to. */
  readonly report: Promise<ShutdownReport>;
  /** Whether time is up: nothing may begin any more. */
  forced = false;
  readonly #clock: Clock;
  readonly #items: Drainable[] = [];
  readonly #drained = Promise.withResolvers<void>();
  readonly #timeUp = Promise.withResolvers<void>();
  readonly #deadline: Alarm;
  readonly #grace = new Turns(() => this.ended());
  readonly #force: () => void;
  /** When it forces, if something still runs. */
  #forceAt = Infinity;

  /**
   * @param clock Time source.
   * @param before Has to settle before the report does.
   * @param force Ends every item that still runs.
   */
  constructor(clock: Clock, before: Promise<void>, force: () => void) {
    this.#clock = clock;
    this.#force = force;
    this.#deadline = new Alarm(clock, () => this.#forceAll(), true);
    this.report = this.#run(before);
  }

  /** Settles when it begins to force, if it has to. */
  get timeUp(): Promise<void> {
    return this.#timeUp.promise;
  }

  /** One more to wait for. */
  add(item: Drainable): void {
    this.#items.push(item);
    this.#deadline.set(this.#forceAt);
  }

  /** Nothing is left to wait for, and nothing more will come. */
  ended(): void {
    this.#drained.resolve();
  }

  /** Forces in `timeout` milliseconds at the latest. */
  hurry(timeout: number): void {
    if (timeout === 0) return this.#forceAll();
    this.#forceAt = Math.min(this.#forceAt, this.#clock.monotonic() + timeout);
    // No timer if there is nothing to wait for: the first takes Deno 20 ms.
    if (this.#runs()) this.#deadline.set(this.#forceAt);
  }

  async #run(before: Promise<void>): Promise<ShutdownReport> {
    const start = this.#clock.monotonic();
    // Both, whatever happens: a timer must not outlive the report.
    await Promise.allSettled([before, this.#drained.promise]);
    this.#deadline.clear();
    this.#grace.clear();
    const report = {
      drained: this.#count("drained"),
      forced: this.#count("forced"),
      failed: this.#count("failed"),
      durationMs: Math.round(this.#clock.monotonic() - start),
    };
    this.#items.length = 0; // a server that is kept must not keep them
    await before; // it may have failed
    return report;
  }

  /** Handlers whose calls have just failed end within this turn of the loop. */
  #forceAll(): void {
    this.forced = true;
    if (!this.#runs()) return;
    this.#timeUp.resolve();
    this.#force();
    this.#grace.start(1);
  }

  #runs(): boolean {
    return this.#count("running") > 0;
  }

  #count(outcome: Outcome): number {
    return this.#items.filter((item) => item.outcome === outcome).length;
  }
}

/** Whether a subclass's own methods may keep a shutdown waiting. */
export function mayWait(listener: Listener): boolean {
  const { accept, close } = Listener.prototype;
  return listener.accept !== accept || listener.close !== close;
}

/**
 * Closes a listener at once. A subclass's own close() may wait, or fail, before
 * it has closed anything; from `timeUp` on nobody waits for it.
 */
export async function closeListener(
  listener: Listener,
  timeUp?: Promise<void>,
): Promise<void> {
  let closing: unknown;
  try {
    closing = listener.close();
  } finally {
    if (timeUp) closing = Promise.race([closing, timeUp]);
    const closed = Listener.prototype.close.call(listener);
    await Promise.allSettled([closing, closed]);
  }
  await closing;
}
