/** The system's clock, alarms, the fake clock, and patience with peers. */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { Alarm, systemClock } from "../net/clock.ts";
import type { Conn } from "../net/conn.ts";
import { Patience } from "../net/patience.ts";
import { countEnded, countOpen } from "../net/stall.ts";
import { FakeClock, pipe } from "../testing/mod.ts";
import { turn } from "./support.ts";

const MAX_TIMEOUT = 2 ** 31 - 1;

/** Records how long each timer is, and counts those that are unref'd. */
class RecordingClock extends FakeClock {
  readonly set: number[] = [];
  unrefd = 0;

  constructor() {
    super(1000);
  }

  override setTimeout(callback: () => void, ms: number): number {
    this.set.push(ms);
    return super.setTimeout(callback, ms);
  }

  override unrefTimer(id: unknown): void {
    this.unrefd++;
    super.unrefTimer(id);
  }
}

function setUp(keepAlive = false): {
  clock: RecordingClock;
  alarm: Alarm;
  rung: number[];
} {
  const clock = new RecordingClock();
  const rung: number[] = [];
  const ring = () => rung.push(clock.now());
  const alarm = new Alarm(clock, ring, keepAlive, "now");
  return { clock, alarm, rung };
}

/** A clock that is set ahead or back, as a system's may be. */
class SteppedClock extends RecordingClock {
  step = 0;

  override now(): number {
    return super.now() + this.step;
  }
}

for (const step of [3_600_000, -3_600_000]) {
  Deno.test(`Alarm.setIn() is not moved when the clock is set by ${step} ms`, async () => {
    const clock = new SteppedClock();
    const due: [number, number][] = [];
    const ring = (at: number) => due.push([at, clock.monotonic()]);
    const alarm = new Alarm(clock, ring, false);
    alarm.setIn(4_000);
    await clock.advance(3_900);
    alarm.setIn(4_000);
    clock.step = step;
    await clock.advance(3_999);
    assertEquals(due, []);
    await clock.advance(1);
    assertEquals(due, [[7_900, 7_900]]);
    assertEquals(clock.pending, 0);
  });
}

Deno.test("Alarm that is moved later rings on time although the clock was set ahead", async () => {
  const clock = new SteppedClock();
  let rung = false;
  const alarm = new Alarm(clock, () => rung = true, false, "now");
  alarm.setIn(4_000);
  clock.step = 3_600_000; // as after a suspend
  alarm.setIn(100);
  await clock.advance(99);
  assertEquals(rung, false);
  await clock.advance(1);
  assertEquals(rung, true);
  assertEquals(clock.pending, 0);
});

Deno.test("Alarm rings once, at its time", async () => {
  const { clock, alarm, rung } = setUp();
  assertEquals(alarm.at, Infinity);
  alarm.set(1500);
  assertEquals(alarm.at, 1500);
  await clock.advance(499);
  assertEquals(rung, []);
  await clock.advance(1);
  assertEquals(rung, [1500]);
  assertEquals(alarm.at, Infinity);
  await clock.advance(10_000);
  assertEquals(rung, [1500]);
  assertEquals(clock.pending, 0);
});

Deno.test("Alarm.setIn() counts from now; Infinity is never", async () => {
  const { clock, alarm, rung } = setUp();
  alarm.setIn(20);
  await clock.advance(20);
  alarm.setIn(0);
  await clock.advance(0);
  assertEquals(rung, [1020, 1020]);
  alarm.setIn(5);
  alarm.setIn(Infinity);
  assertEquals([alarm.at, clock.pending], [Infinity, 0]);
  await clock.advance(100);
  assertEquals(rung.length, 2);
});

Deno.test("Alarm that is moved later keeps its timer; one moved earlier sets a new one", async () => {
  const { clock, alarm, rung } = setUp();
  alarm.set(1100);
  for (let at = 1101; at <= 1200; at++) alarm.set(at);
  assertEquals(clock.set, [100]);
  await clock.advance(100);
  assertEquals([clock.set, rung], [[100, 100], []]);
  alarm.set(1150);
  assertEquals([clock.set, clock.pending], [[100, 100, 50], 1]);
  await clock.advance(50);
  assertEquals(rung, [1150]);
  assertEquals(clock.pending, 0);
});

Deno.test("Alarm that is cleared never rings; one set to a past time rings at once", async () => {
  const { clock, alarm, rung } = setUp();
  alarm.clear();
  alarm.set(1100);
  alarm.clear();
  alarm.clear();
  assertEquals([alarm.at, clock.pending], [Infinity, 0]);
  alarm.set(1);
  assertEquals(clock.set, [100, 0]);
  await clock.advance(0);
  assertEquals(rung, [1000]);
  alarm.set(-Infinity);
  await clock.advance(0);
  assertEquals(rung, [1000, 1000]);
});

Deno.test("Alarm can be set again when it rings", async () => {
  const clock = new RecordingClock();
  const rung: number[] = [];
  const alarm: Alarm = new Alarm(clock, () => {
    rung.push(clock.now());
    if (rung.length < 3) alarm.setIn(10);
  }, true);
  alarm.setIn(10);
  await clock.advance(100);
  assertEquals(rung, [1010, 1020, 1030]);
  assertEquals(clock.pending, 0);
});

Deno.test("Alarm beyond 2^31 ms uses as many timers as it needs", async () => {
  for (const ms of [MAX_TIMEOUT, MAX_TIMEOUT + 1, 3 * MAX_TIMEOUT]) {
    const { clock, alarm, rung } = setUp();
    alarm.setIn(ms);
    await clock.advance(ms - 1);
    assertEquals(rung, []);
    await clock.advance(1);
    assertEquals(rung, [1000 + ms]);
    assertEquals(clock.set.length, Math.ceil(ms / MAX_TIMEOUT));
    assert(clock.set.every((ms) => ms <= MAX_TIMEOUT));
  }
});

Deno.test("Alarm keeps the process alive only if it is told to", () => {
  for (const [keepAlive, unrefd] of [[true, 0], [false, 1]] as const) {
    const { clock, alarm } = setUp(keepAlive);
    alarm.setIn(10);
    assertEquals(clock.unrefd, unrefd);
    alarm.clear();
  }
});

Deno.test("Alarm between two milliseconds never rings early", async () => {
  const { clock, alarm, rung } = setUp();
  alarm.set(1000.25);
  assertEquals(clock.set, [1]);
  await clock.advance(1);
  assertEquals(rung, [1001]);
});

Deno.test("Alarm waits 1 ms, not 0, for the tiny rest of a rounded sum", async () => {
  const { clock, alarm, rung } = setUp();
  alarm.set(1000 + 1e-9);
  assertEquals(clock.set, [1]);
  await clock.advance(1);
  assertEquals(rung, [1001]);
  alarm.set(1001); // now
  assertEquals(clock.set, [1, 0]);
});

Deno.test("Alarm does not turn a rounding error into another millisecond", () => {
  let now = 0;
  const clock = new class extends RecordingClock {
    override monotonic(): number {
      return now;
    }
  }();
  const alarm = new Alarm(clock, () => {}, false);
  for (let i = 0; i < 1_000; i++) {
    now = i * 1.234567;
    alarm.setIn(250);
    alarm.clear();
  }
  assertEquals(new Set(clock.set), new Set([250]));
});

Deno.test("systemClock tells the system's time and sets its timers", async () => {
  assert(Math.abs(systemClock.now() - Date.now()) < 1000);
  const start = systemClock.monotonic();
  await new Promise<void>((resolve) => systemClock.setTimeout(resolve, 2));
  assert(systemClock.monotonic() > start);
  const never = systemClock.setTimeout(() => assert(false), 60_000);
  systemClock.unrefTimer(never);
  systemClock.clearTimeout(never);
  systemClock.clearTimeout(never); // a fired or cleared one is no error
});

Deno.test("systemClock clears a timer with the clearTimeout() of when it was set, whatever is faked now", async () => {
  const real = { setTimeout, clearTimeout };
  let ids = 0;
  const cleared: unknown[] = [];
  const fake = {
    setTimeout: () => ++ids,
    clearTimeout: (id: unknown) => {
      cleared.push(id);
      throw new TypeError("no fake time"); // as an uninstalled fake does
    },
  };
  const users = new Promise<void>((resolve) => setTimeout(resolve, 20));
  const before = systemClock.setTimeout(() => assert(false), 10);
  try {
    Object.assign(globalThis, fake);
    systemClock.clearTimeout(before);
    const during = systemClock.setTimeout(() => {}, 10);
    Object.assign(globalThis, real);
    systemClock.clearTimeout(during);
  } finally {
    Object.assign(globalThis, real);
  }
  assertEquals(cleared, [1]);
  await users; // `before` was due earlier, and has not fired
});

Deno.test("FakeClock starts in the year 2000, or at the given time", () => {
  const start = new Date(new FakeClock().now());
  assertEquals(start.toISOString(), "2000-01-01T00:00:00.000Z");
  const clock = new FakeClock(1_000);
  assertEquals([clock.now(), clock.monotonic(), clock.pending], [1_000, 0, 0]);
  for (const start of [NaN, Infinity, -Infinity]) {
    assertThrows(() => new FakeClock(start), RangeError, "not a time");
  }
});

Deno.test("FakeClock.advance() fires timers in order, each at its time", async () => {
  const clock = new FakeClock(0);
  const fired: [string, number][] = [];
  const set = (name: string, ms: number) =>
    clock.setTimeout(() => fired.push([name, clock.now()]), ms);
  set("c", 30);
  set("a", 10);
  set("b1", 20);
  set("b2", 20);
  set("now", 0);
  set("past", -5);
  set("never", 41);
  assertEquals(clock.pending, 7);
  await clock.advance(40);
  assertEquals(fired, [
    ["now", 0],
    ["past", 0],
    ["a", 10],
    ["b1", 20],
    ["b2", 20],
    ["c", 30],
  ]);
  assertEquals([clock.now(), clock.monotonic(), clock.pending], [40, 40, 1]);
});

Deno.test("FakeClock.advance() fires timers that are set on the way", async () => {
  const clock = new FakeClock(0);
  const times: number[] = [];
  const tick = () => {
    times.push(clock.now());
    clock.setTimeout(tick, 10);
  };
  clock.setTimeout(tick, 10);
  await clock.advance(35);
  assertEquals(times, [10, 20, 30]);
});

Deno.test("FakeClock.advance() does not hang in a loop that takes no time", async () => {
  const clock = new FakeClock(0);
  let rounds = 0;
  const wait = () => new Promise<void>((done) => clock.setTimeout(done, 0));
  const loop = async (most: number) => {
    for (let n = 0; n < most && clock.now() < 10; n++, rounds++) await wait();
  };
  for (let n = 0; n < 3; n++) loop(500); // beside each other; they end
  await clock.advance(5);
  assertEquals([rounds, clock.pending], [1_500, 0]);
  loop(Infinity);
  const error = await assertRejects(() => clock.advance(5), Error, "0 ms");
  assertStringIncludes(error.message, "clock_test.ts");
  assertEquals([rounds, clock.now()], [2_500, 5]);
  await assertRejects(() => clock.advance(5), Error, "0 ms");
  assert(rounds > 3_000, "it goes on");
});

Deno.test("FakeClock.advance() lets everything happen that needs no time", async () => {
  const clock = new FakeClock(0);
  const seen: string[] = [];
  const after = async (name: string, ms: number) => {
    await new Promise<void>((resolve) => clock.setTimeout(resolve, ms));
    for (let i = 0; i < 50; i++) await Promise.resolve();
    seen.push(`${name}: promise jobs at ${clock.now()}`);
    await new Promise((resolve) => setTimeout(resolve, 0));
    seen.push(`${name}: a turn at ${clock.now()}`);
  };
  const done = Promise.all([after("a", 1), after("b", 2)]);
  await clock.advance(2);
  assertEquals(seen, [
    "a: promise jobs at 1",
    "a: a turn at 1",
    "b: promise jobs at 2",
    "b: a turn at 2",
  ]);
  await done;
});

Deno.test("FakeClock.advance() waits for everything that needs no time, however much", async () => {
  const clock = new FakeClock();
  const [client, server] = pipe({ clock });
  const rounds = 2_500; // every thousandth operation waits a turn
  let answers = 0;
  const p = new Uint8Array(1);
  const asking = (async () => {
    for (; answers < rounds; answers++) {
      await client.write(p);
      await client.read(p);
    }
    client.close();
  })();
  const answering = (async () => {
    for await (const chunk of server) await server.write(chunk);
    server.close();
  })();
  await clock.advance(0);
  assertEquals(answers, rounds);
  await Promise.all([asking, answering]);
});

Deno.test("FakeClock.advance() ends although two peers never stop answering each other", async () => {
  const clock = new FakeClock(0);
  const [client, server] = pipe({ clock });
  const pingPong = async (conn: Conn) => {
    const p = new Uint8Array(1);
    while (clock.now() === 0) {
      await conn.write(p);
      await conn.read(p);
    }
    conn.close();
  };
  const playing = Promise.allSettled([pingPong(client), pingPong(server)]);
  await clock.advance(1);
  await playing;
});

Deno.test("FakeClock.advance(0) fires timers that are due", async () => {
  const clock = new FakeClock();
  let fired = false;
  clock.setTimeout(() => fired = true, 0);
  await clock.advance(0);
  assert(fired);
});

Deno.test("FakeClock.advance() calls run one after another", async () => {
  const clock = new FakeClock(0);
  const times: number[] = [];
  clock.setTimeout(() => times.push(clock.now()), 15);
  const first = clock.advance(10).then(() => times.push(clock.now()));
  const second = clock.advance(10).then(() => times.push(clock.now()));
  await Promise.all([first, second]);
  assertEquals(times, [10, 15, 20]);
});

Deno.test("FakeClock.advance() rejects with what a callback throws", async () => {
  const clock = new FakeClock(0);
  clock.setTimeout(() => {
    throw new Error("boom");
  }, 5);
  await assertRejects(() => clock.advance(10), Error, "boom");
  assertEquals(clock.now(), 5);
  await clock.advance(5);
  assertEquals(clock.now(), 10);
});

Deno.test("FakeClock refuses invalid times", async () => {
  const clock = new FakeClock();
  for (const ms of [-1, NaN, Infinity]) {
    await assertRejects(() => clock.advance(ms), RangeError, "not a duration");
  }
  for (const ms of [NaN, 2 ** 31, Infinity]) {
    assertThrows(() => clock.setTimeout(() => {}, ms), RangeError);
  }
  clock.clearTimeout(clock.setTimeout(() => {}, 2 ** 31 - 1));
  assertEquals(clock.pending, 0);
});

Deno.test("FakeClock forgets a cleared timer; clearing it again is no error", async () => {
  const clock = new FakeClock();
  let fired = 0;
  const id = clock.setTimeout(() => fired++, 1);
  const other = clock.setTimeout(() => {
    fired++;
    clock.clearTimeout(id);
  }, 0);
  clock.unrefTimer(id);
  await clock.advance(1);
  clock.clearTimeout(id);
  clock.clearTimeout(other);
  assertEquals([fired, clock.pending], [1, 0]);
});

Deno.test("FakeClock says where a timer was set", () => {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 7;
  const clock = new FakeClock();
  const [client, server] = pipe({ clock });
  client.setReadDeadline(clock.now() + 700);
  client.read(new Uint8Array(1)).catch(() => {});
  const [line] = clock.timers;
  assertStringIncludes(line!, "timer due in 700 ms, set at ");
  assertStringIncludes(line!, import.meta.url);
  assertEquals(Error.stackTraceLimit, 7, "the program's own limit");
  Error.stackTraceLimit = limit;
  client.close();
  server.close();
  assertEquals(clock.timers, []);
});

Deno.test("FakeClock rings alarms after more than 2^31 ms", async () => {
  const clock = new FakeClock(0);
  const year = 365 * 24 * 60 * 60_000;
  let rang = NaN;
  const alarm = new Alarm(clock, () => rang = clock.now(), true);
  alarm.setIn(year);
  await clock.advance(year - 1);
  assertEquals(rang, NaN);
  await clock.advance(1);
  assertEquals(rang, year);
});

Deno.test("Patience that runs out late waits until all connections can have been read", async () => {
  const ended: number[] = [];
  const all = Array.from(
    { length: 1_600 },
    (_, i) => new Patience(systemClock, 1, () => void ended.push(i)),
  );
  for (const _ of all) countOpen(1);
  const end = performance.now() + 10;
  while (performance.now() < end);
  // As Deno does it: 128 operations in a turn, four for each message.
  for (let read = 1; read < all.length; read += 32) {
    await turn();
    for (const patience of all.slice(read, read + 32)) patience.clear();
    countEnded();
  }
  assertEquals(ended, []);
  for (let turns = 0; ended.length === 0 && turns < 10; turns++) await turn();
  assertEquals(
    ended,
    [0],
    "a peer that stays silent is not waited for forever",
  );
  all[0]!.clear();
  for (const _ of all) countOpen(-1);
});

Deno.test("Patience that is cleared during its extra turns never runs out", async () => {
  let ended = 0;
  const patience = new Patience(systemClock, 10, () => ended++);
  const rung = turn(); // a timer that is set before the alarm is due
  const end = performance.now() + 30;
  while (performance.now() < end);
  await rung;
  await turn(); // the alarm has rung, late
  patience.clear();
  for (let turns = 0; turns < 10; turns++) await turn();
  assertEquals(ended, 0);
});
