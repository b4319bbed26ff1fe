import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { handle, type Handler, serve, type ServeOptions } from "../handler.ts";
import { listen, Listener } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { isClosed, isTimeout, OpError } from "../net/errors.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const textOf = (conn: Conn) => new Response(conn.readable).text();

/** A client of a listener, made with the platform's own dialer. */
async function connect(listener: { addr: Deno.Addr }): Promise<Conn> {
  const { hostname, port } = listener.addr as Deno.NetAddr;
  return new Conn(await Deno.connect({ hostname, port }));
}

async function pair(): Promise<[Conn, Conn]> {
  await using listener = await listen("tcp", "127.0.0.1:0");
  return await Promise.all([connect(listener), listener.accept()]);
}

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

const echo: Handler = async (conn) => {
  for await (const chunk of conn) await conn.write(chunk);
};

Deno.test("handle() closes exactly once, however the handler ends", async (t) => {
  const boom = new Error("boom");
  const cases: Record<string, { handler: Handler; error?: Error }> = {
    "returns at once": { handler: () => {} },
    "resolves": { handler: () => Promise.resolve() },
    "throws": {
      handler: () => {
        throw boom;
      },
      error: boom,
    },
    "rejects": { handler: () => Promise.reject(boom), error: boom },
    "closes itself": { handler: (conn) => conn.close() },
    "closes twice": {
      handler: (conn) => {
        conn.close();
        conn.close();
      },
    },
    "half-closes": { handler: (conn) => conn.closeWrite() },
  };
  for (const [name, { handler, error }] of Object.entries(cases)) {
    await t.step(name, async () => {
      const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const [client, accepted] = await Promise.all([
        connect(listener),
        listener.accept(),
      ]);
      listener.close();
      const { inner, closes } = counted(accepted);
      await client.closeWrite();
      const handled = handle(new Conn(inner), handler);
      if (error) {
        assertStrictEquals(await handled.catch((e) => e), error);
      } else await handled;
      assertEquals(closes(), 1);
      assertEquals(await textOf(client), "");
      client.close();
    });
  }
});

Deno.test("handle() delivers all that was written although input is unread", async () => {
  const [client, server] = await pair();
  const reply = new Uint8Array(1024 * 1024).fill(7);
  await client.write(new Uint8Array(64 * 1024)); // nobody reads this
  const handled = handle(server, async (conn) => {
    await conn.write(reply);
  });
  let got = 0;
  for await (const chunk of client) got += chunk.length;
  client.close();
  await handled;
  assertEquals(got, reply.length);
});

Deno.test("handle() rejects a handler that is none, and keeps the connection", async () => {
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

Deno.test("handle() with a signal", async (t) => {
  await t.step("aborted before: closes, runs nothing", async () => {
    const [client, server] = await pair();
    const reason = new Error("too late");
    let ran = false;
    const error = await handle(server, () => void (ran = true), {
      signal: AbortSignal.abort(reason),
    }).catch((e) => e);
    assertStrictEquals(error, reason);
    assertEquals(ran, false);
    assertEquals(await textOf(client), "");
    client.close();
  });

  await t.step("aborted while it runs: fires, closes, rejects", async () => {
    const [client, server] = await pair();
    const aborter = new AbortController();
    const seen = Promise.withResolvers<unknown>();
    const handled = handle(server, async (conn, { signal }) => {
      try {
        await conn.read(new Uint8Array(1));
      } catch (error) {
        seen.resolve([signal.reason, isClosed(error)]);
        throw error;
      }
    }, { signal: aborter.signal });
    const reason = new Error("stop");
    aborter.abort(reason);
    assertStrictEquals(await handled.catch((e) => e), reason);
    assertEquals(await seen.promise, [reason, true]);
    client.close();
  });

  await t.step("aborted after: no effect, no listener left", async () => {
    const [client, server] = await pair();
    const aborter = new AbortController();
    let listeners = 0;
    const { signal } = aborter;
    const add = signal.addEventListener, remove = signal.removeEventListener;
    signal.addEventListener = (...args: unknown[]) => {
      listeners++;
      return Reflect.apply(add, signal, args);
    };
    signal.removeEventListener = (...args: unknown[]) => {
      listeners--;
      return Reflect.apply(remove, signal, args);
    };
    client.close();
    await handle(server, echo, { signal });
    assertEquals(listeners, 0);
    aborter.abort();
  });
});

Deno.test("detach() hands the connection over and out of the count", async () => {
  const detached = Promise.withResolvers<Conn>();
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    (_conn, context) => detached.resolve(context.detach()),
    { maxConnections: 1 },
  );
  const first = await connect(server);
  const conn = await detached.promise;
  assertEquals(server.connections.size, 0);
  const { drained, forced } = await server.shutdown();
  assertEquals([drained, forced], [0, 0]);
  await conn.write(bytes("mine"));
  conn.close();
  assertEquals(await textOf(first), "mine");
  first.close();
});

Deno.test("serve() checks its arguments before it accepts", async (t) => {
  await using listener = await listen("tcp", "127.0.0.1:0");
  const cases: [string, ServeOptions, typeof TypeError | typeof RangeError][] =
    [
      ["maxConnections 0", { maxConnections: 0 }, RangeError],
      ["maxConnections 1.5", { maxConnections: 1.5 }, RangeError],
      ["maxConnections NaN", { maxConnections: NaN }, RangeError],
      [
        "maxConnections a string",
        { maxConnections: "1" as unknown as number },
        TypeError,
      ],
      ["maxConnectionsPerHost -1", { maxConnectionsPerHost: -1 }, RangeError],
      ["idleTimeout 0", { idleTimeout: 0 }, RangeError],
      ["idleTimeout NaN", { idleTimeout: NaN }, RangeError],
    ];
  for (const [name, options, type] of cases) {
    await t.step(name, () => {
      assertThrows(() => serve(listener, echo, options), type);
    });
  }
  await t.step("no handler", () => {
    assertThrows(() => serve(listener, undefined as never), TypeError);
  });
});

Deno.test("serve() isolates handlers that fail in every way", async () => {
  const errors: unknown[] = [];
  const all = Promise.withResolvers<void>();
  const ways: Handler[] = [
    () => {
      throw new Error("sync");
    },
    () => Promise.reject(new Error("async")),
    () => {
      throw null;
    },
    (conn) => {
      conn.close();
      return conn.write(bytes("x")).then(() => {});
    },
    echo,
  ];
  let n = 0;
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    (conn, context) => ways[n++]!(conn, context),
    {
      onError: (error) => {
        errors.push(error);
        if (errors.length === 4) all.resolve();
      },
    },
  );
  for (let i = 0; i < 4; i++) {
    const client = await connect(server);
    await client.closeWrite();
    assertEquals(await textOf(client), "");
    client.close();
  }
  const client = await connect(server);
  await client.write(bytes("fine"));
  await client.closeWrite();
  assertEquals(await textOf(client), "fine");
  client.close();
  await all.promise;
  assertEquals(
    errors.map((e) => e instanceof OpError ? "closed" : (e as Error)?.message),
    ["sync", "async", undefined, "closed"],
  );
  await server.shutdown();
});

Deno.test("serve() survives an onError that throws or rejects", async (t) => {
  const ways: Record<string, () => void | Promise<void>> = {
    throws: () => {
      throw new Error("onError threw");
    },
    rejects: () => Promise.reject(new Error("onError rejected")),
  };
  for (const [name, onError] of Object.entries(ways)) {
    await t.step(name, async () => {
      const printed = Promise.withResolvers<unknown[]>();
      const original = console.error;
      console.error = (...args) => printed.resolve(args);
      try {
        await using server = serve(
          await listen("tcp", "127.0.0.1:0"),
          () => Promise.reject(new Error("handler")),
          { onError },
        );
        using client = await connect(server);
        await client.closeWrite();
        assertStringIncludes(String(await printed.promise), "onError");
      } finally {
        console.error = original;
      }
    });
  }
});

Deno.test("serve() prints failures with the peer's address by default", async () => {
  const printed = Promise.withResolvers<unknown[]>();
  const original = console.error;
  console.error = (...args) => printed.resolve(args);
  try {
    await using server = serve(
      await listen("tcp", "127.0.0.1:0"),
      () => Promise.reject(new Error("handler")),
    );
    using client = await connect(server);
    await client.closeWrite();
    const [text, error] = await printed.promise;
    assertStringIncludes(String(text), String(client.localAddr));
    assertInstanceOf(error, Error);
  } finally {
    console.error = original;
  }
});

Deno.test("maxConnections is never exceeded, and all are served in the end", async () => {
  const limit = 5;
  let running = 0, most = 0;
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    async (conn) => {
      most = Math.max(most, ++running);
      assert(server.connections.size <= limit);
      await conn.read(new Uint8Array(1));
      await conn.write(bytes("served"));
      running--;
    },
    { maxConnections: limit },
  );
  const clients = await Promise.all(
    Array.from({ length: 60 }, () => connect(server)),
  );
  const replies = await Promise.all(clients.map(async (client) => {
    await client.write(bytes("x"));
    await client.closeWrite();
    const text = await textOf(client);
    client.close();
    return text;
  }));
  assertEquals(new Set(replies), new Set(["served"]));
  assertEquals(most, limit);
  await server.shutdown();
});

Deno.test("maxConnectionsPerHost closes one more at once and reports it", async () => {
  const reported = Promise.withResolvers<[unknown, Conn | undefined]>();
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo, {
    maxConnectionsPerHost: 2,
    onError: (error, conn) => reported.resolve([error, conn]),
  });
  const [a, b] = [await connect(server), await connect(server)];
  await a.write(bytes("a"));
  assertEquals(await a.read(new Uint8Array(1)), 1);
  await b.write(bytes("b"));
  assertEquals(await b.read(new Uint8Array(1)), 1);
  const c = await connect(server);
  assertEquals(await textOf(c), "");
  const [error, conn] = await reported.promise;
  assertInstanceOf(error, OpError);
  assertStringIncludes(error.message, "more than 2 connections from 127.0.0.1");
  assertEquals(String(conn!.remoteAddr), String(c.localAddr));
  c.close();
  // A place that is given back can be taken again.
  a.close();
  while (server.connections.size > 1) await server_turn();
  const d = await connect(server);
  await d.write(bytes("d"));
  assertEquals(await d.read(new Uint8Array(1)), 1);
  for (const client of [b, d]) client.close();
  await server.shutdown();
});

/** Lets the event loop turn once. */
function server_turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

Deno.test("pause() keeps clients waiting, resume() serves them", async () => {
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo);
  server.pause();
  server.pause();
  const client = await connect(server);
  await client.write(bytes("hello"));
  await client.closeWrite();
  client.setReadDeadline(Date.now() + 50);
  const error = await client.read(new Uint8Array(5)).catch((e) => e);
  assert(isTimeout(error));
  assertEquals(server.connections.size, 0);
  client.setReadDeadline(null);
  server.resume();
  assertEquals(await textOf(client), "hello");
  client.close();
  await server.shutdown();
});

Deno.test("shutdown() while paused closes who waits", async () => {
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo);
  server.pause();
  const client = await connect(server);
  const report = await server.shutdown();
  assertEquals(report.drained + report.forced + report.failed, 0);
  await server.finished;
  await client.read(new Uint8Array(1)).catch((e) =>
    assertInstanceOf(e, OpError)
  );
  client.close();
});

Deno.test("shutdown() answers 200 clients in the middle of their requests", async () => {
  const asked = Promise.withResolvers<void>();
  let waiting = 0;
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    async (conn, { signal }) => {
      await conn.read(new Uint8Array(8));
      const stopped = new Promise((resolve) =>
        signal.addEventListener("abort", resolve)
      );
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
  const { drained, forced, failed, durationMs } = await server.shutdown();
  assertEquals({ drained, forced, failed }, {
    drained: 200,
    forced: 0,
    failed: 0,
  });
  assert(durationMs >= 0);
  assertEquals(new Set(await Promise.all(replies)), new Set([50_000]));
});

Deno.test("shutdown() forces a handler that ignores its signal", async () => {
  const started = Promise.withResolvers<void>();
  const reasons: unknown[] = [];
  const errors: unknown[] = [];
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    async (conn, { signal }) => {
      started.resolve();
      try {
        await conn.read(new Uint8Array(1));
      } finally {
        reasons.push((signal.reason as Error).name);
      }
    },
    { onError: (error) => void errors.push(error) },
  );
  const client = await connect(server);
  await started.promise;
  const first = server.shutdown({ timeout: 60_000 });
  const second = server.shutdown({ timeout: 20 }); // the shorter one wins
  const report = await second;
  assertStrictEquals(await first, report);
  assertStrictEquals(await server.close(), report);
  assertEquals([report.drained, report.forced, report.failed], [0, 1, 0]);
  await server.finished;
  assertEquals(reasons, ["AbortError"]);
  assertEquals(errors, []); // our own shutdown is no failure
  assertEquals(await textOf(client), "");
  client.close();
});

Deno.test("close() does not wait for a handler that never settles", async () => {
  const started = Promise.withResolvers<void>();
  const never = Promise.withResolvers<void>();
  const server = serve(await listen("tcp", "127.0.0.1:0"), () => {
    started.resolve();
    return never.promise;
  });
  const client = await connect(server);
  await started.promise;
  const report = await server.close();
  assertEquals(report.forced, 1);
  client.close();
  never.resolve();
  await server.finished;
});

Deno.test("shutdown() counts a handler that fails by itself", async () => {
  const started = Promise.withResolvers<void>();
  const errors: unknown[] = [];
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    async (_conn, { signal }) => {
      started.resolve();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw new Error("could not save");
    },
    { onError: (error) => void errors.push((error as Error).message) },
  );
  const client = await connect(server);
  await started.promise;
  await client.closeWrite();
  const { drained, forced, failed } = await server.shutdown();
  assertEquals([drained, forced, failed], [0, 0, 1]);
  assertEquals(errors, ["could not save"]);
  client.close();
});

Deno.test("shutdown() cuts a lingering close short", async () => {
  const returned = Promise.withResolvers<void>();
  const server = serve(await listen("tcp", "127.0.0.1:0"), () => {
    returned.resolve();
  });
  const client = await connect(server); // never closes by itself
  await returned.promise;
  const { forced, durationMs } = await server.shutdown({ timeout: 10 });
  assertEquals(forced, 1);
  assert(durationMs < 4_000, `${durationMs} ms`);
  client.close();
});

Deno.test("shutdown() rejects a timeout that is none", async () => {
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo);
  await assertRejects(() => server.shutdown({ timeout: NaN }), RangeError);
  await assertRejects(() => server.shutdown({ timeout: -1 }), RangeError);
  await server.shutdown({ timeout: Infinity });
});

Deno.test("serve() shuts down when its signal aborts", async (t) => {
  await t.step("while it serves", async () => {
    const aborter = new AbortController();
    const { signal } = aborter;
    const server = serve(await listen("tcp", "127.0.0.1:0"), echo, { signal });
    const client = await connect(server);
    await client.write(bytes("x"));
    assertEquals(await client.read(new Uint8Array(1)), 1);
    aborter.abort();
    client.close();
    await server.finished;
    await (await listen("tcp", String(server.addr))).close(); // the port is free
  });
  await t.step("before it began", async () => {
    const listener = await listen("tcp", "127.0.0.1:0");
    await serve(listener, echo, { signal: AbortSignal.abort() }).finished;
    assert(await listener.accept().catch(isClosed));
  });
});

Deno.test("await using drains a server", async () => {
  const started = Promise.withResolvers<void>();
  let client: Conn;
  {
    await using server = serve(
      await listen("tcp", "127.0.0.1:0"),
      async (conn, { signal }) => {
        started.resolve();
        await new Promise((resolve) =>
          signal.addEventListener("abort", resolve)
        );
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

Deno.test("finished rejects if the listener broke, and no rejection escapes", async () => {
  const broken = new Error("the platform went mad");
  const closed = Promise.withResolvers<void>();
  const inner: Deno.Listener = {
    addr: { transport: "tcp", hostname: "127.0.0.1", port: 1 },
    accept: () => Promise.reject(broken),
    close: () => closed.resolve(),
    ref() {},
    unref() {},
    [Symbol.dispose]() {},
    [Symbol.asyncIterator]() {
      throw new Error("not used");
    },
  } as unknown as Deno.Listener;
  const reported: unknown[] = [];
  const server = serve(new Listener(inner), echo, {
    onError: (error, conn) => void reported.push([error, conn]),
  });
  const error = await server.finished.catch((e) => e);
  assertInstanceOf(error, OpError);
  assertStrictEquals(error.cause, broken);
  assertEquals(reported, [[error, undefined]]);
  await closed.promise;
});

Deno.test("finished resolves when the owner closes the listener", async () => {
  const listener = await listen("tcp", "127.0.0.1:0");
  const server = serve(listener, echo);
  await listener.close();
  await server.finished;
});

Deno.test("idleTimeout fails the handler's calls, and traffic puts it off", async () => {
  const failed = Promise.withResolvers<unknown>();
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo, {
    idleTimeout: 100,
    onError: (error) => failed.resolve(error),
  });
  const client = await connect(server);
  const start = performance.now();
  for (let i = 0; i < 4; i++) {
    await client.write(bytes("tick"));
    assertEquals(await client.read(new Uint8Array(4)), 4);
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  const error = await failed.promise;
  assert(isTimeout(error));
  assert(performance.now() - start >= 220);
  assertEquals(await textOf(client), "");
  client.close();
  await server.shutdown();
});

Deno.test("idleTimeout cannot be undone by a deadline of the handler", async () => {
  const failures: unknown[] = [];
  const server = serve(await listen("tcp", "127.0.0.1:0"), async (conn) => {
    for (let i = 0; i < 2; i++) {
      await conn.read(new Uint8Array(1)).catch((e) => failures.push(e));
      conn.setDeadline(null);
    }
  }, { idleTimeout: 20 });
  const client = await connect(server);
  assertEquals(await textOf(client), "");
  assertEquals(failures.map(isTimeout), [true, true]);
  client.close();
  await server.shutdown();
});

Deno.test("two servers may share a handler", async () => {
  await using one = serve(await listen("tcp", "127.0.0.1:0"), echo);
  await using two = serve(await listen("tcp", "127.0.0.1:0"), echo);
  for (const server of [one, two]) {
    using client = await connect(server);
    await client.write(bytes("hi"));
    await client.closeWrite();
    assertEquals(await textOf(client), "hi");
  }
});

Deno.test("serve() serves a unix socket", async () => {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/echo.sock`;
  const server = serve(await listen("unix", path), echo, {
    maxConnectionsPerHost: 1,
  });
  const clients = await Promise.all(
    [1, 2].map(async () =>
      new Conn(await Deno.connect({ transport: "unix", path }) as Deno.Conn)
    ),
  );
  for (const client of clients) {
    await client.write(bytes("hi"));
    assertEquals(await client.read(new Uint8Array(2)), 2);
  }
  for (const client of clients) client.close();
  await server.shutdown();
  await Deno.remove(dir, { recursive: true });
});
