import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertNotStrictEquals,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { Conn, writerOf } from "../net/conn.ts";
import { isClosed, isTimeout, OpError } from "../net/errors.ts";
import { WriteJob } from "../net/write_calls.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { InnerConn } from "./conn_inner.ts";
import { bytes, countedSignal, turn, unhandledIn } from "./support.ts";
import { failure } from "./suites/conn_suite_kit.ts";

const PIECE = 64 * 1024;

function setUp(): { inner: InnerConn; conn: Conn; clock: FakeClock } {
  const inner = new InnerConn();
  const clock = new FakeClock();
  return { inner, clock, conn: new Conn(inner, { clock }) };
}

async function opError(promise: Promise<unknown>): Promise<OpError> {
  const error = await failure(promise);
  assert(error instanceof OpError, `${error}`);
  return error;
}

Deno.test("Conn.write() gathers the small writes of one tick in one operation", async () => {
  const { inner, conn } = setUp();
  const writes = Array.from(
    { length: 10 },
    (_, i) => conn.write(new Uint8Array(64).fill(i)),
  );
  assertEquals(inner.writeSizes, [], "the tick is not over");
  await turn();
  assertEquals(inner.writeSizes, [640]);
  const out = await inner.take();
  assertEquals(await Promise.all(writes), Array(10).fill(64));
  for (let i = 0; i < 640; i++) assertEquals(out[i], i >> 6);
  assertEquals(inner.writes, []);
});

Deno.test("Conn.write() gathers writes that come while an operation is under way", async () => {
  const { inner, conn } = setUp();
  const first = conn.write(bytes("a"));
  await turn();
  const rest = ["b", "c", "d"].map((text) => conn.write(bytes(text)));
  await turn();
  assertEquals(inner.writeSizes, [1]);
  await inner.take();
  assertEquals(await first, 1);
  assertEquals(await inner.take(), bytes("bcd"));
  assertEquals(await Promise.all(rest), [1, 1, 1]);
});

Deno.test("of many writes that fail together most share an error, in order all the same", async (t) => {
  for (const end of ["close()", "a deadline"]) {
    for (const many of [false, true]) {
      await t.step(`${many ? "17" : "16"} that wait, ${end}`, async () => {
        const { inner, conn, clock } = setUp();
        const order: number[] = [];
        const writes = Array.from({ length: many ? 17 : 16 }, (_, i) => {
          const write = opError(conn.write(new Uint8Array(PIECE)));
          return write.finally(() => order.push(i));
        });
        await turn();
        inner.writes.shift()!.resolve(10); // a part of the first
        await turn();
        if (end === "close()") conn.close();
        else {
          conn.setWriteDeadline(clock.now() + 1);
          await clock.advance(1);
        }
        const errors = await Promise.all(writes);
        assertEquals(order, [...writes.keys()]);
        const ended = end === "close()" ? isClosed : isTimeout;
        for (const [i, error] of errors.entries()) {
          assert(ended(error));
          assertEquals(error.op, "write");
          assertEquals(error.bytesWritten, i === 0 ? 10 : 0);
        }
        assertEquals(new Set(errors).size, many ? 2 : 16);
        conn.close();
      });
    }
  }
});

Deno.test("a FIN that fails with many writes has an error of its own", async () => {
  const { conn } = setUp();
  const writes = Array.from(
    { length: 17 },
    () => opError(conn.write(new Uint8Array(PIECE))),
  );
  const fin = opError(conn.closeWrite());
  await turn();
  conn.close();
  const errors = await Promise.all(writes);
  assertEquals(errors.map(({ op }) => op), Array(17).fill("write"));
  assertEquals((await fin).op, "close");
});

Deno.test("Conn.write() gathers at most 64 KiB", async () => {
  const { inner, conn } = setUp();
  const writes = Array.from(
    { length: 10 },
    (_, i) => conn.write(new Uint8Array(10_000).fill(i)),
  );
  await turn();
  const out = [await inner.take(), await inner.take()];
  assertEquals(out.map((p) => p.length), [PIECE, 100_000 - PIECE]);
  const all = await new Blob(out as BlobPart[]).bytes();
  for (let i = 0; i < all.length; i += 97) {
    assertEquals(all[i], Math.floor(i / 10_000));
  }
  assertEquals(await Promise.all(writes), Array(10).fill(10_000));
});

Deno.test("Conn.write() sends 64 KiB and more in place, in one operation", async (t) => {
  for (const [size, inPlace] of [[PIECE - 1, false], [PIECE, true]] as const) {
    await t.step(
      `${size} bytes: ${inPlace ? "in place" : "copied"}`,
      async () => {
        const { inner, conn } = setUp();
        const p = new Uint8Array(size);
        const writing = conn.write(p);
        await turn();
        assertEquals(inner.writeSizes, [size]);
        assertEquals(inner.writes[0]!.p.buffer === p.buffer, inPlace);
        await inner.take();
        assertEquals(await writing, size);
      },
    );
  }

  await t.step(
    "1 MiB that the kernel takes in parts goes on in place",
    async () => {
      const { inner, conn } = setUp();
      const p = new Uint8Array(1024 * 1024);
      const writing = conn.write(p);
      await inner.take(773_739); // as Deno did, in one measurement
      assertStrictEquals(inner.writes[0]!.p.buffer, p.buffer);
      assertEquals(inner.writes[0]!.p.byteOffset, 773_739);
      await inner.take();
      assertEquals(await writing, 1024 * 1024);
      assertEquals(inner.writeSizes, [1024 * 1024, 1024 * 1024 - 773_739]);
    },
  );

  await t.step("more goes out 1 MiB at a time, and is counted", async () => {
    const { inner, conn } = setUp();
    const p = new Uint8Array(2_500_000);
    const error = opError(conn.write(p));
    for (let i = 0; i < 2; i++) {
      assertStrictEquals(inner.writes[0]!.p.buffer, p.buffer);
      await inner.take();
    }
    assertEquals(inner.writeSizes, [1_048_576, 1_048_576, 402_848]);
    await inner.failWrite(new Deno.errors.ConnectionReset("reset"));
    assertEquals((await error).bytesWritten, 2_097_152);
  });

  await t.step(
    "behind a small write, it first fills up that one's piece",
    async () => {
      const { inner, conn } = setUp();
      const p = new Uint8Array(200_000).fill(2);
      const writes = [conn.write(Uint8Array.of(1)), conn.write(p)];
      await turn();
      assertEquals((await inner.take()).length, PIECE);
      assertStrictEquals(inner.writes[0]!.p.buffer, p.buffer);
      await inner.take();
      assertEquals(await Promise.all(writes), [1, 200_000]);
      assertEquals(inner.writeSizes, [PIECE, 200_001 - PIECE]);
    },
  );
});

/** As the runtime's TLS has it. */
class TlsInner extends InnerConn {
  handshake(): void {}
}

Deno.test("Conn sends 32 KiB over TLS at first, until they are out", async (t) => {
  const early = 32 * 1024;
  const size = 100_000;
  const writes: Record<string, (conn: Conn) => Promise<number>> = {
    "a large write": (conn) => conn.write(new Uint8Array(size)),
    "many small ones": async (conn) => {
      const sent = Array.from(
        { length: 10 },
        () => conn.write(new Uint8Array(size / 10)),
      );
      return (await Promise.all(sent)).reduce((sum, n) => sum + n);
    },
    "the library's own bytes": (conn) =>
      new Promise((resolve, reject) => {
        const caller = { resolve, reject };
        writerOf(conn).add(new WriteJob(new Uint8Array(size), caller, true));
      }),
  };
  for (const [name, write] of Object.entries(writes)) {
    await t.step(name, async () => {
      const inner = new TlsInner();
      const writing = write(new Conn(inner));
      await turn();
      while (inner.writes.length > 0) await inner.take();
      assertEquals(await writing, size);
      const [first = 0, second = 0] = inner.writeSizes;
      assertEquals(first, early);
      assertEquals(second, name === "many small ones" ? PIECE : size - early);
    });
  }
  await t.step("its memory is not the caller's", async () => {
    const inner = new TlsInner();
    const p = new Uint8Array(size);
    const writing = new Conn(inner).write(p);
    await turn();
    assert(inner.writes[0]!.p.buffer !== p.buffer);
    await inner.take();
    assertStrictEquals(inner.writes[0]!.p.buffer, p.buffer);
    await inner.take();
    assertEquals(await writing, size);
  });
});

Deno.test("Conn.write() that may be abandoned sends copies, 64 KiB at a time", async (t) => {
  const cases = {
    "a signal": (conn: Conn, p: Uint8Array) =>
      conn.write(p, { signal: new AbortController().signal }),
    "a deadline": (conn: Conn, p: Uint8Array, clock: FakeClock) => {
      conn.setWriteDeadline(clock.now() + 1000);
      return conn.write(p);
    },
  };
  for (const [name, write] of Object.entries(cases)) {
    await t.step(name, async () => {
      const { inner, conn, clock } = setUp();
      const p = new Uint8Array(2 * PIECE + 10).fill(1);
      const writing = write(conn, p, clock);
      for (const size of [PIECE, PIECE, 10]) {
        await turn();
        assertEquals(inner.writes[0]!.p.length, size);
        assertNotStrictEquals(inner.writes[0]!.p.buffer, p.buffer);
        await inner.take();
      }
      assertEquals(await writing, p.length);
      conn.close();
      assertEquals(clock.pending, 0);
    });
  }
});

Deno.test("Conn.write() that is aborted sends at most one more piece", async () => {
  const { inner, conn } = setUp();
  const { controller, signal, listeners } = countedSignal();
  const p = new Uint8Array(1024 * 1024).fill(1);
  const writing = failure(conn.write(p, { signal }));
  assertEquals(listeners(), 1);
  await inner.take();
  await inner.take(1000);
  controller.abort(new Error("mine"));
  p.fill(2);
  assertStrictEquals(await writing, signal.reason);
  assertEquals(listeners(), 0);
  // The rest of the piece that was under way, from our memory.
  const rest = await inner.take();
  assertEquals(rest.length, PIECE - 1000);
  assert(!rest.includes(2));
  assertEquals(inner.writes, [], "and that was all");
  const next = conn.write(bytes("next"));
  await turn();
  assertEquals(await inner.take(), bytes("next"));
  assertEquals(await next, 4);
});

Deno.test("Conn.write() removes its listener from the signal, however it ends", async () => {
  const { inner, conn, clock } = setUp();
  const { signal, listeners } = countedSignal();
  const start = async () => {
    const writing = conn.write(bytes("x"), { signal });
    writing.catch(() => {});
    await turn();
    assertEquals(listeners(), 1);
    return [writing] as const;
  };
  const [served] = await start();
  await inner.take();
  assertEquals(await served, 1);
  assertEquals(listeners(), 0);

  const [broken] = await start();
  await inner.failWrite(new Deno.errors.BrokenPipe("pipe"));
  await opError(broken);
  assertEquals(listeners(), 0);

  const [late] = await start();
  conn.setWriteDeadline(clock.now());
  assert(isTimeout(await opError(late)));
  assertEquals(listeners(), 0);
  await opError(conn.write(bytes("x"), { signal }));
  assertEquals(listeners(), 0, "refused: never added");
  conn.setWriteDeadline(null);
  await inner.take();

  const [closed] = await start();
  conn.close();
  assert(isClosed(await opError(closed)));
  assertEquals(listeners(), 0);
});

Deno.test("Conn.write() keeps its piece until the operation is over", async () => {
  const { inner, conn, clock } = setUp();
  conn.setWriteDeadline(clock.now() + 10);
  const writing = opError(conn.write(new Uint8Array(500).fill(1)));
  await turn();
  const { p: stuck } = inner.writes[0]!;
  await clock.advance(10);
  assert((await writing).timeout);
  // Other connections must not get this memory.
  const other = setUp();
  other.conn.write(new Uint8Array(500).fill(2));
  other.conn.read(new Uint8Array(1)).catch(() => {});
  await turn();
  assertNotStrictEquals(other.inner.writes[0]!.p.buffer, stuck.buffer);
  assertNotStrictEquals(other.inner.reads[0]!.p.buffer, stuck.buffer);
  assertEquals(stuck, new Uint8Array(500).fill(1));
  other.conn.close();
  conn.close();
});

Deno.test("Conn.write() that is aborted does not change the counts of other writes", async () => {
  const { inner, conn } = setUp();
  const controller = new AbortController();
  const { signal } = controller;
  const aborted = failure(conn.write(bytes("aaaaaaaaaa"), { signal }));
  const other = conn.write(bytes("bbbbbbbbbb"));
  const last = opError(conn.write(bytes("cccccccccc")));
  await turn();
  await inner.take(2);
  controller.abort();
  assertStrictEquals(await aborted, signal.reason);
  await inner.take(3);
  await inner.take(3);
  await inner.take(15);
  assertEquals(await other, 10);
  await inner.failWrite(new Deno.errors.ConnectionReset("reset"));
  assertEquals((await last).bytesWritten, 3);
  conn.close();
});

Deno.test("Conn.write() reuses the memory of a piece", async () => {
  const { inner, conn } = setUp();
  const buffers = new Set<ArrayBufferLike>();
  for (let i = 0; i < 5; i++) {
    const writing = conn.write(bytes("x"));
    await turn();
    buffers.add(inner.writes[0]!.p.buffer);
    await inner.take();
    await writing;
  }
  assertEquals(buffers.size, 1);
  conn.close();
});

Deno.test("Conn.write() tells each caller how much of its own data is out", async () => {
  const { inner, conn } = setUp();
  const [a, b, c] = ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"].map((text) =>
    conn.write(bytes(text))
  ) as [Promise<number>, Promise<number>, Promise<number>];
  await turn();
  const errors = [opError(b), opError(c)];
  assertEquals(await inner.take(15), bytes("aaaaaaaaaabbbbb"));
  assertEquals(await a, 10, "settled at once, though the piece goes on");
  const later = conn.write(bytes("later"));
  await inner.failWrite(new Deno.errors.ConnectionReset("reset"));
  const [forB, forC] = await Promise.all(errors);
  assertEquals([forB!.code, forB!.bytesWritten], ["ECONNRESET", 5]);
  assertEquals([forC!.code, forC!.bytesWritten], ["ECONNRESET", 0]);
  await turn();
  // It was not under way, so it gets its own try.
  assertEquals(await inner.take(), bytes("later"));
  assertEquals(await later, 5);
});

Deno.test("Conn.write() that times out says how much is out", async () => {
  const { inner, conn, clock } = setUp();
  conn.setWriteDeadline(clock.now() + 10);
  const error = opError(conn.write(new Uint8Array(2 * PIECE)));
  await inner.take();
  await inner.take(100);
  await clock.advance(10);
  assertEquals((await error).bytesWritten, PIECE + 100);
  assert(isTimeout(await error));
  conn.close();
});

Deno.test("Conn.write() that nobody awaits fails silently; the next one rejects", async () => {
  const { inner, conn } = setUp();
  conn.write(bytes("x"));
  await turn();
  await inner.failWrite(new Deno.errors.BrokenPipe("pipe"));
  const next = opError(conn.write(bytes("y")));
  await turn();
  await inner.failWrite(new Deno.errors.BrokenPipe("pipe"));
  assertEquals((await next).code, "EPIPE");
  conn.close();
  conn.write(bytes("z")); // no unhandled rejection either
  await turn();
});

Deno.test("socket options wait for a write that is under way", async () => {
  const { inner, conn } = setUp();
  const set: string[] = [];
  Object.assign(inner, {
    setNoDelay: (on: boolean) => set.push(`delay ${!on}`),
    setKeepAlive: (on: boolean) => set.push(`probe ${on}`),
  });
  conn.write(bytes("x"));
  await turn();
  conn.setNoDelay(false);
  conn.setKeepAlive();
  conn.setNoDelay();
  conn.write(bytes("y"));
  assertEquals(set, [], "the write has the socket to itself");
  await inner.take();
  assertEquals(set, ["delay false", "probe true"], "the last of each kind");
  conn.setKeepAlive(false); // while the next is under way
  await inner.take();
  assertEquals(set.slice(2), ["probe false"]);
  conn.setKeepAlive(true);
  assertEquals(set.slice(3), ["probe true"], "at once");
  conn.write(bytes("z"));
  await turn();
  conn.setNoDelay();
  conn.close();
  inner.writes.pop()!.reject(new Deno.errors.Interrupted("closed"));
  await turn();
  assertEquals(set.length, 4, "closed: nothing to set");
});

Deno.test("a write that begins as a socket option is set is the only one", async () => {
  const { inner, conn } = setUp();
  const big = new Uint8Array(100_000); // goes out at once, in place
  Object.assign(inner, { setNoDelay: () => void conn.write(big) });
  conn.write(big);
  conn.setNoDelay();
  conn.write(big);
  await inner.take();
  assertEquals(inner.writes.length, 1);
  conn.close();
});

Deno.test("a socket option that can no longer be set does no harm", async () => {
  const { inner, conn } = setUp();
  Object.assign(inner, {
    setNoDelay: () => {
      throw Object.assign(new Error("reset"), { code: "EINVAL" });
    },
  });
  const probes: boolean[] = [];
  Object.assign(inner, { setKeepAlive: (on: boolean) => probes.push(on) });
  const first = conn.write(bytes("x"));
  await turn();
  conn.setNoDelay();
  conn.setKeepAlive();
  const second = conn.write(bytes("y"));
  await inner.take();
  await inner.take();
  assertEquals([await first, await second], [1, 1]);
  assertEquals(probes, [true], "the other option is still set");
  assertEquals(
    (assertThrows(() => conn.setNoDelay(), OpError)).code,
    "EINVAL",
    "a call now reports it",
  );
  conn.close();
});

Deno.test("a read fails once, instead of EOF, after a write found the connection lost", async (t) => {
  const { BrokenPipe, ConnectionReset, TimedOut } = Deno.errors;
  const hostUnreachable = Object.assign(new Error("no route"), {
    code: "EHOSTUNREACH",
  });
  const cases: [cause: Error, told: string | null][] = [
    [new ConnectionReset("reset"), "ECONNRESET"],
    [new TimedOut("gone"), "ETIMEDOUT"],
    [hostUnreachable, "EHOSTUNREACH"],
    // ICMP's last reason, when the kernel gives up (icmp(7)).
    [new Error("Host is down (os error 112)"), "EHOSTDOWN"],
    [new Error("Protocol error (os error 71)"), "EPROTO"],
    ...[
      "EACCES",
      "ECONNABORTED",
      "ECONNREFUSED",
      "ENETDOWN",
      "ENETUNREACH",
      "ENONET",
      "ENOPROTOOPT",
      "ENOTSUP",
      "EINVAL", // an IPv6 blackhole route
      "EPERM", // IPsec
    ].map((code): [Error, string] => [
      Object.assign(new Error(code), { code }),
      code,
    ]),
    [new BrokenPipe("the peer had finished"), null],
    [Object.assign(new Error("full"), { code: "ENOBUFS" }), null],
  ];
  for (const [cause, told] of cases) {
    for (const when of ["before the write", "after it"]) {
      await t.step(`${cause.message}, a read that began ${when}`, async () => {
        const { inner, conn } = setUp();
        const read = () => conn.read(new Uint8Array(8)).catch((e) => e);
        let reading = when === "after it" ? undefined : read();
        conn.write(bytes("x")); // nobody awaits it
        await turn();
        await inner.failWrite(cause);
        reading ??= read();
        await inner.deliver(bytes("came before"));
        assertEquals(await reading, 8);
        assertEquals(await read(), 3, "bytes that have arrived come first");
        reading = read();
        await inner.deliver(null);
        const end = await reading;
        if (told === null) assertEquals(end, null);
        else {
          assertEquals([end.op, end.code], ["read", told]);
          assertStrictEquals(end.cause, cause);
          reading = read();
          await inner.deliver(null);
          assertEquals(await reading, null, "EOF, as from the kernel");
        }
        conn.close();
      });
    }
  }
});

Deno.test("a read over TLS fails with the loss that a write found, not with a cut", async () => {
  const { inner, conn } = setUp();
  const read = () => conn.read(new Uint8Array(8)).catch((e) => e);
  const cut = new Deno.errors.UnexpectedEof("without close_notify");
  conn.write(bytes("x")); // nobody awaits it
  await turn();
  await inner.failWrite(new Deno.errors.ConnectionReset("reset"));
  let reading = read();
  await inner.failRead(cut);
  assertEquals((await reading).code, "ECONNRESET");
  reading = read();
  await inner.failRead(cut);
  assertStrictEquals((await reading).cause, cut, "only once");
  conn.close();
});

Deno.test("Conn.closeWrite() fails after a write that found the connection lost", async (t) => {
  const { BrokenPipe, ConnectionReset } = Deno.errors;
  const cases: [cause: Error, code: string][] = [
    [new ConnectionReset("reset"), "ECONNRESET"],
    [new BrokenPipe("the peer had finished"), "EPIPE"],
  ];
  for (const [cause, code] of cases) {
    for (const when of ["before", "after"]) {
      await t.step(`${code}, called ${when} the write fails`, async () => {
        const { inner, conn } = setUp();
        conn.write(bytes("x")); // nobody awaits it
        let fin = when === "before" ? opError(conn.closeWrite()) : null;
        await turn();
        await inner.failWrite(cause);
        fin ??= opError(conn.closeWrite());
        const error = await fin;
        assertEquals([error.op, error.code], ["close", code]);
        assertStrictEquals(error.cause, cause);
        assertEquals((await opError(conn.closeWrite())).code, code);
        assertEquals(inner.fins.length, 0, "Deno would report success");
        conn.close();
      });
    }
  }
});

Deno.test("Conn.closeWrite() fails after a read that found the connection lost", async () => {
  const { inner, conn } = setUp();
  const read = opError(conn.read(new Uint8Array(8)));
  await inner.failRead(new Deno.errors.ConnectionReset("reset"));
  await read;
  const error = await opError(conn.closeWrite());
  assertEquals([error.op, error.code], ["close", "ECONNRESET"]);
  assertEquals(inner.fins.length, 0);
  conn.close();
});

Deno.test("Conn.closeWrite() sends FIN after a read that failed for another reason", async () => {
  const { inner, conn } = setUp();
  const read = opError(conn.read(new Uint8Array(8)));
  await inner.failRead(new Deno.errors.InvalidData("TLS"));
  await read;
  const fin = conn.closeWrite();
  inner.fins[0]!.resolve();
  await fin;
  conn.close();
});

Deno.test("Conn.closeWrite() sends FIN after a write that failed for another reason", async () => {
  const { inner, conn } = setUp();
  conn.write(bytes("x"));
  const fin = conn.closeWrite();
  await turn();
  await inner.failWrite(Object.assign(new Error("full"), { code: "ENOBUFS" }));
  assertEquals(inner.fins.length, 1);
  inner.fins[0]!.resolve();
  await fin;
  conn.close();
});

Deno.test("a read gets EOF after a write and a read have found the connection lost", async () => {
  const { inner, conn } = setUp();
  const reset = new Deno.errors.ConnectionReset("reset");
  conn.write(bytes("x"));
  await turn();
  await inner.failWrite(reset);
  const error = opError(conn.read(new Uint8Array(8)));
  await inner.failRead(reset);
  assertEquals((await error).code, "ECONNRESET");
  await opError(conn.closeWrite());
  const reading = conn.read(new Uint8Array(8));
  await inner.deliver(null);
  assertEquals(await reading, null);
  conn.close();
});

Deno.test("Conn.write() in place: a deadline set later closes the connection", async () => {
  const { inner, conn, clock } = setUp();
  const error = opError(conn.write(new Uint8Array(PIECE)));
  const reading = opError(conn.read(new Uint8Array(1)));
  conn.setWriteDeadline(clock.now() + 10);
  await clock.advance(9);
  assertEquals(inner.closes, 0);
  await clock.advance(1);
  assertEquals(inner.closes, 1);
  assert(isTimeout(await error));
  assert(isClosed(await reading));
  assert(isClosed(await opError(conn.write(bytes("x")))));
  assertEquals(clock.pending, 0);
});

Deno.test("Conn.write() in place: after a short write a deadline closes nothing", async () => {
  const { inner, conn, clock } = setUp();
  const p = new Uint8Array(3 * PIECE).fill(1);
  const error = opError(conn.write(p));
  conn.setWriteDeadline(clock.now() + 10);
  await inner.take(PIECE); // short: from here on it sends copies
  assertNotStrictEquals(inner.writes[0]!.p.buffer, p.buffer);
  assertEquals(inner.writes[0]!.p.length, PIECE);
  await clock.advance(10);
  assertEquals((await error).bytesWritten, PIECE);
  assertEquals(inner.closes, 0);
  conn.close();
});

Deno.test("Conn.write() in place: a rest of less than 64 KiB is sent from a copy", async () => {
  const { inner, conn, clock } = setUp();
  const p = new Uint8Array(PIECE + 10).fill(1);
  const error = opError(conn.write(p));
  await inner.take(PIECE);
  conn.setWriteDeadline(clock.now() + 10);
  await clock.advance(10);
  assertEquals((await error).bytesWritten, PIECE);
  p.fill(2); // it is the caller's again
  assertEquals(await inner.take(), new Uint8Array(10).fill(1));
  assertEquals(inner.closes, 0);
  conn.close();
});

Deno.test("Conn.write() of a transferred array fails, and no other write does", async () => {
  const { inner, conn } = setUp();
  const gone = new Uint8Array(10);
  const large = new Uint8Array(PIECE + 1);
  const writes = [
    conn.write(bytes("a")),
    failure(conn.write(gone)),
    conn.write(bytes("b")),
    failure(conn.write(large)),
    conn.write(bytes("c")),
  ];
  structuredClone(gone, { transfer: [gone.buffer] });
  structuredClone(large, { transfer: [large.buffer] });
  await turn();
  let out = "";
  while (inner.writes.length > 0) {
    out += new TextDecoder().decode(await inner.take());
  }
  assertEquals(out, "abc");
  const [a, first, b, second, c] = await Promise.all(writes);
  assertEquals([a, b, c], [1, 1, 1]);
  assert(first instanceof TypeError, `${first}`);
  assert(second instanceof TypeError, `${second}`);
});

Deno.test("Conn.write() of an array that is transferred on its way", async (t) => {
  await t.step("all of it is out", async () => {
    const { inner, conn } = setUp();
    const p = new Uint8Array(3 * PIECE);
    const written = conn.write(p);
    structuredClone(p, { transfer: [p.buffer] });
    inner.writes.shift()!.resolve(3 * PIECE);
    assertEquals(await written, 3 * PIECE);
  });
  await t.step("there is a rest", async () => {
    const { inner, conn } = setUp();
    const p = new Uint8Array(3 * PIECE);
    const failed = failure(conn.write(p));
    const next = conn.write(bytes("b"));
    structuredClone(p, { transfer: [p.buffer] });
    inner.writes.shift()!.resolve(PIECE);
    assertInstanceOf(await failed, TypeError);
    assertEquals(await inner.take(), bytes("b"));
    assertEquals(await next, 1);
  });
  await t.step("by a Deno.Conn that should have left it alone", async () => {
    const { inner, conn } = setUp();
    for (const n of [1, 2]) {
      const failed = opError(conn.write(bytes("xx")));
      await turn();
      const { p, resolve } = inner.writes.shift()!;
      structuredClone(p, { transfer: [p.buffer as ArrayBuffer] });
      resolve(n);
      assertStringIncludes((await failed).message, `write() gave ${n}`);
    }
  });
});

Deno.test("Conn.write() survives a Deno.Conn that throws instead of rejecting", async () => {
  const { inner, conn } = setUp();
  const cause = new Error("odd");
  const { write } = inner;
  inner.write = () => {
    inner.write = write;
    throw cause;
  };
  const error = await opError(conn.write(bytes("a")));
  assertStrictEquals(error.cause, cause);
  const next = conn.write(bytes("b"));
  await turn();
  assertEquals(await inner.take(), bytes("b"));
  assertEquals(await next, 1);
});

Deno.test("Conn.write() survives a Deno.Conn that returns no promise", async () => {
  const { inner, conn } = setUp();
  const other = setUp();
  const { write } = inner;
  inner.write = () => {
    inner.write = write;
    return 1 as unknown as Promise<number>;
  };
  const failed = opError(conn.write(bytes("a")));
  const written = other.conn.write(bytes("x"));
  assertInstanceOf((await failed).cause, TypeError);
  assertEquals(await other.inner.take(), bytes("x"));
  assertEquals(await written, 1);
  const next = conn.write(bytes("b"));
  await turn();
  assertEquals(await inner.take(), bytes("b"));
  assertEquals(await next, 1);
});

Deno.test("Conn.closeWrite() survives a Deno.Conn that throws instead of rejecting", async () => {
  const cause = new Error("odd");
  for (const before of [0, 1]) {
    const { inner, conn } = setUp();
    inner.closeWrite = () => {
      throw cause;
    };
    const written = before > 0 ? conn.write(new Uint8Array(before)) : undefined;
    const finished = opError(conn.closeWrite());
    if (written) {
      await turn();
      await inner.take();
      assertEquals(await written, before);
    }
    const error = await finished;
    assertEquals([error.op, error.cause], ["close", cause]);
    conn.close();
  }
});

Deno.test("Conn.write() need not be awaited, however it fails", async (t) => {
  const ways: Record<string, (conn: Conn) => void> = {
    "closed": (conn) => {
      conn.close();
      conn.write(bytes("x"));
    },
    "aborted before": (conn) => {
      conn.write(bytes("x"), { signal: AbortSignal.abort("enough") });
    },
    "aborted": (conn) => {
      const controller = new AbortController();
      conn.write(bytes("x"), controller);
      controller.abort("enough");
    },
    "past the deadline": (conn) => {
      conn.setWriteDeadline(0);
      conn.write(bytes("x"));
    },
  };
  for (const [name, way] of Object.entries(ways)) {
    await t.step(name, async () => {
      const { conn } = setUp();
      assertEquals(await unhandledIn(() => way(conn)), []);
      conn.close();
    });
  }
});

Deno.test("Conn.write() and read() reject an invalid signal", async () => {
  const { conn } = setUp();
  for (const signal of [1, "x", {}]) {
    const options = { signal: signal as unknown as AbortSignal };
    assert(await failure(conn.write(bytes("x"), options)) instanceof TypeError);
    assert(await failure(conn.read(bytes("x"), options)) instanceof TypeError);
  }
  const options = { signal: 1 as unknown as AbortSignal };
  const unhandled = await unhandledIn(() => {
    conn.write(bytes("x"), options);
    conn.read(bytes("x"), options);
  });
  assertEquals(unhandled.map((error) => error instanceof TypeError), [
    true,
    true,
  ]);
  conn.close();
});

Deno.test("Conn.write() takes thousands of small writes out of the queue on a timeout", async () => {
  const { inner, conn, clock } = setUp();
  conn.setWriteDeadline(clock.now() + 10);
  const p = new Uint8Array(64);
  const writes = Array.from(
    { length: 3000 },
    () => failure(conn.write(p)),
  );
  await turn();
  assertEquals(inner.writeSizes, [PIECE]);
  await clock.advance(10);
  const errors = await Promise.all(writes);
  assert(errors.every(isTimeout));
  await inner.take();
  assertEquals(inner.writes, []);
  conn.close();
});

Deno.test("Conn.closeWrite() waits for earlier writes; two calls are one", async () => {
  const { inner, conn } = setUp();
  const writing = conn.write(bytes("x"));
  const closing = [conn.closeWrite(), conn.closeWrite()];
  assertStrictEquals(closing[0], closing[1]);
  await turn();
  assertEquals(inner.fins.length, 0);
  await inner.take();
  assertEquals(await writing, 1);
  assertEquals(inner.fins.length, 1);
  inner.fins[0]!.resolve();
  await Promise.all(closing);
});

Deno.test("Conn.closeWrite() that fails rejects, and can be tried again", async () => {
  const { inner, conn } = setUp();
  const error = opError(conn.closeWrite());
  inner.fins[0]!.reject(new Deno.errors.NotConnected("not connected"));
  assertEquals([(await error).op, (await error).code], ["close", "ENOTCONN"]);
  const writing = conn.write(bytes("x"));
  await turn();
  await inner.take();
  assertEquals(await writing, 1);
  const again = conn.closeWrite();
  inner.fins[1]!.resolve();
  await again;
  assertEquals((await opError(conn.write(bytes("x")))).code, "EPIPE");
});

Deno.test("Conn.closeWrite() that the platform does not finish times out", async () => {
  const { inner, conn, clock } = setUp();
  const large = conn.write(new Uint8Array(2 * PIECE)); // in place
  inner.writes.shift()!.resolve(2 * PIECE);
  await large;
  conn.setWriteDeadline(clock.now() + 10);
  const error = opError(conn.closeWrite()); // TLS: the peer reads nothing
  await clock.advance(10);
  assert(isTimeout(await error));
  assertEquals(inner.closes, 0, "that was over");
  conn.setWriteDeadline(null);
  // FIN still goes out, so nothing can be written after it.
  assertEquals((await opError(conn.write(bytes("x")))).code, "EPIPE");
  inner.fins[0]!.resolve();
  await turn();
  const again = conn.closeWrite();
  inner.fins[1]!.resolve();
  await again;
  conn.close();
});

Deno.test("Conn.close() during a write waits for nothing, and starts nothing", async (t) => {
  const canceled = new Deno.errors.Interrupted("operation canceled");
  const ends: Record<string, (inner: InnerConn) => Promise<unknown>> = {
    "the operation fails": (inner) => inner.failWrite(canceled),
    "a part of it is out": (inner) => inner.take(1),
  };
  for (const [name, end] of Object.entries(ends)) {
    await t.step(name, async () => {
      const { inner, conn } = setUp();
      const writing = opError(conn.write(bytes("xx")));
      await turn();
      const behind = opError(conn.write(bytes("y")));
      conn.close();
      assert(isClosed(await writing) && isClosed(await behind));
      await end(inner);
      assertEquals([inner.writeSizes.length, inner.closes], [1, 1]);
    });
  }
});

Deno.test("Conn.closeWrite() fails with the first write's error, not a later one's", async () => {
  const { inner, conn } = setUp();
  const told = [];
  const { BrokenPipe, ConnectionReset } = Deno.errors;
  // The kernel reports them in this order.
  for (const error of [new ConnectionReset(), new BrokenPipe()]) {
    const writing = opError(conn.write(bytes("x")));
    await turn();
    await inner.failWrite(error);
    told.push((await writing).code);
  }
  assertEquals(told, ["ECONNRESET", "EPIPE"]);
  const finishing = opError(conn.closeWrite());
  await turn();
  inner.fins[0]?.resolve(); // the kernel would not object
  assertEquals((await finishing).code, "ECONNRESET");
  conn.close();
});

Deno.test("Conn.close() tells a write how much of it is out", async () => {
  const { inner, conn } = setUp();
  const writing = opError(conn.write(new Uint8Array(3_000)));
  await turn();
  await inner.take(1_000); // the rest is under way
  conn.close();
  assertEquals((await writing).bytesWritten, 1_000);
  await inner.failWrite(new Deno.errors.Interrupted("operation canceled"));
});

Deno.test("Conn.close() in the tick of a write starts nothing", async () => {
  const { inner, conn } = setUp();
  const writing = opError(conn.write(bytes("x")));
  conn.close();
  assert(isClosed(await writing));
  await turn();
  assertEquals(inner.writeSizes, []);
});
