import {
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { dial } from "../dialer.ts";
import { type Handler, serve, type ServeOptions } from "../handler.ts";
import { listen, Listener } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { copy } from "../net/copy.ts";
import { isClosed, isTimeout, OpError } from "../net/errors.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { InnerConn } from "./conn_inner.ts";
import { FakeConn, FakeListener } from "./fake_listener.ts";
import { bytes, connect, runChild, STUCK_MS, textOf, turn } from "./support.ts";

const echo: Handler = async (conn) => {
  for await (const chunk of conn) await conn.write(chunk);
};

/** Runs `body` with console.error replaced; its first call is `printed`. */
async function capturing(
  body: (printed: Promise<unknown[]>) => Promise<void>,
): Promise<void> {
  const printed = Promise.withResolvers<unknown[]>();
  const original = console.error;
  console.error = (...args) => printed.resolve(args);
  try {
    await body(printed.promise);
  } finally {
    console.error = original;
  }
}

Deno.test("serve() checks its arguments before it accepts", async (t) => {
  await using listener = await listen("tcp", "127.0.0.1:0");
  const bad = (options: unknown) => options as ServeOptions;
  const cases: Record<string, [ServeOptions, new () => Error]> = {
    "maxConnections 0": [{ maxConnections: 0 }, RangeError],
    "maxConnections 1.5": [{ maxConnections: 1.5 }, RangeError],
    "maxConnections NaN": [{ maxConnections: NaN }, RangeError],
    "maxConnections -Infinity": [{ maxConnections: -Infinity }, RangeError],
    "maxConnections text": [bad({ maxConnections: "1" }), TypeError],
    "maxConnections null": [bad({ maxConnections: null }), TypeError],
    "maxConnectionsPerHost 0": [{ maxConnectionsPerHost: 0 }, RangeError],
    "maxConnectionsPerHost -1": [{ maxConnectionsPerHost: -1 }, RangeError],
    "maxConnectionsPerHost text": [
      bad({ maxConnectionsPerHost: "1" }),
      TypeError,
    ],
    "idleTimeout 0": [{ idleTimeout: 0 }, RangeError],
    "idleTimeout 0.5": [{ idleTimeout: 0.5 }, RangeError],
    "idleTimeout NaN": [{ idleTimeout: NaN }, RangeError],
    "idleTimeout text": [bad({ idleTimeout: "1" }), TypeError],
    "onError text": [bad({ onError: "log" }), TypeError],
    "signal text": [bad({ signal: "SIGINT" }), TypeError],
    "signal null": [bad({ signal: null }), TypeError],
  };
  for (const [name, [options, type]] of Object.entries(cases)) {
    await t.step(name, () => {
      assertThrows(() => serve(listener, echo, options), type);
    });
  }
  await t.step("no handler", () => {
    assertThrows(() => serve(listener, undefined as never), TypeError);
  });
  await t.step("not a Listener: the runtime's, or a promise of one", () => {
    using raw = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    for (const other of [raw, Promise.resolve(listener)]) {
      assertThrows(
        () => serve(other as unknown as Listener, echo),
        TypeError,
        "not a Listener: await listen(), or make one with new Listener(inner)",
      );
    }
  });
  await t.step("a listener that has a server already", async () => {
    const listener = await listen("tcp", "127.0.0.1:0");
    await using server = serve(listener, echo);
    assertThrows(
      () => serve(listener, () => {}),
      TypeError,
      "the listener has a server already",
    );
    using client = await connect(server);
    await client.write(bytes("the first one's"));
    await client.closeWrite();
    assertEquals(await textOf(client), "the first one's");
  });
  await t.step(
    "a server's listener: what comes late is the server's",
    async () => {
      const fake = new FakeListener();
      const listener = new Listener(fake.inner);
      const served: string[] = [];
      const server = serve(listener, () => void served.push("first"));
      assertThrows(() => serve(listener, () => void served.push("second")));
      const done = server.shutdown();
      await fake.settle(new FakeConn());
      await done;
      assertEquals(served, ["first"]);
    },
  );
  await t.step("the listener is still the caller's", async () => {
    const [client, conn] = await Promise.all([
      connect(listener),
      listener.accept(),
    ]);
    client.close();
    conn.close();
    await serve(listener, echo).shutdown();
  });
});

Deno.test("serve() takes Infinity as no limit, and no option as Infinity", {
  timeout: STUCK_MS,
}, async (t) => {
  const clients = 40;
  const limits: Record<string, ServeOptions> = {
    "no option": {},
    "Infinity": {
      maxConnections: Infinity,
      maxConnectionsPerHost: Infinity,
      idleTimeout: Infinity,
    },
  };
  for (const [name, options] of Object.entries(limits)) {
    await t.step(name, async () => {
      const clock = new FakeClock();
      const all = Promise.withResolvers<void>();
      const server = serve(
        await listen("tcp", "127.0.0.1:0", { clock }),
        async (conn) => {
          if (server.connections.size === clients) all.resolve();
          await echo(conn, undefined as never);
        },
        options,
      );
      const conns = await Promise.all(
        Array.from({ length: clients }, () => connect(server)),
      );
      await all.promise;
      await clock.advance(365 * 24 * 3_600_000); // no idle timeout
      for (const conn of conns) {
        await conn.write(bytes("x"));
        assertEquals(await conn.read(new Uint8Array(1)), 1);
        conn.close();
      }
      const { forced, failed } = await server.shutdown();
      assertEquals([forced, failed], [0, 0]);
    });
  }
});

Deno.test("serve() reads its options once", { timeout: STUCK_MS }, async () => {
  const reads: Record<string, number> = {};
  const given = { maxConnections: 1, idleTimeout: 1_000, onError: () => {} };
  const options = new Proxy<ServeOptions>(given, {
    get(target, key) {
      reads[String(key)] = (reads[String(key)] ?? 0) + 1;
      if (reads[String(key)]! > 1) throw new Error("a getter that throws");
      return Reflect.get(target, key);
    },
  });
  await using server = serve(
    await listen("tcp", "127.0.0.1:0"),
    () => Promise.reject(new Error("handler")),
    options,
  );
  for (let i = 0; i < 2; i++) {
    using client = await connect(server);
    assertEquals(await textOf(client), "");
  }
});

Deno.test("serve() isolates handlers, however they fail", {
  timeout: STUCK_MS,
}, async () => {
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
    () => Promise.reject(undefined),
    (conn) => {
      conn.close();
      return conn.write(bytes("x")).then(() => {});
    },
    (conn) => {
      conn.close();
      conn.close();
    },
    (conn) => {
      conn.write(bytes("not awaited"));
      conn.close();
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
        if (errors.length === 5) all.resolve();
      },
    },
  );
  for (let i = 1; i < ways.length; i++) {
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
    ["sync", "async", undefined, undefined, "closed"],
  );
  await server.shutdown();
});

Deno.test("serve() does not let a handler detach once it has failed", async () => {
  const thrown = Promise.withResolvers<unknown>();
  let detach: () => unknown;
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    (_, context) => {
      detach = context.detach;
      throw new Error("broken");
    },
    {
      onError: () => {
        try {
          detach();
        } catch (error) {
          thrown.resolve(error);
        }
        server.shutdown();
      },
    },
  );
  const client = await connect(server);
  assertInstanceOf(await thrown.promise, TypeError);
  assertEquals(await textOf(client), "");
  client.close();
  assertEquals((await server.shutdown()).failed, 1);
});

Deno.test("serve() reports a failure before it waits for the peer's close", async () => {
  const told = Promise.withResolvers<unknown[]>();
  const broken = new Error("broken");
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    () => Promise.reject(broken),
    { onError: (...args) => told.resolve(args) },
  );
  const client = await connect(server);
  const [error, conn] = await told.promise;
  assertStrictEquals(error, broken);
  const report = server.shutdown();
  assertEquals([...server.connections], [conn], "it waits for our close");
  client.close();
  assertEquals((await report).failed, 1);
});

Deno.test("serve() prints failures with the peer's address and the stack by default", async () => {
  await capturing(async (printed) => {
    const failure = new Error("handler");
    await using server = serve(
      await listen("tcp", "127.0.0.1:0"),
      () => Promise.reject(failure),
    );
    using client = await connect(server);
    await client.closeWrite();
    const [text, whom, error] = await printed;
    assertEquals([text, whom], [
      "switchboard: serving",
      `${client.localAddr}:`,
    ]);
    assertStrictEquals(error, failure); // console.error prints its stack
  });
});

Deno.test({
  name:
    "serve() prints a unix server's own address, because its peers have none",
  ignore: Deno.build.os !== "linux", // where the kernel chooses a name
  fn: () =>
    capturing(async (printed) => {
      const failure = new Error("handler");
      const listener = await listen("unix", "");
      await using server = serve(listener, () => Promise.reject(failure));
      const name = String(server.addr);
      using client = await dial("unix", name);
      await client.closeWrite();
      const text = "switchboard: serving";
      assertEquals(await printed, [text, `${name}:`, failure]);
    }),
});

Deno.test(
  "serve() prints no control characters of a unix name, and no format",
  {
    ignore: Deno.build.os !== "linux", // where a name is no file
  },
  () =>
    capturing(async (printed) => {
      const failure = new Error("handler");
      const name = `@${crypto.randomUUID()}\x1b[2J\nFAKE%c`;
      await using server = serve(
        await listen("unix", name),
        () => Promise.reject(failure),
      );
      using client = await dial("unix", name);
      await client.closeWrite();
      const shown = name.replace("\x1b", "\\x1b").replace("\n", "\\x0a");
      assertEquals(String(server.addr), name); // it must be possible to dial it
      // In console.error's first text a `%c` would swallow the failure.
      const text = "switchboard: serving";
      assertEquals(await printed, [text, `${shown}:`, failure]);
    }),
);

Deno.test("a failure that cannot be printed ends only its own connection", {
  ignore: Deno.build.os !== "linux", // where /dev/full is
  timeout: STUCK_MS,
}, async () => {
  const { code, stdout } = await runChild(
    `
    import { dial, listen, serve } from "./mod.ts";

    const server = serve(await listen("tcp", "127.0.0.1:0"), () => {
      throw new Error("handler");
    });
    for (let i = 0; i < 2; i++) {
      const client = await dial("tcp", String(server.addr));
      await client.closeWrite();
      console.log(await client.read(new Uint8Array(1)));
      client.close();
    }
    await server.shutdown();
    console.log("alive");
    `,
    {
      flags: ["--allow-net=127.0.0.1"],
      wrap: ["sh", "-c", 'exec "$@" 2>/dev/full', "sh"],
    },
  );
  assertEquals([code, stdout], [0, "null\nnull\nalive\n"]);
});

Deno.test("serve() by default prints that the listener broke", async () => {
  await capturing(async (printed) => {
    const broken = new Error("the platform went mad");
    const server = serve(new Listener(breaking(broken)), echo);
    const error = await server.finished.catch((e) => e);
    assertEquals(await printed, [
      "switchboard: the listener broke:",
      error,
    ]);
  });
});

// Of types, too: `deno test` checks them.
Deno.test("serve() awaits and ignores what a handler and onError return", async () => {
  const failure = new Error("nothing came");
  const errors: unknown[] = [];
  await using server = serve(
    await listen("tcp", "127.0.0.1:0"),
    async (conn) => await copy(conn, conn) || Promise.reject(failure),
    { onError: (error) => errors.push(error) },
  );
  for (const text of ["echo", "", "again"]) {
    using client = await connect(server);
    await client.write(bytes(text));
    await client.closeWrite();
    assertEquals(await textOf(client), text);
  }
  await server.shutdown();
  assertEquals(errors, [failure]);
});

Deno.test("serve() closes the connection even if the error's getter throws", {
  timeout: STUCK_MS,
}, async () => {
  const failed = Promise.withResolvers<unknown>();
  const odd: Error = Object.defineProperty(new Error("odd"), "cause", {
    get() {
      throw odd;
    },
  });
  await using server = serve(
    await listen("tcp", "127.0.0.1:0"),
    () => Promise.reject(odd),
    { onError: failed.resolve },
  );
  using client = await connect(server);
  assertEquals(await textOf(client), "");
  assertStrictEquals(await failed.promise, odd);
  assertEquals([isClosed(odd), isTimeout(odd)], [false, false]);
});

Deno.test("serve() reports a connection that cannot be closed to onError", async () => {
  const cause = new Error("will not close");
  const inner = new InnerConn();
  inner.close = () => {
    throw cause;
  };
  inner.read = () => Promise.resolve(null);
  inner.closeWrite = () => Promise.resolve();
  const fake = new FakeListener();
  const failed = Promise.withResolvers<unknown>();
  serve(
    new Listener(fake.inner),
    async (conn) => void await conn.read(new Uint8Array(1)),
    { onError: failed.resolve },
  );
  await fake.settle(inner as unknown as FakeConn);
  assertStrictEquals(await failed.promise, cause);
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
      await capturing(async (printed) => {
        let failures = 0;
        await using server = serve(
          await listen("tcp", "127.0.0.1:0"),
          async (conn, context) => {
            if (failures++ === 0) throw new Error("handler");
            await echo(conn, context);
          },
          { onError },
        );
        using client = await connect(server);
        await client.closeWrite();
        assertStringIncludes(String(await printed), `onError ${name[0]}`);
        using next = await connect(server);
        await next.write(bytes("still here"));
        await next.closeWrite();
        assertEquals(await textOf(next), "still here");
      });
    });
  }
});

Deno.test("detach() hands the connection over and stops counting it", {
  timeout: STUCK_MS,
}, async () => {
  const given: Conn[] = [];
  const detached = Promise.withResolvers<void>();
  const failures: unknown[] = [];
  const clock = new FakeClock();
  const server = serve(
    await listen("tcp", "127.0.0.1:0", { clock }),
    (_conn, context) => {
      given.push(context.detach());
      assertStrictEquals(context.detach(), given.at(-1)); // counted once
      assertEquals(server.connections.size, 0);
      if (given.length === 3) detached.resolve();
      if (given.length === 2) throw new Error("all the same");
    },
    {
      maxConnections: 1,
      maxConnectionsPerHost: 1,
      idleTimeout: 1_000,
      onError: (error) => void failures.push((error as Error).message),
    },
  );
  // Three, through one slot and one place.
  const clients: Conn[] = [];
  for (let i = 0; i < 3; i++) clients.push(await connect(server));
  await detached.promise;
  const { drained, forced, failed } = await server.shutdown();
  assertEquals([drained, forced, failed], [0, 0, 0]);
  assertEquals(failures, ["all the same"]);
  await clock.advance(10_000); // no idle timeout applies any more
  for (const conn of given) {
    await conn.write(bytes("mine"));
    conn.close();
  }
  for (const client of clients) {
    assertEquals(await textOf(client), "mine");
    client.close();
  }
});

Deno.test("pause() keeps clients waiting, resume() serves them", {
  timeout: STUCK_MS,
}, async () => {
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo);
  server.pause();
  server.pause();
  const clients = [await connect(server), await connect(server)];
  for (const client of clients) {
    await client.write(bytes("hello"));
    await client.closeWrite();
  }
  const [first] = clients as [Conn];
  first.setReadDeadline(Date.now() + 50);
  const early = first.read(new Uint8Array(5));
  assertEquals(await early.catch(isTimeout), true, "served while paused");
  assertEquals(server.connections.size, 0);
  first.setReadDeadline(null);
  server.resume();
  server.resume();
  for (const client of clients) {
    assertEquals(await textOf(client), "hello");
    client.close();
  }
  await server.shutdown();
});

Deno.test("pause() lets handlers go on, and leaves a free slot free", {
  timeout: STUCK_MS,
}, async () => {
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo, {
    maxConnections: 1,
  });
  const first = await connect(server);
  await first.write(bytes("a"));
  assertEquals(await first.read(new Uint8Array(1)), 1);
  server.pause();
  await first.write(bytes("b"));
  assertEquals(await first.read(new Uint8Array(1)), 1);
  const second = await connect(server);
  await second.write(bytes("c"));
  first.close(); // a slot is free, but it is not taken
  while (server.connections.size > 0) await turn();
  for (let i = 0; i < 10; i++) await turn();
  assertEquals(server.connections.size, 0);
  server.resume();
  assertEquals(await second.read(new Uint8Array(1)), 1);
  second.close();
  await server.shutdown();
  server.resume(); // too late, and no error
  server.pause();
});

/** A listener whose accept() fails with an unknown error. */
function breaking(error: Error, closed?: () => void): Deno.Listener {
  return {
    addr: { transport: "tcp", hostname: "127.0.0.1", port: 1 },
    accept: () => Promise.reject(error),
    close: () => closed?.(),
    ref() {},
    unref() {},
    [Symbol.dispose]() {},
    [Symbol.asyncIterator]() {
      throw new Error("not used");
    },
  } as unknown as Deno.Listener;
}

Deno.test("serve() of a listener that is closed has ended, without an error", async () => {
  const listener = await listen("tcp", "127.0.0.1:0");
  await listener.close();
  const errors: unknown[] = [];
  const server = serve(listener, () => {}, { onError: (e) => errors.push(e) });
  await server.finished;
  const { drained, forced, failed } = await server.shutdown();
  assertEquals([drained, forced, failed, errors], [0, 0, 0, []]);
});

Deno.test("finished settles in the end", { timeout: STUCK_MS }, async (t) => {
  await t.step(
    "rejects if the listener broke; no rejection is unhandled",
    async () => {
      const broken = new Error("the platform went mad");
      const closed = Promise.withResolvers<void>();
      const reported: unknown[] = [];
      const server = serve(
        new Listener(breaking(broken, closed.resolve)),
        echo,
        { onError: (error, conn) => void reported.push([error, conn]) },
      );
      const error = await server.finished.catch((e) => e);
      assertInstanceOf(error, OpError);
      assertStrictEquals(error.cause, broken);
      assertEquals(reported, [[error, undefined]]);
      await closed.promise;
      const { drained, forced, failed } = await server.shutdown();
      assertEquals([drained, forced, failed], [0, 0, 0]);
    },
  );

  await t.step("is never an unhandled rejection", async () => {
    const told = Promise.withResolvers<unknown>();
    const broken = new Error("the platform went mad");
    serve(new Listener(breaking(broken, () => {})), echo, {
      onError: told.resolve,
    });
    assertStrictEquals((await told.promise as OpError).cause, broken);
    await turn(); // an unhandled rejection would fail the test
  });

  await t.step("resolves when the owner closes the listener", async () => {
    const listener = await listen("tcp", "127.0.0.1:0");
    const server = serve(listener, echo);
    await listener.close();
    await server.finished;
  });

  await t.step("resolves then, even while the server is paused", async () => {
    const listener = await listen("tcp", "127.0.0.1:0");
    const server = serve(listener, () => server.pause());
    const client = await connect(server);
    assertEquals(await textOf(client), "", "served, and pausing now");
    client.close();
    await listener.close();
    await server.finished;
  });

  await t.step("resolves then, even with a client in hand", async () => {
    const inner = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const taken = Promise.withResolvers<void>();
    const accept = inner.accept.bind(inner);
    inner.accept = async () => {
      const conn = await accept();
      taken.resolve();
      return conn;
    };
    const listener = new Listener(inner);
    let served = 0;
    const server = serve(listener, () => void served++);
    server.pause();
    const client = await connect(server);
    await taken.promise;
    await listener.close();
    await server.finished;
    assertEquals(await textOf(client), "");
    client.close();
    assertEquals(served, 0);
  });

  await t.step("waits while it listens, though nobody is served", async () => {
    const server = serve(await listen("tcp", "127.0.0.1:0"), () => {});
    let finished = false;
    const done = server.finished.then(() => finished = true);
    const client = await connect(server);
    assertEquals(await textOf(client), "");
    client.close();
    while (server.connections.size > 0) await turn();
    await turn();
    assertEquals(finished, false);
    await server.shutdown();
    await done;
  });

  await t.step("waits for handlers after the listener's close", async () => {
    const listener = await listen("tcp", "127.0.0.1:0");
    const server = serve(listener, echo);
    const client = await connect(server);
    await client.write(bytes("a"));
    await client.read(new Uint8Array(1));
    let finished = false;
    const done = server.finished.then(() => finished = true);
    await listener.close();
    await client.write(bytes("b"));
    assertEquals(await client.read(new Uint8Array(1)), 1);
    assertEquals(finished, false);
    client.close();
    await done;
  });
});

Deno.test("addr is the listener's address, after the end, too", async () => {
  const listener = await listen("tcp", "127.0.0.1:0");
  const server = serve(listener, echo);
  const { addr } = server;
  assertStrictEquals(addr, listener.addr);
  await server.close();
  assertStrictEquals(server.addr, addr);
});

Deno.test("connections is a live set", async () => {
  const seen = Promise.withResolvers<Conn>();
  const server = serve(await listen("tcp", "127.0.0.1:0"), async (conn) => {
    seen.resolve(conn);
    await echo(conn, undefined as never);
  });
  const { connections } = server;
  assertEquals([...connections], []);
  const client = await connect(server);
  assertEquals([...connections], [await seen.promise]);
  client.close();
  await server.shutdown();
  assertEquals([...connections], []);
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

Deno.test({
  name: "serve() serves a unix socket, where no host is counted",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const dir = await Deno.makeTempDir();
    const path = `${dir}/echo.sock`;
    const server = serve(await listen("unix", path), echo, {
      maxConnectionsPerHost: 1,
    });
    const clients = await Promise.all(
      [1, 2].map(async () =>
        new Conn(await Deno.connect({ transport: "unix", path }))
      ),
    );
    for (const client of clients) {
      await client.write(bytes("hi"));
      assertEquals(await client.read(new Uint8Array(2)), 2);
    }
    for (const client of clients) client.close();
    await server.shutdown();
    await Deno.remove(dir, { recursive: true });
  },
});

Deno.test("serve() serves TLS", async () => {
  const asset = (name: string) =>
    Deno.readTextFile(new URL(`assets/${name}`, import.meta.url));
  const cert = await asset("cert.pem");
  const key = await asset("key.pem");
  const inner = Deno.listenTls({ hostname: "127.0.0.1", port: 0, cert, key });
  const failures: unknown[] = [];
  const server = serve(new Listener(inner), echo, {
    onError: (error, conn) => void failures.push([error, conn?.remoteAddr]),
  });
  const { port } = server.addr as Deno.NetAddr;

  // A client that speaks no TLS fails in the handler's first read.
  const stranger = await connect(server);
  await stranger.write(bytes("GET / HTTP/1.0\r\n\r\n"));
  await stranger.closeWrite();
  await stranger.readable.pipeTo(new WritableStream()).catch((error) =>
    assertInstanceOf(error, OpError)
  );
  stranger.close();

  const client = new Conn(
    await Deno.connectTls({ hostname: "127.0.0.1", port, caCerts: [cert] }),
  );
  const text = "over TLS ".repeat(10_000);
  const sent = client.write(bytes(text)).then(() => client.closeWrite());
  assertEquals(await textOf(client), text);
  await sent;
  client.close();
  const { forced } = await server.shutdown();
  assertEquals(forced, 0);
  assertEquals(failures.length, 1);
});

Deno.test("a server that accepts nobody at the moment keeps the process alive", async (t) => {
  // What the handlers wait for would not keep it alive.
  const program = (body: string, ms: number) => `
    import { dial, listen, serve } from "./mod.ts";
    const listener = await listen("tcp", "127.0.0.1:0");
    const begun = Promise.withResolvers();
    let server;
    function start(options) {
      return server = serve(listener, () => {
        begun.resolve();
        return new Promise(() => {});
      }, options);
    }
    const call = () => dial("tcp", String(listener.addr));
    ${body}
    // It fires only if something else keeps the process alive.
    Deno.unrefTimer(setTimeout(async () => {
      console.log("alive");
      await server.close();
      console.log("closed");
    }, ${ms}));
  `;
  const rows: Record<string, [body: string, output: string]> = {
    "at the limit": [
      "start({ maxConnections: 1 }); await call(); await begun.promise;",
      "alive\nclosed\n",
    ],
    "paused, with a client in hand": [
      "start().pause(); await call();",
      "alive\nclosed\n",
    ],
    "unref() before": [
      "start({ maxConnections: 1 }).unref(); await call(); await begun.promise;",
      "",
    ],
    "unref() at the limit": [
      `start({ maxConnections: 1 });
       await call();
       await begun.promise;
       server.unref();`,
      "",
    ],
    "the listener's unref() at the limit": [
      `start({ maxConnections: 1 });
       await call();
       await begun.promise;
       listener.unref();`,
      "",
    ],
  };
  const outputs = Object.values(rows).map(([body, expected]) =>
    runChild(program(body, expected === "" ? 60_000 : 100), {
      flags: ["--allow-net"],
    })
  );
  for (const [i, [name, [, expected]]] of Object.entries(rows).entries()) {
    await t.step(name, async () => {
      const { code, stdout, stderr } = await outputs[i]!;
      assertEquals([code, stdout], [0, expected], stderr);
    });
  }
});

Deno.test("unref() lets the process end, ref() keeps it alive", async (t) => {
  const source = (calls: string) => `
    import { listen, serve } from "${new URL("../mod.ts", import.meta.url)}";
    const server = serve(await listen("tcp", "127.0.0.1:0"), () => {});
    ${calls}
    console.log(String(server.addr));
  `;
  const run = (calls: string) =>
    new Deno.Command(Deno.execPath(), {
      args: ["eval", "--quiet", "--no-config", source(calls)],
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();

  await t.step("unref()", async () => {
    const { code, stdout } = await run("server.unref();").output();
    assertEquals(code, 0);
    assertStringIncludes(new TextDecoder().decode(stdout), "127.0.0.1:");
  });

  await t.step("unref(), then ref()", async () => {
    const child = run("server.unref(); server.ref();");
    const output = child.stdout.pipeThrough(new TextDecoderStream());
    const reader = output.getReader();
    const { hostname, port } = new URL(`tcp://${(await reader.read()).value}`);
    // It serves: the handler returns, so a FIN comes.
    const client = new Conn(
      await Deno.connect({ hostname, port: Number(port) }),
    );
    assertEquals(await textOf(client), "");
    client.close();
    child.kill("SIGKILL");
    await child.status;
    await reader.cancel();
  });
});
