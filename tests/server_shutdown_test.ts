import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  type Handler,
  type HandlerContext,
  serve,
  type ServeOptions,
  type Server,
  type ShutdownReport,
} from "../handler.ts";
import { listen, Listener } from "../listener.ts";
import type { Conn } from "../net/conn.ts";
import { copy } from "../net/copy.ts";
import { OpError } from "../net/errors.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { inMemory } from "../testing/in_memory.ts";
import { closedInner, FakeConn, FakeListener } from "./fake_listener.ts";
import {
  bytes,
  connect,
  countedSignal,
  listenAnew,
  ownAddr,
  runChild,
  STUCK_MS,
  textOf,
  turn,
} from "./support.ts";

const echo: Handler = async (conn) => {
  for await (const chunk of conn) await conn.write(chunk);
};

/** Settles when the handler is told to end. */
function told({ signal }: HandlerContext): Promise<void> {
  return new Promise((resolve) =>
    signal.addEventListener("abort", () => resolve())
  );
}

/** drained, forced, failed */
function counts(report: ShutdownReport): [number, number, number] {
  return [report.drained, report.forced, report.failed];
}

interface Scene {
  clock: FakeClock;
  server: Server;
  clients: Conn[];
  failures: unknown[];
}

/** A server on its own fake clock, with `count` clients whose handlers run. */
async function scene(
  handler: Handler,
  { count = 1, ...options }: ServeOptions & { count?: number } = {},
): Promise<Scene> {
  const clock = new FakeClock();
  const failures: unknown[] = [];
  const all = Promise.withResolvers<void>();
  let running = 0;
  const server = serve(
    await listen("tcp", "127.0.0.1:0", { clock }),
    (conn, context) => {
      if (++running === count) all.resolve();
      return handler(conn, context);
    },
    { onError: (error) => void failures.push(error), ...options },
  );
  const clients = await Promise.all(
    Array.from({ length: count }, () => connect(server)),
  );
  if (count > 0) await all.promise;
  return { clock, server, clients, failures };
}

Deno.test("shutdown() answers 200 clients in the middle of their requests", async () => {
  const asked = Promise.withResolvers<void>();
  let waiting = 0;
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    async (conn, context) => {
      await conn.read(new Uint8Array(8));
      const stopped = told(context);
      if (++waiting === 200) asked.resolve();
      await stopped;
      await conn.write(new Uint8Array(50_000).fill(1));
    },
  );
  const replies = Array.from({ length: 200 }, async () => {
    using client = await connect(server);
    await client.write(bytes("question"));
    let got = 0;
    for await (const chunk of client) got += chunk.length;
    return got;
  });
  await asked.promise;
  const report = await server.shutdown();
  assertEquals(counts(report), [200, 0, 0]);
  assertEquals(new Set(await Promise.all(replies)), new Set([50_000]));
});

Deno.test(
  "shutdown() ends a copy() with the context's signal, whose client is idle",
  {
    timeout: STUCK_MS,
  },
  async () => {
    const { server, clients: [client] } = await scene(
      (conn, { signal }) => copy(conn, conn, { signal }),
    );
    await client!.write(bytes("hello"));
    assertEquals(await client!.read(new Uint8Array(8)), 5);
    const reporting = server.shutdown(); // by a clock that stands still
    assertEquals(await textOf(client!), "");
    client!.close();
    assertEquals(counts(await reporting), [1, 0, 0]);
  },
);

Deno.test("shutdown() closes by force at its timeout, to the millisecond", {
  timeout: STUCK_MS,
}, async (t) => {
  const stuck: Handler = async (conn) =>
    void await conn.read(new Uint8Array(1));
  const cases: Record<string, [{ timeout?: number }, number]> = {
    "default": [{}, 10_000],
    "1 ms": [{ timeout: 1 }, 1],
    "1 min": [{ timeout: 60_000 }, 60_000],
    "longer than a timer can be": [{ timeout: 2 ** 31 + 5 }, 2 ** 31 + 5],
  };
  for (const [name, [options, expected]] of Object.entries(cases)) {
    await t.step(name, async () => {
      const { clock, server, clients, failures } = await scene(stuck);
      let report: ShutdownReport | undefined;
      const done = server.shutdown(options).then((r) => report = r);
      await clock.advance(expected - 1);
      assertEquals(report, undefined);
      await clock.advance(1);
      assertEquals(await done, {
        drained: 0,
        forced: 1,
        failed: 0,
        durationMs: expected,
      });
      await server.finished;
      assertEquals(clock.timers, []);
      assertEquals(failures, []); // our own shutdown is no failure
      assertEquals(await textOf(clients[0]!), "");
      clients[0]!.close();
    });
  }

  await t.step("0: at once", async () => {
    const { clock, server, clients } = await scene(stuck);
    const report = await server.shutdown({ timeout: 0 });
    assertEquals([...counts(report), report.durationMs], [0, 1, 0, 0]);
    assertEquals(clock.timers, []);
    clients[0]!.close();
  });

  await t.step("Infinity: never", async () => {
    const { clock, server, clients } = await scene(stuck);
    const done = server.shutdown({ timeout: Infinity });
    assertEquals(clock.timers, []);
    await clock.advance(365 * 24 * 3_600_000);
    assertEquals(server.connections.size, 1);
    await clients[0]!.write(bytes("x"));
    clients[0]!.close();
    assertEquals(counts(await done), [1, 0, 0]);
  });
});

Deno.test("a call that the server's own signal aborted is no failure", async (t) => {
  for (const reason of [new Error("deploy"), "deploy", undefined]) {
    await t.step(`${reason}`, async () => {
      const { controller, signal } = countedSignal();
      const { clients, failures, server } = await scene(
        async (conn) => void await conn.read(new Uint8Array(1), { signal }),
        { signal },
      );
      controller.abort(reason);
      clients[0]!.close();
      assertEquals(counts(await server.shutdown()), [1, 0, 0]);
      assertEquals(failures, []);
    });
  }
  await t.step("on a detached connection", async () => {
    const { controller, signal } = countedSignal();
    const { clients, failures, server } = await scene(async (_, context) => {
      using conn = context.detach();
      await conn.read(new Uint8Array(1), { signal });
    }, { signal });
    controller.abort();
    assertEquals(await textOf(clients[0]!), "");
    clients[0]!.close();
    await server.finished;
    assertEquals(failures, []);
  });
  await t.step("as the cause of another error", async () => {
    const { controller, signal } = countedSignal();
    const { clients, server } = await scene(async (conn) => {
      await conn.read(new Uint8Array(1), { signal }).catch((cause) => {
        throw new Error("session over", { cause });
      });
    }, { signal });
    controller.abort(new Error("deploy"));
    clients[0]!.close();
    assertEquals(counts(await server.shutdown()), [1, 0, 0]);
  });
  await t.step("but any other error then is one", async () => {
    const { controller, signal } = countedSignal();
    const { clients, failures, server } = await scene(async (_, context) => {
      await told(context);
      throw new Error("mine");
    }, { signal });
    controller.abort(new Error("deploy"));
    clients[0]!.close();
    assertEquals(counts(await server.shutdown()), [0, 0, 1]);
    assertEquals(failures.map(String), ["Error: mine"]);
  });
});

Deno.test(
  "shutdown() obeys a shorter timeout that is given later, not a longer one",
  { timeout: STUCK_MS },
  async (t) => {
    const stuck: Handler = async (conn) =>
      void await conn.read(new Uint8Array(1));
    const cases: Record<string, { later: number | undefined; end: number }> = {
      "shorter": { later: 500, end: 1_500 },
      "longer": { later: 60_000, end: 10_000 },
      "Infinity": { later: Infinity, end: 10_000 },
      "default": { later: undefined, end: 10_000 },
      "close()": { later: 0, end: 1_000 },
    };
    for (const [name, { later, end }] of Object.entries(cases)) {
      await t.step(name, async () => {
        const { clock, server, clients } = await scene(stuck);
        const first = server.shutdown({ timeout: 10_000 });
        await clock.advance(1_000);
        const second = later === undefined
          ? server.shutdown()
          : later === 0
          ? server.close()
          : server.shutdown({ timeout: later });
        await clock.advance(end - 1_000);
        const report = await first;
        assertEquals(report.durationMs, end);
        assertEquals(report.forced, 1);
        assertStrictEquals(await second, report);
        assertStrictEquals(await server.close(), report); // and from then on
        assertStrictEquals(await server.shutdown(), report);
        assertEquals(clock.timers, []);
        clients[0]!.close();
      });
    }
  },
);

Deno.test("shutdown() rejects an invalid timeout, and the server goes on", async () => {
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo);
  await assertRejects(() => server.shutdown({ timeout: NaN }), RangeError);
  await assertRejects(() => server.shutdown({ timeout: -1 }), RangeError);
  await assertRejects(
    () => server.shutdown({ timeout: "1" as unknown as number }),
    TypeError,
  );
  const client = await connect(server);
  await client.write(bytes("x"));
  assertEquals(await client.read(new Uint8Array(1)), 1);
  client.close();
  await server.shutdown({ timeout: Infinity });
});

Deno.test("shutdown() counts what became of each connection", {
  timeout: STUCK_MS,
}, async () => {
  const ends: Handler[] = [
    (_conn, context) => told(context), // drained
    async (_conn, context) => {
      await told(context);
      throw context.signal.reason; // drained: we have told it to end
    },
    async (_conn, context) => {
      await told(context);
      // As Node's timers reject, wrapped by a caller that adds context.
      const cause = new Error("aborted", { cause: context.signal.reason });
      throw new Error("request 7", { cause });
    },
    async (conn, context) => {
      context.signal.addEventListener("abort", () => conn.close());
      await conn.read(new Uint8Array(1)); // drained: it reacts to the signal
    },
    async (_conn, context) => {
      await told(context);
      context.detach().close(); // drained
    },
    async (_conn, context) => {
      await told(context);
      throw new Error("could not save"); // failed
    },
    async (_conn, context) => {
      context.signal.addEventListener("abort", () => {});
      await new Promise(() => {}); // forced
    },
    async (conn) => void await conn.read(new Uint8Array(1)), // drained: EOF
  ];
  let n = 0;
  const { clock, server, clients, failures } = await scene(
    (conn, context) => ends[n++]!(conn, context),
    { count: ends.length },
  );
  const done = server.shutdown({ timeout: 5_000 });
  for (const client of clients) await client.closeWrite().catch(() => {});
  // All but the one that waits for ever.
  while (server.connections.size > 1) await turn();
  await clock.advance(5_000);
  const report = await done;
  assertEquals(counts(report), [6, 1, 1]);
  assertEquals(report.durationMs, 5_000);
  assertEquals(
    failures.map((error) => (error as Error).message),
    ["could not save"],
  );
  for (const client of clients) client.close();
});

Deno.test("shutdown() gives each handler's signal its reason, even one read later", async () => {
  const reasons: unknown[] = [];
  const gate = Promise.withResolvers<void>();
  const { server, clients } = await scene(async (_conn, context) => {
    if (reasons.push(null) === 1) await told(context);
    else await gate.promise; // has not looked at its signal yet
    assert(context.signal.aborted);
    reasons.push(context.signal.reason);
    assertStrictEquals(context.signal, context.signal);
  }, { count: 2 });
  const done = server.shutdown();
  gate.resolve();
  for (const client of clients) client.close();
  assertEquals(counts(await done), [2, 0, 0]);
  const [one, two] = reasons.slice(2);
  assertStrictEquals(one, two);
  assertInstanceOf(one, DOMException);
  assertEquals([one.name, one.message], [
    "AbortError",
    "the server shuts down",
  ]);
});

Deno.test(
  "shutdown() does not abort a signal after the handler's end",
  inMemory(async ({ clock, net }) => {
    const reply = new Uint8Array(256 * 1024);
    const signals: AbortSignal[] = [];
    const server = serve(
      await net.listen("tcp", "10.0.0.1:80"),
      (conn, { signal }) => {
        signals.push(signal);
        signal.addEventListener("abort", () => conn.close());
        conn.write(reply); // not awaited: the close does it
      },
    );
    const client = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    const reporting = server.shutdown();
    let got = 0;
    for await (const chunk of client) got += chunk.length;
    assertEquals(got, reply.length);
    client.close();
    assertEquals(counts(await reporting), [1, 0, 0]);
    assertEquals(signals.map(({ aborted }) => aborted), [false]);
  }),
);

Deno.test(
  "close() from a handler that goes on has ended after one advance(0) of a fake clock",
  inMemory(async ({ clock, net }) => {
    const release = Promise.withResolvers<void>();
    const reported: number[][] = [];
    const server = serve(await net.listen("tcp", ":80"), async (conn) => {
      await conn.read(new Uint8Array(1));
      server.close().then((report) => reported.push(counts(report)));
      await release.promise;
    });
    using client = await net.dial("tcp", "10.0.0.1:80");
    client.write(bytes("x")); // arrives when advance() has begun its turn
    await clock.advance(0);
    assertEquals(reported, [[0, 1, 0]]);
    release.resolve();
    await server.finished;
  }),
);

Deno.test("shutdown() stops accepting before it aborts the handlers' signals", async () => {
  const fake = new FakeListener();
  const heard = Promise.withResolvers<string[]>();
  const server = serve(new Listener(fake.inner), async (_conn, { signal }) => {
    signal.addEventListener("abort", () => heard.resolve([...fake.calls]));
    await heard.promise;
  });
  await fake.settle(new FakeConn());
  const done = server.shutdown();
  assertEquals(await heard.promise, ["close"]);
  await fake.settle(closedInner);
  await done;
});

Deno.test("shutdown() and close() may be called from handlers and callbacks", async (t) => {
  await t.step("by a handler's abort listener", async () => {
    const reports: Promise<ShutdownReport>[] = [];
    const { clock, server, clients } = await scene(async (conn, { signal }) => {
      signal.addEventListener("abort", () => {
        reports.push(server.shutdown({ timeout: Infinity }));
      });
      await conn.read(new Uint8Array(1));
    }, { count: 2 });
    const first = server.shutdown({ timeout: 100 });
    await clock.advance(100);
    const report = await first;
    assertEquals(counts(report), [0, 2, 0]);
    for (const other of reports) assertStrictEquals(await other, report);
    assertEquals(reports.length, 2);
    for (const client of clients) client.close();
  });

  await t.step("by a handler, at once", async () => {
    const report = Promise.withResolvers<ShutdownReport>();
    const server = serve(
      await listen("tcp", "127.0.0.1:0"),
      () => void server.shutdown().then(report.resolve),
    );
    const client = await connect(server);
    assertEquals(await textOf(client), "");
    client.close();
    assertEquals(counts(await report.promise), [1, 0, 0]);
    await server.finished;
  });

  await t.step("by a handler that awaits it: until the timeout", async () => {
    const began = Promise.withResolvers<void>();
    const { clock, server, clients } = await scene(async (conn) => {
      await conn.read(new Uint8Array(1));
      began.resolve();
      await server.shutdown({ timeout: 100 });
    });
    await clients[0]!.write(bytes("q"));
    await began.promise;
    await clock.advance(99);
    assertEquals(server.connections.size, 1);
    await clock.advance(1);
    assertEquals(counts(await server.shutdown()), [0, 1, 0]);
    await server.finished;
    for (const client of clients) client.close();
  });

  await t.step("by onError", async () => {
    const report = Promise.withResolvers<ShutdownReport>();
    const server = serve(
      await listen("tcp", "127.0.0.1:0"),
      () => Promise.reject(new Error("boom")),
      { onError: () => void server.close().then(report.resolve) },
    );
    const client = await connect(server);
    assertEquals(await textOf(client), "");
    client.close();
    assertEquals(counts(await report.promise), [0, 1, 0]);
  });

  await t.step("by the inner listener's close()", async () => {
    const fake = new FakeListener();
    const server = serve(
      new Listener(fake.inner),
      () => new Promise(() => {}),
    );
    await fake.settle(new FakeConn());
    fake.close = () => void server.close();
    const done = server.shutdown({ timeout: Infinity });
    await fake.settle(closedInner);
    assertEquals(counts(await done), [0, 1, 0]);
  });
});

Deno.test("shutdown() by force lets a handler whose call fails clean up before the report", async () => {
  const order: string[] = [];
  const { clock, server, clients } = await scene(async (conn) => {
    try {
      await conn.read(new Uint8Array(1));
    } finally {
      for (let jobs = 0; jobs < 100; jobs++) await Promise.resolve();
      order.push("clean");
    }
  });
  const done = server.shutdown({ timeout: 1_000 });
  const reported = done.then(() => void order.push("reported"));
  await clock.advance(1_000);
  await reported;
  assertEquals(order, ["clean", "reported"]);
  assertEquals(counts(await done), [0, 1, 0]);
  clients[0]!.close();
});

Deno.test("shutdown() does not wait for a handler that goes on after a forced close", async (t) => {
  const late: Record<string, { end: (conn: Conn) => unknown; told: number }> = {
    "returns": { end: () => {}, told: 0 },
    "uses the closed connection": {
      end: (conn) => conn.write(bytes("x")),
      told: 0,
    },
    "wraps the error of that": {
      end: (conn) =>
        conn.write(bytes("x")).catch((cause) => {
          throw new Error("could not answer", { cause });
        }),
      told: 0,
    },
    "fails for another reason": {
      end: () => Promise.reject(new Error("a bug")),
      told: 1,
    },
  };
  for (const [name, { end, told }] of Object.entries(late)) {
    await t.step(name, async () => {
      const gate = Promise.withResolvers<void>();
      const { controller, signal, listeners } = countedSignal();
      const { server, clients, failures } = await scene(async (conn) => {
        await gate.promise;
        await end(conn);
      }, { signal });
      assertEquals(listeners(), 1);
      const report = await server.close();
      assertEquals(counts(report), [0, 1, 0]);
      let finished = false;
      server.finished.then(() => finished = true);
      await turn();
      assertEquals(finished, false);
      assertEquals(server.connections.size, 1); // its handler still runs
      assertEquals(listeners(), 0); // nothing is left to hurry
      gate.resolve();
      await server.finished;
      await turn();
      assertEquals(failures.length, told);
      assertEquals(counts(report), [0, 1, 0]); // a report does not change
      assertStrictEquals(await server.shutdown(), report);
      controller.abort();
      clients[0]!.close();
    });
  }
});

Deno.test(
  "shutdown() cuts a lingering close short",
  { timeout: STUCK_MS },
  async () => {
    const { clock, server, clients } = await scene(() => {});
    const [client] = clients as [Conn]; // never closes by itself
    assertEquals(await textOf(client), "");
    const done = server.shutdown({ timeout: 10 });
    await clock.advance(9);
    assertEquals(server.connections.size, 1);
    await clock.advance(1);
    assertEquals(counts(await done), [0, 1, 0]);
    await server.finished;
    assertEquals(clock.timers, []);
    client.close();
  },
);

Deno.test("shutdown() does not count a connection that was detached before", async () => {
  const { server, clients } = await scene((conn, context) => {
    context.detach();
    return conn.write(bytes("mine")).then(() => conn.close());
  });
  assertEquals(counts(await server.shutdown()), [0, 0, 0]);
  assertEquals(await textOf(clients[0]!), "mine");
  clients[0]!.close();
});

Deno.test("detach() at the very moment of a shutdown: the signal is not aborted", async () => {
  const fake = new FakeListener();
  let aborted = 0;
  const server = serve(new Listener(fake.inner), (_conn, context) => {
    context.signal.addEventListener("abort", () => aborted++);
    context.detach();
  });
  const settling = fake.settle(new FakeConn());
  await server.shutdown();
  await settling;
  assertEquals(aborted, 0);
});

Deno.test("detach() by another handler as a shutdown begins: the signal is not aborted", async () => {
  const contexts: HandlerContext[] = [];
  let aborted = 0;
  const { server, clients } = await scene((_conn, context) => {
    contexts.push(context);
    context.signal.addEventListener("abort", () => {
      aborted++;
      for (const other of contexts) other.detach().close();
    });
    return new Promise(() => {});
  }, { count: 2 });
  await server.shutdown();
  assertEquals(aborted, 1);
  for (const client of clients) client.close();
});

Deno.test("detach() during a shutdown saves the connection from a forced close", async () => {
  const kept = Promise.withResolvers<Conn>();
  const { server, clients } = await scene(async (_conn, context) => {
    await told(context);
    kept.resolve(context.detach());
    await new Promise(() => {}); // goes on with it, for ever
  });
  const report = await server.shutdown();
  assertEquals(counts(report), [1, 0, 0]);
  await server.close();
  const conn = await kept.promise;
  await conn.write(bytes("still open"));
  conn.close();
  assertEquals(await textOf(clients[0]!), "still open");
  clients[0]!.close();
});

Deno.test(
  "shutdown() while paused closes waiting clients",
  { timeout: STUCK_MS },
  async (t) => {
    for (const when of ["before", "while the accept is under way"]) {
      await t.step(`paused ${when}`, async () => {
        const server = serve(await listen("tcp", "127.0.0.1:0"), echo);
        if (when !== "before") await turn();
        server.pause();
        const client = await connect(server);
        for (let i = 0; i < 5; i++) await turn();
        assertEquals(counts(await server.shutdown()), [0, 0, 0]);
        await server.finished;
        const end = await client.read(new Uint8Array(1)).catch((e) => e);
        // ECONNRESET if it was still in the kernel's queue.
        assert(end === null || end instanceof OpError, `${end}`);
        client.close();
      });
    }
  },
);

Deno.test("shutdown() after pause() drains the running handlers", {
  timeout: STUCK_MS,
}, async () => {
  const { server, clients } = await scene(async (conn, context) => {
    await told(context);
    await conn.write(bytes("bye"));
  });
  server.pause();
  const done = server.shutdown();
  server.resume(); // too late to accept anybody
  assertEquals(await textOf(clients[0]!), "bye");
  clients[0]!.close();
  assertEquals(counts(await done), [1, 0, 0]);
  await server.finished;
});

Deno.test("shutdown() at the limit closes clients that wait in the queue", {
  timeout: STUCK_MS,
}, async () => {
  const { server, clients } = await scene((_conn, context) => told(context), {
    maxConnections: 1,
  });
  const waiting = await connect(server);
  const done = server.shutdown();
  clients[0]!.close();
  assertEquals(counts(await done), [1, 0, 0]);
  const end = await waiting.read(new Uint8Array(1)).catch((e) => e);
  assert(end === null || end instanceof OpError, `${end}`);
  waiting.close();
});

Deno.test("close() at the very moment of an accept leaves nothing open", async () => {
  for (let ticks = 0; ticks < 12; ticks++) {
    const accepted = Promise.withResolvers<Deno.Conn>();
    const rest = Promise.withResolvers<Deno.Conn>();
    rest.promise.catch(() => {}); // perhaps nobody awaits it
    let accepts = 0;
    let closes = 0;
    const addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };
    const conn = {
      localAddr: addr,
      remoteAddr: addr,
      read: () => new Promise(() => {}),
      close: () => void closes++,
      closeWrite: () => Promise.resolve(),
    } as unknown as Deno.Conn;
    const inner = {
      addr,
      accept: () => accepts++ === 0 ? accepted.promise : rest.promise,
      close: () => rest.reject(new Deno.errors.BadResource("closed")),
    } as unknown as Deno.Listener;
    let runs = 0;
    const server = serve(new Listener(inner), async (conn) => {
      runs++;
      await conn.read(new Uint8Array(1));
    });
    accepted.resolve(conn);
    for (let i = 0; i < ticks; i++) await Promise.resolve();
    const { drained, forced, failed } = await server.close();
    await server.finished;
    assertEquals([closes, failed], [1, 0], `after ${ticks} ticks`);
    await turn();
    assertEquals(
      drained + forced,
      runs,
      "every connection that was served is counted",
    );
    assertEquals(server.connections.size, 0);
  }
});

Deno.test("shutdown() at the very moment of an accept serves the new client", {
  timeout: STUCK_MS,
}, async (t) => {
  for (let ticks = 0; ticks < 12; ticks++) {
    await t.step(`after ${ticks} ticks`, async () => {
      const report = Promise.withResolvers<ShutdownReport>();
      const begun = Promise.withResolvers<void>();
      const shutDown = async () => {
        for (let i = 0; i < ticks; i++) await Promise.resolve();
        report.resolve(server.shutdown());
        begun.resolve();
      };
      const real = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const inner = {
        addr: real.addr,
        accept: async () => {
          const conn = await real.accept();
          shutDown();
          return conn;
        },
        close: () => real.close(),
        ref: () => {},
        unref: () => {},
      } as unknown as Deno.Listener;
      const order: string[] = [];
      const server = serve(new Listener(inner), async (conn, { signal }) => {
        await conn.read(new Uint8Array(8));
        await conn.write(bytes(signal.aborted ? "the last" : "too early"));
        order.push("handler");
      });
      server.finished.then(() => order.push("server"));
      const client = await connect(server);
      await begun.promise; // else it might be served before
      await client.write(bytes("request"));
      assertEquals(await textOf(client), "the last");
      client.close();
      assertEquals(counts(await report.promise), [1, 0, 0]);
      await server.finished;
      assertEquals(order, ["handler", "server"]);
    });
  }
});

Deno.test("serve() of a listener that has a server takes no client from it", async () => {
  const fake = new FakeListener();
  const listener = new Listener(fake.inner);
  const served: string[] = [];
  const serveAs = (name: string) =>
    serve(listener, () => void served.push(name), { onError: () => {} });
  const server = serveAs("first");
  assertThrows(() => serveAs("second"), TypeError);
  const done = server.shutdown();
  await fake.settle(new FakeConn()); // accepted at that very moment
  await done;
  assertEquals(served, ["first"]);
});

Deno.test("shutdown() by force closes a connection accepted as it began", {
  timeout: STUCK_MS,
}, async () => {
  const fake = new FakeListener();
  const clock = new FakeClock();
  const conn = new FakeConn();
  const server = serve(
    new Listener(fake.inner, { clock }),
    () => new Promise(() => {}),
  );
  const report = server.shutdown({ timeout: 1_000 });
  await fake.settle(conn);
  assertEquals(server.connections.size, 1);
  await clock.advance(1_000);
  assertEquals(counts(await report), [0, 1, 0]);
  assertEquals(conn.calls.at(-1), "close");
  assertEquals(clock.timers, []);
});

Deno.test(
  "a client accepted as the listener is closed is served, unless paused",
  {
    timeout: STUCK_MS,
  },
  async () => {
    for (const paused of [false, true]) {
      const fake = new FakeListener();
      const listener = new Listener(fake.inner);
      const conn = new FakeConn();
      const ending = Promise.withResolvers<void>();
      const server = serve(listener, async (_conn, { detach }) => {
        detach();
        await ending.promise;
      });
      if (paused) server.pause();
      let runs = true;
      server.finished.then(() => runs = false);
      const closed = listener.close();
      assertEquals([server.connections.size, runs], [0, true], "not yet");
      await fake.settle(conn);
      await closed;
      await server.finished;
      const end = paused ? ["close"] : [];
      assertEquals(conn.calls.filter((call) => call === "close"), end);
      ending.resolve();
    }
  },
);

Deno.test("shutdown() still closes by force if the listener cannot be closed", async () => {
  const cause = new Error("will not close");
  const clock = new FakeClock();
  const fake = new FakeListener(cause);
  const server = serve(
    new Listener(fake.inner, { clock }),
    () => new Promise(() => {}),
  );
  const conn = new FakeConn();
  await fake.settle(conn);
  let error: unknown;
  const done = server.shutdown({ timeout: 10 }).catch((e) => error = e);
  await clock.advance(9);
  assertEquals(error, undefined, "handlers still get their time");
  await clock.advance(1);
  await done;
  assertStrictEquals(error, cause);
  assertEquals(conn.calls.at(-1), "close");
  assertEquals(clock.pending, 0);
});

Deno.test("shutdown() closes all by force although one cannot be closed", async () => {
  const clock = new FakeClock();
  const fake = new FakeListener();
  const failures: unknown[] = [];
  const server = serve(
    new Listener(fake.inner, { clock }),
    () => new Promise(() => {}),
    { onError: (error) => void failures.push(error) },
  );
  const [odd, good] = [new FakeConn(), new FakeConn()];
  const cause = new Error("will not close");
  odd.close = () => {
    throw cause;
  };
  await fake.settle(odd);
  await fake.settle(good);
  const done = server.shutdown({ timeout: 10 });
  await fake.settle(closedInner);
  await clock.advance(10);
  assertEquals(counts(await done), [0, 2, 0]);
  assertEquals(good.calls.at(-1), "close");
  assertEquals(failures, [cause]);
});

Deno.test("a client of a listener that cannot be closed is not served after the end", async () => {
  const fake = new FakeListener(new Error("will not close"));
  let served = 0;
  const server = serve(new Listener(fake.inner), () => void served++);
  await server.shutdown().catch(() => {});
  await server.finished;
  const conn = new FakeConn();
  await fake.settle(conn);
  assertEquals([served, conn.calls.at(-1)], [0, "close"]);
});

Deno.test("shutdown() keeps the process alive until its end", async () => {
  const { stdout } = await runChild(
    `
    import { dial, listen, serve } from "./mod.ts";
    const begun = Promise.withResolvers();
    const server = serve(await listen("tcp", "127.0.0.1:0"), () => {
      begun.resolve();
      return new Promise(() => {});
    });
    await dial("tcp", String(server.addr));
    await begun.promise;
    server.shutdown({ timeout: 100 }).then(({ forced }) => console.log(forced));
    `,
    { flags: ["--allow-net=127.0.0.1"] },
  );
  assertEquals(stdout, "1\n");
});

Deno.test("shutdown() with nothing to wait for sets no timer", async () => {
  const { clock, server } = await scene(echo, { count: 0 });
  const report = server.shutdown();
  assertEquals(clock.timers, []); // the first one of a process takes 20 ms
  await report;
  await server.shutdown({ timeout: 5 });
  assertEquals(clock.timers, []);
});

Deno.test(
  "shutdown() gives one report, even to a call by the listener's close()",
  {
    timeout: STUCK_MS,
  },
  async () => {
    const inner = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const close = inner.close.bind(inner);
    const reports: Promise<ShutdownReport>[] = [];
    inner.close = () => {
      reports.push(server.shutdown());
      close();
    };
    const server = serve(new Listener(inner), echo);
    using client = await connect(server);
    await client.write(bytes("x"));
    await client.read(new Uint8Array(1));
    reports.push(server.shutdown({ timeout: 1 }));
    const [first, second] = await Promise.all(reports);
    assertEquals(counts(first!), [0, 1, 0]);
    assertEquals(second, first);
  },
);

Deno.test("shutdown() frees the port", async () => {
  const { hostname, port } = ownAddr(20_003);
  const server = serve(await listen("tcp", `${hostname}:${port}`), echo);
  await server.shutdown();
  const again = await listenAnew(() => listen("tcp", String(server.addr)));
  await again.close();
});

Deno.test("serve() shuts down when its signal aborts", async (t) => {
  await t.step("while it serves", async () => {
    const { controller, signal, listeners } = countedSignal();
    const { server, clients } = await scene(echo, { signal });
    controller.abort();
    clients[0]!.close();
    await server.finished;
    assertEquals(listeners(), 0);
    assertEquals(counts(await server.shutdown()), [1, 0, 0]);
  });
  await t.step("with the default timeout", async () => {
    const { controller, signal } = countedSignal();
    const { clock, server, clients } = await scene(echo, { signal });
    controller.abort();
    await clock.advance(9_999);
    assertEquals(server.connections.size, 1);
    await clock.advance(1);
    await server.finished;
    assertEquals(counts(await server.shutdown()), [0, 1, 0]);
    clients[0]!.close();
  });
  await t.step("which hurries a longer one", async () => {
    const { controller, signal } = countedSignal();
    const { clock, server, clients } = await scene(echo, { signal });
    const shutdown = server.shutdown({ timeout: 60_000 });
    await clock.advance(1_000);
    controller.abort();
    await clock.advance(10_000);
    assertEquals((await shutdown).durationMs, 11_000);
    clients[0]!.close();
  });
  await t.step("aborted before serve()", async () => {
    const { controller, signal, listeners } = countedSignal();
    controller.abort();
    const listener = await listen("tcp", "127.0.0.1:0");
    const server = serve(listener, echo, { signal });
    await server.finished;
    assertEquals(listeners(), 0);
    await assertRejects(() => listener.accept(), OpError, "closed");
    assertEquals(counts(await server.shutdown()), [0, 0, 0]);
  });
  await t.step("though its listener cannot be closed", async () => {
    const cause = new Error("will not close");
    const fake = new FakeListener(cause);
    const errors: unknown[] = [];
    const controller = new AbortController();
    const server = serve(new Listener(fake.inner), echo, {
      signal: controller.signal,
      onError: (error) => void errors.push(error),
    });
    controller.abort();
    await fake.settle(closedInner);
    await server.finished;
    await turn();
    assertEquals(errors, [cause]);
  });
  await t.step("after the shutdown: no listener is left on it", async () => {
    const { controller, signal, listeners } = countedSignal();
    const { server } = await scene(echo, { signal, count: 0 });
    assertEquals(listeners(), 1);
    await server.shutdown();
    await server.finished;
    assertEquals(listeners(), 0);
    controller.abort();
  });
});

Deno.test("await using drains a server", async () => {
  const started = Promise.withResolvers<void>();
  let client: Conn;
  {
    await using server = serve(
      await listen("tcp", "127.0.0.1:0"),
      async (conn, context) => {
        const stopped = told(context);
        started.resolve();
        await stopped;
        await conn.write(bytes("goodbye"));
      },
    );
    client = await connect(server);
    await client.closeWrite();
    await started.promise;
  }
  assertEquals(await textOf(client), "goodbye");
  client.close();
});
