/**
 * The timing rules of the resolvers, on a script and a fake clock: what each
 * question is answered, and how long after it was asked.
 */
import {
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
} from "@std/assert";
import { DnsError } from "../net/errors.ts";
import {
  atOnce,
  type Family,
  hedged,
  type LookupInit,
  paired,
  SharedLookups,
} from "../net/lookup.ts";
import { lookupFailure } from "../net/resolver.ts";
import { FakeClock } from "../testing/mod.ts";
import { countedSignal } from "./support.ts";

/** Answers: after so many ms, addresses, an error, or never any (null). */
type Script = Partial<Record<Family, readonly [number, string | Error | null]>>;

interface Case {
  script: Script;
  /** Which questions were asked when. */
  asked: [family: Family, atMs: number][];
  /** What came when. */
  batches: [addresses: string, atMs: number][];
  /** When it was over. */
  endMs: number;
  error?: unknown;
  /** Abort after so many ms. */
  abortMs?: number;
}

const none = new Deno.errors.NotFound("none");
const broken = new Error("broken");

type Rules = (init: LookupInit) => AsyncIterable<string[]>;

async function play(
  rules: Rules,
  { abortMs = Infinity, script }: Case,
): Promise<Omit<Case, "script">> {
  const clock = new FakeClock(0);
  const { controller, signal, listeners } = countedSignal();
  const asked: Case["asked"] = [];
  const batches: Case["batches"] = [];
  const ask: LookupInit["ask"] = (family, calledOff) => {
    asked.push([family, clock.monotonic()]);
    const [ms, answer] = script[family]!;
    const { promise, resolve, reject } = Promise.withResolvers<string[]>();
    const timer = answer === null ? null : clock.setTimeout(() => {
      if (typeof answer === "string") resolve(answer.split(" "));
      else reject(answer);
    }, ms);
    // getaddrinfo cannot be cancelled; its late answers must do no harm.
    if (calledOff !== signal) {
      calledOff.addEventListener("abort", () => {
        if (timer !== null) clock.clearTimeout(timer);
        reject(calledOff.reason);
      });
    }
    return promise;
  };
  let error: unknown;
  let endMs = NaN;
  const playing = (async () => {
    try {
      for await (const batch of rules({ ask, clock, signal })) {
        batches.push([batch.join(" "), clock.monotonic()]);
      }
    } catch (thrown) {
      error = thrown;
    }
    endMs = clock.monotonic();
  })();
  if (abortMs < Infinity) {
    await clock.advance(abortMs);
    controller.abort(broken);
  }
  await clock.advance(30_000);
  await playing;
  assertEquals(clock.pending, 0, "timers left");
  assertEquals(listeners(), 0, "listeners left");
  return { asked, batches, endMs, ...error !== undefined && { error } };
}

async function expectAll(
  t: Deno.TestContext,
  rules: Rules,
  cases: Record<string, Case>,
): Promise<void> {
  for (
    const [name, { abortMs, script, ...expected }] of Object.entries(cases)
  ) {
    await t.step(name, async () => {
      const played = await play(rules, {
        ...expected,
        script,
        ...abortMs !== undefined && { abortMs },
      });
      assertEquals(played, expected);
    });
  }
}

const both = (init: LookupInit) => hedged(init, 0);

Deno.test("hedged() asks for each family when there is no answer after 250 ms", async (t) => {
  await expectAll(t, both, {
    "an answer in time is enough": {
      script: { 0: [249, "::1 10.0.0.1"] },
      asked: [[0, 0]],
      batches: [["::1 10.0.0.1", 249]],
      endMs: 249,
    },
    "a failure in time is final": {
      script: { 0: [100, none] },
      asked: [[0, 0]],
      batches: [],
      endMs: 100,
      error: none,
    },
    "AAAA is never answered": {
      script: {
        0: [15_000, "10.0.0.1"],
        4: [10, "10.0.0.1"],
        6: [10_000, broken],
      },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [["10.0.0.1", 260]],
      endMs: 260 + 2_000,
    },
    "A is never answered, and the first question fails because of it": {
      script: { 0: [10_000, broken], 4: [10_000, broken], 6: [10, "::1"] },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [["::1", 260]],
      endMs: 260 + 2_000,
    },
    "a packet was lost": {
      script: { 0: [5_000, "::1 10.0.0.1"], 4: [5, "10.0.0.1"], 6: [2, "::1"] },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [["::1", 252], ["10.0.0.1", 255]],
      endMs: 255,
    },
    "the other family comes late": {
      script: {
        0: [5_000, "::1 10.0.0.1"],
        4: [5, "10.0.0.1"],
        6: [2_004, "::1"],
      },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [["10.0.0.1", 255], ["::1", 2_254]],
      endMs: 2_254,
    },
    "there is no other family": {
      script: { 0: [5_000, "10.0.0.1"], 4: [5, "10.0.0.1"], 6: [9, none] },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [["10.0.0.1", 255]],
      endMs: 259,
    },
    "an answer to the first question ends the lookup": {
      script: { 0: [300, "::1 10.0.0.1"], 4: [5, "10.0.0.1"], 6: [90, none] },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [["10.0.0.1", 255], ["::1", 300]],
      endMs: 300,
    },
    "a failure of the first question takes no address back": {
      script: { 0: [300, broken], 4: [5, "10.0.0.1"], 6: [15_000, null] },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [["10.0.0.1", 255]],
      endMs: 300,
    },
    "a failure of the first question ends the lookup": {
      script: { 0: [300, none], 4: [500, "10.0.0.1"], 6: [500, "::1"] },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [],
      endMs: 300,
      error: none,
    },
    "both families fail, the first question is still awaited": {
      script: { 0: [10_000, "10.0.0.1"], 4: [500, broken], 6: [500, broken] },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [["10.0.0.1", 10_000]],
      endMs: 10_000,
    },
    "all questions time out": {
      script: { 0: [10_000, broken], 4: [10_000, broken], 6: [10_000, broken] },
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [],
      endMs: 10_000,
      error: broken,
    },
    "an abort before the 250 ms": {
      script: { 0: [15_000, null] },
      abortMs: 249,
      asked: [[0, 0]],
      batches: [],
      endMs: 249,
      error: broken,
    },
    "an abort after the 250 ms": {
      script: { 0: [15_000, null], 4: [0, null], 6: [0, null] },
      abortMs: 300,
      asked: [[0, 0], [6, 250], [4, 250]],
      batches: [],
      endMs: 300,
      error: broken,
    },
  });
});

Deno.test("an answer that is due at the same time is taken", async (t) => {
  const rules: Record<string, (init: LookupInit) => Promise<unknown>> = {
    "hedged()": (init) => Array.fromAsync(hedged(init, 0)),
    "atOnce()": async (init) => [await atOnce(init, 0)],
  };
  for (const [name, rule] of Object.entries(rules)) {
    await t.step(name, async () => {
      const clock = new FakeClock(0);
      const { signal, listeners } = countedSignal();
      const asked: Family[] = [];
      const ask: LookupInit["ask"] = (family) => {
        asked.push(family);
        // As in a busy process: the answer is there, but comes a turn later.
        return new Promise((resolve) =>
          clock.setTimeout(
            () => clock.setTimeout(() => resolve(["10.0.0.1"]), 0),
            250,
          )
        );
      };
      const answer = rule({ ask, clock, signal });
      await clock.advance(250);
      assertEquals(await answer, [["10.0.0.1"]]);
      assertEquals([asked, clock.pending, listeners()], [[0], 0, 0]);
    });
  }
});

Deno.test("hedged() waits for `hedgeMs` before it asks more", async (t) => {
  const patient = (init: LookupInit) => hedged(init, 0, 2_000);
  await expectAll(t, patient, {
    "an answer in time is enough": {
      script: { 0: [1_999, "::1 10.0.0.1"] },
      asked: [[0, 0]],
      batches: [["::1 10.0.0.1", 1_999]],
      endMs: 1_999,
    },
    "AAAA is never answered": {
      script: { 0: [15_000, null], 4: [10, "10.0.0.1"], 6: [15_000, null] },
      asked: [[0, 0], [6, 2_000], [4, 2_000]],
      batches: [["10.0.0.1", 2_010]],
      endMs: 2_010 + 2_000,
    },
  });
});

Deno.test("hedged() asks no more while `spare` does not allow it", async (t) => {
  let looks = 0;
  const crowded = (init: LookupInit) =>
    hedged({ ...init, spare: () => ++looks === 3 }, 0);
  await expectAll(t, crowded, {
    "it checks again every 250 ms": {
      script: { 0: [15_000, null], 4: [10, "10.0.0.1"], 6: [15_000, null] },
      asked: [[0, 0], [6, 750], [4, 750]],
      batches: [["10.0.0.1", 760]],
      endMs: 760 + 2_000,
    },
  });
  assertEquals(looks, 3);
});

Deno.test("hedged() asks only once for a single family", async (t) => {
  await expectAll(t, (init) => hedged(init, 6), {
    "answered": {
      script: { 6: [5_000, "::1"] },
      asked: [[6, 0]],
      batches: [["::1", 5_000]],
      endMs: 5_000,
    },
    "failed": {
      script: { 6: [5_000, none] },
      asked: [[6, 0]],
      batches: [],
      endMs: 5_000,
      error: none,
    },
  });
});

Deno.test("atOnce() waits 250 ms for one question", async (t) => {
  await expectAll(t, async function* (init) {
    yield await atOnce(init, 0);
  }, {
    "answered": {
      script: { 0: [249, "10.0.0.1 ::1"] },
      asked: [[0, 0]],
      batches: [["10.0.0.1 ::1", 249]],
      endMs: 249,
    },
    "failed": {
      script: { 0: [100, broken] },
      asked: [[0, 0]],
      batches: [["", 100]],
      endMs: 100,
    },
    "too late": {
      script: { 0: [251, "10.0.0.1"] },
      asked: [[0, 0]],
      batches: [["", 250]],
      endMs: 250,
    },
    "aborted": {
      script: { 0: [0, null] },
      asked: [[0, 0]],
      batches: [],
      endMs: 100,
      abortMs: 100,
      error: broken,
    },
  });
});

const asked: Case["asked"] = [[6, 0], [4, 0]];

Deno.test("paired() makes A wait up to 50 ms for AAAA", async (t) => {
  await expectAll(t, (init) => paired(init, [6, 4]), {
    "AAAA first": {
      script: { 6: [10, "::1"], 4: [20, "10.0.0.1"] },
      asked,
      batches: [["::1", 10], ["10.0.0.1", 20]],
      endMs: 20,
    },
    "A first, AAAA within 50 ms": {
      script: { 6: [69, "::1"], 4: [20, "10.0.0.1 10.0.0.2"] },
      asked,
      batches: [["::1 10.0.0.1 10.0.0.2", 69]],
      endMs: 69,
    },
    "A first, AAAA later": {
      script: { 6: [71, "::1"], 4: [20, "10.0.0.1"] },
      asked,
      batches: [["10.0.0.1", 70], ["::1", 71]],
      endMs: 71,
    },
    "A first, no AAAA": {
      script: { 6: [30, none], 4: [20, "10.0.0.1"] },
      asked,
      batches: [["10.0.0.1", 30]],
      endMs: 30,
    },
    "no AAAA, then A": {
      script: { 6: [10, broken], 4: [20, "10.0.0.1"] },
      asked,
      batches: [["10.0.0.1", 20]],
      endMs: 20,
    },
    "no A, then AAAA": {
      script: { 6: [20, "::1"], 4: [10, none] },
      asked,
      batches: [["::1", 20]],
      endMs: 20,
    },
    "AAAA is never answered": {
      script: { 6: [2_000, broken], 4: [20, "10.0.0.1"] },
      asked,
      batches: [["10.0.0.1", 70]],
      endMs: 2_000,
    },
    "neither": {
      script: { 6: [20, none], 4: [10, none] },
      asked,
      batches: [],
      endMs: 20,
      error: none,
    },
    "neither, and one reason says more": {
      script: { 6: [20, none], 4: [30, broken] },
      asked,
      batches: [],
      endMs: 30,
      error: broken,
    },
    "an abort while nothing has come": {
      script: { 6: [0, null], 4: [0, null] },
      abortMs: 40,
      asked,
      batches: [],
      endMs: 40,
      error: broken,
    },
    "an abort while A waits": {
      script: { 6: [0, null], 4: [20, "10.0.0.1"] },
      abortMs: 40,
      asked,
      batches: [],
      endMs: 40,
      error: broken,
    },
    "an abort after the first batch": {
      script: { 6: [0, null], 4: [20, "10.0.0.1"] },
      abortMs: 100,
      asked,
      batches: [["10.0.0.1", 70]],
      endMs: 100,
      error: broken,
    },
  });
});

Deno.test("paired() cancels the other question after a break", async () => {
  const clock = new FakeClock(0);
  const { signal, listeners } = countedSignal();
  let reason: unknown;
  const ask: LookupInit["ask"] = (family, signal) => {
    if (family === 6) return Promise.resolve(["::1"]);
    const { promise, reject } = Promise.withResolvers<string[]>();
    signal.addEventListener("abort", () => {
      reason = signal.reason;
      reject(reason);
    });
    return promise;
  };
  for await (const batch of paired({ ask, clock, signal }, [6, 4])) {
    assertEquals(batch, ["::1"]);
    break;
  }
  assertEquals((reason as Error).name, "AbortError");
  assertEquals(listeners(), 0);
  assertEquals(clock.pending, 0);
});

Deno.test("paired() rejects after an abort between two batches", async () => {
  const clock = new FakeClock(0);
  const { controller, signal, listeners } = countedSignal();
  const ask: LookupInit["ask"] = (family, signal) => {
    if (family === 6) return Promise.resolve(["::1"]);
    const { promise, reject } = Promise.withResolvers<string[]>();
    signal.addEventListener("abort", () => reject(signal.reason));
    return promise;
  };
  const batches = paired({ ask, clock, signal }, [6, 4]);
  assertEquals((await batches.next()).value, ["::1"]);
  controller.abort(broken);
  let error: unknown;
  batches.next().catch((e) => error = e);
  await clock.advance(0);
  assertStrictEquals(error, broken);
  assertEquals([clock.pending, listeners()], [0, 0]);
});

Deno.test("hedged() and paired() ask nothing if the signal has already aborted", async (t) => {
  const reason = new Error("stop");
  const init: LookupInit = {
    ask: () => {
      throw new Error("asked");
    },
    clock: new FakeClock(0),
    signal: AbortSignal.abort(reason),
  };
  const rules = { hedged: hedged(init, 0), paired: paired(init, [6, 4]) };
  for (const [name, batches] of Object.entries(rules)) {
    await t.step(name, async () => {
      assertStrictEquals(await batches.next().catch((e) => e), reason);
    });
  }
});

Deno.test("SharedLookups.find() joins a lookup that is under way", async (t) => {
  const setup = () => {
    const clock = new FakeClock();
    const asked: string[] = [];
    const answers: PromiseWithResolvers<string[]>[] = [];
    const lookups = new SharedLookups(clock, (hostname, family) => {
      asked.push(`${hostname} ${family}`);
      const answer = Promise.withResolvers<string[]>();
      answers.push(answer);
      return answer.promise;
    });
    return { answers, asked, clock, lookups };
  };

  await t.step("callers that ask the same share one", async () => {
    const { answers, asked, clock, lookups } = setup();
    const one = lookups.find("a.test", 0);
    await clock.advance(4_999);
    const two = lookups.find("a.test", 0);
    const other = lookups.find("b.test", 0);
    const family = lookups.find("a.test", 4);
    assertEquals(asked, ["a.test 0", "b.test 0", "a.test 4"]);
    for (const [i, answer] of answers.entries()) answer.resolve([`${i}`]);
    assertEquals(
      await Promise.all([one, two, other, family]),
      [["0"], ["0"], ["1"], ["2"]],
    );
  });

  await t.step(
    "one that is over is not shared, whatever came of it",
    async () => {
      const { answers, asked, lookups } = setup();
      const failed = lookups.find("a.test", 0);
      answers[0]!.reject(broken);
      assertStrictEquals(await failed.catch((error) => error), broken);
      const found = lookups.find("a.test", 0);
      answers[1]!.resolve(["10.0.0.1"]);
      assertEquals(await found, ["10.0.0.1"]);
      lookups.find("a.test", 0);
      assertEquals(asked.length, 3);
    },
  );

  await t.step("nor is one of 5 s, but the next", async () => {
    const { answers, asked, clock, lookups } = setup();
    const old = lookups.find("a.test", 0);
    await clock.advance(5_000);
    const fresh = lookups.find("a.test", 0);
    answers[0]!.reject(broken);
    assertStrictEquals(await old.catch((error) => error), broken);
    const joined = lookups.find("a.test", 0);
    assertEquals(asked.length, 2);
    answers[1]!.resolve(["10.0.0.1"]);
    assertEquals(await fresh, ["10.0.0.1"]);
    assertEquals(await joined, ["10.0.0.1"]);
  });

  await t.step("with 23 under way, one of any age is shared", async () => {
    const { answers, asked, clock, lookups } = setup();
    for (let i = 0; i < 22; i++) lookups.find(`${i}.test`, 0);
    assertEquals(lookups.spare, true);
    lookups.find("a.test", 0);
    assertEquals(lookups.spare, false);
    await clock.advance(60_000);
    lookups.find("a.test", 0);
    assertEquals(asked.length, 23);
    lookups.find("b.test", 0); // a name's first is asked at any rate
    assertEquals(asked.length, 24);
    for (const answer of answers.slice(0, 2)) answer.resolve(["10.0.0.1"]);
    await clock.advance(0);
    lookups.find("a.test", 0);
    assertEquals(asked.length, 25);
  });
});

Deno.test("lookupFailure() understands getaddrinfo's messages on each system", async (t) => {
  const failed = "failed to lookup address information: ";
  const cases: [words: string, notFound: boolean, temporary: boolean][] = [
    [`${failed}Name or service not known`, true, false], // glibc
    // macOS
    [`${failed}nodename nor servname provided, or not known`, true, false],
    ["No such host is known. (os error 11001)", true, false], // Windows
    [`${failed}Temporary failure in name resolution`, false, true],
    // Windows
    ["This is usually a temporary error. (os error 11002)", false, true],
    ["A non-recoverable error. (os error 11003)", false, false],
    ["The requested name is valid. (os error 11004)", false, false],
    // musl, for any failure
    [`${failed}Name does not resolve`, false, false],
  ];
  for (const [words, notFound, temporary] of cases) {
    await t.step(words, () => {
      const cause = new Error(words);
      const error = lookupFailure("db.test", cause);
      assertInstanceOf(error, DnsError);
      assertEquals([error.notFound, error.temporary], [notFound, temporary]);
      assertStrictEquals(error.cause, cause);
    });
  }
  await t.step("any other error", () => {
    const refused = new Deno.errors.ConnectionRefused("refused");
    assertEquals(lookupFailure("db.test", refused), undefined);
  });
});
