/** What a connection asks of the platform, and what the platform asks of it. */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { setImmediate } from "node:timers";
import type { Addr } from "../mod.ts";
import { discard } from "../net/calls.ts";
import type { Clock } from "../net/clock.ts";
import { Conn, wireOf } from "../net/conn.ts";
import { isClosed, isTimeout, OpError } from "../net/errors.ts";
import { watchIdle } from "../net/idle.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { InnerConn } from "./conn_inner.ts";
import { failure, text } from "./suites/conn_suite_kit.ts";
import { bytes, pair, runChild, textOf, turn, unhandledIn } from "./support.ts";

// Compiled, not run: a Conn goes wherever a Deno.Conn is taken.
const _asPlatform = (conn: Conn): Deno.Conn => conn;
const _asPlatformOfAddr = (conn: Conn): Deno.Conn<Addr> => conn;
const _asAddr = (conn: Conn): Deno.Addr => conn.remoteAddr;
const _asIterable = (conn: Conn): AsyncIterable<Uint8Array> => conn;
const _asDisposable = (conn: Conn): AsyncDisposable & Disposable => conn;

Deno.test("Conn works wherever a Deno.Conn does, also inside another Conn", async () => {
  const [client, server] = await pair();
  const greet = async (conn: Deno.Conn) => {
    const addr = conn.remoteAddr as Deno.NetAddr;
    await conn.write(bytes(`hello ${addr.hostname}`));
    await conn.closeWrite();
    return await new Response(conn.readable).text();
  };
  const greeted = greet(new Conn(new Conn(client)));
  assertEquals(await textOf(server), "hello 127.0.0.1");
  await server.write(bytes("hello"));
  server.close();
  assertEquals(await greeted, "hello");
  client.close();
});

Deno.test("new Conn() needs nothing beyond the Deno.Conn interface", async () => {
  const inner = new InnerConn();
  assert(!("setNoDelay" in inner) && !("setKeepAlive" in inner));
  const conn = new Conn(inner);
  conn.setNoDelay();
  conn.setKeepAlive(false);
  assertEquals(String(conn.localAddr), "127.0.0.1:1");
  assertEquals(String(conn.remoteAddr), "127.0.0.1:2");
  assertEquals(conn.network, "tcp");
  assertEquals(conn.dialTrace, undefined);
  const reading = conn.read(new Uint8Array(1));
  await inner.deliver(null);
  assertEquals(await reading, null);
  conn.close();
  conn.close();
  assertEquals(inner.closes, 1);
  await turn();
  assertEquals(inner.readSizes.length, 1);
});

Deno.test("new Conn() keeps the addresses that an adapter loses in a reset", async () => {
  const inner = new InnerConn();
  let { localAddr, remoteAddr } = inner;
  const conn = new Conn(
    Object.defineProperties(inner, {
      localAddr: { get: () => localAddr },
      remoteAddr: { get: () => remoteAddr },
    }),
  );
  const reading = conn.read(new Uint8Array(1));
  const gone = { transport: "tcp", hostname: undefined, port: undefined };
  localAddr = remoteAddr = gone as unknown as Deno.NetAddr; // as node:net does
  await inner.failRead(new Deno.errors.ConnectionReset("reset"));
  const error = await reading.catch((e) => e);
  assertInstanceOf(error, OpError);
  assertEquals(error.code, "ECONNRESET");
  assertStringIncludes(error.message, `->${conn.remoteAddr}: `);
  assertThrows(() => new Conn(inner), Deno.errors.NotConnected, "no address");
});

Deno.test("Conn fails a call if its Deno.Conn returns an impossible count", async (t) => {
  for (const n of [0, -1, NaN, undefined, 1_000_000, "1"]) {
    await t.step(`${Deno.inspect(n)}`, async () => {
      const inner = new InnerConn();
      inner.read = inner.write = () => Promise.resolve(n as number);
      const conn = new Conn(inner);
      for (const op of ["read", "write"] as const) {
        for (const size of [10, 200_000]) {
          const error = await conn[op](new Uint8Array(size)).catch((e) => e);
          assertInstanceOf(error, OpError, `${op} ${size}`);
          assertStringIncludes(error.message, `own ${op}() gave ${n}`);
        }
      }
      conn.close();
    });
  }
});

Deno.test("Conn.write() fails if its Deno.Conn reports more bytes than were left", async () => {
  const inner = new InnerConn();
  const conn = new Conn(inner);
  const error = conn.write(new Uint8Array(10)).catch((e) => e);
  await turn();
  await inner.take(4);
  inner.writes[0]!.resolve(7);
  assertStringIncludes(`${await error}`, "own write() gave 7");
  conn.close();
});

Deno.test("Conn.close() tolerates a Deno.Conn's close() that returns a rejected promise", async () => {
  const inner = new InnerConn();
  let closed = false;
  inner.close = () => {
    closed = true;
    return Promise.reject(new Error("will not close")) as unknown as void;
  };
  new Conn(inner).close();
  discard(inner);
  await new Promise<void>((resolve) => setImmediate(resolve));
  assert(closed);
});

Deno.test("Conn works with a Deno.Conn that has no ref() and unref()", async () => {
  const inner = Object.assign(new InnerConn(), {
    ref: undefined as unknown as () => void,
    unref: undefined as unknown as () => void,
  });
  const conn = new Conn(inner);
  const controller = new AbortController();
  const { signal } = controller;
  const reading = conn.read(new Uint8Array(1), { signal }).catch((e) => e);
  controller.abort();
  assertStrictEquals(await reading, signal.reason);
  const next = conn.read(new Uint8Array(1));
  await inner.deliver(Uint8Array.of(7));
  assertEquals(await next, 1);
});

Deno.test("new Conn() refuses what is neither TCP nor unix", () => {
  const addr = { transport: "vsock", cid: 1, port: 1 };
  const inner = Object.assign(new InnerConn(), { localAddr: addr });
  assertThrows(() => new Conn(inner), TypeError, "not a stream address: vsock");
  const other = Object.assign(new InnerConn(), { remoteAddr: addr });
  assertThrows(() => new Conn(other), TypeError, "not a stream address: vsock");
  for (const inner of [undefined, null, {}, "text"]) {
    assertThrows(
      () => new Conn(inner as unknown as Deno.Conn),
      TypeError,
      `not a connection: ${Deno.inspect(inner)}`,
    );
  }
  const big = { text: "x".repeat(200) } as unknown as Deno.Conn;
  const { message } = assertThrows(() => new Conn(big), TypeError);
  assertEquals(message.length, "not a connection: ".length + 100);
  const clock = {} as Clock;
  assertThrows(
    () => new Conn(new InnerConn(), { clock }),
    TypeError,
    "clock is not a Clock",
  );
  assertEquals(inner.closes, 0, "it is still the caller's");
});

Deno.test("new Conn() takes Deno.startTls()'s addresses, which have no transport", () => {
  const hostname = "127.0.0.1";
  const inner = Object.assign(new InnerConn(), {
    localAddr: { hostname, port: 3 },
    remoteAddr: { hostname, port: 4 },
  });
  const conn = new Conn(inner as Deno.Conn);
  assertEquals(conn.network, "tcp");
  assertEquals(String(conn.localAddr), "127.0.0.1:3");
  assertEquals(String(conn.remoteAddr), "127.0.0.1:4");
  assertEquals(conn.remoteAddr.transport, "tcp");
  conn.close();
});

Deno.test("Conn passes socket options on, and reports which call failed", () => {
  const calls: unknown[] = [];
  const inner = Object.assign(new InnerConn(), {
    setNoDelay: (on: boolean) => calls.push("noDelay", on),
    setKeepAlive: (on: boolean) => {
      calls.push("keepAlive", on);
      if (on) return;
      const error = new Error("Invalid argument (os error 22)");
      throw Object.assign(error, { code: "EINVAL" });
    },
  });
  const conn = new Conn(inner);
  conn.setNoDelay();
  conn.setNoDelay(false);
  conn.setKeepAlive();
  assertEquals(calls, ["noDelay", true, "noDelay", false, "keepAlive", true]);
  const slip = "off" as unknown as boolean;
  assertThrows(() => conn.setNoDelay(slip), TypeError, "on is not a boolean");
  const error = assertThrows(() => conn.setKeepAlive(false), OpError);
  assertEquals([error.op, error.code], ["set", "EINVAL"]);
  assertEquals(
    error.message,
    "set tcp 127.0.0.1:1->127.0.0.1:2: invalid argument",
  );
  conn.close();
});

Deno.test("Conn.close() throws an unexpected error once, and is closed all the same", async () => {
  const broken = new Error("broken");
  const inner = Object.assign(new InnerConn(), {
    close: () => {
      throw broken;
    },
  });
  const conn = new Conn(inner);
  const reading = failure(conn.read(new Uint8Array(1)));
  assertStrictEquals(assertThrows(() => conn.close()), broken);
  conn.close();
  assert(isClosed(await reading));
  await inner.deliver(bytes("too late")); // nobody waits for it
  assert(isClosed(await failure(conn.read(new Uint8Array(1)))));
});

Deno.test("Conn's iterator can be used again after a break", async () => {
  const [client, server] = await pair();
  await client.write(bytes("one"));
  const chunks = server[Symbol.asyncIterator]();
  for await (const chunk of chunks) {
    assertEquals(chunk, bytes("one"));
    break;
  }
  await client.write(bytes("two"));
  client.close();
  for await (const chunk of chunks) assertEquals(chunk, bytes("two"));
  server.close();
});

Deno.test("new Conn() takes a clock and a dialTrace", () => {
  const clock = new FakeClock(0);
  const dialTrace = {
    network: "tcp",
    address: "127.0.0.1:2",
    mode: "race" as const,
    resolveMs: 0,
    totalMs: 1,
    attempts: [],
  };
  const conn = new Conn(new InnerConn(), { clock, dialTrace });
  assertEquals(conn.dialTrace, dialTrace);
  conn.setReadDeadline(5);
  conn.read(new Uint8Array(1)).catch(() => {});
  assertEquals(clock.pending, 1);
  conn.close();
});

/** Runs a script on a connected pair `a`, `b`: its exit code and output. */
async function run(script: string): Promise<{ code: number; out: string }> {
  const { code, stdout, stderr } = await runChild(
    `
    import { Conn } from "./net/conn.ts";
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const [a, b] = (await Promise.all([
      Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port }),
      listener.accept(),
    ])).map((inner) => new Conn(inner));
    listener.close();
    const p = new Uint8Array(8);
    ${script}
    console.log("end of script");
    `,
    { flags: ["--allow-net=127.0.0.1"] },
  );
  assertEquals(stderr, "");
  return { code, out: stdout.trim() };
}

Deno.test("Conn keeps the process alive while a call waits, and never ends it", async (t) => {
  const cases: Record<string, { script: string; out: string }> = {
    "a read that was given up does not keep it alive": {
      script: `
        a.setReadDeadline(Date.now() + 5);
        await a.read(p).catch((e) => console.log(e.timeout));
        a.setReadDeadline(null);
        const aborter = new AbortController();
        const reading = a.read(p, { signal: aborter.signal });
        aborter.abort();
        await reading.catch((e) => console.log(e.name));`,
      out: "true\nAbortError\nend of script",
    },
    "a pending read keeps it alive, also one that took over an abandoned one": {
      script: `
        a.setReadDeadline(Date.now() + 5);
        await a.read(p).catch(() => {});
        a.setReadDeadline(null);
        a.read(p).then((n) => { console.log("read", n); a.close(); });
        Deno.unrefTimer(setTimeout(() =>
          b.write(p.subarray(0, 3)).then(() => b.close()), 20));`,
      out: "end of script\nread 3",
    },
    "a read after unref() does not keep it alive": {
      script: `
        a.unref();
        a.read(p);
        b.read(p);
        b.unref();`,
      out: "end of script",
    },
    "a deadline alone does not keep it alive": {
      script: `
        a.unref();
        a.setDeadline(Date.now() + 3_600_000);
        a.read(p);
        await a.write(p);`,
      out: "end of script",
    },
    "a failed write that nobody awaits does not end it": {
      script: `
        b.close();
        for (let i = 0; i < 20; i++) {
          a.write(p);
          a.write(new Uint8Array(100_000));
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        a.closeWrite();
        a.close();
        a.write(p);
        a.closeWrite();`,
      out: "end of script",
    },
  };
  const results = new Map(
    await Promise.all(
      Object.entries(cases).map(async ([name, { script }]) =>
        [name, await run(script)] as const
      ),
    ),
  );
  for (const [name, { out }] of Object.entries(cases)) {
    await t.step(name, () => {
      assertEquals(results.get(name), { code: 0, out });
    });
  }
});

// What the suite cannot see: which operations the streams ask for, and when.

function setUp(): { inner: InnerConn; conn: Conn; clock: FakeClock } {
  const inner = new InnerConn();
  const clock = new FakeClock();
  return { inner, clock, conn: new Conn(inner, { clock }) };
}

Deno.test("readable makes one read per pull, never ahead", async () => {
  const { inner, conn } = setUp();
  const reader = conn.readable.getReader();
  await turn();
  assertEquals(inner.readSizes.length, 0);
  for (const word of ["one", "two"]) {
    const reading = reader.read();
    await inner.deliver(bytes(word));
    assertEquals(text((await reading).value!), word);
    await turn();
    assertEquals(inner.reads.length, 0);
  }
  conn.close();
});

Deno.test("readable fills a BYOB reader's array", async () => {
  const { inner, conn } = setUp();
  const reader = conn.readable.getReader({ mode: "byob" });
  const reading = reader.read(new Uint8Array(4));
  await turn();
  await inner.deliver(bytes("abcdef"));
  assertEquals(text((await reading).value!), "abcd");
  const { value } = await reader.read(new Uint8Array(4));
  assertEquals(text(value!), "ef");
  const ended = reader.read(new Uint8Array(4));
  await turn();
  await inner.deliver(null);
  assertEquals((await ended).done, true);
  assertEquals(inner.closes, 0);
  conn.close();
});

Deno.test("readable leaves what a released reader asked for to the next reader", async () => {
  const { inner, conn } = setUp();
  const first = conn.readable.getReader();
  const gone = failure(first.read());
  await turn();
  first.releaseLock();
  assert(await gone instanceof TypeError);
  await inner.deliver(bytes("kept"));
  const second = conn.readable.getReader();
  assertEquals(text((await second.read()).value!), "kept");
  conn.close();
});

/** Releases a BYOB reader while a read of `size` bytes is under way. */
async function letGo({ readable }: Conn, size: number): Promise<void> {
  const reader = readable.getReader({ mode: "byob" });
  const released = failure(reader.read(new Uint8Array(size)));
  await turn();
  reader.releaseLock();
  assert(await released instanceof TypeError);
}

/** Ways to wait for the stream, and then to release it. */
const LETTING_GO: Record<string, (conn: Conn) => Promise<unknown>> = {
  "a reader": async ({ readable }) => {
    const reader = readable.getReader();
    const gone = failure(reader.read());
    await turn();
    reader.releaseLock();
    await gone;
  },
  "a BYOB reader": (conn) => letGo(conn, 2),
  "a pipe": async ({ readable }) => {
    const controller = new AbortController();
    const { signal } = controller;
    const gone = failure(
      readable.pipeTo(new WritableStream(), { preventCancel: true, signal }),
    );
    await turn();
    controller.abort();
    await gone;
  },
  "a BYOB reader, twice": async ({ readable }) => {
    const reader = readable.getReader({ mode: "byob" });
    const gone = [new Uint8Array(2), new Uint8Array(9)]
      .map((p) => failure(reader.read(p)));
    await turn();
    reader.releaseLock();
    await Promise.all(gone);
  },
};

Deno.test("readable leaves what comes to others once it is released", async (t) => {
  for (const [name, way] of Object.entries(LETTING_GO)) {
    await t.step(name, async () => {
      const { inner, conn } = setUp();
      await way(conn);
      assertEquals(inner.refs, ["unref"]); // nobody waits
      const reading = conn.read(new Uint8Array(8));
      assertEquals(inner.refs, ["unref", "ref"]);
      await inner.deliver(bytes("for read"));
      assertEquals(await reading, 8);
      const failing = failure(conn.read(new Uint8Array(8)));
      await inner.failRead(new Deno.errors.ConnectionReset("reset"));
      assertEquals((await failing as OpError).code, "ECONNRESET");
      assertEquals(inner.closes, 0);
      conn.close();
    });
  }
});

Deno.test("readable serves new readers after others were released", async (t) => {
  const names = Object.keys(LETTING_GO);
  for (const one of names) {
    for (const two of names) {
      await t.step(`${one}, then ${two}`, async () => {
        const { inner, conn } = setUp();
        await LETTING_GO[one]!(conn);
        await LETTING_GO[two]!(conn);
        await inner.deliver(bytes("words"));
        const byob = conn.readable.getReader({ mode: "byob" });
        const { value } = await byob.read(new Uint8Array(2));
        assertEquals(value, bytes("wo"));
        byob.releaseLock();
        const reader = conn.readable.getReader();
        assertEquals((await reader.read()).value, bytes("rds"));
        const ended = reader.read();
        await inner.deliver(null);
        assertEquals((await ended).done, true);
        conn.close();
      });
    }
  }
});

Deno.test("readable keeps no bytes that do not fit in a small view after a large one", async () => {
  const { inner, conn } = setUp();
  await letGo(conn, 1000);
  const small = conn.readable.getReader({ mode: "byob" });
  const reading = small.read(new Uint8Array(4));
  await inner.deliver(bytes("0123456789"));
  assertEquals((await reading).value, bytes("0123"));
  small.releaseLock();
  const p = new Uint8Array(8);
  assertEquals(await conn.read(p), 6);
  assertEquals(text(p.subarray(0, 6)), "456789");
  const other = conn.readable.getReader({ mode: "byob" });
  const all = [new Uint8Array(10), new Uint8Array(1)]
    .map((view) => other.read(view));
  await inner.deliver(bytes("9876543210"));
  assertEquals((await all[0]!).value, bytes("9876543210"));
  conn.close();
});

Deno.test("readable keeps no bytes that do not fit after a getReader() that failed", async () => {
  const { inner, conn } = setUp();
  const reader = conn.readable.getReader({ mode: "byob" });
  assertThrows(() => conn.readable.getReader(), TypeError);
  const reading = reader.read(new Uint8Array(4));
  await turn();
  await inner.deliver(bytes("0123456789"));
  assertEquals((await reading).value, bytes("0123"));
  reader.releaseLock();
  assertEquals(await conn.read(new Uint8Array(8)), 6);
  conn.close();
});

Deno.test("readable gives a BYOB reader all there is, even if its next view is smaller", async () => {
  const { inner, conn } = setUp();
  await LETTING_GO["a BYOB reader"]!(conn);
  const reader = conn.readable.getReader({ mode: "byob" });
  const first = reader.read(new Uint8Array(10));
  reader.read(new Uint8Array(1)); // fails with the close
  await inner.deliver(bytes("ab"));
  assertEquals((await first).value, bytes("ab"));
  conn.close();
});

Deno.test("readable does not read for a call that is refused", async (t) => {
  const refused = async (readable: Conn["readable"], view: Uint8Array) => {
    const reader = readable.getReader({ mode: "byob" });
    await reader.read(view).finally(() => reader.releaseLock());
  };
  const REFUSED: Record<string, (conn: Conn) => Promise<unknown>> = {
    "no view": ({ readable }) => refused(readable, "x" as never),
    "an empty view": ({ readable }) => refused(readable, new Uint8Array(0)),
    "a reader that was released": ({ readable }) => {
      const former = readable.getReader({ mode: "byob" });
      former.releaseLock();
      const reader = readable.getReader({ mode: "byob" });
      return former.read(new Uint8Array(1)).finally(() => reader.releaseLock());
    },
  };
  for (const [name, way] of Object.entries(REFUSED)) {
    await t.step(name, async () => {
      const { inner, conn } = setUp();
      await LETTING_GO["a BYOB reader"]!(conn);
      await inner.deliver(bytes("x"));
      assert(await failure(way(conn)) instanceof TypeError);
      const p = new Uint8Array(8);
      const reading = conn.read(p);
      assertEquals([await reading, text(p.subarray(0, 1))], [1, "x"]);
      assertEquals(inner.reads, []);
      const stillReads = conn.readable.getReader().read();
      await inner.deliver(bytes("y"));
      assertEquals((await stillReads).value, bytes("y"));
      conn.close();
    });
  }
});

Deno.test("readable goes on for a reader when a former one is released again", async () => {
  const { inner, conn } = setUp();
  const former = conn.readable.getReader();
  former.releaseLock();
  const reading = conn.readable.getReader().read();
  await turn(); // it pulls
  former.releaseLock();
  await inner.deliver(bytes("hello"));
  assertEquals((await reading).value, bytes("hello"));
  conn.close();
});

Deno.test("readable goes on for a reader that takes an aborted pipe's place at once", async () => {
  const { inner, conn } = setUp();
  const controller = new AbortController();
  const { signal } = controller;
  const options = { preventCancel: true, signal };
  const gone = failure(conn.readable.pipeTo(new WritableStream(), options));
  await turn();
  controller.abort();
  while (conn.readable.locked) await null;
  const reader = conn.readable.getReader({ mode: "byob" });
  const reading = reader.read(new Uint8Array(2));
  await gone;
  await inner.deliver(bytes("hello"));
  assertEquals((await reading).value, bytes("he"));
  reader.releaseLock();
  assertEquals(await conn.read(new Uint8Array(8)), 3);
  conn.close();
});

Deno.test("readable serves a BYOB reader after one that did not wait, or was served", async (t) => {
  const WAYS: Record<
    string,
    (setUp: { inner: InnerConn; conn: Conn }) => Promise<void>
  > = {
    "released in the tick in which the stream was made": async ({ conn }) => {
      const reader = conn.readable.getReader({ mode: "byob" });
      const gone = failure(reader.read(new Uint8Array(4)));
      reader.releaseLock();
      await gone;
    },
    "released when the first of two was answered": async ({ conn, inner }) => {
      const reader = conn.readable.getReader({ mode: "byob" });
      const first = reader.read(new Uint8Array(4));
      const gone = failure(reader.read(new Uint8Array(4)));
      first.then(() => reader.releaseLock());
      await turn();
      await inner.deliver(bytes("abcd"));
      await gone;
    },
  };
  for (const [name, way] of Object.entries(WAYS)) {
    await t.step(name, async () => {
      const { conn, inner } = setUp();
      await way({ conn, inner });
      const reader = conn.readable.getReader({ mode: "byob" });
      const reading = reader.read(new Uint8Array(4));
      await inner.deliver(bytes("efgh"));
      assertEquals((await reading).value, bytes("efgh"));
      conn.close();
    });
  }
});

Deno.test("readable that fails takes no more bytes, even if a new reader waits", async (t) => {
  for (const when of ["while it waits", "at once"]) {
    await t.step(when, async () => {
      const { inner, conn, clock } = setUp();
      const former = conn.readable.getReader({ mode: "byob" });
      await turn();
      conn.setReadDeadline(when === "at once" ? 0 : clock.now() + 10);
      const gone = failure(former.read(new Uint8Array(8)));
      conn.setReadDeadline(0); // the read fails, and the stream will
      former.releaseLock();
      conn.setReadDeadline(null);
      const reader = conn.readable.getReader({ mode: "byob" });
      assert(isTimeout(await failure(reader.read(new Uint8Array(8)))));
      await failure(reader.closed);
      await gone;
      const reading = conn.read(new Uint8Array(8));
      await inner.deliver(bytes("usable"));
      assertEquals(await reading, 6);
      conn.close();
    });
  }
});

Deno.test("readable reads no more than is asked for after a BYOB reader was released", async (t) => {
  /** Ways to read two bytes. */
  const WAYS: Record<string, (conn: Conn) => Promise<unknown>[]> = {
    "a reader": ({ readable }) => [readable.getReader().read()],
    "an iteration": ({ readable }) => [readable.values().next()],
    "a BYOB reader": ({ readable }) => {
      const reader = readable.getReader({ mode: "byob" });
      const first = reader.read(new Uint8Array(1));
      return [first, first.then(() => reader.read(new Uint8Array(1)))];
    },
    "a BYOB reader that reads twice": ({ readable }) => {
      const reader = readable.getReader({ mode: "byob" });
      const read = () => reader.read(new Uint8Array(1));
      return [read(), read()];
    },
  };
  for (const [name, way] of Object.entries(WAYS)) {
    await t.step(name, async () => {
      const { inner, conn } = setUp();
      const byob = conn.readable.getReader({ mode: "byob" });
      const gone = failure(byob.read(new Uint8Array(4)));
      await turn();
      byob.releaseLock();
      const reading = way(conn);
      await gone;
      await inner.deliver(bytes("ab"));
      const found = await Promise.all(reading) as { value: Uint8Array }[];
      assertEquals(found.map(({ value }) => text(value)).join(""), "ab");
      await turn();
      assertEquals(inner.reads, []);
      conn.close();
    });
  }
});

Deno.test("readable fails at the deadline for a BYOB reader that took another's place", async () => {
  const { conn, clock } = setUp();
  await LETTING_GO["a BYOB reader"]!(conn);
  conn.setReadDeadline(clock.now());
  const reader = conn.readable.getReader({ mode: "byob" });
  assert(isTimeout(await failure(reader.read(new Uint8Array(2)))));
  await failure(reader.closed);
  conn.close();
});

Deno.test("readable that has ended can no longer close the connection", async () => {
  const { inner, conn } = setUp();
  const reader = conn.readable.getReader();
  const reading = reader.read();
  await turn();
  await inner.deliver(null);
  assertEquals((await reading).done, true);
  await reader.cancel();
  assertEquals(inner.closes, 0);
  conn.close();
});

Deno.test("readable fails as its read did, and stays failed; the connection is usable", async () => {
  const { inner, conn, clock } = setUp();
  conn.setReadDeadline(clock.now() + 10);
  const reader = conn.readable.getReader();
  const late = failure(reader.read());
  await turn();
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
  await turn();
  assertEquals(await inner.take(), bytes("one"));
  assertEquals(await inner.take(), bytes("two"));
  await Promise.all(writes);
  const closing = writer.close();
  await turn();
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
  await turn();
  await inner.failWrite(new Deno.errors.BrokenPipe("pipe"));
  assertEquals((await writing as OpError).code, "EPIPE");
  assertEquals((await closed as OpError).code, "EPIPE");
  await failure(writer.ready);
  const reading = conn.read(new Uint8Array(8));
  await inner.deliver(bytes("still here"));
  assertEquals(await reading, 8);
  conn.close();
});

Deno.test("writable ends a pipe that waits for its source when the connection closes", async () => {
  const [from, to] = [setUp(), setUp()];
  const piping = failure(from.conn.readable.pipeTo(to.conn.writable));
  await turn();
  to.conn.close();
  const error = await piping as OpError;
  assert(isClosed(error));
  assertEquals(error.op, "write");
  assertEquals(from.inner.closes, 1);
  const unhandled = await unhandledIn(() => {
    to.conn.writable.getWriter().close();
  });
  assertEquals(unhandled, []);
});

Deno.test("writable ends a pipe that begins after the connection has closed", async () => {
  const [from, to] = [setUp(), setUp()];
  to.conn.close();
  const piping = from.conn.readable.pipeTo(to.conn.writable);
  assert(isClosed(await failure(piping)));
  assertEquals(from.inner.closes, 1);
});

Deno.test("writable ends a pipe with preventCancel, also one that follows another", async () => {
  const [from, to] = [setUp(), setUp()];
  const options = { preventCancel: true, preventAbort: true };
  const controller = new AbortController();
  const { signal } = controller;
  const first = failure(
    from.conn.readable.pipeTo(to.conn.writable, { ...options, signal }),
  );
  await turn();
  controller.abort();
  while (to.conn.writable.locked) await null; // its end is not reported yet
  const second = failure(
    from.conn.readable.pipeTo(to.conn.writable, options),
  );
  await first;
  await turn();
  to.conn.close();
  assert(isClosed(await second));
  assertEquals(from.inner.closes, 0);
  from.conn.close();
});

Deno.test("a call on writable after an idle timeout need not be awaited", async () => {
  const [from, to] = [setUp(), setUp()];
  const stop = watchIdle(to.conn, 1_000);
  const piping = failure(from.conn.readable.pipeTo(to.conn.writable));
  await turn();
  await to.clock.advance(1_000);
  assert(isTimeout(await piping));
  const unhandled = await unhandledIn(() => {
    to.conn.writable.getWriter().close();
  });
  assertEquals(unhandled, []);
  stop();
  to.conn.close();
});

Deno.test("a call on writable after close() need not be awaited", async () => {
  const { conn, inner } = setUp();
  inner.closeWrite = () => Promise.resolve();
  const writer = conn.writable.getWriter();
  await writer.close();
  conn.close();
  const unhandled = await unhandledIn(() => {
    writer.close();
    writer.write(bytes("x"));
  });
  assertEquals(unhandled, []);
});

Deno.test("writable tells its writer nothing after a pipe that could not start", async () => {
  const [from, to] = [setUp(), setUp()];
  const writer = to.conn.writable.getWriter();
  const piping = failure(from.conn.readable.pipeTo(to.conn.writable));
  assertInstanceOf(await piping, TypeError);
  let told = false;
  writer.closed.catch(() => told = true);
  to.conn.close();
  await turn();
  assertEquals(told, false);
  assert(isClosed(await failure(writer.write(bytes("x")))));
  from.conn.close();
});

Deno.test("writable does not end a pipe from a stream that is not ours", async () => {
  const [{ conn }, from] = [setUp(), setUp()];
  const piped = from.conn.readable.pipeTo(conn.writable, {
    preventClose: true,
  });
  await turn();
  await from.inner.deliver(null);
  await piped;
  let cancelled = false;
  const source = new ReadableStream({ cancel: () => void (cancelled = true) });
  const unhandled = await unhandledIn(async () => {
    source.pipeTo(conn.writable);
    await turn();
    conn.close();
  });
  assertEquals([unhandled, cancelled], [[], false]);
});

Deno.test("writable takes only bytes", async () => {
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

Deno.test("calls on the streams need not be awaited", async (t) => {
  const ways: Record<string, (conn: Conn) => void | Promise<void>> = {
    "write": ({ writable }) => void writable.getWriter().write(bytes("x")),
    "close": (conn) => {
      conn.close();
      conn.writable.getWriter().close();
    },
    "close of the stream": (conn) => {
      conn.close();
      conn.writable.close();
    },
    "close after a write that failed": async ({ writable }) => {
      const writer = writable.getWriter();
      writer.write(bytes("x"));
      await turn();
      writer.close();
    },
    "close of the stream after a write that failed": async ({ writable }) => {
      const writer = writable.getWriter();
      writer.write(bytes("x"));
      await turn();
      writer.releaseLock();
      writable.close();
    },
    "close after a close that failed": async (conn) => {
      conn.setDeadline(null);
      conn.write(bytes("x")); // stuck
      const writer = conn.writable.getWriter();
      writer.close();
      await turn();
      conn.setDeadline(0);
      await turn();
      writer.close();
    },
    "write after an abort for a TypeError": ({ writable }) => {
      writable.abort(new TypeError("no text"));
      writable.getWriter().write(bytes("x"));
    },
    "abort after a close that waits": async (conn) => {
      conn.setDeadline(null);
      conn.write(bytes("x")); // stuck
      const writer = conn.writable.getWriter();
      writer.close();
      await turn();
      writer.abort("enough");
    },
    "read": ({ readable }) => void readable.getReader().read(),
    "read into": ({ readable }) =>
      void readable.getReader({ mode: "byob" }).read(new Uint8Array(1)),
    "cancel": (conn) => {
      const reader = conn.readable.getReader();
      reader.read().catch(() => void reader.cancel());
    },
    "cancel of the stream": (conn) => {
      const reader = conn.readable.getReader();
      reader.read().catch(() => {
        reader.releaseLock();
        conn.readable.cancel();
      });
    },
  };
  for (const [name, way] of Object.entries(ways)) {
    await t.step(name, async () => {
      const { conn } = setUp();
      conn.setDeadline(0);
      assertEquals(await unhandledIn(() => way(conn)), []);
      conn.close();
    });
  }

  const wrong: Record<string, (conn: Conn) => unknown> = {
    "a string": ({ writable }) =>
      writable.getWriter().write("text" as unknown as Uint8Array),
    "a view of no bytes": ({ readable }) =>
      readable.getReader({ mode: "byob" }).read(new Uint8Array(0)),
    "a pipe to something that is not a stream": ({ readable }) =>
      readable.pipeTo({} as WritableStream),
    "a pipe with a controller for a signal": ({ readable }) =>
      readable.pipeTo(new WritableStream(), {
        signal: new AbortController() as unknown as AbortSignal,
      }),
    "a pipe with a number for options": ({ readable }) =>
      readable.pipeTo(new WritableStream(), 5 as never),
    "a pipe with an option whose getter throws": ({ readable }) =>
      readable.pipeTo(new WritableStream(), {
        get signal(): AbortSignal {
          throw new TypeError("a getter");
        },
      }),
    "a pipe from a stream that has a reader": ({ readable }) => {
      readable.getReader();
      readable.pipeTo(new WritableStream());
    },
  };
  for (const [name, way] of Object.entries(wrong)) {
    await t.step(`except wrong use: ${name}`, async () => {
      const { conn } = setUp();
      const unhandled = await unhandledIn(() => void way(conn));
      assertInstanceOf(unhandled[0], TypeError);
      conn.close();
    });
  }
});

Deno.test("a read that meets EOF in the middle of an element need not be awaited", async () => {
  const { inner, conn } = setUp();
  const unhandled = await unhandledIn(async () => {
    const reader = conn.readable.getReader({ mode: "byob" });
    const reading = reader.read(new Uint16Array(8));
    await turn();
    await inner.deliver(bytes("odd"));
    assertEquals((await reading).value?.length, 1);
    reader.read(new Uint16Array(8)); // nobody awaits it
    await turn();
    await inner.deliver(null);
  });
  assertEquals(unhandled, []);
  conn.close();
});

Deno.test("a default reader gets what a released BYOB reader had asked for", async () => {
  const { inner, conn } = setUp();
  await letGo(conn, 100);
  const reader = conn.readable.getReader();
  for (const word of ["hello", "again"]) {
    const reading = reader.read();
    await inner.deliver(bytes(word));
    assertEquals((await reading).value, bytes(word));
  }
  conn.close();
});

Deno.test("writable.abort() causes no uncaught error if the connection cannot be closed", async () => {
  const { inner, conn } = setUp();
  inner.close = () => {
    throw new Error("will not close");
  };
  const writer = conn.writable.getWriter();
  const closed = failure(writer.closed);
  await writer.abort("enough"); // the listener's error would end the process
  assertEquals(await closed, "enough");
});

Deno.test("a call on writable after abort() need not be awaited, even if a subclass does not close", async () => {
  const conn = new class extends Conn {
    override close(): void {
      throw new Error("not yet");
    }
  }(new InnerConn());
  const writer = conn.writable.getWriter();
  const unhandled = await unhandledIn(async () => {
    await writer.abort("enough");
    writer.close();
  });
  assertEquals(unhandled, []);
  wireOf(conn).close();
});

Deno.test("writable goes through a subclass's write(), readable through no read()", async () => {
  const inner = new InnerConn();
  const written: Uint8Array[] = [];
  const conn = new class extends Conn {
    override write(p: Uint8Array): Promise<number> {
      written.push(p);
      return Promise.resolve(p.length);
    }
    override read(): Promise<never> {
      return Promise.reject(new Error("read"));
    }
  }(inner);
  await conn.writable.getWriter().write(bytes("out"));
  assertEquals(written, [bytes("out")]);
  const reading = conn.readable.getReader().read();
  await turn();
  await inner.deliver(bytes("in"));
  assertEquals((await reading).value, bytes("in"));
  conn.close();
});

Deno.test("a subclass's close() that rejects is heard by whoever awaits what closes", async (t) => {
  const failure = new Error("cannot log");
  class Logged extends Conn {
    override close(): Promise<void> {
      super.close();
      return Promise.reject(failure);
    }
  }
  const ways: Record<string, (conn: Conn) => Promise<void>> = {
    "await using": (conn) => conn[Symbol.asyncDispose](),
    "readable.cancel()": ({ readable }) => readable.cancel(),
    "a reader's cancel()": ({ readable }) => readable.getReader().cancel(),
  };
  for (const [name, way] of Object.entries(ways)) {
    await t.step(name, async () => {
      const error = await way(new Logged(new InnerConn())).catch((e) => e);
      assertStrictEquals(error, failure);
    });
  }
});

Deno.test("writable.abort() closes at once, and ends a stuck write", async () => {
  const { inner, conn } = setUp();
  const writer = conn.writable.getWriter();
  const closed = failure(writer.closed);
  const writing = failure(writer.write(bytes("stuck")));
  await turn();
  const aborting = writer.abort(new Error("mine"));
  assertEquals(inner.closes, 1);
  await aborting;
  assert(isClosed(await writing));
  await closed;
  await failure(writer.ready);
});

Deno.test("readable may go to a Worker", async (t) => {
  const start = async () => {
    const [conn, peer] = await pair();
    const script = `onmessage = async ({ data }) => {
      const reader = data.getReader();
      try {
        for (;;) postMessage(await reader.read());
      } catch (error) {
        postMessage(error);
      }
    };`;
    const url = `data:text/javascript,${encodeURIComponent(script)}`;
    const worker = new Worker(url, { type: "module" });
    const told = () =>
      new Promise<MessageEvent>((resolve) => worker.onmessage = resolve);
    const begun = told();
    worker.postMessage(conn.readable, [conn.readable as never]);
    await peer.write(bytes("x"));
    await begun;
    return { conn, peer, worker, told };
  };
  await t.step("of an error, the words arrive", async () => {
    const { conn, peer, worker, told } = await start();
    const failed = told();
    conn.setReadDeadline(0);
    const { data } = await failed;
    assertStringIncludes(data.message, "i/o timeout");
    assert(!isTimeout(data));
    worker.terminate();
    conn.close();
    peer.close();
  });
  await t.step("a Worker that is terminated tells nobody", async () => {
    const { conn, peer, worker } = await start();
    worker.terminate();
    await peer.write(bytes("x"));
    await peer.closeWrite();
    await conn.write(bytes("still here"));
    conn.close();
    assertEquals(await textOf(peer), "still here");
    peer.close();
  });
  // In a child: Deno 2.9.5 keeps the port of a stream that was cancelled.
  await t.step("cancelled there, the connection closes", async () => {
    const { stdout, stderr } = await runChild(
      `
      import { dial, listen } from "./mod.ts";
      await using listener = await listen("tcp", "127.0.0.1:0");
      const peer = await dial("tcp", String(listener.addr));
      const { readable } = await listener.accept();
      const script = "onmessage = ({ data }) => data.cancel()";
      const worker = new Worker("data:text/javascript," + script, {
        type: "module",
      });
      worker.postMessage(readable, [readable]);
      peer.setReadDeadline(Date.now() + 10_000);
      console.log(await peer.read(new Uint8Array(1)));
      Deno.exit();
      `,
      { flags: ["--allow-net=127.0.0.1"] },
    );
    assertEquals([stdout, stderr], ["null\n", ""]);
  });
});

Deno.test("fetch() tells of its body's failure in words", async () => {
  const [conn, peer] = await pair();
  await using web = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async ({ body }) => new Response(await new Response(body).text()),
  );
  conn.setReadDeadline(0);
  const url = `http://127.0.0.1:${web.addr.port}`;
  const asked = fetch(url, { method: "POST", body: conn.readable });
  const error = await failure(asked) as Error;
  assertStringIncludes((error.cause as Error).message, "i/o timeout");
  assert(!isTimeout(error));
  conn.close();
  peer.close();
});
