import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  type AcceptErrorEvent,
  Listener,
  type ListenerOptions,
} from "../listener.ts";
import { handle } from "../handler.ts";
import { makeListener } from "../net/accept.ts";
import { isClosed, OpError } from "../net/errors.ts";
import { FakeClock } from "../testing/mod.ts";
import { InnerConn } from "./conn_inner.ts";
import { closedInner, errno, FakeConn, FakeListener } from "./fake_listener.ts";
import { countedSignal, turn } from "./support.ts";

/** An accept that has to fail, because the listener closes or breaks. */
function acceptUntilClosed(listener: Listener): Promise<OpError> {
  return assertRejects(() => listener.accept(), OpError);
}

/** A caller that aborts at once; the accept that it began stays pending. */
async function comeAndGo(listener: Listener): Promise<void> {
  const controller = new AbortController();
  const gone = listener.accept(controller).catch((error) => error);
  controller.abort();
  await gone;
}

function wrap(inner: Deno.Listener): Listener {
  return new Listener(inner);
}

async function endOf(listener: Listener, fake: FakeListener): Promise<void> {
  const closed = listener.close();
  if (fake.waiting) await fake.settle(closedInner);
  await closed;
}

Deno.test("a good connection ends a burst of bad ones", async () => {
  const clock = new FakeClock();
  const fake = new FakeListener();
  const listener = new Listener(fake.inner, { clock });
  for (const bad of [1023, 1]) {
    const accepted = listener.accept();
    for (let i = 0; i < bad; i++) await fake.settle(errno("ENOTCONN"));
    assertEquals([fake.waiting, clock.pending], [true, 0], "no pause is due");
    await fake.settle(new FakeConn());
    (await accepted).close();
  }
  await endOf(listener, fake);
});

Deno.test("a listener of our own takes its connections' addresses as they are", async () => {
  const looks: PropertyKey[] = [];
  const addr = new Proxy({ transport: "tcp", hostname: "::1", port: 2 }, {
    get(target, name) {
      looks.push(name);
      return Reflect.get(target, name);
    },
  });
  for (const [make, expected] of [[makeListener, 0], [wrap, 2]] as const) {
    const fake = new FakeListener();
    const listener = make(fake.inner, {});
    const accepted = listener.accept();
    const conn = Object.assign(new FakeConn(), { remoteAddr: addr });
    await fake.settle(conn);
    assertEquals(looks.splice(0).length, expected, "each look takes time");
    assertEquals(String((await accepted).remoteAddr), "[::1]:2");
    looks.length = 0;
    (await accepted).close();
    await endOf(listener, fake);
  }
});

Deno.test("without onAcceptError nothing is printed", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const accepted = listener.accept();
  const print = console.error;
  let printed = 0;
  console.error = () => printed++;
  try {
    await fake.settle(errno("ENOTCONN"));
    await fake.settle(new FakeConn());
    (await accepted).close();
  } finally {
    console.error = print;
  }
  assertEquals(printed, 0);
  await endOf(listener, fake);
});

Deno.test("an accept that fails after close() is not reported", async (t) => {
  for (const code of ["EBADF", "ENOTCONN", "EMFILE"]) {
    await t.step(code, async () => {
      const events: AcceptErrorEvent[] = [];
      const fake = new FakeListener();
      const listener = new Listener(fake.inner, {
        onAcceptError: (event) => void events.push(event),
      });
      const gone = acceptUntilClosed(listener);
      const closed = listener.close();
      await fake.settle(errno(code));
      await closed;
      assert(isClosed(await gone));
      assert(isClosed(await acceptUntilClosed(listener)));
      assertEquals(events, []);
    });
  }
});

Deno.test("a capacity error that meets no caller starts no back-off", async () => {
  const clock = new FakeClock();
  const fake = new FakeListener();
  const listener = new Listener(fake.inner, { clock });
  const controller = new AbortController();
  const accepted = listener.accept(controller);
  controller.abort(new Error("mine"));
  await assertRejects(() => accepted, Error, "mine");
  await fake.settle(errno("EMFILE"));
  assertEquals([clock.pending, fake.waiting], [0, false]);
  await listener.close();
});

const SCHEDULE = [5, 10, 20, 40, 80, 160, 320, 640, 1_000, 1_000];

Deno.test("a capacity error is retried after 5 ms, doubling to 1 s", async (t) => {
  for (const code of ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]) {
    await t.step(code, async () => {
      const clock = new FakeClock();
      const fake = new FakeListener();
      const events: AcceptErrorEvent[] = [];
      const onAcceptError = (event: AcceptErrorEvent) =>
        void events.push(event);
      const listener = new Listener(fake.inner, { clock, onAcceptError });
      for (let episode = 1; episode <= 2; episode++) {
        const call = listener.accept();
        for (const wait of SCHEDULE) {
          await fake.settle(errno(code));
          await clock.advance(wait - 1);
          assert(!fake.waiting, `${wait} ms are not over`);
          await clock.advance(1);
          assert(fake.waiting, `${wait} ms are over`);
        }
        assertEquals(events.length, episode, "one report for each episode");
        const { error, kind, retryMs } = events.at(-1)!;
        assertEquals([kind, retryMs], ["capacity", 5]);
        assertEquals([error.op, error.code], ["accept", code]);
        await fake.settle(new FakeConn()); // ends the episode
        (await call).close();
      }
      await endOf(listener, fake);
      assertEquals(clock.pending, 0);
    });
  }
});

Deno.test("a client that resets does not end an episode", async () => {
  const clock = new FakeClock();
  const fake = new FakeListener();
  const kinds: string[] = [];
  const listener = new Listener(fake.inner, {
    clock,
    onAcceptError: ({ kind }) => void kinds.push(kind),
  });
  const end = acceptUntilClosed(listener);
  for (const wait of [5, 10]) {
    await fake.settle(errno("EMFILE"));
    await clock.advance(wait);
  }
  await fake.settle(errno("ENOTCONN"));
  await fake.settle(errno("EMFILE"));
  await clock.advance(19);
  assert(!fake.waiting, "20 ms are not over");
  await clock.advance(1);
  assert(fake.waiting);
  assertEquals(kinds, ["capacity", "peer"]);
  await endOf(listener, fake);
  await end;
});

Deno.test("a back-off ends with close()", async () => {
  const clock = new FakeClock();
  const fake = new FakeListener();
  const listener = new Listener(fake.inner, { clock });
  const calls = [acceptUntilClosed(listener), acceptUntilClosed(listener)];
  await fake.settle(errno("EMFILE"));
  assertEquals(clock.pending, 1);
  await listener.close();
  assertEquals(clock.pending, 0);
  for (const error of await Promise.all(calls)) assert(isClosed(error));
});

Deno.test("a back-off ends when its last caller aborts", async () => {
  const clock = new FakeClock();
  const fake = new FakeListener();
  const listener = new Listener(fake.inner, { clock });
  const one = new AbortController();
  const two = new AbortController();
  const calls = [one, two].map(({ signal }) =>
    listener.accept({ signal }).catch((error) => error)
  );
  await fake.settle(errno("EMFILE"));
  one.abort();
  assertStrictEquals(await calls[0], one.signal.reason);
  assertEquals(clock.pending, 1);
  two.abort();
  assertStrictEquals(await calls[1], two.signal.reason);
  assertEquals(clock.pending, 0);

  // The next caller has not waited yet: it tries at once, then by the schedule.
  const end = acceptUntilClosed(listener);
  assertEquals(fake.accepts, 2);
  await fake.settle(errno("EMFILE"));
  await clock.advance(9);
  assertEquals(fake.accepts, 2);
  await clock.advance(1);
  assertEquals(fake.accepts, 3);
  await endOf(listener, fake);
  await end;
});

Deno.test("a new caller waits for the back-off like the others", async () => {
  const clock = new FakeClock();
  const fake = new FakeListener();
  const listener = new Listener(fake.inner, { clock });
  const first = listener.accept();
  await fake.settle(errno("EMFILE"));
  const second = listener.accept();
  assertEquals(fake.accepts, 1);
  await clock.advance(5);
  assertEquals(fake.accepts, 2);
  await fake.settle(new FakeConn());
  (await first).close();
  await fake.settle(new FakeConn());
  (await second).close();
  await endOf(listener, fake);
});

Deno.test("unref() applies to the timer of a back-off, too", async () => {
  const refd: boolean[] = [];
  const timers = new Map<unknown, number>();
  const clock = new FakeClock();
  const { setTimeout } = clock;
  clock.setTimeout = (callback, ms) => {
    const id = setTimeout.call(clock, callback, ms);
    timers.set(id, refd.push(true) - 1);
    return id;
  };
  clock.unrefTimer = (id) => void (refd[timers.get(id)!] = false);
  const fake = new FakeListener();
  const listener = new Listener(fake.inner, { clock });
  const end = acceptUntilClosed(listener);
  await fake.settle(errno("EMFILE"));
  listener.unref(); // in the middle of it
  assertEquals(clock.pending, 1, "the timer that held the process is gone");
  await clock.advance(5);
  await fake.settle(errno("EMFILE"));
  await clock.advance(9);
  listener.ref();
  await clock.advance(1);
  await fake.settle(errno("EMFILE"));
  assertEquals(refd, [true, false, false, true, true]);
  assertEquals(fake.calls, ["unref", "ref"]);
  assertEquals(fake.accepts, 3, "ref() and unref() do not move the retry");
  await endOf(listener, fake);
  await end;
  assertEquals(clock.pending, 0);
});

Deno.test("a burst of bad peers gives the event loop a turn", async (t) => {
  const makes: Record<string, () => FakeConn | Error> = {
    "reset before the accept": () => errno("ENOTCONN"),
    "reset after the accept": () => new FakeConn("::1", errno("EINVAL")),
    "closed by somebody else": () =>
      new FakeConn("::1", new Deno.errors.BadResource("closed")),
    "of the wrong family": () => new FakeConn("::ffff:10.0.0.1"),
  };
  for (const [name, make] of Object.entries(makes)) {
    await t.step(name, async () => {
      const clock = new FakeClock();
      const fake = new FakeListener();
      let events = 0;
      const listener = makeListener(fake.inner, {
        clock,
        onAcceptError: ({ kind, retryMs }) => {
          events++;
          assertEquals([kind, retryMs], ["peer", 0]);
        },
      }, true);
      const call = listener.accept();
      const made: FakeConn[] = [];
      const settle = async () => {
        const result = make();
        if (result instanceof FakeConn) made.push(result);
        await fake.settle(result);
      };
      for (let burst = 0; burst < 2; burst++) {
        for (let i = 0; i < 1023; i++) await settle();
        assertEquals(clock.pending, 0, "the next accept does not wait yet");
        await settle();
        assertEquals([fake.waiting, clock.pending], [false, 1]);
        await clock.advance(0);
      }
      await fake.settle(new FakeConn());
      (await call).close();
      for (const { calls } of made) assertEquals(calls.at(-1), "close");
      assertEquals(events, name === "of the wrong family" ? 0 : 2048);
      await endOf(listener, fake);
    });
  }
});

Deno.test("a burst of bad peers whose last one meets no caller sets no timer", async () => {
  const clock = new FakeClock();
  const fake = new FakeListener();
  const listener = new Listener(fake.inner, { clock });
  const controller = new AbortController();
  const gone = listener.accept(controller).catch((error) => error);
  for (let i = 0; i < 1023; i++) await fake.settle(errno("ENOTCONN"));
  controller.abort();
  await gone;
  await fake.settle(errno("ENOTCONN"));
  assertEquals(clock.timers, []);
  await endOf(listener, fake);
});

Deno.test("onAcceptError may close the listener, and no timer is left", async (t) => {
  for (const [code, errors] of [["ENOTCONN", 1024], ["EMFILE", 1]] as const) {
    await t.step(code, async () => {
      const clock = new FakeClock();
      const fake = new FakeListener();
      let events = 0;
      const listener = new Listener(fake.inner, {
        clock,
        onAcceptError: () => {
          if (++events === errors) listener.close();
        },
      });
      const end = acceptUntilClosed(listener);
      for (let i = 0; i < errors; i++) await fake.settle(errno(code));
      assert(isClosed(await end));
      assertEquals(clock.pending, 0);
      await listener.close();
    });
  }
});

Deno.test("an unknown error closes the listener and reaches every caller", async () => {
  const fake = new FakeListener();
  const { signal, listeners } = countedSignal();
  const listener = makeListener(fake.inner, { signal });
  const calls = [acceptUntilClosed(listener), acceptUntilClosed(listener)];
  const cause = errno("EBADF");
  await fake.settle(cause);
  for (const error of await Promise.all(calls)) {
    assertStrictEquals(error.cause, cause);
    assertEquals([error.op, error.code], ["accept", "EBADF"]);
    assert(!isClosed(error));
  }
  assertEquals(fake.calls, ["close"]);
  assertEquals(listeners(), 0);
  assert(isClosed(await acceptUntilClosed(listener)), "reported once");
  await listener.close();
});

Deno.test("a value that is no connection breaks the listener", async (t) => {
  let closed = 0;
  const close = () => closed++;
  const udp = { transport: "udp", hostname: "::1", port: 1 };
  const broken = () => {
    closed++;
    throw new Error("cannot be closed");
  };
  const cases: [gave: unknown, closes: number, reason: string][] = [
    [undefined, 0, "not a connection: undefined"],
    [{ close }, 1, "not a connection: { close: [Function: close] }"],
    [
      { localAddr: udp, remoteAddr: udp, close },
      1,
      "not a stream address: udp",
    ],
    [
      { localAddr: udp, remoteAddr: udp, close: broken },
      1,
      "not a stream address: udp",
    ],
  ];
  for (const [gave, closes, reason] of cases) {
    await t.step(Deno.inspect(gave), async () => {
      closed = 0;
      const fake = new FakeListener();
      const listener = new Listener(fake.inner);
      const call = acceptUntilClosed(listener);
      await fake.settle(gave as FakeConn);
      assertEquals((await call).message, `accept tcp [::1]:1: ${reason}`);
      assertEquals([fake.calls, closed], [["close"], closes]);
      await listener.close();
    });
  }
});

Deno.test("a connection that has lost its address is a bad peer", async () => {
  const fake = new FakeListener();
  const events: AcceptErrorEvent[] = [];
  const onAcceptError = (event: AcceptErrorEvent) => void events.push(event);
  await using listener = new Listener(fake.inner, { onAcceptError });
  const call = listener.accept();
  const gone = new FakeConn(undefined as unknown as string);
  // As node:net's after a reset.
  Object.assign(gone.remoteAddr, { hostname: undefined });
  await fake.settle(gone);
  assertEquals(gone.calls, ["close"]);
  assertEquals(events.map(({ kind, error }) => [kind, error.code]), [
    ["peer", "ENOTCONN"],
  ]);
  await fake.settle(new FakeConn());
  (await call).close();
});

Deno.test("close() ignores a late connection that is closed already", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const call = acceptUntilClosed(listener);
  const closing = listener.close();
  await fake.settle(new FakeConn("::1", closedInner));
  assert(isClosed(await call));
  await closing;
});

Deno.test("the inner listener's accept() need not return a promise", async () => {
  const conn = new FakeConn();
  const inner = { addr: conn.localAddr, accept: () => conn, close: () => {} };
  const listener = new Listener(inner as unknown as Deno.Listener);
  const accepted = await listener.accept();
  accepted.close();
  assertEquals(conn.calls, ["noDelay true", "keepAlive true", "close"]);
  await listener.close();
});

Deno.test("new Listener() refuses anything but a listener", () => {
  const addr = { transport: "unix", path: "/x" };
  for (const inner of [undefined, null, {}, "text", { addr }]) {
    assertThrows(
      () => new Listener(inner as unknown as Deno.Listener),
      TypeError,
      `not a listener: ${Deno.inspect(inner)}`,
    );
  }
});

Deno.test("a broken listener does not depend on a subclass's close()", async () => {
  const inner = new FakeListener();
  class Own extends Listener {
    override close(): Promise<void> {
      throw new Error("not now");
    }
  }
  const listener = new Own(inner.inner);
  const caller = listener.accept().catch((error) => error.message);
  await inner.settle(new Error("boom"));
  assertEquals(await caller, "accept tcp [::1]:1: boom");
  assertEquals([inner.accepts, inner.calls], [1, ["close"]]);
});

Deno.test("a loop throws an unknown error", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const loop = assertRejects(async () => {
    for await (const _ of listener) throw new Error("iterated");
  }, OpError);
  await turn();
  await fake.settle(new TypeError("surprise"));
  assertEquals((await loop).message, "accept tcp [::1]:1: surprise");
});

Deno.test("an unknown error that meets no caller is kept for the next one", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const { controller, signal } = countedSignal();
  const gone = listener.accept({ signal }).catch((error) => error);
  controller.abort();
  assertStrictEquals(await gone, signal.reason);
  const cause = errno("EBADF");
  await fake.settle(cause);
  assertStrictEquals((await acceptUntilClosed(listener)).cause, cause);
  assert(isClosed(await acceptUntilClosed(listener)), "reported once");
});

Deno.test("an inner listener that somebody else closed ends loops without an error", async () => {
  for (const error of [closedInner, new Deno.errors.Interrupted("canceled")]) {
    const fake = new FakeListener();
    const listener = new Listener(fake.inner);
    const loop = (async () => {
      for await (const _ of listener) throw new Error("iterated");
    })();
    await fake.settle(error);
    await loop;
  }
});

Deno.test("close() rejects if the inner listener fails to close", async (t) => {
  const cause = new Error("will not");
  await t.step("called by the user", async () => {
    const listener = new Listener(new FakeListener(cause).inner);
    for (let i = 0; i < 2; i++) {
      assertStrictEquals(await listener.close().catch((e) => e), cause);
    }
  });
  const unasked: Record<string, Error | null> = {
    "called for the signal": null,
    "after an unknown error": errno("EBADF"),
    "after somebody else closed it": closedInner,
  };
  for (const [name, error] of Object.entries(unasked)) {
    await t.step(name, async () => {
      const fake = new FakeListener(cause);
      const controller = new AbortController();
      const { signal } = controller;
      const listener = makeListener(fake.inner, { signal });
      const end = acceptUntilClosed(listener);
      if (error) await fake.settle(error);
      else controller.abort();
      await end;
      await turn(); // an unhandled rejection would show by now
      assertStrictEquals(await listener.close().catch((e) => e), cause);
    });
  }
  await t.step("closes a spare connection all the same", async () => {
    const fake = new FakeListener(cause);
    const listener = new Listener(fake.inner);
    await comeAndGo(listener);
    const spare = new FakeConn();
    await fake.settle(spare);
    assertStrictEquals(await listener.close().catch((e) => e), cause);
    assertEquals(spare.calls.at(-1), "close");
  });
  await t.step("whose async close() fails before the accept", async () => {
    const fake = new FakeListener();
    fake.inner.close = () => Promise.reject(cause) as unknown as void;
    const listener = new Listener(fake.inner);
    const loop = acceptUntilClosed(listener);
    const closed = listener.close().catch((e) => e);
    await turn(); // it is not an unhandled rejection meanwhile
    await fake.settle(closedInner);
    assertStrictEquals(await closed, cause);
    await loop;
  });
  await t.step("unless it was closed already", async () => {
    const listener = new Listener(new FakeListener(closedInner).inner);
    await listener.close();
  });
});

Deno.test("close() gives one promise, even to a call by the inner listener's close()", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const { close } = fake;
  let again: Promise<void> | undefined;
  let late: Promise<unknown> | undefined;
  fake.close = () => {
    close.call(fake);
    again = listener.close();
    late = acceptUntilClosed(listener);
  };
  const closed = listener.close();
  assertStrictEquals(again, closed);
  assert(isClosed(await late));
  await closed;
  assertEquals(fake.calls, ["close"]);
});

Deno.test("close() waits for the pending accept, and closes what it brings", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const end = acceptUntilClosed(listener);
  let settled = false;
  const closed = listener.close().then(() => settled = true);
  assert(isClosed(await end), "the caller need not wait");
  await turn();
  assert(!settled, "the port is not free yet");
  const late = new FakeConn();
  await fake.settle(late);
  await closed;
  assertEquals(late.calls, ["close"]);
});

Deno.test("break waits for the pending accept, too", async () => {
  const fake = new FakeListener();
  const loop = new Listener(fake.inner)[Symbol.asyncIterator]();
  const step = loop.next();
  let settled = false;
  const returned = loop.return!().then(() => settled = true);
  assertEquals(await step, { done: true, value: undefined });
  await turn();
  assert(!settled, "the port is not free yet");
  await fake.settle(closedInner);
  await returned;
});

Deno.test("a connection of a custom listener gets closeWrite() before close()", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const call = listener.accept();
  const inner = new InnerConn();
  await fake.settle(inner as unknown as FakeConn);
  const conn = await call;
  const handled = handle(conn, () => conn.read(new Uint8Array(1)));
  await inner.deliver(null);
  assertEquals([inner.fins.length, inner.closes], [1, 0]);
  inner.fins[0]!.resolve();
  await handled;
  assertEquals(inner.closes, 1);
  await endOf(listener, fake);
});

Deno.test("a spare connection goes to the next caller, or is closed by close()", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const leave = async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const gone = listener.accept({ signal }).catch((error) => error);
    controller.abort();
    assertStrictEquals(await gone, signal.reason);
  };
  await leave();
  const first = new FakeConn();
  await fake.settle(first);
  assert(!fake.waiting, "one spare is enough");
  (await listener.accept()).close();
  assertEquals(first.calls, ["noDelay true", "keepAlive true", "close"]);

  await leave();
  const second = new FakeConn();
  await fake.settle(second);
  await listener.close();
  assertEquals(second.calls, ["noDelay true", "keepAlive true", "close"]);
});

Deno.test("a spare connection that fails to close does not keep the listener open", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  await comeAndGo(listener);
  const spare = new FakeConn();
  const cause = new Error("will not");
  spare.close = () => {
    throw cause;
  };
  await fake.settle(spare);
  assertStrictEquals(await listener.close().catch((e) => e), cause);
  assert(fake.calls.includes("close"));
});

Deno.test("a pending accept without a caller does not keep the process alive", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  await comeAndGo(listener);
  assertEquals(fake.calls, ["unref"]);
  listener.ref(); // still nobody waits
  assertEquals(fake.calls, ["unref"]);
  const call = listener.accept();
  assertEquals(fake.calls, ["unref", "ref"]);
  assertEquals(fake.accepts, 1, "the same accept");
  await fake.settle(new FakeConn());
  (await call).close();
  await endOf(listener, fake);
});

Deno.test("an unref'd listener stays unref'd as callers come and go", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  listener.unref();
  await comeAndGo(listener);
  const call = listener.accept();
  assertEquals(fake.calls, ["unref"]);
  await fake.settle(new FakeConn());
  (await call).close();
  await endOf(listener, fake);
});

Deno.test("ref() after unref() reaches the inner listener only while somebody waits", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  listener.unref();
  await comeAndGo(listener);
  listener.ref(); // nobody waits
  assertEquals(fake.calls, ["unref"]);
  listener.unref();
  const call = listener.accept();
  assertEquals(fake.calls, ["unref", "unref"]);
  listener.ref();
  assertEquals(fake.calls, ["unref", "unref", "ref"]);
  await fake.settle(new FakeConn());
  (await call).close();
  await endOf(listener, fake);
});

Deno.test("noDelay and keepAlive are on by default", async (t) => {
  const both = ["noDelay true", "keepAlive true"];
  const cases: [string, ListenerOptions, string[]][] = [
    ["default", {}, both],
    ["on", { noDelay: true, keepAlive: true }, both],
    ["only keepAlive", { noDelay: false }, ["keepAlive true"]],
    ["only noDelay", { keepAlive: false }, ["noDelay true"]],
    ["neither", { noDelay: false, keepAlive: false }, []],
  ];
  for (const [name, options, calls] of cases) {
    await t.step(name, async () => {
      const fake = new FakeListener();
      const listener = new Listener(fake.inner, options);
      const call = listener.accept();
      const conn = new FakeConn();
      await fake.settle(conn);
      await call;
      assertEquals(conn.calls, calls);
      await endOf(listener, fake);
    });
  }
});

Deno.test("new Listener() checks its options", async (t) => {
  const wrong: Record<string, unknown> = {
    noDelay: 1,
    keepAlive: null,
    onAcceptError: "console",
    clock: {},
  };
  for (const [option, value] of Object.entries(wrong)) {
    await t.step(option, () => {
      const fake = new FakeListener();
      try {
        new Listener(fake.inner, { [option]: value });
      } catch (error) {
        assert(error instanceof TypeError);
        assertEquals(fake.calls, []);
        return;
      }
      throw new Error("not refused");
    });
  }
});

Deno.test("new Listener() ignores later changes of its options", async () => {
  const fake = new FakeListener();
  const options = { noDelay: false };
  const listener = new Listener(fake.inner, options);
  options.noDelay = true;
  const accepted = listener.accept();
  const conn = new FakeConn();
  await fake.settle(conn);
  (await accepted).close();
  assertEquals(conn.calls, ["keepAlive true", "close"]);
  await listener.close();
});

Deno.test("a connection whose own setup closes the listener is closed, too", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const accepted = assertRejects(() => listener.accept(), OpError);
  const conn = new class extends FakeConn {
    override setKeepAlive(on: boolean): void {
      super.setKeepAlive(on);
      listener.close();
    }
  }();
  await fake.settle(conn);
  await accepted;
  assertEquals(conn.calls, ["noDelay true", "keepAlive true", "close"]);
  await listener.close();
});

Deno.test("an inner accept() that throws breaks the listener and rejects the caller", async () => {
  const fake = new FakeListener();
  const thrown = new Error("odd");
  fake.accept = () => {
    throw thrown;
  };
  const listener = new Listener(fake.inner);
  const error = await assertRejects(() => listener.accept(), OpError);
  assertEquals([error.op, error.cause], ["accept", thrown]);
  assertEquals(fake.calls, ["close"]);
  await listener.close();
});
