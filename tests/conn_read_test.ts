import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { Conn, readerOf } from "../net/conn.ts";
import { copy } from "../net/copy.ts";
import { isClosed, type OpError } from "../net/errors.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { InnerConn } from "./conn_inner.ts";
import { bytes, countedSignal, turn } from "./support.ts";
import { failure, text } from "./suites/conn_suite_kit.ts";

function setUp(): { inner: InnerConn; conn: Conn; clock: FakeClock } {
  const inner = new InnerConn();
  const clock = new FakeClock();
  return { inner, clock, conn: new Conn(inner, { clock }) };
}

async function readText(conn: Conn, size = 64): Promise<string | null> {
  const p = new Uint8Array(size);
  const n = await conn.read(p);
  return n === null ? null : text(p.subarray(0, n));
}

Deno.test("Conn reads nothing before somebody asks", async () => {
  const { inner, conn } = setUp();
  assert(conn.readable instanceof ReadableStream);
  conn[Symbol.asyncIterator]();
  conn.setReadDeadline(1e15);
  await turn();
  assertEquals(inner.readSizes, []);
  conn.close();
});

Deno.test("what is lent stays as it is, whichever loan ends first", async () => {
  const { inner, conn } = setUp();
  const reader = readerOf(conn);
  const loans: Uint8Array<ArrayBuffer>[] = [];
  const borrow = async (text: string) => {
    reader.wait({
      ...{ next: null, before: null, most: 64 },
      ready: (half) => void loans.push(half.lend(64)),
      fail: (error) => assertEquals(error, null),
    });
    await inner.deliver(bytes(text));
  };
  await borrow("first");
  await borrow("second");
  reader.giveBack(loans[0]!); // its memory is no longer the half's
  await borrow("third");
  assertEquals(loans.map(text), ["first", "second", "third"]);
  conn.close();
});

Deno.test("Conn.read() starts one operation, however many callers wait", async () => {
  const { inner, conn } = setUp();
  const reads = [readText(conn, 2), readText(conn, 2), readText(conn, 9)];
  await turn();
  assertEquals(inner.readSizes.length, 1);
  await inner.deliver(bytes("abcde"));
  assertEquals(await Promise.all(reads), ["ab", "cd", "e"]);
  assertEquals(inner.readSizes.length, 1, "nobody waits, nothing is read");
});

Deno.test("Conn.read() takes over the operation of a read that was given up", async () => {
  const { inner, conn, clock } = setUp();
  conn.setReadDeadline(clock.now() + 10);
  const gone = new Uint8Array(8);
  const late = failure(conn.read(gone));
  await clock.advance(10);
  assert((await late as OpError).timeout);
  conn.setReadDeadline(null);
  const { controller, signal, listeners } = countedSignal();
  const aborted = failure(conn.read(gone, { signal }));
  controller.abort();
  assertStrictEquals(await aborted, signal.reason);
  assertEquals(listeners(), 0);
  await inner.deliver(bytes("for whom?"));
  assertEquals(await readText(conn), "for whom?");
  assertEquals(inner.readSizes.length, 1);
  assertEquals(gone, new Uint8Array(8));
});

Deno.test("Conn.read() removes its listener from the signal, however it ends", async () => {
  const { inner, conn, clock } = setUp();
  const { signal, listeners } = countedSignal();
  const p = new Uint8Array(8);
  const served = conn.read(p, { signal });
  assertEquals(listeners(), 1);
  await inner.deliver(bytes("x"));
  await served;
  assertEquals(listeners(), 0);

  conn.setReadDeadline(clock.now() + 5);
  const late = failure(conn.read(p, { signal }));
  await clock.advance(5);
  await late;
  assertEquals(listeners(), 0);
  await failure(conn.read(p, { signal }));
  assertEquals(listeners(), 0, "refused: never added");
  conn.setReadDeadline(null);

  const broken = failure(conn.read(p, { signal }));
  await inner.failRead(new Deno.errors.ConnectionReset("reset"));
  await broken;
  assertEquals(listeners(), 0);

  const closed = failure(conn.read(p, { signal }));
  conn.close();
  await closed;
  assertEquals(listeners(), 0);
});

Deno.test("Conn.read() hands a failure that nobody waited for to the next caller, once", async () => {
  const { inner, conn, clock } = setUp();
  conn.setReadDeadline(clock.now() + 5);
  const late = failure(conn.read(new Uint8Array(1)));
  await clock.advance(5);
  await late;
  await inner.failRead(new Deno.errors.ConnectionReset("reset"));
  const first = await failure(conn.read(new Uint8Array(1)));
  assert((first as OpError).timeout, "a past deadline comes first");
  conn.setReadDeadline(null);
  const error = await failure(conn.read(new Uint8Array(1)));
  assertEquals([(error as OpError).op, (error as OpError).code], [
    "read",
    "ECONNRESET",
  ]);
  const next = readText(conn);
  await inner.deliver(null);
  assertEquals(await next, null, "EOF, as from the kernel");
});

Deno.test("Conn.read() fails one caller per failure; the others ask again", async () => {
  const { inner, conn } = setUp();
  const first = failure(conn.read(new Uint8Array(1)));
  const second = readText(conn);
  await inner.failRead(new Deno.errors.ConnectionReset("reset"));
  assertEquals((await first as OpError).code, "ECONNRESET");
  await inner.deliver(null);
  assertEquals(await second, null);
  assertEquals(inner.readSizes.length, 2);
});

Deno.test("Conn.read() survives a Deno.Conn that throws instead of rejecting", async () => {
  const { inner, conn } = setUp();
  const cause = new Error("odd");
  const { read } = inner;
  inner.read = () => {
    inner.read = read;
    throw cause;
  };
  const error = await failure(readText(conn)) as OpError;
  assertEquals([error.op, error.cause], ["read", cause]);
  const next = readText(conn);
  await inner.deliver(bytes("b"));
  assertEquals(await next, "b");
});

Deno.test("Conn.read() that fails settles before the reads behind it see EOF", async () => {
  const { inner, conn } = setUp();
  const order: unknown[] = [];
  const calls = [1, 2, 3].map((name) =>
    conn.read(new Uint8Array(1)).then(
      (n) => order.push([name, n]),
      ({ code }: OpError) => order.push([name, code]),
    )
  );
  inner.reads[0]!.reject(new Deno.errors.ConnectionReset("reset"));
  inner.read = () => Promise.resolve(null); // at once, as after a reset
  await Promise.all(calls);
  assertEquals(order, [[1, "ECONNRESET"], [2, null], [3, null]]);
});

Deno.test("Conn.read() survives a Deno.Conn that returns no promise", async () => {
  const { inner, conn } = setUp();
  const { read } = inner;
  inner.read = () => {
    inner.read = read;
    return null as unknown as Promise<null>;
  };
  const error = await failure(readText(conn)) as OpError;
  assertEquals(error.op, "read");
  assert(error.cause instanceof TypeError);
  const next = readText(conn);
  await inner.deliver(bytes("b"));
  assertEquals(await next, "b");
});

Deno.test("Conn.read() into a transferred array fails, and loses no byte", async () => {
  const { inner, conn } = setUp();
  const gone = new Uint8Array(8);
  const first = failure(conn.read(gone));
  const second = readText(conn);
  structuredClone(gone, { transfer: [gone.buffer] });
  await inner.deliver(bytes("safe"));
  assert(await first instanceof TypeError);
  assertEquals(await second, "safe");
});

Deno.test("Conn adapts the memory for its reads to the traffic: 1 KiB to 256 KiB", async () => {
  const { inner, conn } = setUp();
  const p = new Uint8Array(256 * 1024);
  const step = async (n: number) => {
    const reading = conn.read(p);
    await inner.deliver(new Uint8Array(n));
    assertEquals(await reading, n);
  };
  const KiB = 1024;
  // Full reads ask for four times as much, and no more at 256 KiB.
  for (const size of [1, 4, 16, 64, 256, 256]) await step(size * KiB);
  // A read that leaves room keeps the size …
  await step(100 * KiB);
  await step(32 * KiB);
  // … one that uses less than an eighth gives some back, down to 1 KiB.
  for (let i = 0; i < 6; i++) await step(100);
  assertEquals(
    inner.readSizes.map((size) => size / KiB),
    [1, 4, 16, 64, 256, 256, 256, 256, 256, 64, 16, 4, 1, 1],
  );
  conn.close();
});

Deno.test("Conn reads no more at once than its caller takes soon: others wait meanwhile", async (t) => {
  const KiB = 1024;
  type Caller = (conn: Conn) => () => Promise<unknown>;
  const callers: Record<string, [caller: Caller, sizes: number[]]> = {
    "read() of 10 bytes": [
      (conn) => () => conn.read(new Uint8Array(10)),
      [1, 4, 16, 16, 16],
    ],
    "read() of 16 KiB": [
      (conn) => () => conn.read(new Uint8Array(16 * KiB)),
      [1, 4, 16, 64, 64],
    ],
    "an iteration": [
      (conn) => {
        const iterator = conn[Symbol.asyncIterator]();
        return () => iterator.next();
      },
      [1, 4, 16, 64, 64],
    ],
    "a stream": [
      (conn) => {
        const reader = conn.readable.getReader();
        return () => reader.read();
      },
      [1, 4, 16, 64, 64],
    ],
  };
  for (const [name, [caller, sizes]] of Object.entries(callers)) {
    await t.step(name, async () => {
      const { inner, conn } = setUp();
      const next = caller(conn);
      const reading = failure((async () => {
        for (;;) await next();
      })());
      for (const size of sizes) {
        while (inner.reads.length === 0) await turn();
        await inner.deliver(new Uint8Array(size * KiB));
      }
      while (inner.reads.length === 0) await turn();
      const last = sizes.at(-1)!;
      assertEquals(
        inner.readSizes.map((size) => size / KiB),
        [...sizes, last],
      );
      conn.close();
      assert(isClosed(await reading));
    });
  }
  await t.step("read() of 10 bytes after a transfer", async () => {
    const { inner, conn } = setUp();
    for (const size of [1, 4, 16, 64, 256]) {
      const reading = conn.read(new Uint8Array(256 * KiB));
      await inner.deliver(new Uint8Array(size * KiB));
      await reading;
    }
    const reading = failure(conn.read(new Uint8Array(10)));
    assertEquals(inner.readSizes.at(-1), 16 * KiB);
    conn.close();
    assert(isClosed(await reading));
  });
});

Deno.test("Conn yields chunks whose memory shows nothing that others have read", async () => {
  const secret = bytes("secret".repeat(200).slice(0, 1024));
  // The pool takes back memory full of secrets …
  for (let i = 0; i < 3; i++) {
    const { inner, conn } = setUp();
    const reading = conn.read(new Uint8Array(1024));
    await inner.deliver(secret);
    await reading;
    conn.close();
  }
  // … and hands it to another connection, which shows none of them.
  const { inner, conn } = setUp();
  const step = conn[Symbol.asyncIterator]().next();
  assertStrictEquals(text(inner.reads[0]!.p.subarray(0, 6)), "secret");
  await inner.deliver(bytes("ours"));
  const { value } = await step;
  assertEquals(new Uint8Array(value!.buffer), bytes("ours"));

  const p = new Uint8Array(1024);
  const reading = conn.read(p);
  await inner.deliver(bytes("ours"));
  await reading;
  assertEquals(p.subarray(4), new Uint8Array(1020));
  conn.close();
});

Deno.test("Conn gives a full chunk away without a copy, and never reuses its memory", async () => {
  const { inner, conn } = setUp();
  const iterator = conn[Symbol.asyncIterator]();
  const step = iterator.next();
  const { p } = inner.reads[0]!;
  await inner.deliver(new Uint8Array(1024).fill(1));
  const { value } = await step;
  assertStrictEquals(value!.buffer, p.buffer, "not copied");
  for (let i = 0; i < 20; i++) {
    const other = setUp();
    const reading = other.conn.read(new Uint8Array(1));
    assert(other.inner.reads[0]!.p.buffer !== value!.buffer);
    await other.inner.deliver(bytes("x"));
    await reading;
    other.conn.close();
  }
  assertEquals(value, new Uint8Array(1024).fill(1));
  conn.close();
});

Deno.test("Conn.close() keeps memory until the operation is over", async () => {
  const { inner, conn } = setUp();
  const reading = failure(conn.read(new Uint8Array(1)));
  const { p } = inner.reads[0]!;
  conn.close();
  assert(isClosed(await reading));
  const other = setUp();
  other.conn.read(new Uint8Array(1)).catch(() => {});
  assert(other.inner.reads[0]!.p.buffer !== p.buffer);
  other.conn.close();
  await inner.failRead(new Deno.errors.Interrupted("operation canceled"));
});

Deno.test("Conn does not keep the process alive for a read that nobody waits for", async () => {
  const { inner, conn, clock } = setUp();
  const abandoned = async () => {
    conn.setReadDeadline(clock.now() + 5);
    const late = failure(conn.read(new Uint8Array(1)));
    await clock.advance(5);
    await late;
    conn.setReadDeadline(null);
  };
  await abandoned();
  assertEquals(inner.refs, ["unref"]);
  const reading = readText(conn);
  assertEquals(inner.refs, ["unref", "ref"], "somebody waits again");
  await inner.deliver(bytes("x"));
  await reading;

  await abandoned();
  await inner.deliver(bytes("kept"));
  assertEquals(await readText(conn), "kept");
  const fresh = readText(conn);
  assertEquals(inner.refs.at(-1), "ref", "a new operation keeps it alive");
  await inner.deliver(bytes("y"));
  await fresh;

  const { controller, signal } = countedSignal();
  const two = [
    failure(conn.read(new Uint8Array(1), { signal })),
    readText(conn),
  ];
  const before = inner.refs.length;
  controller.abort();
  await two[0];
  assertEquals(inner.refs.length, before, "one of two still waits");
  await inner.deliver(bytes("z"));
  assertEquals(await two[1], "z");
  conn.close();
});

Deno.test("Conn.unref() also applies to later reads", async () => {
  const { inner, conn, clock } = setUp();
  conn.unref();
  conn.setReadDeadline(clock.now() + 5);
  const late = failure(conn.read(new Uint8Array(1)));
  await clock.advance(5);
  await late;
  conn.setReadDeadline(null);
  const reading = readText(conn);
  assert(!inner.refs.includes("ref"), `${inner.refs}`);
  conn.ref();
  assertEquals(inner.refs.at(-1), "ref");
  await inner.deliver(bytes("x"));
  await reading;
  conn.close();
});

Deno.test("Conn.ref() during an abandoned operation takes effect with the next caller", async () => {
  const { inner, conn, clock } = setUp();
  conn.setReadDeadline(clock.now() + 5);
  const late = failure(conn.read(new Uint8Array(1)));
  await clock.advance(5);
  await late;
  conn.setReadDeadline(null);
  conn.unref();
  conn.ref();
  assertEquals(inner.refs, ["unref"]);
  const reading = readText(conn);
  assertEquals(inner.refs, ["unref", "ref"]);
  await inner.deliver(null);
  await reading;
  conn.close();
});

Deno.test("Conn lends memory to two copies, and reads into it only when both are done", async () => {
  const { inner, conn } = setUp();
  const [one, two] = [setUp(), setUp()];
  one.conn.setWriteDeadline(one.clock.now() + 1000); // so it gets 64 KiB
  // Let the memory grow to 256 KiB.
  for (const size of [1, 4, 16, 64]) {
    const reading = conn.read(new Uint8Array(size * 1024));
    await inner.deliver(new Uint8Array(size * 1024));
    await reading;
  }
  const copies = [copy(conn, one.conn), copy(conn, two.conn)];
  await inner.deliver(new Uint8Array(100 * 1024).fill(1));
  const [first, second] = [one.inner.writes[0]!.p, two.inner.writes[0]!.p];
  assertEquals([first.length, second.length], [64 * 1024, 36 * 1024]);
  assertStrictEquals(first.buffer, second.buffer);
  await one.inner.take();
  // The first asks for more while the second is still being sent.
  await inner.deliver(new Uint8Array(256 * 1024).fill(2));
  assert(!second.includes(2), "what is being sent must not change");
  assertEquals(await two.inner.take(), new Uint8Array(36 * 1024).fill(1));
  conn.close();
  for (const { conn } of [one, two]) conn.close();
  await Promise.allSettled(copies);
});
