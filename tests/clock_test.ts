import { assert, assertEquals } from "@std/assert";
import { Alarm, systemClock } from "../net/clock.ts";
import { FakeClock } from "../testing/fake_clock.ts";

const MAX_TIMEOUT = 2 ** 31 - 1;

/** Records how long each timer is, and which ones are let go. */
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
  const alarm = new Alarm(clock, () => rung.push(clock.now()), keepAlive);
  return { clock, alarm, rung };
}

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

Deno.test("Alarm that is moved later keeps its timer; earlier, it needs a new one", async () => {
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

Deno.test("Alarm that is cleared, or set to a time gone by", async () => {
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

Deno.test("Alarm that is set again when it rings", async () => {
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

Deno.test("Alarm beyond 2^31 ms takes as many timers as it needs", async () => {
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

Deno.test("Alarm holds the process only if it is told to", () => {
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

Deno.test("systemClock is the system's", async () => {
  assert(Math.abs(systemClock.now() - Date.now()) < 1000);
  const start = systemClock.monotonic();
  await new Promise<void>((resolve) => systemClock.setTimeout(resolve, 2));
  assert(systemClock.monotonic() > start);
  const never = systemClock.setTimeout(() => assert(false), 60_000);
  systemClock.unrefTimer(never);
  systemClock.clearTimeout(never);
  systemClock.clearTimeout(never); // a fired or cleared one is no error
});
