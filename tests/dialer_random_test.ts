/**
 * Random dials against a model of the race that goes through it millisecond by
 * millisecond (RFC 8305, section 5). A failure names its seed.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { DialError, type DialOptions } from "../dialer.ts";
import { Scenario, type Script } from "./scenario.ts";
import { randomOf } from "./support.ts";

interface Attempt {
  addr: string;
  startMs: number;
  durationMs: number;
  outcome: string;
}

type Limits = Required<
  Pick<DialOptions, "attemptDelay" | "attemptTimeout" | "timeout">
>;

const isIpv6 = (host: string) => host.includes(":");

function attemptAt(host: string, startMs: number, outcome: string): Attempt {
  const addr = isIpv6(host) ? `[${host}]:80` : `${host}:80`;
  return { addr, startMs, durationMs: 0, outcome };
}

/** The families alternate, the first address's first. */
function interleaved(hosts: string[]): string[] {
  const first = hosts.filter((host) => isIpv6(host) === isIpv6(hosts[0]!));
  const second = hosts.filter((host) => !first.includes(host));
  return hosts
    .flatMap((_, i) => [first[i], second[i]])
    .filter((host) => host !== undefined);
}

/**
 * What the trace of a dial must be; `null` if two things happen in the same
 * millisecond, whose order is left open.
 */
function raced(script: Script, limits: Limits): Attempt[] | null {
  const { attemptTimeout, timeout } = limits;
  const attemptDelay = limits.attemptDelay === Infinity
    ? Infinity
    : Math.min(Math.max(limits.attemptDelay, 10), 2_000);
  const waiting = interleaved(Object.keys(script));
  const attempts: Attempt[] = [];
  const hosts = new Map<Attempt, string>();
  let last = 0; // when the last attempt started
  let next = 0; // when the next one may start beside others
  for (let ms = 0;; ms++) {
    const running = attempts.filter(({ outcome }) => outcome === "");
    const end = (attempt: Attempt, outcome: string) => {
      attempt.durationMs = ms - attempt.startMs;
      attempt.outcome = outcome;
    };
    const due = running.length > 0 && waiting.length > 0 && ms === next;
    let events = Number(due);
    let over = "";
    for (const attempt of running) {
      const [latency, answer] = script[hosts.get(attempt)!]!;
      const age = ms - attempt.startMs;
      if (age === latency && answer !== "hang") {
        events++;
        if (answer === "refused") end(attempt, "refused");
        else {
          end(attempt, "connected");
          over = "canceled";
        }
      } else if (age === attemptTimeout) {
        events++;
        end(attempt, "timeout");
      }
    }
    if (ms === timeout) {
      events++;
      over = "timeout";
    }
    if (events > 1) return null;
    // A failure lets the next one start, 10 ms after the last start at least.
    const left = attempts.filter(({ outcome }) => outcome === "");
    if (left.length < running.length) next = Math.min(next, last + 10);
    while (
      over === "" && waiting.length > 0 && (left.length === 0 || ms >= next)
    ) {
      const host = waiting.shift()!;
      const attempt = attemptAt(host, ms, "");
      hosts.set(attempt, host);
      attempts.push(attempt);
      left.push(attempt);
      last = ms;
      next = ms + attemptDelay;
    }
    if (over === "" && left.length > 0) continue;
    for (const attempt of left) end(attempt, over);
    const untried = waiting.map((host) => attemptAt(host, 0, "not-started"));
    return [...attempts, ...untried];
  }
}

/** A script and limits under which some dial ends. */
function planOf(random: (n: number) => number): [Script, Limits] {
  const pick = <T>(list: readonly T[]): T => list[random(list.length)]!;
  const span = pick([20, 200, 900]);
  const outcomes = pick(
    [
      ["refused", "hang"],
      ["ok", "refused", "refused", "hang"],
      ["ok", "deaf", "refused", "hang"],
    ] as const,
  );
  const script: Record<string, Script[string]> = {};
  for (let n = 1 + random(6); n > 0; n--) {
    const host = pick([`10.0.0.${n}`, `2001:db8::${n}`]);
    script[host] = [1 + random(span), pick(outcomes)];
  }
  const limits = {
    attemptDelay: pick([0, 37, 250, Infinity]),
    attemptTimeout: pick([Infinity, 1 + random(span)]),
    timeout: pick([Infinity, 1 + random(2 * span)]),
  };
  const ends = limits.attemptTimeout < Infinity || limits.timeout < Infinity;
  return [script, ends ? limits : { ...limits, timeout: 1_900 }];
}

Deno.test("dial() traces 1,000 random races as the model does", async () => {
  let compared = 0;
  await Promise.all(Array.from({ length: 1_000 }, async (_, seed) => {
    const [script, limits] = planOf(randomOf(seed));
    const expected = raced(script, limits);
    if (expected === null) return;
    compared++;
    const scenario = new Scenario(script);
    const dialling = scenario.dial(limits);
    const traced = dialling.then(
      (conn) => conn.dialTrace,
      (error) => error instanceof DialError ? error.trace : error,
    );
    await scenario.clock.advance(10_000);
    const { attempts } = await traced;
    assertEquals(
      attempts.map((
        { addr, startMs, durationMs, outcome }: Attempt,
      ) => ({ addr, startMs, durationMs, outcome })),
      expected,
      `seed ${seed}`,
    );
    scenario.check(await dialling.catch(() => null));
  }));
  assert(compared > 500, `only ${compared} had an order`);
});
