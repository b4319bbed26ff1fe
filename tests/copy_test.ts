import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import { Conn, wireOf } from "../net/conn.ts";
import { copy, copyBidirectional } from "../net/copy.ts";
import { isClosed, isTimeout, OpError } from "../net/errors.ts";
import { FakeClock, pipe } from "../testing/mod.ts";
import { InnerConn } from "./conn_inner.ts";
import {
  bytes,
  countedSignal,
  pair,
  STUCK_MS,
  textOf,
  turn,
  unhandledIn,
} from "./support.ts";
import {
  drain,
  failure,
  pattern,
  readFull,
  readText,
  same,
  zeros,
} from "./suites/conn_suite_kit.ts";

const PIECE = 64 * 1024;
/** More than the kernel buffers between two ends that do not read. */
const FLOOD = 16 * 1024 * 1024;

function setUp(): { inner: InnerConn; conn: Conn; clock: FakeClock } {
  const inner = new InnerConn();
  const clock = new FakeClock();
  return { inner, clock, conn: new Conn(inner, { clock }) };
}

/** Makes the memory for reads grow to `size` bytes. */
async function grow(
  { conn, inner }: { conn: Conn; inner: InnerConn },
  size: number,
): Promise<void> {
  for (let n = 1024; n < size; n *= 4) {
    const reading = conn.read(new Uint8Array(n));
    await inner.deliver(new Uint8Array(n));
    await reading;
  }
}

/** A proxy's two connections, each with the peer at its far end. */
async function proxied(): Promise<{
  client: Conn;
  a: Conn;
  b: Conn;
  upstream: Conn;
  closeAll: () => void;
}> {
  const [[client, a], [b, upstream]] = await Promise.all([pair(), pair()]);
  const closeAll = () => {
    for (const conn of [client, a, b, upstream]) conn.close();
  };
  return { client, a, b, upstream, closeAll };
}

Deno.test("both copy functions refuse what is not a Conn, and close nothing", {
  timeout: STUCK_MS,
}, async () => {
  const [a, b] = await pair();
  for (const odd of [{ ...b }, {}, null] as unknown as Conn[]) {
    for (
      const call of [
        () => copy(a, odd),
        () => copy(odd, a),
        () => copyBidirectional(a, odd),
        () => copyBidirectional(odd, a),
      ]
    ) await assertRejects(call, TypeError, "not a Conn");
  }
  await a.write(bytes("x"));
  assertEquals(await b.read(new Uint8Array(1)), 1);
  a.close();
  b.close();
});

Deno.test("copy() moves all bytes until EOF, and counts them", async () => {
  const { client, a, b, upstream, closeAll } = await proxied();
  const sent = pattern(3 * 1024 * 1024 + 17);
  const copied = copy(a, b);
  const sending = client.write(sent).then(() => client.closeWrite());
  const got = new Uint8Array(sent.length);
  for (let at = 0; at < got.length;) {
    at += (await upstream.read(got.subarray(at)))!;
  }
  await sending;
  assert(same(got, sent));
  assertEquals(await copied, sent.length);
  // EOF is not passed on, and nothing is closed.
  await b.write(bytes("more"));
  assertEquals(await readText(upstream), "more");
  await a.write(bytes("back"));
  assertEquals(await readText(client), "back");
  closeAll();
});

Deno.test("copy() at EOF returns 0", async () => {
  const [client, server] = await pair();
  await client.closeWrite();
  assertEquals(await copy(server, server), 0);
  assertEquals(await copy(server, server), 0, "EOF comes again");
  client.close();
  server.close();
});

Deno.test("copy() to the same connection is an echo", async () => {
  const [client, server] = await pair();
  const echoed = copy(server, server);
  const sent = pattern(1024 * 1024);
  const sending = client.write(sent).then(() => client.closeWrite());
  const got = new Uint8Array(sent.length);
  for (let at = 0; at < got.length;) {
    at += (await client.read(got.subarray(at)))!;
  }
  assert(same(got, sent));
  assertEquals(await echoed, sent.length);
  await sending;
  client.close();
  server.close();
});

Deno.test("copy() writes from the memory that it reads into", async () => {
  const [from, to] = [setUp(), setUp()];
  const copied = copy(from.conn, to.conn);
  const { p } = from.inner.reads[0]!;
  await from.inner.deliver(bytes("hello"));
  assertStrictEquals(to.inner.writes[0]!.p.buffer, p.buffer);
  assertEquals(from.inner.reads, [], "nothing is read before it is out");
  assertEquals(await to.inner.take(), bytes("hello"));
  assertStrictEquals(from.inner.reads[0]!.p.buffer, p.buffer, "used again");
  await from.inner.deliver(null);
  assertEquals(await copied, 5);
});

Deno.test("copy() goes on writing when the kernel takes only a part", async () => {
  const [from, to] = [setUp(), setUp()];
  const copied = copy(from.conn, to.conn);
  await from.inner.deliver(bytes("abcdefgh"));
  const out = [await to.inner.take(3), await to.inner.take(1)];
  out.push(await to.inner.take());
  assertEquals(out, [bytes("abc"), bytes("d"), bytes("efgh")]);
  await from.inner.deliver(null);
  assertEquals(await copied, 8);
});

Deno.test("copy() has backpressure: a receiver that does not read stops it", async () => {
  const { client, a, b, upstream, closeAll } = await proxied();
  const copied = copy(a, b);
  client.setWriteDeadline(Date.now() + 50);
  let sent = 0;
  const error = await failure((async () => {
    for (;;) sent += await client.write(new Uint8Array(PIECE));
  })()) as OpError;
  assert(error.timeout, "the sender is stuck");
  sent += error.bytesWritten!;
  const count = drain(upstream);
  client.setWriteDeadline(null);
  await client.closeWrite();
  const n = await copied;
  assert(n >= sent && n <= sent + PIECE);
  await b.closeWrite();
  assertEquals(await count, n, "and all of it arrives");
  closeAll();
});

Deno.test(
  "copy() fails with the error of the side that failed",
  { timeout: STUCK_MS },
  async (t) => {
    await t.step("the read deadline of `from`", async () => {
      const { client, a, b, upstream, closeAll } = await proxied();
      const copied = failure(copy(a, b));
      a.setReadDeadline(Date.now() + 5);
      const error = await copied as OpError;
      assertEquals([error.op, error.timeout], ["read", true]);
      assertEquals(String(error.addr), String(a.remoteAddr));
      // Neither is closed, and no byte is lost.
      a.setReadDeadline(null);
      await client.write(bytes("later"));
      await client.closeWrite();
      assertEquals(await copy(a, b), 5);
      assertEquals(await readText(upstream), "later");
      closeAll();
    });

    await t.step("the write deadline of `to`", async () => {
      const { client, a, b, closeAll } = await proxied();
      const copied = failure(copy(a, b));
      b.setWriteDeadline(Date.now() + 50);
      client.setWriteDeadline(Date.now() + 60_000);
      const sending = failure(client.write(zeros(FLOOD)));
      const error = await copied as OpError;
      assertEquals([error.op, error.timeout], ["write", true]);
      assertEquals(String(error.addr), String(b.remoteAddr));
      closeAll();
      assert(isClosed(await sending));
    });

    await t.step(
      "a write deadline that is set late closes the connection",
      async () => {
        const clock = new FakeClock();
        const bufferSize = 1024 * 1024;
        const [client, a] = pipe({ clock, bufferSize });
        const [b, upstream] = pipe({ clock, bufferSize: 1024 });
        const copied = failure(copy(a, b));
        const sending = failure(client.write(zeros(4 * bufferSize)));
        // Until the pieces are large.
        for (let i = 0; i < 500; i++) await upstream.read(new Uint8Array(1024));
        await clock.advance(0);
        b.setWriteDeadline(clock.now() + 10);
        await clock.advance(10);
        const error = await copied as OpError;
        assertEquals([error.op, error.timeout], ["write", true]);
        assert(isClosed(await failure(b.write(bytes("x")))));
        for (const conn of [client, a, upstream]) conn.close();
        assert(isClosed(await sending));
      },
    );

    await t.step("a past deadline: at once, and the bytes stay", async () => {
      const { client, a, b, closeAll } = await proxied();
      await client.write(bytes("unread"));
      a.setReadDeadline(0);
      assertEquals((await failure(copy(a, b)) as OpError).op, "read");
      a.setReadDeadline(null);
      b.setWriteDeadline(0);
      assertEquals((await failure(copy(a, b)) as OpError).op, "write");
      assertEquals(await readText(a), "unread");
      closeAll();
    });

    await t.step("a closed `from`, and a closed `to`", async () => {
      const { a, b, upstream, closeAll } = await proxied();
      const copied = failure(copy(a, b));
      a.close();
      const error = await copied as OpError;
      assertEquals([error.op, isClosed(error)], ["read", true]);
      assert(isClosed(await failure(copy(a, b))));
      const other = failure(copy(b, a));
      await upstream.write(bytes("stays"));
      assertEquals((await other as OpError).op, "write");
      assertEquals(await readText(b), "stays");
      closeAll();
    });

    await t.step("closeWrite() of `to`: EPIPE, the bytes stay", async () => {
      const { client, a, b, closeAll } = await proxied();
      await b.closeWrite();
      const copied = failure(copy(a, b));
      await client.write(bytes("stays"));
      assertEquals((await copied as OpError).code, "EPIPE");
      assertEquals(await readText(a), "stays");
      closeAll();
    });
  },
);

Deno.test("copy() puts the bytes back if its queued write is given up", async () => {
  const [from, to] = [setUp(), setUp()];
  to.conn.setWriteDeadline(to.clock.now() + 10);
  const stuck = failure(to.conn.write(bytes("stuck")));
  await turn();
  const copied = failure(copy(from.conn, to.conn));
  await from.inner.deliver(bytes("kept"));
  await to.clock.advance(10);
  assert(isTimeout(await stuck) && isTimeout(await copied));
  assertEquals(await readText(from.conn), "kept");
  assertEquals(from.inner.reads, []);
  from.conn.close();
  to.conn.close();
});

Deno.test("copy() puts the rest back if its write is given up halfway", async () => {
  const [from, to] = [setUp(), setUp()];
  const size = 256 * 1024;
  await grow(from, size);
  const copied = failure(copy(from.conn, to.conn));
  const data = pattern(size);
  await from.inner.deliver(data);
  // It went out in place; what the kernel did not take goes in pieces now.
  to.conn.setWriteDeadline(to.clock.now() + 10);
  await to.inner.take(1000);
  assertEquals(to.inner.writeSizes, [size, PIECE]);
  await to.clock.advance(10);
  assert(isTimeout(await copied));
  const rest = new Uint8Array(size);
  assertEquals(await from.conn.read(rest), size - 1000 - PIECE);
  assertEquals(rest.subarray(0, 9), data.subarray(1000 + PIECE).slice(0, 9));
  // What is under way has not changed.
  assertEquals(await to.inner.take(), data.slice(1000, 1000 + PIECE));
  from.conn.close();
  to.conn.close();
});

Deno.test("copy() that is given up puts nothing back once somebody has read on", async () => {
  const [from, to] = [setUp(), setUp()];
  const size = 256 * 1024;
  await grow(from, size);
  const stuck = failure(to.conn.write(bytes("stuck")));
  await turn();
  const controller = new AbortController();
  const copied = failure(copy(from.conn, to.conn, controller));
  const data = pattern(size);
  await from.inner.deliver(data);
  const p = new Uint8Array(100);
  assertEquals(await from.conn.read(p), 100);
  assertEquals(p, data.slice(PIECE, PIECE + 100));
  controller.abort();
  await copied;
  const rest = new Uint8Array(size);
  const n = await from.conn.read(rest);
  assert(same(rest.subarray(0, n!), data.subarray(PIECE + 100)));
  from.conn.close();
  to.conn.close();
  await stuck;
});

Deno.test("copy() never reuses the memory of an abandoned write", async () => {
  const [from, to] = [setUp(), setUp()];
  to.conn.setWriteDeadline(to.clock.now() + 10);
  const copied = failure(copy(from.conn, to.conn));
  await from.inner.deliver(bytes("sent late"));
  const { p } = to.inner.writes[0]!;
  await to.clock.advance(10);
  assert(isTimeout(await copied));
  assertEquals(to.inner.closes, 0, "a piece that small may go out");
  // The operation still reads from that memory, so nobody may write to it.
  const reading = from.conn.read(new Uint8Array(64));
  await from.inner.deliver(bytes("something else"));
  assertEquals(await reading, 14);
  from.conn.close();
  const other = setUp();
  const step = other.conn.read(new Uint8Array(64));
  await other.inner.deliver(bytes("of others"));
  await step;
  assertEquals(p, bytes("sent late"));
  assertEquals(await to.inner.take(), bytes("sent late"));
  other.conn.close();
  to.conn.close();
});

Deno.test("copy() can fail when another read has met the EOF of `from`", async () => {
  const [from, to] = [setUp(), setUp()];
  const copying = failure(copy(from.conn, to.conn));
  await from.inner.deliver(bytes("abc"));
  const reading = from.conn.read(new Uint8Array(1));
  await from.inner.deliver(null);
  assertEquals(await reading, null);
  to.inner.writes[0]!.reject(new Deno.errors.ConnectionReset("reset"));
  assertEquals((await copying as OpError).code, "ECONNRESET");
  from.conn.close();
  to.conn.close();
});

Deno.test("copy() sends the bytes under way unchanged when `from` is closed", async () => {
  const [from, to] = [setUp(), setUp()];
  const copied = failure(copy(from.conn, to.conn));
  await from.inner.deliver(bytes("last words"));
  const { p } = to.inner.writes[0]!;
  from.conn.close();
  const other = setUp();
  const reading = other.conn.read(new Uint8Array(64));
  assert(other.inner.reads[0]!.p.buffer !== p.buffer);
  await other.inner.deliver(bytes("of others"));
  await reading;
  assertEquals(await to.inner.take(), bytes("last words"));
  assert(isClosed(await copied));
  other.conn.close();
  to.conn.close();
});

Deno.test("copyBidirectional() closes one on an abort even if the other cannot be closed", async () => {
  const [a, b] = [new InnerConn(), new InnerConn()];
  a.close = () => {
    throw new Error("will not close");
  };
  const controller = new AbortController();
  const { signal } = controller;
  const copied = copyBidirectional(new Conn(a), new Conn(b), { signal });
  controller.abort("enough"); // and does not throw
  assertEquals(await failure(copied), "enough");
  assertEquals(b.closes, 1);
});

Deno.test("copy() asks nothing of a Deno.Conn that is closed", async () => {
  const { inner, conn } = setUp();
  const reading = failure(conn.read(new Uint8Array(1)));
  conn.close();
  for (const copying of [copy(conn, setUp().conn), copy(setUp().conn, conn)]) {
    assert(isClosed(await failure(copying)));
  }
  assert(isClosed(await reading));
  assertEquals([inner.refs, inner.readSizes.length, inner.closes], [[], 1, 1]);
});

Deno.test("copy() ends at an abort", { timeout: STUCK_MS }, async (t) => {
  await t.step("aborted before: it touches nothing", async () => {
    const { client, a, b, closeAll } = await proxied();
    await client.write(bytes("stays"));
    const reason = new Error("mine");
    const signal = AbortSignal.abort(reason);
    assertStrictEquals(await failure(copy(a, b, { signal })), reason);
    assertEquals(await readText(a), "stays");
    closeAll();
  });

  await t.step("aborted while it reads: no byte is lost", async () => {
    const { client, a, b, closeAll } = await proxied();
    const { controller, signal, listeners } = countedSignal();
    const copied = failure(copy(a, b, { signal }));
    await turn();
    controller.abort(new Error("mine"));
    assertStrictEquals(await copied, signal.reason);
    assertEquals(listeners(), 0);
    await client.write(bytes("kept"));
    assertEquals(await readText(a), "kept");
    closeAll();
  });

  await t.step("aborted while it reads again: no byte is lost", async () => {
    const [from, to] = [setUp(), setUp()];
    const { controller, signal, listeners } = countedSignal();
    const copied = failure(copy(from.conn, to.conn, { signal }));
    await from.inner.deliver(bytes("one"));
    await to.inner.take();
    controller.abort(new Error("mine"));
    assertStrictEquals(await copied, signal.reason);
    assertEquals(listeners(), 0);
    await from.inner.deliver(bytes("kept"));
    assertEquals(to.inner.writes, []);
    const p = new Uint8Array(8);
    assertEquals(await from.conn.read(p), 4);
    from.conn.close();
    to.conn.close();
  });

  await t.step(
    "aborted while it writes: one piece goes out, whole",
    async () => {
      const [from, to] = [setUp(), setUp()];
      const { controller, signal, listeners } = countedSignal();
      await grow(from, 256 * 1024);
      const copied = failure(copy(from.conn, to.conn, { signal }));
      await from.inner.deliver(new Uint8Array(100 * 1024).fill(1));
      assertEquals(to.inner.writeSizes, [PIECE]);
      controller.abort(new Error("mine"));
      assertStrictEquals(await copied, signal.reason);
      assertEquals(listeners(), 0);
      await to.inner.take(1000);
      await to.inner.take();
      assertEquals(to.inner.writes, []);
      const rest = new Uint8Array(256 * 1024);
      assertEquals(await from.conn.read(rest), 100 * 1024 - PIECE);
      from.conn.close();
      to.conn.close();
    },
  );

  await t.step("aborted while its piece waits in the queue", async () => {
    const [from, to] = [setUp(), setUp()];
    const { controller, signal, listeners } = countedSignal();
    const writing = to.conn.write(bytes("others'"));
    await turn();
    const copied = failure(copy(from.conn, to.conn, { signal }));
    await from.inner.deliver(bytes("kept"));
    controller.abort(new Error("mine"));
    assertStrictEquals(await copied, signal.reason);
    assertEquals(listeners(), 0);
    assertEquals(await readText(from.conn), "kept");
    await to.inner.take();
    await writing;
    assertEquals(to.inner.writes, [], "it does not go out as well");
    from.conn.close();
    to.conn.close();
  });

  await t.step("aborted after: no effect, no listener left", async () => {
    const [client, server] = await pair();
    const { controller, signal, listeners } = countedSignal();
    await client.closeWrite();
    assertEquals(await copy(server, server, { signal }), 0);
    assertEquals(listeners(), 0);
    controller.abort();
    await server.write(bytes("fine"));
    assertEquals(await readText(client), "fine");
    client.close();
    server.close();
  });
});

Deno.test("copy() ends when the connection that it is not waiting for is closed", async (t) => {
  await t.step("the destination, while it reads", async () => {
    const [from, to] = [setUp(), setUp()];
    const copied = failure(copy(from.conn, to.conn));
    to.conn.close();
    const error = await copied as OpError;
    assert(isClosed(error));
    assertEquals(error.op, "write");
    assertEquals(error.bytesWritten, 0);
    assertEquals(from.inner.refs, ["unref"]); // nobody waits for its read
    await from.inner.deliver(bytes("abc"));
    const p = new Uint8Array(4);
    assertEquals(await from.conn.read(p), 3);
  });

  await t.step("the source, while it writes", async () => {
    const [from, to] = [setUp(), setUp()];
    const copied = failure(copy(from.conn, to.conn));
    await from.inner.deliver(bytes("abc"));
    from.conn.close();
    const error = await copied as OpError;
    assert(isClosed(error));
    assertEquals(error.op, "read");
    to.inner.writes[0]!.resolve(3); // it was under way
    await turn();
    const written = to.conn.write(bytes("d"));
    await turn();
    to.inner.writes.at(-1)!.resolve(1);
    assertEquals(await written, 1);
  });

  await t.step("one that was closed before", async () => {
    const [from, to] = [setUp(), setUp()];
    to.conn.close();
    const error = await failure(copy(from.conn, to.conn)) as OpError;
    assert(isClosed(error));
    assertEquals(error.op, "write");
    assertEquals(from.inner.reads, []);
  });

  await t.step("one inside the Conn that it was given", async () => {
    const [from, to] = [setUp(), setUp()];
    const copied = failure(copy(from.conn, new Conn(to.conn)));
    to.conn.close();
    assert(isClosed(await copied));
    assert(isClosed(await failure(copy(from.conn, new Conn(to.conn)))));
  });

  await t.step("one, then the other", async () => {
    const [from, to] = [setUp(), setUp()];
    const unhandled = await unhandledIn(async () => {
      const copied = failure(copy(from.conn, to.conn));
      await from.inner.deliver(bytes("abc")); // under way
      from.conn.close();
      to.conn.close();
      assertEquals((await copied as OpError).op, "read");
    });
    assertEquals(unhandled, []);
  });

  await t.step("after its end a close has no effect", async () => {
    const [from, to] = [setUp(), setUp()];
    const copied = copy(from.conn, to.conn);
    await from.inner.deliver(null);
    assertEquals(await copied, 0);
    to.conn.close();
    assertEquals(await from.conn.read(new Uint8Array(1)), null);
  });
});

Deno.test("copyBidirectional() counts both ways, passes EOF on, closes neither", async () => {
  const { client, a, b, upstream, closeAll } = await proxied();
  const copied = copyBidirectional(a, b);
  await client.write(bytes("question"));
  await client.closeWrite();
  assertEquals(await textOf(upstream), "question", "EOF has come through");
  // The other direction is still open, for as long as it takes.
  await upstream.write(bytes("an "));
  assertEquals(await readText(client), "an ");
  await upstream.write(bytes("answer"));
  await upstream.closeWrite();
  assertEquals(await textOf(client), "answer");
  assertEquals(await copied, [8, 9]);
  a.setDeadline(0); // not closed
  b.setDeadline(0);
  closeAll();
});

Deno.test("copyBidirectional() moves both ways at once", async () => {
  const { client, a, b, upstream, closeAll } = await proxied();
  const copied = copyBidirectional(a, b);
  const sent = pattern(2 * 1024 * 1024);
  const play = async (conn: Conn) => {
    const sending = conn.write(sent).then(() => conn.closeWrite());
    assert(same(await new Response(conn.readable).bytes(), sent));
    await sending;
  };
  await Promise.all([play(client), play(upstream)]);
  assertEquals(await copied, [sent.length, sent.length]);
  closeAll();
});

Deno.test("copyBidirectional() goes on one way while the other way is stuck", async () => {
  const { client, a, b, upstream, closeAll } = await proxied();
  const copied = copyBidirectional(a, b);
  let stuck = 0; // upstream does not read
  for (;;) {
    client.setWriteDeadline(Date.now() + 20);
    const error = await client.write(zeros(PIECE)).catch((error) => error);
    stuck += error.bytesWritten ?? PIECE;
    if (isTimeout(error)) break;
  }
  await upstream.write(bytes("answer"));
  assertEquals(await readText(client), "answer");
  client.setWriteDeadline(null);
  const fin = client.closeWrite();
  const got = await drain(upstream);
  await fin;
  assert(got >= stuck);
  await upstream.closeWrite();
  assertEquals(await copied, [got, 6]);
  closeAll();
});

Deno.test("copyBidirectional() closes both if anything fails", async (t) => {
  const assertBothClosed = async (a: Conn, b: Conn) => {
    for (const conn of [a, b]) {
      assert(isClosed(await failure(conn.read(new Uint8Array(1)))));
    }
  };

  await t.step("a deadline", async () => {
    const { client, a, b, upstream, closeAll } = await proxied();
    a.setReadDeadline(Date.now() + 5);
    const error = await failure(copyBidirectional(a, b));
    assert(error instanceof OpError && error.timeout);
    await assertBothClosed(a, b);
    assertEquals(await textOf(client), "");
    assertEquals(await textOf(upstream), "");
    closeAll();
  });

  await t.step("a connection that is closed", async () => {
    const { a, b, upstream, closeAll } = await proxied();
    const copied = failure(copyBidirectional(a, b));
    a.close();
    assert(isClosed(await copied));
    await assertBothClosed(a, b);
    assertEquals(await textOf(upstream), "");
    closeAll();
  });

  await t.step("a connection that is closed after its EOF", async () => {
    const { client, a, b, upstream, closeAll } = await proxied();
    const copied = failure(copyBidirectional(a, b));
    await client.closeWrite();
    assertEquals(await textOf(upstream), ""); // now only upstream can send
    a.close();
    assert(isClosed(await copied));
    await assertBothClosed(a, b);
    closeAll();
  });

  await t.step(
    "a connection that is closed when the other cannot take more",
    async () => {
      const { client, a, b, upstream, closeAll } = await proxied();
      const copied = failure(copyBidirectional(a, b));
      await upstream.closeWrite();
      assertEquals(await textOf(client), "");
      const sent = failure(client.write(zeros(FLOOD))); // upstream does not read
      await turn();
      a.close();
      assert(isClosed(await copied));
      await assertBothClosed(a, b);
      closeAll();
      await sent;
    },
  );

  await t.step(
    "a connection that breaks when one direction is done",
    async () => {
      const [from, to] = [setUp(), setUp()];
      const copied = failure(copyBidirectional(from.conn, to.conn));
      await from.inner.deliver(null);
      to.inner.fins[0]!.resolve();
      await to.inner.failRead(new Deno.errors.ConnectionReset("reset"));
      assertEquals((await copied as OpError).code, "ECONNRESET");
      assertEquals([from.inner.closes, to.inner.closes], [1, 1]);
    },
  );

  await t.step("a FIN that cannot be sent", async () => {
    const [from, to] = [setUp(), setUp()];
    const copied = failure(copyBidirectional(from.conn, to.conn));
    await from.inner.deliver(null);
    to.inner.fins[0]!.reject(new Deno.errors.NotConnected("not connected"));
    assertEquals((await copied as OpError).code, "ENOTCONN");
    assertEquals([from.inner.closes, to.inner.closes], [1, 1]);
  });

  await t.step("one is closed while the other's FIN is stuck", async () => {
    const [from, to] = [setUp(), setUp()];
    const copied = failure(copyBidirectional(from.conn, to.conn));
    await to.inner.deliver(null);
    from.inner.fins[0]!.resolve();
    await from.inner.deliver(null);
    assertEquals(to.inner.fins.length, 1); // TLS: the peer reads nothing
    from.conn.close();
    const error = await copied;
    assert(isClosed(error) && error instanceof OpError && error.op === "read");
    assertEquals([from.inner.closes, to.inner.closes], [1, 1]);
  });
});

Deno.test("copyBidirectional() passes on what a peer said before it was gone", async (t) => {
  await t.step("on fakes", async () => {
    const [from, to] = [setUp(), setUp()];
    const copied = failure(copyBidirectional(from.conn, to.conn));
    await from.inner.deliver(bytes("much"));
    await to.inner.failWrite(new Deno.errors.BrokenPipe("broken pipe"));
    assertEquals([from.inner.closes, to.inner.closes], [0, 0]);
    await to.inner.deliver(bytes("too much"));
    assertEquals(await from.inner.take(), bytes("too much"));
    await to.inner.deliver(null);
    from.inner.fins[0]!.resolve();
    const { op, code } = await copied as OpError;
    assertEquals([op, code], ["write", "EPIPE"]);
    assertEquals([from.inner.closes, to.inner.closes], [1, 1]);
  });

  await t.step("a connection that is closed meanwhile ends it", async () => {
    const [from, to] = [setUp(), setUp()];
    const copied = failure(copyBidirectional(from.conn, to.conn));
    await from.inner.deliver(bytes("much"));
    await to.inner.failWrite(new Deno.errors.BrokenPipe("broken pipe"));
    from.conn.close();
    assertEquals((await copied as OpError).code, "EPIPE");
    assertEquals([from.inner.closes, to.inner.closes], [1, 1]);
  });

  await t.step("an abort meanwhile ends it", async () => {
    const [from, to] = [setUp(), setUp()];
    const { controller, signal, listeners } = countedSignal();
    const copied = failure(
      copyBidirectional(from.conn, to.conn, { signal }),
    );
    await from.inner.deliver(bytes("much"));
    await to.inner.failWrite(new Deno.errors.BrokenPipe("broken pipe"));
    controller.abort(new Error("mine"));
    assertStrictEquals(await copied, signal.reason);
    assertEquals(listeners(), 0);
    assertEquals([from.inner.closes, to.inner.closes], [1, 1]);
  });

  await t.step("on sockets", async () => {
    const { client, a, b, upstream, closeAll } = await proxied();
    const copied = failure(copyBidirectional(a, b));
    const sent = failure(client.write(zeros(FLOOD)));
    await upstream.read(new Uint8Array(1));
    const answer = pattern(20_000);
    await upstream.write(answer);
    upstream.close(); // with bytes unread: a reset follows
    assert(same(await readFull(client, answer.length), answer));
    assertEquals((await copied as OpError).op, "write");
    await sent;
    closeAll();
  });
});

/** What is told of the connection's end, from now on. */
function watchersOf(conn: Conn): Set<unknown> {
  const watchers = new Set<unknown>();
  const wire = wireOf(conn);
  const { watch, unwatch } = wire;
  wire.watch = (watcher) => {
    watchers.add(watcher);
    watch.call(wire, watcher);
  };
  wire.unwatch = (watcher) => {
    watchers.delete(watcher);
    unwatch.call(wire, watcher);
  };
  return watchers;
}

Deno.test("copyBidirectional() leaves nothing with either connection", async () => {
  const [a, b] = [setUp(), setUp()];
  const watchers = [watchersOf(a.conn), watchersOf(b.conn)];
  const sizes = () => watchers.map(({ size }) => size);
  const copied = copyBidirectional(a.conn, b.conn);
  assertEquals(sizes(), [2, 2]);
  await a.inner.deliver(null);
  assertEquals(sizes(), [2, 1]);
  b.inner.fins[0]!.resolve();
  await b.inner.deliver(null);
  a.inner.fins[0]!.resolve();
  await copied;
  assertEquals(sizes(), [0, 0]);
  a.conn.close();
  b.conn.close();
});

Deno.test("copyBidirectional() closes both at an abort", async (t) => {
  await t.step("aborted before", async () => {
    const { client, a, b, closeAll } = await proxied();
    const reason = new Error("mine");
    const signal = AbortSignal.abort(reason);
    assertStrictEquals(
      await failure(copyBidirectional(a, b, { signal })),
      reason,
    );
    assertEquals(await textOf(client), "");
    closeAll();
  });

  await t.step("aborted while it waits", async () => {
    const { client, a, b, upstream, closeAll } = await proxied();
    const { controller, signal, listeners } = countedSignal();
    const copied = failure(copyBidirectional(a, b, { signal }));
    await client.write(bytes("x"));
    assertEquals(await readText(upstream), "x");
    controller.abort(new Error("mine"));
    assertStrictEquals(await copied, signal.reason);
    assertEquals(listeners(), 0);
    assertEquals(await textOf(client), "");
    assertEquals(await textOf(upstream), "");
    closeAll();
  });

  await t.step(
    "aborted while it writes in place",
    async () => {
      const [from, to] = [setUp(), setUp()];
      const { controller, signal } = countedSignal();
      const size = 256 * 1024;
      await grow(from, size);
      const copied = failure(
        copyBidirectional(from.conn, to.conn, { signal }),
      );
      await from.inner.deliver(new Uint8Array(size));
      assertEquals(to.inner.writeSizes, [size]);
      controller.abort(new Error("mine"));
      assertStrictEquals(await copied, signal.reason);
      assertEquals([from.inner.closes, to.inner.closes], [1, 1]);
    },
  );

  await t.step("aborted while a FIN is stuck", async () => {
    const [from, to] = [setUp(), setUp()];
    const { controller, signal, listeners } = countedSignal();
    const copied = failure(
      copyBidirectional(from.conn, to.conn, { signal }),
    );
    await to.inner.deliver(null);
    from.inner.fins[0]!.resolve();
    await from.inner.deliver(null);
    assertEquals(to.inner.fins.length, 1); // TLS: the peer reads nothing
    controller.abort(new Error("mine"));
    assertStrictEquals(await copied, signal.reason);
    assertEquals(listeners(), 0);
    assertEquals([from.inner.closes, to.inner.closes], [1, 1]);
  });
});
