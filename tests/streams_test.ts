/** What the suite cannot see: which operations the streams ask for, and when. */
import { assert, assertEquals } from "@std/assert";
import { Conn } from "../net/conn.ts";
import { isClosed, isTimeout, type OpError } from "../net/errors.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { InnerConn, jobs } from "./conn_inner.ts";
import { bytes } from "./support.ts";
import { failure, text } from "./suites/conn_suite_kit.ts";

function setUp(): { inner: InnerConn; conn: Conn; clock: FakeClock } {
  const inner = new InnerConn();
  const clock = new FakeClock();
  return { inner, clock, conn: new Conn(inner, { clock }) };
}

Deno.test("readable asks for one read per pull, never ahead", async () => {
  const { inner, conn } = setUp();
  const reader = conn.readable.getReader();
  await jobs();
  assertEquals(inner.readSizes.length, 0);
  for (const word of ["one", "two"]) {
    const reading = reader.read();
    await inner.deliver(bytes(word));
    assertEquals(text((await reading).value!), word);
    await jobs();
    assertEquals(inner.reads.length, 0);
  }
  conn.close();
});

Deno.test("readable reads into the caller's own array", async () => {
  const { inner, conn } = setUp();
  const reader = conn.readable.getReader({ mode: "byob" });
  const reading = reader.read(new Uint8Array(4));
  await jobs();
  await inner.deliver(bytes("abcdef"));
  assertEquals(text((await reading).value!), "abcd");
  const { value } = await reader.read(new Uint8Array(4));
  assertEquals(text(value!), "ef");
  const ended = reader.read(new Uint8Array(4));
  await jobs();
  await inner.deliver(null);
  assertEquals((await ended).done, true);
  assertEquals(inner.closes, 0);
  conn.close();
});

Deno.test("readable keeps what comes for a reader that has let go", async () => {
  const { inner, conn } = setUp();
  const first = conn.readable.getReader();
  const gone = failure(first.read());
  await jobs();
  first.releaseLock();
  assert(await gone instanceof TypeError);
  await inner.deliver(bytes("kept"));
  const second = conn.readable.getReader();
  assertEquals(text((await second.read()).value!), "kept");
  conn.close();
});

Deno.test("readable that has ended cannot close the connection any more", async () => {
  const { inner, conn } = setUp();
  const reader = conn.readable.getReader();
  const reading = reader.read();
  await jobs();
  await inner.deliver(null);
  assertEquals((await reading).done, true);
  await reader.cancel();
  assertEquals(inner.closes, 0);
  conn.close();
});

Deno.test("readable fails as the read did, and stays failed; the connection does not", async () => {
  const { inner, conn, clock } = setUp();
  conn.setReadDeadline(clock.now() + 10);
  const reader = conn.readable.getReader();
  const late = failure(reader.read());
  await jobs();
  await clock.advance(10);
  assert(isTimeout(await late));
  conn.setReadDeadline(null);
  assert(isTimeout(await failure(reader.read())));
  await failure(reader.closed);
  await inner.deliver(bytes("usable"));
  assertEquals(await conn.read(new Uint8Array(8)), 6);
  assertEquals(inner.closes, 0);
  conn.close();
});

Deno.test("writable writes one chunk after the other, and waits for each", async () => {
  const { inner, conn } = setUp();
  const writer = conn.writable.getWriter();
  const writes = [writer.write(bytes("one")), writer.write(bytes("two"))];
  await jobs();
  assertEquals(await inner.take(), bytes("one"));
  assertEquals(await inner.take(), bytes("two"));
  await Promise.all(writes);
  const closing = writer.close();
  await jobs();
  inner.fins[0]!.resolve();
  await closing;
  assertEquals(inner.closes, 0);
  conn.close();
});

Deno.test("writable that fails does not close the connection", async () => {
  const { inner, conn } = setUp();
  const writer = conn.writable.getWriter();
  const closed = failure(writer.closed);
  const writing = failure(writer.write(bytes("x")));
  await jobs();
  await inner.failWrite(new Deno.errors.BrokenPipe("pipe"));
  assertEquals((await writing as OpError).code, "EPIPE");
  assertEquals((await closed as OpError).code, "EPIPE");
  await failure(writer.ready);
  const reading = conn.read(new Uint8Array(8));
  await inner.deliver(bytes("still here"));
  assertEquals(await reading, 8);
  conn.close();
});

Deno.test("writable takes bytes only", async () => {
  const { inner, conn } = setUp();
  const writer = conn.writable.getWriter();
  const closed = failure(writer.closed);
  const writing = writer.write("text" as unknown as Uint8Array);
  assert(await failure(writing) instanceof TypeError);
  assert(await closed instanceof TypeError);
  await failure(writer.ready);
  assertEquals(inner.writeSizes, []);
  conn.close();
});

Deno.test("writable.abort() closes at once, and ends the write that is stuck", async () => {
  const { inner, conn } = setUp();
  const writer = conn.writable.getWriter();
  const closed = failure(writer.closed);
  const writing = failure(writer.write(bytes("stuck")));
  await jobs();
  const aborting = writer.abort(new Error("mine"));
  assertEquals(inner.closes, 1);
  await aborting;
  assert(isClosed(await writing));
  await closed;
  await failure(writer.ready);
});
