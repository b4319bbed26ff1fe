/**
 * When to ask for what, and how long to wait: the rules of the two resolvers,
 * without the asking itself. Both deliver in batches, best first, and end with
 * an error only if there was no batch at all.
 *
 * @module
 */

import { onAbort } from "./calls.ts";
import { Alarm, type Clock } from "./clock.ts";

/** What is asked for: one family, or 0 for whatever there is. */
export type Family = 0 | 4 | 6;

/** What both rules need to know. */
export interface LookupInit {
  /**
   * Asks for addresses; resolves to at least one, or rejects. `signal` aborts
   * when nobody waits for the answer any more.
   */
  ask(family: Family, signal: AbortSignal): Promise<string[]>;
  /** Whether more questions may be asked now. Default: they may. */
  spare?: () => boolean;
  /** Ends the wait: an abort rejects with its reason. */
  signal: AbortSignal;
  /** Time source. */
  clock: Clock;
}

/** How long one question may take before its parts are asked, too. */
const HEDGE_MS = 250;
/**
 * How long the other family may still join one that was found that way. A
 * server that answers one of two questions two seconds before the other is
 * broken; a dial whose addresses all fail should not wait 15 s to say so.
 */
const LATE_MS = 2_000;

/**
 * Asks one question for both families; if there is no answer after 250 ms, also
 * for each of them, and takes what comes. getaddrinfo waits for both answers:
 * with a name server that never gives one of them it takes 15 s, or fails after
 * 10; a lost packet costs 5.
 *
 * The first question has the last word whenever its answer comes. If it is
 * for one family, it is the only one.
 *
 * @param hedgeMs How long the first question is left alone, in milliseconds.
 */
export async function* hedged(
  init: LookupInit,
  whole: Family,
  hedgeMs = HEDGE_MS,
): AsyncGenerator<string[]> {
  const { ask, clock, signal } = init;
  signal.throwIfAborted();
  const given = new Set<string>();
  const pending = new Map<Family, Promise<Answer>>();
  const start = (family: Family) =>
    pending.set(family, settled(family, ask(family, signal)));
  let deadline = whole === 0 ? clock.monotonic() + hedgeMs : Infinity;
  let late = false;
  start(whole);
  while (true) {
    const answer = await first(pending.values(), deadline, init);
    if (answer !== undefined) {
      const { addresses, error, family } = answer;
      const fresh = addresses.filter((address) => !given.has(address));
      for (const address of fresh) given.add(address);
      if (fresh.length > 0) yield fresh;
      if (family === whole && given.size === 0) throw error;
      pending.delete(family);
      // With the first question answered, or nothing but it pending: done.
      if (family === whole || (given.size > 0 && pending.size === 1)) return;
      if (given.size > 0) deadline = clock.monotonic() + LATE_MS;
    } else if (given.size > 0) {
      return; // the other family is too late
    } else if (!late) {
      // In a busy process timers come before an answer that arrived long ago:
      // one more turn of the loop will show it.
      late = true;
      deadline = clock.monotonic();
    } else if (init.spare?.() === false) {
      deadline = clock.monotonic() + hedgeMs;
    } else {
      start(6);
      start(4);
      deadline = Infinity;
    }
  }
}

/** RFC 8305, section 3: how long A records wait for the AAAA records. */
const RESOLUTION_DELAY_MS = 50;

/**
 * Asks for IPv6 and IPv4 addresses at once (RFC 8305, section 3). IPv6 ones are
 * returned as they come; IPv4 ones wait up to 50 ms for them, so that the
 * better family does not lose the race by a hair. A family that fails does not
 * matter if the other has addresses. Nothing is left behind.
 */
export async function* paired(
  init: LookupInit,
  families: readonly Family[],
): AsyncGenerator<string[]> {
  const { ask, clock, signal } = init;
  signal.throwIfAborted();
  const controller = new AbortController();
  const pending = new Map<Family, Promise<Answer>>();
  const errors: unknown[] = [];
  let held: string[] = [];
  let found = false;
  let deadline = Infinity;
  try {
    for (const family of families) {
      pending.set(family, settled(family, ask(family, controller.signal)));
    }
    while (pending.size > 0) {
      const answer = await first(pending.values(), deadline, init);
      deadline = Infinity;
      if (answer !== undefined) {
        const { addresses, error, family } = answer;
        pending.delete(family);
        if (addresses.length === 0) errors.push(error);
        held = [...addresses, ...held];
        if (family === 4 && held.length > 0 && pending.size > 0) {
          deadline = clock.monotonic() + RESOLUTION_DELAY_MS;
          continue;
        }
      }
      if (held.length === 0) continue;
      found = true;
      yield held;
      held = [];
    }
    if (!found) throw gravest(errors);
  } finally {
    controller.abort();
    await Promise.all(pending.values());
  }
}

/**
 * What one question finds within 250 ms: a file is read by then, and a name
 * server has had its say, or is not worth the wait.
 *
 * @returns Its addresses; none if it fails, or takes longer.
 */
export async function atOnce(
  init: LookupInit,
  family: Family,
): Promise<string[]> {
  const { ask, clock, signal } = init;
  const deadline = clock.monotonic() + HEDGE_MS;
  const asked = [settled(family, ask(family, signal))];
  const answer = await first(asked, deadline, init) ??
    await first(asked, clock.monotonic(), init); // one more turn, as above
  return answer?.addresses ?? [];
}

/**
 * How old a lookup may be for another caller to join it: glibc asks again after
 * 5 s. The result of an older one reflects the name server as it was: while
 * that recovers, every new dial would fail with its error.
 */
const JOIN_MS = 5_000;
/**
 * How many lookups leave a quarter of the runtime's threads to the program:
 * otherwise, with a silent name server, eleven names would take all 32 for
 * second questions.
 */
const ENOUGH = 24;

/**
 * Lookups under way, which callers that ask the same share. While a name server
 * is silent, each takes one of the runtime's 32 threads for blocking calls: a
 * program that gives up after a second and tries again would soon have none
 * left, not even to read a file.
 */
export class SharedLookups {
  readonly #clock: Clock;
  readonly #ask: (hostname: string, family: Family) => Promise<string[]>;
  /** The last one of each question. */
  readonly #last = new Map<string, { found: Promise<string[]>; at: number }>();
  #running = 0;

  /** `ask` cannot be cancelled. */
  constructor(
    clock: Clock,
    ask: (hostname: string, family: Family) => Promise<string[]>,
  ) {
    this.#clock = clock;
    this.#ask = ask;
  }

  /** Whether second questions, and there are two, may be asked now. */
  get spare(): boolean {
    return this.#running + 2 <= ENOUGH;
  }

  /** Looks up, or joins a lookup under way. */
  find(hostname: string, family: Family): Promise<string[]> {
    const key = `${family} ${hostname}`;
    const now = this.#clock.monotonic();
    const last = this.#last.get(key);
    if (last && (now - last.at < JOIN_MS || !this.spare)) return last.found;
    this.#running++;
    const found = this.#ask(hostname, family).finally(() => {
      this.#running--;
      if (this.#last.get(key)?.found === found) this.#last.delete(key);
    });
    this.#last.set(key, { found, at: now });
    return found;
  }
}

/** "There is none" means little if the other question got no answer. */
function gravest(errors: readonly unknown[]): unknown {
  return errors.find((error) => !(error instanceof Deno.errors.NotFound)) ??
    errors[0];
}

/** How a question ended. */
interface Answer {
  family: Family;
  /** Empty if it failed. */
  addresses: string[];
  error?: unknown;
}

/** Never rejects: an answer may come when nobody waits for it any more. */
function settled(family: Family, asked: Promise<string[]>): Promise<Answer> {
  return asked.then(
    (addresses) => ({ family, addresses }),
    (error) => ({ family, addresses: [], error }),
  );
}

/**
 * The first answer of several; `undefined` at `deadline`, on the scale of
 * `clock.monotonic()`. Rejects with the signal's reason when it aborts.
 */
async function first(
  pending: Iterable<Promise<Answer>>,
  deadline: number,
  { clock, signal }: LookupInit,
): Promise<Answer | undefined> {
  signal.throwIfAborted();
  const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
  for (const answer of pending) answer.then(resolve);
  // An answer that never comes holds the promise for ever, but no reason.
  const unfollow = onAbort(signal, () => resolve(undefined));
  const alarm = new Alarm(clock, () => resolve(undefined), true);
  alarm.set(deadline);
  try {
    const answer = await promise;
    signal.throwIfAborted();
    return answer;
  } finally {
    unfollow();
    alarm.clear();
  }
}
