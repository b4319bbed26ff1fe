/**
 * Random calls, and what must hold whatever happens: bytes come once and in
 * order, writes go out whole or as a prefix, and no memory is touched that
 * belongs to somebody else. A failure names its seed.
 */
import { assert, assertEquals } from "@std/assert";
import { Conn } from "../net/conn.ts";
import { copy } from "../net/copy.ts";
import { OpError } from "../net/errors.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { InnerConn } from "./conn_inner.ts";
import { same } from "./suites/conn_suite_kit.ts";
import { randomOf } from "./support.ts";

const PIECE = 64 * 1024;

/** Lets all promise jobs run. */
async function jobs(): Promise<void> {
  for (let i = 0; i < 12; i++) await Promise.resolve();
}

function isGivenUp(error: unknown): boolean {
  return error === "aborted" || error instanceof OpError && error.timeout;
}

/** Byte `i` of an endless stream. */
function byteAt(i: number): number {
  return (i * 7 + (i >> 8) * 13 + (i >> 16)) & 255;
}

async function readRandomly(seed: number): Promise<void> {
  const random = randomOf(seed);
  const [inner, sink] = [new InnerConn(), new InnerConn()];
  const clock = new FakeClock(1000);
  const conn = new Conn(inner, { clock });
  const to = new Conn(sink, { clock });
  let sent = 0, got = 0;
  let copying: AbortController | null = null;
  const aborters: AbortController[] = [];
  const calls: Promise<void>[] = [];
  /** Checks that a caller has got the next bytes of the stream. */
  const take = (p: Uint8Array) => {
    for (const byte of p) {
      const next = byteAt(got++);
      if (byte !== next) assertEquals(byte, next, `byte ${got - 1}`);
    }
  };
  const iterator = conn[Symbol.asyncIterator]();

  const actions: (() => void)[] = [
    () => { // read
      const size = 1 + random(random(2) ? 20 : 100_000);
      const p = new Uint8Array(size).fill(99);
      const copyOf = () => p.slice();
      calls.push(
        conn.read(p).then((n) => {
          if (n !== null) take(p.subarray(0, n));
          p.fill(99);
          const after = copyOf();
          queueMicrotask(() => assert(same(p, after)));
        }, (error) => assert(isGivenUp(error), `${error}`)),
      );
    },
    () => { // read with a signal
      const aborter = new AbortController();
      aborters.push(aborter);
      const p = new Uint8Array(1 + random(5000));
      calls.push(
        conn.read(p, { signal: aborter.signal }).then(
          (n) => n === null || take(p.subarray(0, n)),
          (error) => {
            assert(isGivenUp(error), `${error}`);
            assert(p.every((byte) => byte === 0));
          },
        ) as Promise<void>,
      );
    },
    () => { // iterate
      calls.push(
        iterator.next().then(
          ({ value }) => value && take(value),
          (error) => assert(isGivenUp(error), `${error}`),
        ),
      );
    },
    () => { // copy, one at a time
      if (copying) return;
      const own = copying = new AbortController();
      calls.push(
        copy(conn, to, { signal: own.signal }).then(() => {
          copying = null;
        }, (error) => {
          copying = null;
          assert(isGivenUp(error), `${error}`);
        }),
      );
    },
    () => copying?.abort("aborted"),
    () => aborters.pop()?.abort("aborted"),
    () => aborters.shift()?.abort("aborted"),
    () => conn.setReadDeadline(clock.now() + random(20) - 3),
    () => conn.setReadDeadline(null),
    () => conn.setReadDeadline(null),
    () => { // bytes come
      const read = inner.reads.shift();
      if (!read) return;
      const n = 1 + random(random(2) ? read.p.length : 100);
      const size = Math.min(n, read.p.length);
      for (let i = 0; i < size; i++) read.p[i] = byteAt(sent++);
      read.resolve(size);
    },
  ];
  const takeFromSink = () => {
    const write = sink.writes.shift();
    if (!write) return;
    const n = 1 + random(write.p.length);
    take(write.p.subarray(0, n));
    write.resolve(n);
  };
  for (let i = 0; i < 300; i++) {
    actions[random(actions.length)]!();
    assert(inner.reads.length <= 1 && sink.writes.length <= 1);
    await jobs();
    if (random(20) === 0) await clock.advance(random(10));
    // What a copy has under way is next in the stream: let it out at once.
    while (sink.writes.length > 0) {
      takeFromSink();
      await jobs();
    }
  }
  conn.setReadDeadline(null);
  (copying as AbortController | null)?.abort("aborted");
  await jobs();
  // Everything that was sent arrives, and then EOF.
  while (calls.length > 0) {
    const settled = Promise.allSettled(calls.splice(0));
    let done = false;
    settled.then(() => done = true);
    for (let i = 0; !done && i < 1000; i++) {
      inner.reads.shift()?.resolve(null);
      await jobs();
    }
    for (const result of await settled) {
      if (result.status === "rejected") throw result.reason;
    }
  }
  const p = new Uint8Array(300_000);
  for (;;) {
    const reading = conn.read(p);
    inner.reads.shift()?.resolve(null);
    const n = await reading;
    if (n === null) break;
    take(p.subarray(0, n));
  }
  assertEquals(got, sent);
  conn.close();
  to.close();
  assertEquals(clock.pending, 0);
}

async function writeRandomly(seed: number): Promise<void> {
  const random = randomOf(seed);
  const inner = new InnerConn();
  const clock = new FakeClock(1000);
  const conn = new Conn(inner, { clock });
  const aborters: AbortController[] = [];
  /** For each write, how many bytes can be out: at least, and at most. */
  const fates: { least: number; most: number }[] = [];
  const calls: Promise<void>[] = [];
  const out = new Uint8Array(8 * 1024 * 1024);
  let at = 0;
  const write = (size: number, signal?: AbortSignal) => {
    // Each write has its own value, and overwrites its array once it settles.
    const value = 1 + fates.length % 250;
    const p = new Uint8Array(size).fill(value);
    const fate = { least: 0, most: size };
    fates.push(fate);
    calls.push(
      conn.write(p, signal ? { signal } : {}).then((n) => {
        assertEquals(n, size);
        fate.least = size;
        p.fill(255);
      }, (error) => {
        assert(isGivenUp(error), `${error}`);
        if (error instanceof OpError) {
          fate.least = error.bytesWritten!;
          fate.most = Math.min(size, fate.least + PIECE);
        }
        p.fill(255);
      }),
    );
  };
  const size = () => 1 + random([10, 1000, PIECE, 150_000][random(4)]!);
  let armed = false;
  const actions: (() => void)[] = [
    () => write(size()),
    () => write(size()),
    () => {
      const aborter = new AbortController();
      aborters.push(aborter);
      write(size(), aborter.signal);
    },
    () => aborters.pop()?.abort("aborted"),
    () => aborters.shift()?.abort("aborted"),
    () => { // no deadline for a write in place: it would close the connection
      if (inner.writes.some(({ p }) => p.length > PIECE)) return;
      conn.setWriteDeadline(clock.now() + random(20) - 3);
      armed = true;
    },
    () => conn.setWriteDeadline(null),
  ];
  const takeSome = () => {
    const write = inner.writes.shift();
    if (!write) return;
    const n = 1 + random(write.p.length);
    out.set(write.p.subarray(0, n), at);
    at += n;
    write.resolve(n);
  };
  for (let i = 0; i < 200; i++) {
    for (let j = random(3); j >= 0; j--) actions[random(actions.length)]!();
    await jobs();
    assert(inner.writes.length <= 1);
    if (random(2)) takeSome();
    await jobs();
    if (random(20) === 0) await clock.advance(random(10));
  }
  conn.setWriteDeadline(null);
  for (let done = false; !done;) {
    Promise.all(calls).then(() => done = true);
    takeSome();
    await jobs();
  }
  await Promise.all(calls);
  while (inner.writes.length > 0) {
    takeSome();
    await jobs();
  }
  // At most one run per write, in the order of the calls.
  let position = 0;
  for (const [i, { least, most }] of fates.entries()) {
    const value = 1 + i % 250;
    const from = position;
    while (position < at && out[position] === value) position++;
    const length = position - from;
    assert(
      length >= least && length <= most,
      `write ${i}: ${least} <= ${length} <= ${most}`,
    );
  }
  assertEquals(position, at, "nothing else was sent");
  assert(armed);
  conn.close();
  assertEquals(clock.pending, 0);
}

Deno.test("Conn loses no byte, and repeats none, under random reads", async (t) => {
  for (let seed = 1; seed <= 10; seed++) {
    await t.step(`seed ${seed}`, () => readRandomly(seed));
  }
});

Deno.test("Conn sends writes in order, whole or as a prefix, under random writes", async (t) => {
  for (let seed = 1; seed <= 10; seed++) {
    await t.step(`seed ${seed}`, () => writeRandomly(seed));
  }
});
