import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import { dial, DialError, type DialOptions } from "../dialer.ts";
import { isTimeout } from "../net/errors.ts";
import { Race, type RaceInit } from "../net/race.ts";
import { FakeClock } from "../testing/mod.ts";
import { type Played, Scenario, type Script } from "./scenario.ts";
import { countedSignal } from "./support.ts";

interface Case {
  script: Script;
  options?: DialOptions;
  starts: [string, number][];
  /** The winner and when, or when all had failed. */
  winner?: [string, number];
  failedAt?: number;
}

async function expect(
  { failedAt, options, script, starts, winner }: Case,
): Promise<Played> {
  const played = await new Scenario(script).play(options);
  assertEquals(played.starts, starts);
  assertEquals(played.winner, winner);
  if (winner === undefined) {
    assertInstanceOf(played.error, DialError);
    assertEquals(played.endMs, failedAt);
  }
  return played;
}

async function expectAll(
  t: Deno.TestContext,
  cases: Record<string, Case>,
): Promise<void> {
  for (const [name, one] of Object.entries(cases)) {
    await t.step(name, async () => void await expect(one));
  }
}

/** Trio's scenarios (test_highlevel_open_tcp_stream.py), in milliseconds. */
Deno.test("dial() passes trio's happy eyeballs scenarios", async (t) => {
  await expectAll(t, {
    "one host, quick success": {
      script: { "1.2.3.4": [123, "ok"] },
      starts: [["1.2.3.4", 0]],
      winner: ["1.2.3.4", 123],
    },
    "one host, quick failure": {
      script: { "1.2.3.4": [123, "refused"] },
      starts: [["1.2.3.4", 0]],
      failedAt: 123,
    },
    "one host, slow success": {
      script: { "1.2.3.4": [100_000, "ok"] },
      starts: [["1.2.3.4", 0]],
      winner: ["1.2.3.4", 100_000],
    },
    "one host, slow failure": {
      script: { "1.2.3.4": [100_000, "refused"] },
      starts: [["1.2.3.4", 0]],
      failedAt: 100_000,
    },
    "basic fall-through": {
      script: {
        "1.1.1.1": [1_000, "ok"],
        "2.2.2.2": [1_000, "ok"],
        "3.3.3.3": [200, "ok"],
      },
      starts: [["1.1.1.1", 0], ["2.2.2.2", 250], ["3.3.3.3", 500]],
      winner: ["3.3.3.3", 700],
    },
    "early success": {
      script: {
        "1.1.1.1": [1_000, "ok"],
        "2.2.2.2": [100, "ok"],
        "3.3.3.3": [200, "ok"],
      },
      starts: [["1.1.1.1", 0], ["2.2.2.2", 250]],
      winner: ["2.2.2.2", 350],
    },
    "a custom delay": {
      script: {
        "1.1.1.1": [1_000, "ok"],
        "2.2.2.2": [1_000, "ok"],
        "3.3.3.3": [1_000, "ok"],
      },
      options: { attemptDelay: 450 },
      starts: [["1.1.1.1", 0], ["2.2.2.2", 450], ["3.3.3.3", 900]],
      winner: ["1.1.1.1", 1_000],
    },
    "an error starts the next attempt": {
      script: {
        "1.1.1.1": [100, "refused"],
        "2.2.2.2": [200, "ok"],
        "3.3.3.3": [200, "ok"],
      },
      starts: [["1.1.1.1", 0], ["2.2.2.2", 100]],
      winner: ["2.2.2.2", 300],
    },
    "all fail": {
      script: {
        "1.1.1.1": [100, "refused"],
        "2.2.2.2": [200, "refused"],
        "3.3.3.3": [10_000, "refused"],
        "4.4.4.4": [300, "refused"],
        "5.5.5.5": [500, "refused"],
      },
      starts: [
        ["1.1.1.1", 0],
        ["2.2.2.2", 100],
        ["3.3.3.3", 300],
        ["4.4.4.4", 550],
        ["5.5.5.5", 800],
      ],
      failedAt: 10_300,
    },
    "several succeed in the same instant": {
      script: {
        "1.1.1.1": [500, "refused"],
        "2.2.2.2": [10_000, "deaf"],
        "3.3.3.3": [9_000, "deaf"],
        "4.4.4.4": [8_000, "deaf"],
        "5.5.5.5": [500, "refused"],
      },
      options: { attemptDelay: 1_000 },
      starts: [
        ["1.1.1.1", 0],
        ["2.2.2.2", 500],
        ["3.3.3.3", 1_500],
        ["4.4.4.4", 2_500],
        ["5.5.5.5", 3_500],
      ],
      winner: ["2.2.2.2", 10_500],
    },
    "the second family comes second": {
      script: {
        "1.1.1.1": [10_000, "refused"],
        "2.2.2.2": [1_000, "ok"],
        "::3": [500, "ok"],
      },
      options: { attemptDelay: 1_000 },
      starts: [["1.1.1.1", 0], ["::3", 1_000]],
      winner: ["::3", 1_500],
    },
  });
});

/** Node's `autoSelectFamily` cases (test-net-autoselectfamily*.js). */
Deno.test("dial() passes Node's autoSelectFamily cases", async (t) => {
  await expectAll(t, {
    "the first refuses, the second answers": {
      script: { "::1": [0, "refused"], "127.0.0.1": [0, "ok"] },
      starts: [["::1", 0], ["127.0.0.1", 0]],
      winner: ["127.0.0.1", 0],
    },
    "the first answers, the second is never tried": {
      script: { "::1": [0, "ok"], "127.0.0.1": [0, "ok"] },
      starts: [["::1", 0]],
      winner: ["::1", 0],
    },
    "both refuse": {
      script: { "::1": [0, "refused"], "127.0.0.1": [0, "refused"] },
      starts: [["::1", 0], ["127.0.0.1", 0]],
      failedAt: 0,
    },
    "an attempt that times out gives way": {
      script: { "::1": [0, "hang"], "127.0.0.1": [10, "ok"] },
      options: { attemptTimeout: 250, attemptDelay: Infinity },
      starts: [["::1", 0], ["127.0.0.1", 250]],
      winner: ["127.0.0.1", 260],
    },
    "the last one may time out, too": {
      script: { "::1": [0, "hang"], "127.0.0.1": [0, "hang"] },
      options: { attemptTimeout: 100, attemptDelay: Infinity },
      starts: [["::1", 0], ["127.0.0.1", 100]],
      failedAt: 200,
    },
    "many of one family, one of the other": {
      script: {
        "::1": [0, "hang"],
        "::2": [0, "hang"],
        "::3": [0, "hang"],
        "127.0.0.1": [0, "ok"],
      },
      starts: [["::1", 0], ["127.0.0.1", 250]],
      winner: ["127.0.0.1", 250],
    },
  });
});

/** The cases of Go's TestDialParallel and TestDialerFallbackDelay. */
Deno.test("dial() passes Go's parallel dial cases", async (t) => {
  await expectAll(t, {
    "primary works": {
      script: { "10.0.0.1": [0, "ok"] },
      starts: [["10.0.0.1", 0]],
      winner: ["10.0.0.1", 0],
    },
    "primary refuses, fallback starts at once": {
      script: { "10.0.0.1": [20, "refused"], "::1": [0, "ok"] },
      starts: [["10.0.0.1", 0], ["::1", 20]],
      winner: ["::1", 20],
    },
    "primary hangs, fallback starts after the delay": {
      script: { "10.0.0.1": [0, "hang"], "::1": [0, "ok"] },
      starts: [["10.0.0.1", 0], ["::1", 250]],
      winner: ["::1", 250],
    },
    "primary is slow and still first": {
      script: { "10.0.0.1": [260, "ok"], "::1": [100, "ok"] },
      starts: [["10.0.0.1", 0], ["::1", 250]],
      winner: ["10.0.0.1", 260],
    },
    "a loser that connects late is closed": {
      script: { "10.0.0.1": [5_000, "deaf"], "::1": [0, "ok"] },
      starts: [["10.0.0.1", 0], ["::1", 250]],
      winner: ["::1", 250],
    },
    "all refuse": {
      script: {
        "10.0.0.1": [0, "refused"],
        "10.0.0.2": [0, "refused"],
        "::1": [0, "refused"],
      },
      starts: [["10.0.0.1", 0], ["::1", 0], ["10.0.0.2", 0]],
      failedAt: 0,
    },
  });
});

Deno.test("dial() starts the next attempt on any failure", async (t) => {
  await expectAll(t, {
    "also when an older attempt fails": {
      script: {
        "10.0.0.1": [300, "refused"],
        "10.0.0.2": [0, "hang"],
        "10.0.0.3": [0, "ok"],
      },
      starts: [["10.0.0.1", 0], ["10.0.0.2", 250], ["10.0.0.3", 300]],
      winner: ["10.0.0.3", 300],
    },
    "but not within 10 ms of the last start": {
      script: {
        "10.0.0.1": [253, "refused"],
        "10.0.0.2": [0, "hang"],
        "10.0.0.3": [0, "ok"],
      },
      starts: [["10.0.0.1", 0], ["10.0.0.2", 250], ["10.0.0.3", 260]],
      winner: ["10.0.0.3", 260],
    },
    "unless none is in flight": {
      script: {
        "10.0.0.1": [1, "refused"],
        "10.0.0.2": [1, "refused"],
        "10.0.0.3": [1, "ok"],
      },
      starts: [["10.0.0.1", 0], ["10.0.0.2", 1], ["10.0.0.3", 2]],
      winner: ["10.0.0.3", 3],
    },
  });
  await t.step("a thousand refusals take no time", async () => {
    const script: Record<string, [number, "refused"]> = {};
    for (let i = 0; i < 1_000; i++) {
      script[`10.0.${i >> 8}.${i & 255}`] = [0, "refused"];
    }
    const { endMs, error } = await new Scenario(script).play();
    assertEquals(endMs, 0);
    assertEquals((error as DialError).errors.length, 1_000);
  });
});

Deno.test("dial() alternates families, and tries each address once", async (t) => {
  const hang = [0, "hang"] as const;
  const order = async (addresses: string[], options: DialOptions = {}) => {
    const script = Object.fromEntries(addresses.map((ip) => [ip, hang]));
    const resolve = () => Promise.resolve(addresses);
    const { starts } = await new Scenario(script)
      .play({ resolve, timeout: 60_000, ...options });
    return starts.map(([hostname]) => hostname);
  };
  await t.step(
    "the first address's family leads, then they alternate",
    async () => {
      assertEquals(
        await order(["::1", "::2", "10.0.0.1", "::3", "10.0.0.2"]),
        ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"],
      );
      assertEquals(
        await order(["10.0.0.1", "10.0.0.2", "::1"]),
        ["10.0.0.1", "::1", "10.0.0.2"],
      );
    },
  );
  await t.step("an address that comes twice counts once", async () => {
    assertEquals(
      await order(["10.0.0.1", "::ffff:10.0.0.1", "::1", "0:0::1", "10.0.0.1"]),
      ["10.0.0.1", "::1"],
    );
    const batches = async function* () {
      yield ["10.0.0.1"];
      yield ["::ffff:10.0.0.1", "10.0.0.2"];
    };
    assertEquals(
      await order(["10.0.0.1", "10.0.0.2"], { resolve: batches }),
      ["10.0.0.1", "10.0.0.2"],
    );
    // A zone matters for link-local addresses only.
    assertEquals(
      await order(["::1%lo", "::1", "::1%1", "fe80::1%1", "fe80::1%2"]),
      ["::1", "fe80::1%1", "fe80::1%2"],
    );
  });
  await t.step("tcp4 and tcp6 keep to their own family", async () => {
    for (const [network, family] of [["tcp4", 4], ["tcp6", 6]] as const) {
      const scenario = new Scenario({ "10.0.0.1": hang, "::1": hang });
      let asked: number | undefined;
      const { starts } = await scenario.play({
        timeout: 60_000,
        resolve: (_, options) => {
          asked = options.family;
          return Promise.resolve(["10.0.0.1", "::1"]); // both families
        },
      }, { network });
      assertEquals(asked, family);
      assertEquals(starts, [[family === 4 ? "10.0.0.1" : "::1", 0]]);
    }
  });
});

Deno.test("attemptDelay is clamped to 10…2000 ms", async (t) => {
  const cases: [number, number][] = [
    [250, 250],
    [10, 10],
    [9, 10],
    [0, 10],
    [-1, 10],
    [2_000, 2_000],
    [2_001, 2_000],
  ];
  for (const [attemptDelay, at] of cases) {
    await t.step(`${attemptDelay} waits ${at}`, () =>
      expect({
        script: { "10.0.0.1": [0, "hang"], "10.0.0.2": [0, "ok"] },
        options: { attemptDelay },
        starts: [["10.0.0.1", 0], ["10.0.0.2", at]],
        winner: ["10.0.0.2", at],
      }).then(() => {}));
  }
});

/** Go's TestDialerPartialDeadline, tested by its effects. */
Deno.test("dial() with attemptDelay Infinity shares its timeout among the addresses", async (t) => {
  const starts = async (addresses: number, timeout: number) => {
    const script: Record<string, [number, "hang"]> = {};
    for (let i = 1; i <= addresses; i++) script[`10.0.0.${i}`] = [0, "hang"];
    const { endMs, error, starts } = await new Scenario(script)
      .play({ attemptDelay: Infinity, timeout });
    assertEquals(endMs, timeout);
    assert(isTimeout(error));
    return starts.map(([, ms]) => ms);
  };
  await t.step("12 s for 1, 2 and 3 addresses", async () => {
    assertEquals(await starts(1, 12_000), [0]);
    assertEquals(await starts(2, 12_000), [0, 6_000]);
    assertEquals(await starts(3, 12_000), [0, 4_000, 8_000]);
  });
  await t.step("at least 2 s each", async () => {
    assertEquals(await starts(9, 5_000), [0, 2_000, 4_000]);
  });
  await t.step("less than 2 s goes to the first alone", async () => {
    assertEquals(await starts(9, 1_900), [0]);
  });
  await t.step("time saved by a failure goes to the others", () =>
    expect({
      script: {
        "10.0.0.1": [0, "refused"],
        "10.0.0.2": [0, "hang"],
        "10.0.0.3": [1, "ok"],
      },
      options: { attemptDelay: Infinity, timeout: 12_000 },
      starts: [["10.0.0.1", 0], ["10.0.0.2", 0], ["10.0.0.3", 6_000]],
      winner: ["10.0.0.3", 6_001],
    }).then(() => {}));
  /** When addresses start that come one by one, at these milliseconds. */
  const late = async (comeAt: number[], options: DialOptions = {}) => {
    const addresses = comeAt.map((_, i) => `10.0.0.${i + 1}`);
    const scenario = new Scenario(
      Object.fromEntries(addresses.map((addr) => [addr, [0, "hang"]])),
    );
    const { clock } = scenario;
    const { starts } = await scenario.play({
      async *resolve() {
        for (const [i, ms] of comeAt.entries()) {
          const wait = ms - clock.monotonic();
          await new Promise<void>((done) => clock.setTimeout(done, wait));
          yield [addresses[i]!];
        }
      },
      attemptDelay: Infinity,
      timeout: 12_000,
      ...options,
    });
    return starts.map(([, ms]) => ms);
  };
  await t.step("also with addresses that come late", async () => {
    assertEquals(await late([0, 0]), [0, 6_000]);
    assertEquals(await late([0, 3_000]), [0, 6_000]);
    assertEquals(await late([0, 1_000, 2_000]), [0, 4_000, 8_000]);
    assertEquals(await late([0, 1_000, 5_000]), [0, 5_000, 8_500]);
    assertEquals(await late([0, 0], { attemptTimeout: 5_000 }), [0, 5_000]);
    assertEquals(await late([0, 0], { timeout: 3_000 }), [0, 2_000]);
    assertEquals(await late([0, 0], { timeout: 1_900 }), [0]);
  });
  await t.step("an attempt past its new share ends at once", async () => {
    assertEquals(await late([0, 9_000]), [0, 9_000]);
  });
  await t.step("a race shares no time", async () => {
    await expect({
      script: { "10.0.0.1": [7_000, "ok"], "10.0.0.2": [0, "hang"] },
      options: { timeout: 12_000 },
      starts: [["10.0.0.1", 0], ["10.0.0.2", 250]],
      winner: ["10.0.0.1", 7_000],
    });
  });
  await t.step(
    "without a timeout a dead address blocks the rest",
    () =>
      expect({
        script: { "10.0.0.1": [100_000, "refused"], "10.0.0.2": [0, "ok"] },
        options: { attemptDelay: Infinity },
        starts: [["10.0.0.1", 0], ["10.0.0.2", 100_000]],
        winner: ["10.0.0.2", 100_000],
      }).then(() => {}),
  );
});

Deno.test("a serial dial aborts an attempt before the next one starts", async () => {
  const clock = new FakeClock();
  const seen: string[] = [];
  const dialling = dial("tcp", "db.test:1", {
    clock,
    attemptDelay: Infinity,
    attemptTimeout: 100,
    resolve: () => Promise.resolve(["10.0.0.1", "10.0.0.2"]),
    connect: (addr, { signal }) => {
      seen.push(`start ${addr}`);
      signal.addEventListener("abort", () => seen.push(`abort ${addr}`));
      return new Promise(() => {});
    },
  });
  const failed = assertRejects(() => dialling, DialError);
  await clock.advance(200);
  await failed;
  assertEquals(seen, [
    "start 10.0.0.1:1",
    "abort 10.0.0.1:1",
    "start 10.0.0.2:1",
    "abort 10.0.0.2:1",
  ]);
});

Deno.test("timeout and attemptTimeout are exact", async (t) => {
  const script: Script = { "10.0.0.1": [0, "hang"], "10.0.0.2": [0, "hang"] };
  await t.step("timeout ends the whole dial", async () => {
    const { endMs, error } = await new Scenario(script).play({ timeout: 400 });
    assertInstanceOf(error, DialError);
    assertEquals(endMs, 400);
    assert(error.timeout && isTimeout(error));
    assertEquals(
      error.message,
      "dial tcp target.test:80: all 2 addresses failed: " +
        "10.0.0.1:80 i/o timeout; 10.0.0.2:80 i/o timeout",
    );
  });
  await t.step("timeout is not hidden by an earlier refusal", async () => {
    const { error } = await new Scenario({
      "10.0.0.1": [5, "refused"],
      "10.0.0.2": [0, "hang"],
      "10.0.0.3": [0, "hang"],
    }).play({ timeout: 100 });
    assertInstanceOf(error, DialError);
    assertEquals([error.code, error.timeout], ["ECONNREFUSED", true]);
    assertEquals(
      error.message,
      "dial tcp target.test:80: i/o timeout after 2 of 3 addresses: " +
        "10.0.0.1:80 connection refused; 10.0.0.2:80 i/o timeout",
    );
    assertEquals(error.errors.map((e) => e.timeout), [false, true, true]);
    assertEquals(error.trace.attempts.map((a) => a.outcome), [
      "refused",
      "timeout",
      "not-started",
    ]);
  });
  await t.step(
    "attemptTimeout ends one attempt, and starts the next",
    () =>
      expect({
        script,
        options: { attemptTimeout: 100 },
        starts: [["10.0.0.1", 0], ["10.0.0.2", 100]],
        failedAt: 200,
      }).then(() => {}),
  );
  await t.step("more than 2^31 ms are possible", async () => {
    const days = 60 * 86_400_000;
    const { endMs } = await new Scenario(script)
      .play({ timeout: days }, { ms: days });
    assertEquals(endMs, days);
  });
});

Deno.test("a resolver may deliver in batches", async (t) => {
  await t.step("a late batch is interleaved with the untried", async () => {
    const scenario = new Scenario({
      "::1": [0, "hang"],
      "::2": [0, "hang"],
      "::3": [0, "hang"],
      "10.0.0.1": [0, "hang"],
      "10.0.0.2": [0, "ok"],
    });
    const { clock } = scenario;
    const { starts } = await scenario.play({
      async *resolve() {
        yield ["::1", "::2", "::3"];
        await new Promise<void>((done) => clock.setTimeout(done, 300));
        yield ["10.0.0.1", "10.0.0.2"];
      },
    });
    assertEquals(starts, [
      ["::1", 0],
      ["::2", 250],
      ["10.0.0.1", 500],
      ["::3", 750],
      ["10.0.0.2", 1_000],
    ]);
  });
  await t.step(
    "the delay counts from the last start, not from the batch",
    async () => {
      const scenario = new Scenario({
        "10.0.0.1": [100, "refused"],
        "10.0.0.2": [0, "hang"],
        "10.0.0.3": [0, "ok"],
      });
      const { starts } = await scenario.play({
        async *resolve() {
          yield ["10.0.0.1", "10.0.0.2"];
          await new Promise<void>((d) => scenario.clock.setTimeout(d, 260));
          yield ["10.0.0.3"];
        },
      });
      assertEquals(starts, [
        ["10.0.0.1", 0],
        ["10.0.0.2", 100],
        ["10.0.0.3", 350],
      ]);
    },
  );
  await t.step("the family that started last waits its turn", async () => {
    const scenario = new Scenario({
      "::1": [0, "hang"],
      "10.0.0.1": [0, "hang"],
      "10.0.0.2": [0, "ok"],
      "::2": [0, "hang"],
    });
    const { clock } = scenario;
    const { starts } = await scenario.play({
      async *resolve() {
        yield ["::1", "10.0.0.1"];
        await new Promise<void>((done) => clock.setTimeout(done, 300));
        yield ["10.0.0.2", "::2"];
      },
    });
    assertEquals(starts, [
      ["::1", 0],
      ["10.0.0.1", 250],
      ["::2", 500],
      ["10.0.0.2", 750],
    ]);
  });
  await t.step("a late batch starts at once if the delay is over", async () => {
    const scenario = new Scenario({
      "::1": [0, "hang"],
      "10.0.0.1": [5, "ok"],
    });
    const { clock } = scenario;
    const { starts, winner } = await scenario.play({
      async *resolve() {
        yield ["::1"];
        await new Promise<void>((done) => clock.setTimeout(done, 900));
        yield ["10.0.0.1"];
      },
    });
    assertEquals(starts, [["::1", 0], ["10.0.0.1", 900]]);
    assertEquals(winner, ["10.0.0.1", 905]);
  });
  await t.step("the race goes on when the resolver fails later", async () => {
    const scenario = new Scenario({ "::1": [50, "ok"] });
    const { winner } = await scenario.play({
      async *resolve() {
        yield ["::1"];
        await Promise.reject(new Error("the other family failed"));
      },
    });
    assertEquals(winner, ["::1", 50]);
  });
  await t.step("a winner ends the lookup", async () => {
    const scenario = new Scenario({ "::1": [50, "ok"] });
    let signal: AbortSignal | undefined;
    let ended = false;
    await scenario.play({
      async *resolve(_, options) {
        signal = options.signal;
        try {
          yield ["::1"];
          await new Promise((_, reject) =>
            signal!.addEventListener("abort", () => reject(signal!.reason))
          );
        } finally {
          ended = true;
        }
      },
    });
    assertEquals([signal?.aborted, ended], [true, true]);
  });
});

Deno.test("dial() closes every losing connection, even a late one that ignored its abort", async () => {
  const scenario = new Scenario({
    "10.0.0.1": [10_000, "deaf"], // connects long after its abort
    "10.0.0.2": [260, "deaf"],
    "10.0.0.3": [0, "ok"],
  });
  const { winner } = await scenario.play(); // fails unless all are closed
  assertEquals(winner, ["10.0.0.3", 500]);
});

Deno.test("an abort rejects with the signal's reason and closes what still connects", async (t) => {
  const script: Script = {
    "10.0.0.1": [1_000, "deaf"],
    "10.0.0.2": [1_000, "ok"],
  };
  const reason = { not: "even an Error" };
  await t.step("while connecting", async () => {
    const scenario = new Scenario(script);
    const { controller, listeners, signal } = countedSignal();
    const dialling = scenario.dial({ signal });
    await scenario.clock.advance(300);
    controller.abort(reason);
    assertStrictEquals(await dialling.catch((e) => e), reason);
    assertEquals(listeners(), 0);
    await scenario.clock.advance(2_000);
    assertEquals(scenario.starts.length, 2);
    scenario.check(null);
  });
  await t.step(
    "while resolving, even if the resolver ignores it",
    async () => {
      const scenario = new Scenario(script);
      const { controller, listeners, signal } = countedSignal();
      const answer = Promise.withResolvers<string[]>();
      const dialling = scenario.dial({ signal, resolve: () => answer.promise });
      await scenario.clock.advance(300);
      controller.abort(reason);
      assertStrictEquals(await dialling.catch((e) => e), reason);
      answer.resolve(Object.keys(script));
      await scenario.clock.advance(2_000);
      assertEquals(scenario.starts, []);
      assertEquals(listeners(), 0);
      scenario.check(null);
    },
  );
  await t.step("before the dial: nothing is looked up", async () => {
    const scenario = new Scenario(script);
    const dialling = scenario.dial({
      signal: AbortSignal.abort(reason),
      resolve: () => {
        throw new Error("asked all the same");
      },
    });
    assertStrictEquals(await dialling.catch((e) => e), reason);
    assertEquals(scenario.starts, []);
  });
  await t.step("after success it has no effect", async () => {
    const scenario = new Scenario({ "10.0.0.1": [0, "ok"] });
    const { controller, listeners, signal } = countedSignal();
    const dialling = scenario.dial({ signal });
    await scenario.clock.advance(0);
    const conn = await dialling;
    assertEquals(listeners(), 0);
    controller.abort(reason);
    scenario.check(conn);
  });
});

Deno.test("a step of the system clock does not change a serial dial's shares", async (t) => {
  for (const step of [-3_600_000, 3_600_000]) {
    await t.step(`by ${step} ms`, async () => {
      let stepped = 0;
      const clock = new class extends FakeClock {
        override now(): number {
          return super.now() + stepped;
        }
      }(0);
      const starts: number[] = [];
      const addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
      const dialling = assertRejects(() =>
        dial("tcp", "db.test:1", {
          attemptDelay: Infinity,
          clock,
          timeout: 20_000,
          resolve: () => Promise.resolve(addresses),
          connect: () => {
            starts.push(clock.monotonic());
            return new Promise(() => {});
          },
        }), DialError);
      await clock.advance(1_000);
      stepped = step;
      await clock.advance(19_000);
      await dialling;
      assertEquals(starts, [0, 5_000, 10_000, 15_000]);
    });
  }
});

// Race itself, where a dial cannot show it: what the sandbox refuses, and which
// address is preferred.

interface Runner {
  text: string;
  family: number;
}

/** A race in which no attempt connects. */
function racing(
  options: Partial<RaceInit<Runner, never>>,
): { race: Race<Runner, never>; clock: FakeClock; starts: [string, number][] } {
  const clock = new FakeClock(0);
  const starts: [string, number][] = [];
  const race = new Race<Runner, never>({
    clock,
    attemptDelay: 250,
    attemptTimeout: Infinity,
    deadline: Infinity,
    settleLosers: false,
    connect: ({ text }) => {
      starts.push([text, clock.monotonic()]);
      return new Promise(() => {});
    },
    close() {},
    ...options,
  });
  return { race, clock, starts };
}

Deno.test("a serial dial shares no time with addresses that the sandbox refuses", async () => {
  for (const late of [0, 50]) {
    const { race, clock, starts } = racing({
      attemptDelay: Infinity,
      deadline: 12_000,
      refuse: ({ text }) => text.startsWith("::") ? new Error("no") : undefined,
    });
    const denied = ["::1", "::2", "::3"].map((text) => ({ text, family: 6 }));
    const good = ["10.0.0.1", "10.0.0.2"].map((text) => ({ text, family: 4 }));
    race.add(late > 0 ? good : [...good, ...denied]);
    await clock.advance(late);
    race.add(denied);
    race.seal();
    await clock.advance(12_000 - late);
    race.stop(new Error("time is up"));
    await race.done;
    assertEquals(starts, [["10.0.0.1", 0], ["10.0.0.2", 6_000]]);
  }
});

Deno.test("a serial dial asks the sandbox at most twice about each address", async () => {
  const asked = new Map<string, number>();
  const { race } = racing({
    attemptDelay: Infinity,
    deadline: 12_000,
    refuse: ({ text }) => void asked.set(text, (asked.get(text) ?? 0) + 1),
    connect: () => Promise.reject(new Error("refused")),
  });
  const texts = Array.from({ length: 20 }, (_, i) => `10.0.0.${i}`);
  race.add(texts.map((text) => ({ text, family: 4 })));
  race.seal();
  assertEquals(await race.done, undefined);
  assertEquals(asked, new Map(texts.map((text) => [text, 2])));
});

Deno.test("a preferred address that comes late starts at once, before the others", async () => {
  const late = [{ text: "10.0.0.1", family: 4 }, { text: "::2", family: 6 }];
  for (const batch of [late, late.toReversed()]) {
    const { race, clock, starts } = racing({ prefer: "::2" });
    race.add([{ text: "::1", family: 6 }]);
    await clock.advance(100);
    race.add(batch);
    await clock.advance(300);
    race.stop(undefined);
    assertEquals(starts, [["::1", 0], ["::2", 100], ["10.0.0.1", 350]]);
  }
});

Deno.test("an attempt does not start early, even if a timer fires early", async () => {
  let early = 0.5; // once
  const clock = new class extends FakeClock {
    override setTimeout(callback: () => void, ms: number): number {
      const id = super.setTimeout(callback, ms - early);
      early = 0;
      return id;
    }
  }(0);
  const starts: number[] = [];
  const { race } = racing({
    clock,
    attemptDelay: 10,
    connect: () => {
      starts.push(clock.monotonic());
      return new Promise(() => {});
    },
  });
  race.add(["::1", "::2", "::3"].map((text) => ({ text, family: 6 })));
  await clock.advance(100);
  race.stop(undefined);
  assertEquals(starts.length, 3);
  for (const [i, start] of starts.entries()) {
    assert(start >= i * 10, `${starts}`);
  }
});

Deno.test("a race gets through ten thousand refusals at once", async () => {
  const { race, clock, starts } = racing({
    refuse: ({ family }) => family === 6 ? new Error("forbidden") : undefined,
  });
  const texts = Array.from({ length: 10_000 }, (_, i) => `::${i}`);
  race.add(texts.map((text) => ({ text, family: 6 })));
  race.add([{ text: "10.0.0.1", family: 4 }]);
  await clock.advance(0);
  race.stop(undefined);
  assertEquals(starts, [["10.0.0.1", 0]]);
  assertEquals(race.attempts.length, 10_001);
});

Deno.test("an address that the sandbox refuses takes no turn", async () => {
  const { race, clock, starts } = racing({
    refuse: ({ text }) => text === "::2" ? new Error("forbidden") : undefined,
  });
  race.add(["::1", "::2", "::3"].map((text) => ({ text, family: 6 })));
  await clock.advance(300);
  race.stop(undefined);
  assertEquals(starts, [["::1", 0], ["::3", 250]]);
});
