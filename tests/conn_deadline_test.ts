import { assert, assertEquals, assertThrows } from "@std/assert";
import { Conn } from "../net/conn.ts";
import { isTimeout, OpError } from "../net/errors.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { InnerConn } from "./conn_inner.ts";
import { bytes } from "./support.ts";
import { failure, settlesAtOnce } from "./suites/conn_suite_kit.ts";

/** Counts the timers that are set. */
class CountingClock extends FakeClock {
  count = 0;
  readonly unrefd: unknown[] = [];

  override setTimeout(callback: () => void, ms: number): number {
    this.count++;
    return super.setTimeout(callback, ms);
  }

  override unrefTimer(id: unknown): void {
    this.unrefd.push(id);
    super.unrefTimer(id);
  }
}

function setUp(): { inner: InnerConn; conn: Conn; clock: CountingClock } {
  const inner = new InnerConn();
  const clock = new CountingClock(1_000_000);
  return { inner, clock, conn: new Conn(inner, { clock }) };
}

async function readOnce(conn: Conn, inner: InnerConn): Promise<void> {
  const reading = conn.read(new Uint8Array(8));
  await inner.deliver(bytes("x"));
  assertEquals(await reading, 1);
}

Deno.test("a deadline fires at its time, to the millisecond", async () => {
  const { conn, clock } = setUp();
  const reading = failure(conn.read(new Uint8Array(1)));
  const writing = failure(conn.write(new Uint8Array(1)));
  conn.setReadDeadline(clock.now() + 1000);
  conn.setWriteDeadline(new Date(clock.now() + 2000));
  await clock.advance(999);
  assert(!await settlesAtOnce(reading));
  await clock.advance(1);
  assert(isTimeout(await reading));
  await clock.advance(999);
  assert(!await settlesAtOnce(writing));
  await clock.advance(1);
  assert(isTimeout(await writing));
  assertEquals(clock.pending, 0);
  conn.close();
});

Deno.test("a Conn around a Conn uses the inner one's clock", async () => {
  const clock = new FakeClock();
  const conn = new Conn(new Conn(new InnerConn(), { clock }));
  conn.setReadDeadline(clock.now() + 50);
  const reading = failure(conn.read(new Uint8Array(1)));
  await clock.advance(50);
  assert(isTimeout(await reading));
  conn.close();
});

Deno.test("a deadline sets no timer while no call waits", async () => {
  const { inner, conn, clock } = setUp();
  conn.setDeadline(clock.now() + 1000);
  assertEquals(clock.count, 0);
  const reading = failure(conn.read(new Uint8Array(1)));
  assertEquals(clock.count, 1);
  await clock.advance(1000);
  assert(isTimeout(await reading));
  assertEquals([clock.count, clock.pending], [1, 0]);
  conn.setDeadline(null);
  await inner.deliver(bytes("x"));
  assertEquals(await conn.read(new Uint8Array(8)), 1);
  assertEquals(clock.count, 1);
  conn.close();
});

Deno.test("a deadline in the past fails pending calls, and needs no timer", async () => {
  const { conn, clock } = setUp();
  const reading = failure(conn.read(new Uint8Array(1)));
  const writing = failure(conn.write(new Uint8Array(1)));
  conn.setDeadline(clock.now());
  assert(isTimeout(await reading) && isTimeout(await writing));
  assertEquals(clock.count, 0);
  conn.close();
});

Deno.test("no timer is set without a deadline", async () => {
  const { inner, conn, clock } = setUp();
  for (let i = 0; i < 10; i++) await readOnce(conn, inner);
  const writing = conn.write(bytes("x"));
  await Promise.resolve();
  await inner.take();
  await writing;
  conn.setDeadline(null);
  conn.setDeadline(Infinity);
  await readOnce(conn, inner);
  assertEquals(clock.count, 0);
  conn.close();
});

Deno.test("a deadline that is moved before every read sets one timer, not one per read", async () => {
  const { inner, conn, clock } = setUp();
  for (let i = 0; i < 100; i++) {
    conn.setReadDeadline(clock.now() + 60_000);
    await readOnce(conn, inner);
    if (i % 10 === 0) await clock.advance(1);
  }
  assertEquals(clock.count, 1);
  // When it fires, it is set again for the rest of the time only.
  const reading = failure(conn.read(new Uint8Array(1)));
  await clock.advance(59_999);
  assertEquals(clock.count, 2);
  assert(!await settlesAtOnce(reading));
  await clock.advance(1);
  assert(isTimeout(await reading));
  assertEquals(clock.pending, 0);
  conn.close();
});

Deno.test("a deadline that is lifted after every read sets one timer, which fails no later call", async () => {
  const { inner, conn, clock } = setUp();
  for (let i = 0; i < 100; i++) {
    conn.setReadDeadline(clock.now() + 60_000);
    await readOnce(conn, inner);
    conn.setReadDeadline(null);
  }
  assertEquals(clock.count, 1);
  const reading = conn.read(new Uint8Array(1));
  await clock.advance(60_000);
  assertEquals(clock.pending, 0);
  assert(!await settlesAtOnce(reading.catch(() => {})));
  await inner.deliver(bytes("x"));
  assertEquals(await reading, 1);
  conn.close();
});

Deno.test("a deadline's timer never keeps the process alive", () => {
  const { conn, clock } = setUp();
  conn.setReadDeadline(clock.now() + 1000);
  conn.read(new Uint8Array(1)).catch(() => {});
  assertEquals([clock.count, clock.unrefd.length], [1, 1]);
  conn.close();
});

Deno.test("no timer is left after close(), a cleared deadline, or a finished call", async (t) => {
  await t.step("close()", async () => {
    const { conn, clock } = setUp();
    conn.setDeadline(clock.now() + 1000);
    const calls = [
      failure(conn.read(new Uint8Array(1))),
      failure(conn.write(new Uint8Array(1))),
    ];
    assertEquals(clock.pending, 2);
    conn.close();
    assertEquals(clock.pending, 0);
    await Promise.all(calls);
  });

  await t.step("a cleared deadline: the call goes on", async () => {
    const { inner, conn, clock } = setUp();
    conn.setDeadline(clock.now() + 1000);
    const reading = conn.read(new Uint8Array(8));
    conn.setDeadline(null);
    assertEquals(clock.pending, 0);
    await clock.advance(5000);
    await inner.deliver(bytes("x"));
    assertEquals(await reading, 1);
    conn.close();
  });

  await t.step(
    "a finished call: its timer fires once, and fails no later call",
    async () => {
      const { inner, conn, clock } = setUp();
      conn.setReadDeadline(clock.now() + 1000);
      await readOnce(conn, inner);
      await clock.advance(1000);
      assertEquals(clock.pending, 0);
      conn.setReadDeadline(clock.now() + 1000);
      assert(
        !await settlesAtOnce(conn.read(new Uint8Array(1)).catch(() => {})),
      );
      conn.close();
      assertEquals(clock.pending, 0);
    },
  );
  await t.step(
    "after a close() by the inner connection's own read()",
    async () => {
      const { conn, inner, clock } = setUp();
      inner.read = () => {
        conn.close();
        return new Promise(() => {});
      };
      conn.setReadDeadline(clock.now() + 1000);
      await failure(conn.read(new Uint8Array(1)));
      assertEquals(clock.pending, 0);
    },
  );
});

Deno.test("a deadline of more than 2^31 ms uses several timers, and fires once", async () => {
  const { conn, clock } = setUp();
  const year = 365 * 24 * 3_600_000;
  conn.setReadDeadline(clock.now() + year);
  const reading = failure(conn.read(new Uint8Array(1)));
  await clock.advance(year - 1);
  assert(!await settlesAtOnce(reading));
  assertEquals(clock.count, Math.ceil(year / (2 ** 31 - 1)));
  await clock.advance(1);
  assert(isTimeout(await reading));
  assertEquals(clock.pending, 0);
  conn.close();
});

Deno.test("a deadline that has passed fails a call although the timer has not fired", async () => {
  let now = 1000;
  const timers: (() => void)[] = [];
  const inner = new InnerConn();
  const conn = new Conn(inner, {
    clock: {
      now: () => now,
      monotonic: () => now,
      setTimeout: (callback) => timers.push(callback),
      clearTimeout: () => {},
      unrefTimer: () => {},
    },
  });
  conn.setReadDeadline(1010);
  const waiting = failure(conn.read(new Uint8Array(1)));
  now = 1010;
  assert(isTimeout(await failure(conn.read(new Uint8Array(1)))));

  // A timer that fires early, or a system clock that steps back, fails no call
  // before its deadline.
  now = 1009;
  timers.shift()!();
  assert(!await settlesAtOnce(waiting));
  assertEquals(timers.length, 1);
  now = 1010;
  timers.shift()!();
  assert(isTimeout(await waiting));
  assertEquals(timers.length, 0);
  conn.close();
});

Deno.test("a deadline that is moved when it has just fired applies to the next call", async () => {
  const { inner, conn, clock } = setUp();
  let second: Promise<number | null> | null = null;
  conn.setReadDeadline(clock.now() + 10);
  const first = conn.read(new Uint8Array(8)).catch((error) => {
    conn.setReadDeadline(clock.now() + 10);
    second = conn.read(new Uint8Array(8));
    return error;
  });
  await clock.advance(10);
  assert(isTimeout(await first));
  await clock.advance(9);
  await inner.deliver(bytes("in time"));
  assertEquals(await second!, 7);
  assertEquals(inner.readSizes.length, 1);
  conn.close();
});

Deno.test("a write deadline that is moved when one write has failed spares the next", async () => {
  const { inner, conn, clock } = setUp();
  conn.setWriteDeadline(clock.now() + 10);
  const first = conn.write(bytes("first")).catch((error: OpError) => {
    conn.setWriteDeadline(null);
    return error;
  });
  await Promise.resolve();
  await clock.advance(10);
  const second = conn.write(bytes("second"));
  assertEquals(await inner.take(), bytes("first"), "it was under way");
  assertEquals(await inner.take(), bytes("second"));
  assert(isTimeout(await first));
  assertEquals(await second, 6);
  conn.close();
});

Deno.test("a deadline has one timer for each direction, however many calls wait", async () => {
  const { conn, clock } = setUp();
  const reads = [1, 2, 3].map(() => failure(conn.read(new Uint8Array(1))));
  const writes = [1, 2, 3].map(() => failure(conn.write(new Uint8Array(1))));
  conn.setDeadline(clock.now() + 100);
  assertEquals(clock.pending, 2);
  conn.setDeadline(clock.now() + 50);
  assertEquals(clock.pending, 2);
  await clock.advance(50);
  for (const error of [...reads, ...writes]) assert(isTimeout(await error));
  assertEquals(clock.pending, 0);
  conn.close();
});

Deno.test("a deadline that is set after close() sets no timer", () => {
  const { conn, clock } = setUp();
  conn.close();
  assertThrows(() => conn.setDeadline(clock.now() + 1000), OpError, "set tcp");
  assertEquals(clock.count, 0);
});
