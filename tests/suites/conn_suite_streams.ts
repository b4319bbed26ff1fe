import { assert, assertEquals } from "@std/assert";
import {
  assertClosed,
  assertTimedOut,
  bytes,
  drain,
  failure,
  pattern,
  readText,
  same,
  settlesAtOnce,
  type Suite,
  text,
  turn,
  zeros,
} from "./conn_suite_kit.ts";

/** The web streams and the iterator of a connection. */
export function streamTests({ test, flood }: Suite): void {
  test(
    "iteration yields all bytes until EOF, in chunks that stay valid",
    async (a, b) => {
      const sent = pattern(1024 * 1024);
      const writing = a.write(sent).then(() => a.closeWrite());
      const chunks: Uint8Array<ArrayBuffer>[] = [];
      for await (const chunk of b) {
        assert(chunk.length > 0 && chunk.length <= 256 * 1024);
        chunks.push(chunk);
      }
      await writing;
      assert(same(await new Blob(chunks).bytes(), sent));
    },
  );

  test(
    "a chunk may be changed, and shares its memory with nobody",
    async (a, b) => {
      const chunks: Uint8Array[] = [];
      const iterator = b[Symbol.asyncIterator]();
      for (const word of ["one", "two", "six"]) {
        await a.write(bytes(word));
        const { value } = await iterator.next();
        assertEquals(text(value!), word);
        assertEquals(value!.buffer.byteLength, 3, "no room for others' bytes");
        chunks.push(value!);
        value!.fill(0);
      }
      assertEquals(chunks.map((chunk) => [...chunk]), Array(3).fill([0, 0, 0]));
    },
  );

  test("break out of iteration closes and loses nothing", async (a, b) => {
    await a.write(bytes("first"));
    for await (const chunk of b) {
      assertEquals(text(chunk), "first");
      break;
    }
    await a.write(bytes("second"));
    assertEquals(await readText(b), "second");
    await b.write(bytes("back"));
    assertEquals(await readText(a), "back");
    await a.write(bytes("third"));
    await a.closeWrite();
    const rest: string[] = [];
    for await (const chunk of b) rest.push(text(chunk));
    assertEquals(rest.join(""), "third");
  });

  test("return() ends its own pending steps only", async (a, b) => {
    const iterator = b[Symbol.asyncIterator]();
    const steps = [iterator.next(), iterator.next()];
    const other = b[Symbol.asyncIterator]().next();
    const reading = b.read(new Uint8Array(9));
    steps.push(iterator.next());
    assertEquals((await iterator.return!()).done, true);
    for (const { done } of await Promise.all(steps)) assertEquals(done, true);
    await a.write(bytes("one"));
    await a.closeWrite();
    const { value } = await other;
    assertEquals(value && text(value), "one", "another iterator goes on");
    assertEquals(await reading, null);
  });

  test("an iterator reads no more after return()", async (a, b) => {
    const iterator = b[Symbol.asyncIterator]();
    await a.write(bytes("kept"));
    const value = "mine";
    assertEquals(await iterator.return!(value), { done: true, value });
    assertEquals((await iterator.next()).done, true);
    await a.closeWrite();
    assertEquals(await readText(b), "kept");
  });

  test("a cancelled ReadableStream.from(conn) loses nothing", async (a, b) => {
    const reader = ReadableStream.from(b).getReader();
    const reading = reader.read();
    await turn();
    await reader.cancel();
    assertEquals((await reading).done, true);
    await a.write(bytes("kept"));
    await a.closeWrite();
    assertEquals(await readText(b), "kept");
  });

  test(
    "iteration, read() and the stream share one queue",
    async (a, b) => {
      const step = b[Symbol.asyncIterator]().next();
      const p = new Uint8Array(3);
      const reading = b.read(p);
      await a.write(bytes("one"));
      assertEquals(text((await step).value!), "one");
      await a.write(bytes("two"));
      assertEquals(await reading, 3);
      assertEquals(text(p), "two");
      const reader = b.readable.getReader();
      await a.write(bytes("three"));
      assertEquals(text((await reader.read()).value!), "three");
      reader.releaseLock();
      await a.write(bytes("four"));
      assertEquals(await readText(b), "four");
    },
  );

  test("iteration fails as reads do: deadline, close", async (a, b) => {
    const iterator = a[Symbol.asyncIterator]();
    a.setReadDeadline(0);
    assertTimedOut(await failure(iterator.next()), "read", a);
    a.setReadDeadline(Date.now() + 10);
    assertTimedOut(await failure(iterator.next()), "read", a);
    a.setReadDeadline(null);
    await b.write(bytes("usable"));
    assertEquals(text((await iterator.next()).value!), "usable");
    const waiting = failure(iterator.next());
    a.close();
    assertClosed(await waiting, "read", a);
  });

  test("readable ends at EOF and closes nothing", async (a, b) => {
    await a.write(bytes("question"));
    await a.closeWrite();
    assertEquals(await new Response(b.readable).text(), "question");
    await b.write(bytes("answer"));
    await b.closeWrite();
    assertEquals(await new Response(a.readable).text(), "answer");
  });

  test(
    "readable is always the same stream, and takes a caller's buffer",
    async (a, b) => {
      assert(b.readable === b.readable && b.writable === b.writable);
      await a.write(bytes("hello"));
      await a.closeWrite();
      const reader = b.readable.getReader({ mode: "byob" });
      let result = await reader.read(new Uint8Array(2));
      assertEquals(text(result.value!), "he");
      result = await reader.read(new Uint8Array(8), { min: 3 });
      assertEquals(text(result.value!), "llo");
      result = await reader.read(new Uint8Array(4));
      assertEquals(result.done, true);
      assertEquals(result.value!.length, 0);
    },
  );

  test("a reader with `min` waits for all it needs", async (a, b) => {
    const reader = b.readable.getReader({ mode: "byob" });
    const reading = reader.read(new Uint8Array(6), { min: 6 });
    for (const part of ["he", "llo"]) {
      await a.write(bytes(part));
      await turn();
    }
    await a.write(bytes("!next"));
    assertEquals(text((await reading).value!), "hello!");
    const { value } = await reader.read(new Uint8Array(4), { min: 4 });
    assertEquals(text(value!), "next");
  });

  test(
    "readable ends at EOF for a reader that took another's place",
    async (a, b) => {
      const first = b.readable.getReader();
      const left = failure(first.read());
      await turn(); // it pulls
      first.releaseLock();
      assert(await left instanceof TypeError);
      const second = b.readable.getReader({ mode: "byob" });
      const reading = second.read(new Uint8Array(9));
      await a.closeWrite();
      const { done, value } = await reading;
      assertEquals([done, value?.length], [true, 0]);
    },
  );

  test("readable reads only when it is pulled", async (a, b) => {
    const { readable } = b;
    await a.write(bytes("mine"));
    await turn();
    assertEquals(await readText(b), "mine");
    assert(!readable.locked);
  });

  test(
    "cancelling readable closes the connection, even while a read waits",
    async (a, b) => {
      const reader = b.readable.getReader();
      const reading = reader.read();
      await reader.cancel();
      assertEquals((await reading).done, true);
      assertClosed(await failure(b.write(bytes("x"))), "write", b);
      assertEquals(await readText(a), null);
    },
  );

  test("cancelling readable after its end closes nothing", async (a, b) => {
    await a.closeWrite();
    const reader = b.readable.getReader();
    assertEquals((await reader.read()).done, true);
    await reader.cancel();
    await b.write(bytes("still here"));
    assertEquals(await readText(a), "still here");
  });

  test("cancelling readable after a failure closes nothing", async (a, b) => {
    b.setReadDeadline(Date.now() - 1);
    const reader = b.readable.getReader();
    assertTimedOut(await failure(reader.read()), "read", b);
    assertTimedOut(await failure(reader.cancel()), "read", b);
    await b.write(bytes("still here"));
    assertEquals(await readText(a), "still here");
  });

  test("aborting writable after its end closes nothing", async (a, b) => {
    const writer = a.writable.getWriter();
    await writer.close();
    await writer.abort(new Error("too late"));
    await b.write(bytes("still here"));
    assertEquals(await readText(a), "still here");
  });

  test("aborting writable after a failure closes nothing", async (a, b) => {
    a.setWriteDeadline(Date.now() - 1);
    const writer = a.writable.getWriter();
    assertTimedOut(await failure(writer.write(bytes("x"))), "write", a);
    await writer.abort(new Error("later still"));
    await b.write(bytes("still here"));
    assertEquals(await readText(a), "still here");
  });

  test("readable fails at the read deadline", async (a) => {
    a.setReadDeadline(Date.now() + 10);
    const reader = a.readable.getReader();
    assertTimedOut(await failure(reader.read()), "read", a);
    assertTimedOut(await failure(reader.closed), "read", a);
  });

  test("closing writable is closeWrite(): reading goes on", async (a, b) => {
    const writer = a.writable.getWriter();
    await writer.write(bytes("question"));
    await writer.close();
    assertEquals(await readText(b), "question");
    assertEquals(await readText(b), null);
    await b.write(bytes("answer"));
    assertEquals(await readText(a), "answer");
  });

  test("aborting writable closes the connection", async (a, b) => {
    await a.writable.abort(new Error("mine"));
    assertClosed(await failure(a.read(new Uint8Array(1))), "read", a);
    assertEquals(await readText(b), null);
  });

  test(
    "aborting writable closes at once, even if a write is stuck",
    async (a, b) => {
      const writer = a.writable.getWriter();
      const writing = failure(writer.write(zeros(flood)));
      assertEquals(await b.read(new Uint8Array(1)), 1); // it is under way
      await writer.abort(new Error("mine"));
      await writing;
      assertClosed(await failure(a.read(new Uint8Array(1))), "read", a);
      assert(await drain(b) < flood);
    },
  );

  test(
    "writable takes any buffer or view, and says so of strings",
    async (a, b) => {
      const { buffer } = bytes("hello, world");
      const chunks = [
        buffer.slice(0, 5),
        new DataView(buffer, 5, 3),
        new Uint16Array(buffer, 8, 1),
        new Uint8ClampedArray(buffer, 10),
      ];
      const stream = a.writable as WritableStream<unknown>;
      await ReadableStream.from(chunks).pipeTo(stream, { preventClose: true });
      const writer = stream.getWriter();
      const error = await failure(writer.write("!"));
      assert(
        error instanceof TypeError && /TextEncoderStream/.test(`${error}`),
      );
      await a.closeWrite(); // the connection itself is usable
      assertEquals(await readText(b), "hello, world");
    },
  );

  test("writable has backpressure, and fails at the write deadline", async (a) => {
    const writer = a.writable.getWriter();
    assertEquals(writer.desiredSize, 1);
    a.setWriteDeadline(Date.now() + 60_000);
    const writing = failure(writer.write(zeros(flood)));
    assertEquals(writer.desiredSize, 0);
    const ready = failure(writer.ready);
    const closed = failure(writer.closed);
    assert(!await settlesAtOnce(ready));
    a.setWriteDeadline(Date.now() + 10);
    assertTimedOut(await writing, "write", a);
    assertTimedOut(await ready, "write", a);
    assertTimedOut(await closed, "write", a);
    a.setWriteDeadline(null); // the connection itself is usable
    a.setReadDeadline(0);
    assertTimedOut(await failure(a.read(new Uint8Array(1))), "read", a);
  });

  test("pipes pass everything on, both ways at once", async (a, b) => {
    const sent = pattern(512 * 1024);
    const echoed = b.readable.pipeTo(b.writable);
    const source = new Blob([sent]).stream().pipeTo(a.writable);
    const got = await new Response(a.readable).bytes();
    await Promise.all([echoed, source]);
    assert(same(got, sent));
  });
}
