import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { dial } from "../dialer.ts";
import { handle, type Handler, type HandlerContext } from "../handler.ts";
import { listen, Listener } from "../listener.ts";
import { makeListener } from "../net/accept.ts";
import { Conn, wireOf } from "../net/conn.ts";
import { copy } from "../net/copy.ts";
import { isClosed, isTimeout, OpError } from "../net/errors.ts";
import { FakeClock, MemoryNetwork, pipe } from "../testing/mod.ts";
import { InnerConn } from "./conn_inner.ts";
import { FakeConn, FakeListener } from "./fake_listener.ts";
import {
  bytes,
  connect,
  countedSignal,
  pair,
  STUCK_MS,
  textOf,
  turn,
} from "./support.ts";

/** Counts how often the platform's connection is closed. */
function counted(conn: Deno.Conn): { inner: Deno.Conn; closes: () => number } {
  let closes = 0;
  const inner = new Proxy(conn, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        if (key === "close") closes++;
        return value.apply(target, args);
      };
    },
  });
  return { inner, closes: () => closes };
}

/** A connected pair whose server side uses the given clock. */
async function pairOn(clock: FakeClock): Promise<[Conn, Conn]> {
  await using listener = await listen("tcp", "127.0.0.1:0", { clock });
  return await Promise.all([connect(listener), listener.accept()]);
}

/** Whether a promise has settled, and its callbacks have run. */
function settled(promise: Promise<unknown>): { readonly done: boolean } {
  const state = { done: false };
  const end = () => void (state.done = true);
  promise.then(end, end);
  return state;
}

Deno.test("handle() closes exactly once, however the handler ends", async (t) => {
  const boom = new Error("boom");
  const cases: Record<string, { handler: Handler; error?: unknown }> = {
    "returns at once": { handler: () => {} },
    "resolves": { handler: () => Promise.resolve() },
    "throws": {
      handler: () => {
        throw boom;
      },
      error: boom,
    },
    "throws null": {
      handler: () => {
        throw null;
      },
      error: null,
    },
    "rejects": { handler: () => Promise.reject(boom), error: boom },
    "returns a thenable that throws": {
      handler: () =>
        ({
          get then() {
            throw boom;
          },
        }) as unknown as Promise<void>,
      error: boom,
    },
    "closes itself": { handler: (conn) => conn.close() },
    "closes twice": {
      handler: (conn) => {
        conn.close();
        conn.close();
      },
    },
    "closes twice, then rejects": {
      handler: (conn) => {
        conn.close();
        conn.close();
        return Promise.reject(boom);
      },
      error: boom,
    },
    "half-closes": { handler: (conn) => conn.closeWrite() },
  };
  for (const [name, how] of Object.entries(cases)) {
    await t.step(name, async () => {
      const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const [client, accepted] = await Promise.all([
        connect(listener),
        listener.accept(),
      ]);
      listener.close();
      const { inner, closes } = counted(accepted);
      await client.closeWrite();
      const handled = handle(new Conn(inner), how.handler);
      if ("error" in how) {
        assertStrictEquals(await handled.catch((e) => e), how.error);
      } else await handled;
      assertEquals(closes(), 1);
      assertEquals(await textOf(client), "");
      client.close();
    });
  }
});

Deno.test("handle() rejects anything but a Conn, without running the handler", async () => {
  let runs = 0;
  const raw = {} as Conn;
  await assertRejects(
    () => handle(raw, () => void runs++),
    TypeError,
    "not a Conn: await dial(), or make one with new Conn(inner); for streams use pipeTo()",
  );
  assertEquals(runs, 0);
});

Deno.test("handle() rejects an invalid signal, without running the handler", async () => {
  const [client, server] = await pair();
  for (const none of [null, 0, "", new AbortController()]) {
    await assertRejects(
      () =>
        handle(server, () => assert(false), {
          signal: none as unknown as AbortSignal,
        }),
      TypeError,
      "signal is not an AbortSignal",
    );
  }
  server.close();
  client.close();
});

Deno.test("handle() rejects an invalid handler, and leaves the connection open", async () => {
  const [client, server] = await pair();
  await assertRejects(
    () => handle(server, 1 as unknown as Handler),
    TypeError,
    "handler",
  );
  await server.write(bytes("still open"));
  server.close();
  assertEquals(await textOf(client), "still open");
  client.close();
});

Deno.test("handle() ends the connection when its signal aborts", async (t) => {
  await t.step("aborted before: closes, does not run the handler", async () => {
    const [client, server] = await pair();
    const { controller, signal, listeners } = countedSignal();
    const reason = new Error("too late");
    controller.abort(reason);
    let ran = false;
    const handled = handle(server, () => void (ran = true), { signal });
    assertStrictEquals(await handled.catch((e) => e), reason);
    assertEquals(ran, false);
    assertEquals(listeners(), 0);
    assertEquals(await textOf(client), "");
    client.close();
  });

  await t.step("aborted by the handler at once", async () => {
    const [client, server] = await pair();
    const { controller, signal, listeners } = countedSignal();
    const reason = new Error("stop");
    const handled = handle(server, () => controller.abort(reason), { signal });
    assertStrictEquals(await handled.catch((e) => e), reason);
    assertEquals(listeners(), 0);
    assertEquals(await textOf(client), "");
    client.close();
  });

  await t.step("aborted, with a connection whose close fails", async () => {
    const { controller, signal, listeners } = countedSignal();
    const inner = new FakeConn();
    inner.close = () => {
      throw new Error("will not close");
    };
    const conn = new Conn(inner as unknown as Deno.Conn);
    const handled = handle(conn, () => new Promise(() => {}), { signal });
    controller.abort("stop");
    assertEquals(await handled.catch((e) => e), "stop");
    assertEquals(listeners(), 0);
  });

  await t.step("aborted: signals the handler, closes, rejects", async () => {
    const [client, server] = await pair();
    const { controller, signal, listeners } = countedSignal();
    const seen = Promise.withResolvers<unknown>();
    const handled = handle(server, async (conn, { signal }) => {
      try {
        await conn.read(new Uint8Array(1));
      } catch (error) {
        seen.resolve([signal.reason, isClosed(error)]);
        throw error; // ignored: the call is over
      }
    }, { signal });
    const reason = new Error("stop");
    controller.abort(reason);
    assertStrictEquals(await handled.catch((e) => e), reason);
    assertEquals(await seen.promise, [reason, true]);
    assertEquals(listeners(), 0);
    client.close();
  });

  await t.step("aborts the handler's signal before it closes", async () => {
    const [client, server] = pipe();
    const controller = new AbortController();
    let closed: boolean | undefined;
    const handled = handle(server, (conn, { signal }) => {
      signal.addEventListener("abort", () => closed = wireOf(conn).closed);
      return new Promise(() => {});
    }, controller);
    controller.abort();
    await assertRejects(() => handled);
    assertEquals(closed, false);
    client.close();
  });

  await t.step("calls with the same signal get its reason", async () => {
    const [client, server] = await pair();
    const { controller, signal, listeners } = countedSignal();
    const told: unknown[] = [];
    const handled = handle(server, async (conn) => {
      const calls = [
        conn.write(new Uint8Array(16 << 20), { signal }),
        conn.read(new Uint8Array(1), { signal }),
        copy(conn, conn, { signal }),
      ];
      for (const call of calls) told.push(await call.catch((e) => e));
    }, { signal });
    const reason = new Error("stop");
    controller.abort(reason);
    assertStrictEquals(await handled.catch((e) => e), reason);
    await turn();
    assertEquals(told, [reason, reason, reason]);
    assertEquals(listeners(), 0);
    client.close();
  });

  await t.step("aborted during a lingering close: cuts it short", async () => {
    const [client, server] = await pair();
    const { controller, signal } = countedSignal();
    const handled = handle(server, () => {}, { signal });
    assertEquals(await textOf(client), ""); // FIN; the client closes nothing
    const reason = new Error("stop");
    controller.abort(reason);
    assertStrictEquals(await handled.catch((e) => e), reason);
    client.close();
  });

  await t.step("aborted after detach(): only signals the handler", async () => {
    const [client, server] = await pair();
    const { controller, signal } = countedSignal();
    const never = Promise.withResolvers<void>();
    let context!: HandlerContext;
    const handled = handle(server, (_conn, given) => {
      context = given;
      given.detach();
      return never.promise;
    }, { signal });
    const reason = new Error("stop");
    controller.abort(reason);
    assertStrictEquals(await handled.catch((e) => e), reason);
    assertStrictEquals(context.signal.reason, reason);
    await server.write(bytes("mine"));
    server.close();
    assertEquals(await textOf(client), "mine");
    client.close();
  });

  await t.step("aborted afterwards: no effect, no listener left", async () => {
    const [client, server] = await pair();
    const { controller, signal, listeners } = countedSignal();
    client.close();
    await handle(server, () => {}, { signal });
    assertEquals(listeners(), 0);
    controller.abort();
  });
});

Deno.test("detach() keeps the connection open, however the handler ends", async (t) => {
  const boom = new Error("boom");
  const ends: Record<string, () => void | Promise<void>> = {
    returns: () => {},
    throws: () => {
      throw boom;
    },
    rejects: () => Promise.reject(boom),
  };
  for (const [name, end] of Object.entries(ends)) {
    await t.step(name, async () => {
      const [client, server] = await pair();
      let conn!: Conn;
      let context!: HandlerContext;
      const handled = handle(server, (_conn, given) => {
        context = given;
        const { detach } = context; // works destructured, as `signal` does
        conn = detach();
        assertStrictEquals(context.detach(), conn); // idempotent
        const copied: Partial<HandlerContext> = { ...context };
        assertEquals([copied.signal, copied.detach], [undefined, undefined]);
        return end();
      });
      if (name === "returns") await handled;
      else assertStrictEquals(await handled.catch((e) => e), boom);
      assertStrictEquals(context.detach(), conn); // after the end, too
      await conn.write(bytes("mine"));
      conn.close();
      assertEquals(await textOf(client), "mine");
      client.close();
    });
  }
});

Deno.test("a handler may pass its context on by name", async () => {
  const [client, server] = pipe();
  await handle(server, (_conn, context) => {
    const { signal, detach } = context;
    const more = { signal, detach, user: "ann" };
    assertStrictEquals(more.signal, context.signal);
    assertStrictEquals(more.detach(), server);
  });
  for (const conn of [client, server]) conn.close();
});

Deno.test("handle() does not abort a signal after the handler's end, even one read later", async () => {
  const [client, server] = pipe();
  const controller = new AbortController();
  let context!: HandlerContext;
  const handled = handle(
    server,
    (_, given) => void (context = given),
    controller,
  );
  await turn(); // the close waits for the peer
  controller.abort();
  await assertRejects(() => handled);
  assert(!context.signal.aborted);
  client.close();
});

Deno.test("detach() hands over what comes to a read that was given up", async () => {
  const [client, server] = await pair();
  let conn!: Conn;
  await handle(server, async (server, { detach }) => {
    const signal = AbortSignal.timeout(1); // to see whether the client leaves
    await server.read(new Uint8Array(1), { signal }).catch(() => {});
    conn = detach();
  });
  await client.write(bytes("for the new owner"));
  client.close();
  assertEquals(await textOf(conn), "for the new owner");
  conn.close();
});

Deno.test("detach() throws after the handler's end", async () => {
  const [client, server] = await pair();
  let context!: HandlerContext;
  const handled = handle(server, (_conn, given) => void (context = given));
  assertEquals(await textOf(client), "");
  assertThrows(() => context.detach(), TypeError, "end");
  client.close();
  await handled;
  assertThrows(() => context.detach(), TypeError, "end");
});

Deno.test("handle() delivers all that was written, even with input unread", async (t) => {
  const reply = new Uint8Array(256 * 1024).fill(7);

  /** How much of the reply arrives if it is followed by FIN and close(). */
  async function withoutLingering(): Promise<number> {
    const [client, server] = await pair();
    await client.write(new Uint8Array(64 * 1024)); // nobody reads this
    await server.write(reply);
    await server.closeWrite();
    server.close();
    let got = 0;
    try {
      for await (const chunk of client) got += chunk.length;
    } catch (error) {
      assertInstanceOf(error, OpError); // ECONNRESET
    }
    client.close();
    return got;
  }

  await t.step({
    name: "closeWrite() and close() alone lose data",
    ignore: Deno.build.os !== "linux",
    fn: async () => {
      // Nearly always on the first try; it is a race of two kernel queues.
      let tries = 20;
      while (await withoutLingering() === reply.length) assert(--tries > 0);
    },
  });

  for (const awaited of [true, false]) {
    await t.step(awaited ? "awaited" : "not awaited", async () => {
      const [client, server] = await pair();
      await client.write(new Uint8Array(64 * 1024)); // nobody reads this
      const handled = handle(server, async (conn) => {
        const written = conn.write(reply);
        if (awaited) await written;
      });
      let got = 0;
      for await (const chunk of client) got += chunk.length;
      client.close();
      await handled;
      assertEquals(got, reply.length);
    });
  }
});

Deno.test("handle() delivers a write after EOF that was not awaited", async () => {
  const size = 16 * 1024 * 1024; // more than the kernel takes at once
  const [client, server] = await pair();
  const handled = handle(server, async (conn) => {
    while (await conn.read(new Uint8Array(64)) !== null);
    conn.write(new Uint8Array(size));
  });
  await client.closeWrite();
  let got = 0;
  for await (const chunk of client) got += chunk.length;
  client.close();
  await handled;
  assertEquals(got, size);
});

/** Ways to a connection, and how often handle() must call its closeWrite(). */
const ORIGINS: Record<
  string,
  [(inner: InnerConn) => Conn | Promise<Conn>, number]
> = {
  "new Conn()": [(inner) => new Conn(inner), 1],
  "a connector": [
    (inner) =>
      dial("tcp", "192.0.2.1:1", { connect: () => Promise.resolve(inner) }),
    1,
  ],
  "a wrapped listener": [(inner) => acceptOne(inner, false), 1],
  "listen()": [(inner) => acceptOne(inner, true), 0],
  "Deno.connect()": [async (inner) => {
    const platform = Deno.connect;
    Deno.connect = (() => Promise.resolve(inner)) as unknown as typeof platform;
    try {
      return await dial("tcp", "192.0.2.1:1");
    } finally {
      Deno.connect = platform;
    }
  }, 0],
};

/** Accepts `inner`, from a listener that listen() has made or from another. */
async function acceptOne(inner: InnerConn, ours: boolean): Promise<Conn> {
  const fake = new FakeListener();
  const listener = ours
    ? makeListener(fake.inner, {})
    : new Listener(fake.inner);
  const accepted = listener.accept();
  await fake.settle(inner);
  await listener.close();
  return accepted;
}

Deno.test("handle(), after EOF, calls the closeWrite() of all but the platform's connections", async (t) => {
  for (const [origin, [make, fins]] of Object.entries(ORIGINS)) {
    await t.step(origin, async () => {
      const inner = new InnerConn();
      const handled = handle(await make(inner), async (conn) => {
        assertEquals(await conn.read(new Uint8Array(1)), null);
      });
      await inner.deliver(null);
      // An adapter may flush there, before its close().
      assertEquals([inner.fins.length, inner.closes], [fins, 1 - fins]);
      inner.fins[0]?.resolve();
      await handled;
      assertEquals([inner.reads, inner.closes], [[], 1]);
    });
  }
});

Deno.test("handle() rejects with what a subclass's closeWrite() throws", async () => {
  const failure = new Error("cannot flush");
  class Flushing extends Conn {
    override closeWrite(): Promise<void> {
      return Promise.reject(failure);
    }
  }
  const inner = new InnerConn();
  const handled = handle(new Flushing(inner), () => {});
  assertStrictEquals(await handled.catch((error) => error), failure);
  assertEquals(inner.closes, 1);
});

Deno.test("handle() rejects with what a subclass's close() rejects with, and closes", async () => {
  const failure = new Error("cannot log");
  class Logged extends Conn {
    override close(): Promise<void> {
      return Promise.reject(failure);
    }
  }
  const inner = new InnerConn();
  const clock = new FakeClock();
  const handled = handle(new Logged(inner, { clock }), () => {})
    .catch((error) => error);
  await turn();
  inner.fins[0]!.resolve();
  await clock.advance(5_000); // the peer stays silent
  assertStrictEquals(await handled, failure);
  assertEquals(inner.closes, 1);
});

Deno.test("handle() gives a subclass's close() its time, as long as a peer has", async (t) => {
  for (const returns of [true, false]) {
    await t.step(returns ? "it returns" : "it never does", async () => {
      const inner = new InnerConn();
      const clock = new FakeClock();
      const closing = Promise.withResolvers<number>();
      class Slow extends Conn {
        override async close(): Promise<void> {
          await turn();
          closing.resolve(inner.closes);
          if (!returns) await new Promise(() => {});
          await super.close();
        }
      }
      const handled = handle(new Slow(inner, { clock }), () => {});
      await turn();
      inner.fins[0]!.resolve();
      await turn();
      await inner.deliver(null);
      assertEquals(await closing.promise, 0, "it is still open");
      if (!returns) await clock.advance(5_000);
      await handled;
      assertEquals([inner.closes, clock.timers], [1, []]);
    });
  }
});

Deno.test("handle() closes on an abort although a subclass's close() waits", async () => {
  class Polite extends Conn {
    override async close(): Promise<void> {
      await this.read(new Uint8Array(1)).catch(() => {}); // a goodbye
      await super.close();
    }
  }
  for (const early of [true, false]) {
    const inner = new InnerConn();
    const controller = new AbortController();
    if (early) controller.abort("enough");
    const told: unknown[] = [];
    const handled = handle(
      new Polite(inner),
      (conn) => conn.read(new Uint8Array(1)).catch((error) => told.push(error)),
      { signal: controller.signal },
    );
    if (!early) controller.abort("enough");
    assertStrictEquals(await handled.catch((error) => error), "enough");
    await turn();
    assertEquals(told.map(isClosed), early ? [] : [true]);
    assertEquals(inner.closes, 1);
  }
});

Deno.test("handle() closes 5 s after its FIN if the peer does not", async () => {
  const clock = new FakeClock();
  const [client, server] = await pairOn(clock);
  const handled = settled(handle(server, () => {}));
  assertEquals(await textOf(client), ""); // FIN
  await clock.advance(4_999);
  assertEquals(handled.done, false);
  await clock.advance(1);
  assertEquals(handled.done, true);
  assertEquals(clock.timers, []);
  client.close();
});

Deno.test("handle() closes 5 s after its FIN, whatever the handler left running", async (t) => {
  for (const deadline of [60_000, null]) {
    await t.step(`with a deadline of ${deadline}`, async () => {
      const clock = new FakeClock();
      const [client, server] = await pairOn(clock);
      const pumped = Promise.withResolvers<unknown>();
      const handled = settled(handle(server, (conn) => {
        (async () => {
          const p = new Uint8Array(64);
          let n: number | null = 0;
          while (n !== null) {
            conn.setDeadline(deadline && clock.now() + deadline);
            n = await conn.read(p);
          }
        })().catch(pumped.resolve);
      }));
      for (let i = 0; i < 4; i++) {
        await client.write(bytes("more"));
        await clock.advance(1_000);
      }
      await clock.advance(999);
      assertEquals(handled.done, false);
      await clock.advance(1);
      assertEquals(handled.done, true);
      assert(isClosed(await pumped.promise));
      assertEquals(clock.timers, []);
      client.close();
    });
  }
});

Deno.test("handle() waits for the peer's close, whatever the handler left running", async () => {
  const clock = new FakeClock();
  const [client, server] = pipe({ clock });
  const handled = settled(handle(server, (conn) => {
    conn.write(bytes("reply"));
    (async () => {
      let n: number | null | void = 0;
      while (n !== null) {
        conn.setReadDeadline(clock.now() + 50);
        n = await conn.read(new Uint8Array(8)).catch((error) => {
          if (!isTimeout(error)) throw error;
        });
      }
    })();
  }));
  for (let i = 0; i < 10; i++) {
    await client.write(bytes("x"));
    await clock.advance(80);
  }
  assertEquals(handled.done, false);
  assertEquals(await textOf(client), "reply");
  client.close();
  await clock.advance(0);
  assertEquals(handled.done, true);
  assertEquals(clock.timers, []);
});

Deno.test("handle() settles in time although the connection's close() throws", async () => {
  const clock = new FakeClock();
  const [client, server] = pipe({ clock });
  const { inner } = wireOf(server);
  const close = inner.close.bind(inner);
  inner.close = () => {
    close();
    throw new Error("will not close");
  };
  const handled = settled(handle(server, () => {}));
  await clock.advance(5_000); // and the clock's caller gets no error
  assertEquals(handled.done, true);
  client.close();
});

Deno.test("handle() rejects with the handler's error, even if the close throws, too", async () => {
  for (const eof of [true, false]) {
    const inner = new InnerConn();
    inner.close = () => {
      throw new Error("will not close");
    };
    inner.read = () => Promise.resolve(null);
    inner.closeWrite = () => Promise.resolve();
    const error = new Error("the handler's");
    const handled = handle(new Conn(inner), async (conn) => {
      if (eof) await conn.read(new Uint8Array(1));
      throw error;
    });
    assertStrictEquals(await handled.catch((e) => e), error);
  }
});

Deno.test("handle() closes after discarding 1 MiB of input", {
  timeout: STUCK_MS,
}, async () => {
  const [client, server] = await pairOn(new FakeClock());
  const handled = handle(server, () => {});
  const state = settled(handled);
  assertEquals(await textOf(client), ""); // FIN
  await client.write(new Uint8Array(1024 * 1024 - 1));
  for (let i = 0; i < 20; i++) await turn();
  assertEquals(state.done, false);
  await client.write(new Uint8Array(1));
  await handled; // while the clock stands still
  client.close();
});

Deno.test("handle() waits for a slow reader, 5 s for a stuck one", async () => {
  const clock = new FakeClock();
  // In memory: a kernel takes more of a write when it likes, not at each read.
  const [client, server] = pipe({ clock });
  let outcome: unknown;
  const handled = settled(handle(server, (conn) => {
    conn.write(new Uint8Array(1024 * 1024)).catch((error) => outcome = error);
    conn.setDeadline(clock.now() + 50); // applies to the handler alone
  }));
  // Reads some every 4 s, for 16 s: a stuck reader would have had 5 s.
  const p = new Uint8Array(64 * 1024);
  for (let i = 0; i < 4; i++) {
    assert(await client.read(p) !== null, "cut off");
    await clock.advance(4_000);
  }
  assertEquals(handled.done, false);
  assertEquals(outcome, undefined);
  await clock.advance(5_000); // reads no more
  assertEquals(handled.done, true);
  assertEquals(isTimeout(outcome) || isClosed(outcome), true);
  client.close();
  assertEquals(clock.timers, []);
});

/** Reads a chunk every 4 s, to the end; returns the number of bytes. */
async function readSlowly(client: Conn, clock: FakeClock): Promise<number> {
  let got = 0;
  for await (const chunk of client) {
    got += chunk.length;
    await clock.advance(4_000);
  }
  return got;
}

Deno.test("handle() waits for a slow reader while a nested handle() closes, too", async () => {
  const clock = new FakeClock();
  const [client, server] = pipe({ clock });
  const handled = handle(server, (conn) => {
    handle(conn, (conn) => void conn.write(new Uint8Array(1024 * 1024)));
  });
  assertEquals(await readSlowly(client, clock), 1024 * 1024);
  client.close();
  await handled;
});

Deno.test("handle() waits for a slow reader of a Conn around a Conn", async () => {
  const clock = new FakeClock();
  const [client, server] = pipe({ clock });
  const around = new Conn(new Conn(server));
  const handled = handle(around, (conn) => {
    conn.write(new Uint8Array(1024 * 1024)); // one operation of the inner Conn
  });
  assertEquals(await readSlowly(client, clock), 1024 * 1024);
  client.close();
  await handled;
});

Deno.test("handle() with a pipe closes, however the pipe ends", async (t) => {
  type Way = (
    peer: Conn,
    net: MemoryNetwork,
    reader: ReadableStreamDefaultReader,
  ) => unknown;
  const ways: Record<string, Way> = {
    "the peer has closed its side": (peer) => peer.closeWrite(),
    "the peer has reset": (peer, net) => net.reset(peer.localAddr),
    "the reader has cancelled, and nothing arrives": (_, __, reader) =>
      reader.cancel(),
  };
  for (const [name, end] of Object.entries(ways)) {
    await t.step(name, async () => {
      const net = new MemoryNetwork();
      await using listener = await net.listen("tcp", "10.0.0.1:80");
      const client = await net.dial("tcp", "10.0.0.1:80");
      await using peer = await listener.accept();
      const { readable, writable } = new TransformStream<Uint8Array>();
      const handled = handle(client, (conn) => conn.readable.pipeTo(writable))
        .catch((error) => error);
      const reader = readable.getReader();
      await peer.write(bytes("hello"));
      assertEquals((await reader.read()).value, bytes("hello"));
      await end(peer, net, reader);
      await reader.read().catch((error) => error);
      await handled;
      assert(wireOf(client).closed);
    });
  }
});

Deno.test("handle() waits 5 s for a peer that sends, but reads nothing", async () => {
  const clock = new FakeClock();
  const [client, server] = pipe({ clock });
  let came = 0;
  const failures: unknown[] = [];
  const handled = settled(handle(server, (conn) => {
    conn.write(new Uint8Array(1024 * 1024)).catch((e) => failures.push(e));
    (async () => {
      for await (const chunk of conn) came += chunk.length;
    })().catch((e) => failures.push(e));
  }));
  for (const word of ["on", "and"]) {
    await client.write(bytes(word));
    await clock.advance(2_000);
  }
  assertEquals(came, 5);
  assertEquals(handled.done, false);
  await clock.advance(1_000);
  assertEquals(handled.done, true);
  assertEquals(failures.length, 2);
  client.close();
});

Deno.test("handle(): a reply arrives if a stream is not cancelled", {
  timeout: STUCK_MS,
}, async (t) => {
  const reply = new Uint8Array(500_000); // not all is with the peer yet
  const options = { preventCancel: true };
  const loops: Record<string, (conn: Conn) => AsyncIterable<unknown>> = {
    "over the connection": (conn) => conn,
    "over values({ preventCancel })": (conn) => conn.readable.values(options),
    "over a pipe with preventCancel": (conn) =>
      conn.readable.pipeThrough(new TextDecoderStream(), options),
  };
  for (const [name, loop] of Object.entries(loops)) {
    await t.step(name, async () => {
      const [client, server] = await pair();
      await client.write(new Uint8Array(100_000));
      const left = Promise.withResolvers<void>();
      const handled = handle(server, async (conn) => {
        for await (const _ of loop(conn)) {
          await conn.write(reply);
          break;
        }
        left.resolve();
      });
      await left.promise;
      const got = await new Response(client.readable).bytes();
      assertEquals(got.length, reply.length);
      client.close();
      await handled;
    });
  }
  await t.step("after a transform that has failed", async () => {
    const [client, server] = await pair();
    await client.write(new Uint8Array(100_000));
    const handled = handle(server, async (conn) => {
      const gunzip = new DecompressionStream("gzip");
      const body = conn.readable.pipeThrough(gunzip, options);
      await assertRejects(() => new Response(body).text(), TypeError);
      await conn.write(bytes("no gzip"));
    });
    assertEquals(await textOf(client), "no gzip");
    client.close();
    await handled;
  });
});
