import {
  assert,
  assertEquals,
  assertMatch,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { copy, copyBidirectional } from "../../net/copy.ts";
import { isTimeout, OpError } from "../../net/errors.ts";
import {
  assertClosed,
  assertOpError,
  bytes,
  drain,
  failure,
  ones,
  readFull,
  readText,
  settlesAtOnce,
  type Suite,
  turn,
  zeros,
} from "./conn_suite_kit.ts";

/** How a connection ends: one half of it, or all of it. */
export function endTests({ test, flood }: Suite): void {
  test(
    "a failed call's stack shows who awaits it, and nobody else",
    async (a, b) => {
      const { signal } = new AbortController();
      const p = new Uint8Array(1);
      const calls: Record<string, () => Promise<unknown>> = {
        "read()": () => a.read(p),
        "read() with a signal": () => a.read(p, { signal }),
        "an iteration": () => a[Symbol.asyncIterator]().next(),
        "copy()": () => copy(a, b),
        "write()": () => a.write(zeros(flood)),
        "write() with a signal": () => a.write(zeros(flood), { signal }),
      };
      const failing = Object.entries(calls).map(([name, call]) => {
        async function readsHeader() {
          await call();
        }
        async function handles() {
          await readsHeader();
        }
        return handles().then(
          () => assert(false, `${name} did not fail`),
          ({ stack }: Error) => {
            const [_message, ...frames] = stack!.split("\n");
            assertMatch(
              frames[0]!,
              /at async readsHeader /,
              `${name}: ${stack}`,
            );
            assertMatch(frames[1]!, /at async handles /, `${name}: ${stack}`);
          },
        );
      });
      a.close();
      await Promise.all(failing);
    },
  );

  test("calls fail in the order in which they were made", async (a) => {
    const order: string[] = [];
    const note = (name: string, call: Promise<unknown>) =>
      call.catch(({ op }: OpError) => order.push(`${name} ${op}`));
    const p = new Uint8Array(1);
    const calls = [
      note("1", a.read(p)),
      note("2", a.read(p)),
      note("3", a.write(zeros(flood))),
      note("4", a.write(p)),
      note("5", a.closeWrite()),
    ];
    a.close();
    await Promise.all(calls);
    assertEquals(order, ["1 read", "2 read", "3 write", "4 write", "5 close"]);
  });

  test("a failed stream read's stack shows who closed the connection", async (a) => {
    const reading = failure(a.readable.getReader().read());
    await turn();
    (function endsIt() {
      a.close();
    })();
    const { stack } = await reading as Error;
    assertMatch(stack!, /at endsIt /);
  });

  test("a signal's reason keeps its own stack", async (a) => {
    const controller = new AbortController();
    const { signal } = controller;
    const calls = [
      a.read(new Uint8Array(1), { signal }),
      a.write(zeros(flood), { signal }),
      copy(a, a, { signal }),
    ].map(failure);
    const reason = new OpError();
    const { stack } = reason;
    controller.abort(reason);
    for (const error of await Promise.all(calls)) {
      assertStrictEquals(error, reason);
      assertEquals(reason.stack, stack);
    }
  });

  test("EOF is null, comes after the data, and comes again", async (a, b) => {
    await a.write(bytes("the end"));
    await a.closeWrite();
    assertEquals(await readText(b), "the end");
    for (let i = 0; i < 3; i++) assertEquals(await readText(b), null);
    const p = new Uint8Array(4);
    const all = await Promise.all([b.read(p), b.read(p), b.read(p)]);
    assertEquals(all, [null, null, null]);
  });

  test("EOF reaches all pending reads", async (a, b) => {
    const reads = [1, 2, 3].map(() => readText(b));
    await a.write(bytes("x"));
    await a.closeWrite();
    assertEquals(await Promise.all(reads), ["x", null, null]);
  });

  test("both ends may send FIN at once", async (a, b) => {
    await Promise.all([a, b].map((conn) => {
      conn.write(bytes("last words"));
      return conn.closeWrite();
    }));
    for (const conn of [a, b]) {
      assertEquals(await readText(conn), "last words");
      assertEquals(await readText(conn), null);
    }
  });

  test("closeWrite() ends one half only", async (a, b) => {
    await a.closeWrite();
    assertEquals(await readText(b), null);
    for (const word of ["still", "reading"]) {
      await b.write(bytes(word));
      assertEquals(await readText(a), word);
    }
    await b.closeWrite();
    assertEquals(await readText(a), null);
  });

  test(
    "closeWrite() sends FIN after everything that was written",
    async (a, b) => {
      const writing = a.write(zeros(flood));
      const small = a.write(bytes("last"));
      const closing = a.closeWrite();
      assertEquals(await drain(b), flood + 4);
      assertEquals(await writing, flood);
      assertEquals(await small, 4);
      await closing;
    },
  );

  test(
    "closeWrite() is idempotent; writes after it fail with EPIPE",
    async (a, b) => {
      const both = [a.closeWrite(), a.closeWrite()];
      const early = await failure(a.write(bytes("x")));
      await Promise.all(both);
      await a.closeWrite();
      for (const error of [early, await failure(a.write(bytes("x")))]) {
        assertOpError(error, "write", a);
        assertEquals([error.code, error.bytesWritten], ["EPIPE", 0]);
      }
      // Go looks at the deadline first.
      a.setWriteDeadline(0);
      assert(isTimeout(await failure(a.write(bytes("x")))));
      await a.closeWrite();
      assertEquals(await readText(b), null);
    },
  );

  test(
    "close() is idempotent; what was written before arrives, then EOF",
    async (a, b) => {
      await a.write(bytes("bye"));
      a.close();
      a.close();
      a[Symbol.dispose]();
      await a[Symbol.asyncDispose]();
      assertEquals(await readText(b), "bye");
      assertEquals(await readText(b), null);
    },
  );

  test("close() fails pending calls at once", async (a) => {
    const reads = [1, 2, 3].map(() => failure(a.read(new Uint8Array(1))));
    const writes = [1, 2].map(() => failure(a.write(zeros(flood))));
    const fin = failure(a.closeWrite());
    const step = failure(a[Symbol.asyncIterator]().next());
    await turn();
    a.close();
    assert(await settlesAtOnce(Promise.all([...reads, ...writes, fin, step])));
    for (const error of reads) assertClosed(await error, "read", a);
    for (const error of writes) assertClosed(await error, "write", a);
    assert(((await writes[0]) as OpError).bytesWritten! < flood);
    assertEquals(((await writes[1]) as OpError).bytesWritten, 0);
    assertClosed(await fin, "close", a);
    assertClosed(await step, "read", a);
  });

  test(
    "a write that close() ends sends nothing more from its array",
    async (a, b) => {
      const p = ones(flood);
      const writing = failure(a.write(p));
      const first = (await b.read(new Uint8Array(1)))!; // it is under way
      a.close();
      assertClosed(await writing, "write", a);
      p.fill(2);
      let count = first;
      for await (const chunk of b) {
        assert(!chunk.includes(2));
        count += chunk.length;
      }
      assert(count < flood);
    },
  );

  test(
    "after close() every call fails as closed; the addresses stay",
    async (a, b) => {
      const [local, remote] = [String(a.localAddr), String(a.remoteAddr)];
      await b.write(bytes("too late"));
      a.close();
      for (const p of [new Uint8Array(8), new Uint8Array(0)]) {
        assertClosed(await failure(a.read(p)), "read", a);
        const error = await failure(a.write(p));
        assertClosed(error, "write", a);
        assertEquals((error as OpError).bytesWritten, 0);
      }
      assertClosed(await failure(a.closeWrite()), "close", a);
      assertClosed(await failure(a[Symbol.asyncIterator]().next()), "read", a);
      assertClosed(await failure(a.readable.getReader().read()), "read", a);
      for (const set of ["setNoDelay", "setKeepAlive"] as const) {
        assertClosed(assertThrows(() => a[set]()), "set", a);
      }
      a.ref();
      a.unref();
      assertEquals([String(a.localAddr), String(a.remoteAddr)], [
        local,
        remote,
      ]);
    },
  );

  test("after closeWrite() and close(), closeWrite() fails as closed", async (a) => {
    await a.closeWrite();
    a.close();
    assertClosed(await failure(a.closeWrite()), "close", a);
  });

  test(
    "a FIN that nobody awaits fails silently at close()",
    async (a, b) => {
      a.write(bytes("dropped or not"));
      a.closeWrite();
      a.close();
      await drain(b); // an unhandled rejection would fail the test
    },
  );

  test("reads and copies that nobody awaits fail silently", async (a, b) => {
    a.read(new Uint8Array(1));
    a[Symbol.asyncIterator]().next();
    copy(a, b);
    a.close();
    a.read(new Uint8Array(1)); // an unhandled rejection would fail the test
    a.read(new Uint8Array(1), { signal: AbortSignal.abort() });
    a[Symbol.asyncIterator]().next();
    copy(a, b, { signal: AbortSignal.abort() });
    copyBidirectional(a, b);
    await turn();
  });

  test("close() fails the writes of the other end", async (a, b) => {
    const sending = (async () => {
      for (;;) await a.write(new Uint8Array(1024));
    })();
    const failed = failure(sending);
    await readFull(b, 10_000);
    b.close();
    const error = await failed;
    assertOpError(error, "write", a);
    assert(!error.timeout);
  });

  test("await using and using close the connection", async (a, b) => {
    {
      await using _a = a;
    }
    assertClosed(await failure(a.read(new Uint8Array(1))), "read", a);
    assertEquals(await readText(b), null);
    {
      using _b = b;
    }
    assertClosed(await failure(b.read(new Uint8Array(1))), "read", b);
  });

  test(
    "setNoDelay() and setKeepAlive() work while a write waits",
    async (a, b) => {
      const writing = a.write(zeros(flood));
      await readFull(b, 1);
      a.setNoDelay(false);
      a.setKeepAlive(false);
      assertEquals((await readFull(b, flood - 1)).length, flood - 1);
      assertEquals(await writing, flood);
      a.setNoDelay();
    },
  );

  test(
    "setNoDelay(), setKeepAlive(), ref() and unref() always work",
    async (a, b) => {
      for (const on of [true, false]) {
        a.setNoDelay(on);
        a.setKeepAlive(on);
      }
      a.unref();
      const reading = readText(a);
      a.ref();
      await b.write(bytes("hello"));
      assertEquals(await reading, "hello");
    },
  );
}
