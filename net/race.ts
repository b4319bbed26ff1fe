/**
 * Happy Eyeballs, the race for one connection (RFC 8305), and nothing else:
 * addresses go in, in batches; one connection comes out, or every address's
 * failure. It knows neither names nor sockets; a `Clock` gives it the time.
 *
 * - Order (section 4): the family of the first address leads, then the two
 *   alternate. A late batch joins the untried addresses, which are interleaved
 *   anew, so that the next attempt is of another family than the last. An
 *   address that comes twice counts once.
 * - Pace (section 5): the next attempt starts `attemptDelay` after the last
 *   one. The RFC is silent about failures; here the failure of any attempt, the
 *   oldest or the newest, starts the next one, but never within 10 ms of the
 *   last start while others are in flight (the RFC's MUST). With none in flight
 *   there is no wait: a thousand refusals take no time. A late batch starts at
 *   once if the delay has passed meanwhile, or if the preferred candidate comes
 *   with it (except in a serial dial).
 * - `attemptDelay: Infinity` is Go's serial dial. With a deadline each address
 *   gets an equal share of the time left, at least 2 s (Go: partialDeadline),
 *   so that a dead one cannot use it all. A late batch makes the shares
 *   smaller, even that of the running attempt.
 * - End: the first connection wins. Every other attempt is aborted, and closed
 *   if it connects all the same. `settleLosers` waits until they have ended;
 *   without it a loser that ignores its signal stays in `#settling`, whose
 *   promises never reject, until it ends by itself.
 *
 * @module
 */

import { Alarm, type Clock } from "./clock.ts";
import { DeadlineExceededError } from "./errors.ts";
import { countEnded } from "./stall.ts";

/** RFC 8305, section 5: the delay MUST NOT be below 10 ms. */
const MIN_DELAY = 10;
/** RFC 8305, section 8: the recommended maximum. */
const MAX_DELAY = 2_000;
/** Go's saneMinimum: less time than this is not worth an attempt. */
const MIN_SHARE = 2_000;

/** Something to connect to. */
export interface Candidate {
  /** Canonical text; equal text means the same address. */
  readonly text: string;
  /** 4 or 6; anything for a unix socket. */
  readonly family: number;
}

/** One address that was tried. Times are those of `clock.monotonic()`. */
export interface Attempt<T extends Candidate> {
  /** What it connects to. */
  readonly candidate: T;
  /** When it started. */
  readonly start: number;
  /** When it ended; not before `state` leaves "running". */
  end: number;
  /** "canceled": another one won, or the race was stopped without a reason. */
  state: "running" | "connected" | "failed" | "canceled";
  /** Why it failed. */
  error?: unknown;
}

/** An attempt, and what can end it early. */
interface Run<T extends Candidate> extends Attempt<T> {
  readonly abort: AbortController;
  /** Rings when its time is up. Set only while `state` is "running". */
  readonly alarm: Alarm;
  /** How many turns of the event loop it still has when its time is up. */
  turns: number;
}

/** What a {@linkcode Race} needs to know. */
export interface RaceInit<T extends Candidate, C> {
  /** Time source. */
  clock: Clock;
  /** Clamped to 10…2000 ms; `Infinity`: strictly one after another. */
  attemptDelay: number;
  /** How long one attempt may take; `Infinity` is no limit. */
  attemptTimeout: number;
  /** When the caller will stop it, by `clock.monotonic()`; or `Infinity`. */
  deadline: number;
  /** The `text` of the candidate to start with, whenever it comes. */
  prefer?: string | undefined;
  /** Whether to wait for aborted attempts before the race is over. */
  settleLosers: boolean;
  /** A reason to fail an address without connecting, which takes no time. */
  refuse?: ((candidate: T) => unknown) | undefined;
  /** Connects; rejects soon after `signal` aborts, if it can. */
  connect(candidate: T, signal: AbortSignal): Promise<C>;
  /** Closes a connection that nobody wants; does not throw. */
  close(conn: C): void;
}

/** The delay between two starts: what the caller asks for, within limits. */
export function clampDelay(ms: number): number {
  return ms === Infinity ? ms : Math.min(Math.max(ms, MIN_DELAY), MAX_DELAY);
}

/** One race; see the top of this file. */
export class Race<T extends Candidate, C> {
  /** Whether the outcome is known. */
  over = false;
  /** What was tried, in the order of the starts. */
  readonly attempts: readonly Attempt<T>[];
  /** The winner, or `undefined` if there is none. Never rejects. */
  readonly done: Promise<C | undefined>;
  readonly #runs: Run<T>[] = [];
  readonly #init: RaceInit<T, C>;
  readonly #delay: number;
  readonly #alarm: Alarm;
  readonly #done = Promise.withResolvers<C | undefined>();
  /** Each settles when its attempt's connect() does, wanted or not. */
  readonly #settling: Promise<void>[] = [];
  readonly #seen = new Set<string>();
  /** Those of the untried that will be refused, which takes no time. */
  readonly #refused = new Set<T>();
  #untried: T[] = [];
  /** How many attempts are in state "running". */
  #inFlight = 0;
  #lastStart = -Infinity;
  /** No attempt starts before this while others are in flight. */
  #nextStart = -Infinity;
  #sealed = false;
  #pumping = false;

  /** A race without candidates; {@linkcode add} starts it. */
  constructor(init: RaceInit<T, C>) {
    this.attempts = this.#runs;
    this.#init = init;
    this.#delay = clampDelay(init.attemptDelay);
    this.#alarm = new Alarm(init.clock, () => this.#pump(), true);
    this.done = this.#done.promise;
  }

  /** What was not tried, in the order in which it would have been. */
  get untried(): readonly T[] {
    return this.#untried;
  }

  /** Adds a batch, best first. */
  add(batch: Iterable<T>): void {
    const { refuse } = this.#init;
    for (const candidate of batch) {
      if (this.#seen.has(candidate.text)) continue;
      this.#seen.add(candidate.text);
      this.#untried.push(candidate);
      if (!this.#sharesTime) continue;
      if (refuse?.(candidate) !== undefined) this.#refused.add(candidate);
    }
    this.#arrange();
    this.#shareAnew();
    this.#pump();
  }

  /** No more batches: when the last attempt fails, the race is lost. */
  seal(): void {
    this.#sealed = true;
    this.#pump();
  }

  /** Ends the race without a winner; attempts in flight fail with `error`. */
  stop(error: unknown): void {
    if (!this.over) this.#finish(undefined, error);
  }

  #arrange(): void {
    const last = this.attempts.at(-1)?.candidate.family;
    const favourite = this.#untried.findIndex((candidate) =>
      candidate.text === this.#init.prefer
    );
    if (favourite >= 0) {
      this.#untried.unshift(...this.#untried.splice(favourite, 1));
      if (this.#delay !== Infinity) this.#hurry();
    }
    const first = this.#untried[0]?.family;
    this.#untried = interleave(
      this.#untried,
      last === undefined || favourite >= 0
        ? (family) => family === first
        : (family) => family !== last,
    );
  }

  #pump(): void {
    // A connect() that fails at once gets here from inside #start().
    if (this.#pumping) return;
    this.#pumping = true;
    while (!this.over && this.#mayStart()) this.#start();
    this.#pumping = false;
    // With none in flight, none is untried either: it would have started.
    if (this.#sealed && this.#inFlight === 0) this.stop(undefined);
  }

  #mayStart(): boolean {
    if (this.#untried.length === 0) return false;
    if (this.#inFlight === 0) return true;
    if (this.#nextStart <= this.#init.clock.monotonic()) return true;
    this.#alarm.set(this.#nextStart);
    return false;
  }

  #start(): void {
    const now = this.#init.clock.monotonic();
    const attempt: Run<T> = {
      candidate: this.#untried.shift()!,
      start: now,
      end: now,
      state: "running",
      abort: new AbortController(),
      alarm: new Alarm(this.#init.clock, () => this.#timeOut(attempt), true),
      turns: 2,
    };
    this.#runs.push(attempt);
    this.#inFlight++;
    const refusal = this.#init.refuse?.(attempt.candidate);
    if (refusal !== undefined) return this.#fail(attempt, refusal);
    this.#alarm.clear();
    this.#lastStart = now;
    this.#nextStart = now + this.#delay;
    this.#settling.push(this.#run(attempt));
  }

  /** Whether addresses share the time: in a serial dial with a deadline. */
  get #sharesTime(): boolean {
    return this.#delay === Infinity && this.#init.deadline !== Infinity;
  }

  /** Shares the time of the running attempt with a new batch. */
  #shareAnew(): void {
    const attempt = this.#runs.at(-1);
    if (!this.#sharesTime || attempt?.state !== "running") return;
    attempt.alarm.set(attempt.start + this.#limit(attempt));
  }

  /** How long an attempt may take, from its start. */
  #limit(attempt: Run<T>): number {
    const { attemptTimeout, deadline } = this.#init;
    if (!this.#sharesTime) return attemptTimeout;
    const remaining = deadline - attempt.start;
    const others = this.#untried.filter((one) => !this.#refused.has(one));
    const share = Math.max(remaining / (others.length + 1), MIN_SHARE);
    // If the share is all that is left, the deadline will do.
    return share < remaining ? Math.min(share, attemptTimeout) : attemptTimeout;
  }

  /** Never rejects: ends when its attempt does, wanted or not. */
  async #run(attempt: Run<T>): Promise<void> {
    const { close, connect } = this.#init;
    const limit = this.#limit(attempt);
    try {
      const connecting = connect(attempt.candidate, attempt.abort.signal);
      // Afterwards: a process's first timer takes Deno 20 ms.
      if (attempt.state === "running") attempt.alarm.setIn(limit);
      const conn = await connecting;
      if (attempt.state !== "running") return close(conn);
      this.#end(attempt, "connected");
      this.#finish(conn, undefined);
    } catch (error) {
      this.#fail(attempt, error); // for a loser: the abort itself
    }
  }

  #timeOut(attempt: Run<T>): void {
    // In a busy process timers come before a connection that was made long ago:
    // one or two more turns of the loop will show it.
    if (attempt.turns-- > 0) return attempt.alarm.setIn(0);
    const error = new DeadlineExceededError();
    attempt.abort.abort(error); // before the next one starts
    this.#fail(attempt, error);
  }

  #fail(attempt: Run<T>, error: unknown): void {
    if (attempt.state !== "running") return;
    this.#end(attempt, "failed", error);
    this.#hurry();
    this.#pump();
  }

  /** Lets the next one start as soon as it may. */
  #hurry(): void {
    this.#nextStart = Math.min(this.#nextStart, this.#lastStart + MIN_DELAY);
  }

  #end(attempt: Run<T>, state: Run<T>["state"], error?: unknown): void {
    countEnded();
    attempt.state = state;
    attempt.end = this.#init.clock.monotonic();
    attempt.error = error;
    attempt.alarm.clear();
    this.#inFlight--;
  }

  #finish(winner: C | undefined, error: unknown): void {
    this.over = true;
    this.#alarm.clear();
    for (const attempt of this.#runs) {
      if (attempt.state !== "running") continue;
      this.#end(attempt, error === undefined ? "canceled" : "failed", error);
      attempt.abort.abort(error);
    }
    this.#done.resolve(
      this.#init.settleLosers
        ? Promise.all(this.#settling).then(() => winner)
        : winner,
    );
  }
}

/**
 * Alternates between those that lead and the others; the surplus of either
 * comes last.
 */
function interleave<T extends Candidate>(
  list: readonly T[],
  leads: (family: number) => boolean,
): T[] {
  const lead = list.filter((candidate) => leads(candidate.family));
  const rest = list.filter((candidate) => !leads(candidate.family));
  const result: T[] = [];
  for (let i = 0; i < Math.max(lead.length, rest.length); i++) {
    result.push(...lead.slice(i, i + 1), ...rest.slice(i, i + 1));
  }
  return result;
}
