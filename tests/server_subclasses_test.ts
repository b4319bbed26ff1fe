/** Subclasses whose methods wait for ever, throw, or look around. */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import {
  handle,
  type Handler,
  serve,
  type ShutdownReport,
} from "../handler.ts";
import { listen, Listener } from "../listener.ts";
import { Conn, type IoOptions } from "../net/conn.ts";
import { copy, copyBidirectional } from "../net/copy.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { InnerConn } from "./conn_inner.ts";
import { FakeConn, FakeListener } from "./fake_listener.ts";
import {
  bytes,
  connect,
  listenAnew,
  ownAddr,
  pair,
  STUCK_MS,
  textOf,
  turn,
  unhandledIn,
} from "./support.ts";

const options = { timeout: STUCK_MS };

/** Listens on real sockets; each connection is one of `Kind`. */
function listenFor(
  Kind: new (inner: Deno.Conn) => Conn,
  clock?: FakeClock,
): Listener {
  class Of extends Listener {
    override async accept(): Promise<Conn> {
      return new Kind(await super.accept());
    }
  }
  const inner = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return new Of(inner, clock ? { clock } : {});
}

/** drained, forced, failed */
function counts(report: ShutdownReport): [number, number, number] {
  return [report.drained, report.forced, report.failed];
}

const echo: Handler = (conn) => copy(conn, conn);

/** Refuses one too many, and forces the other; returns what else failed. */
async function refuseAndForce(listener: Listener): Promise<unknown[]> {
  const failures: unknown[] = [];
  const server = serve(listener, echo, {
    maxConnectionsPerHost: 1,
    onError: (error) => void failures.push(error),
  });
  using client = await connect(server);
  await client.write(bytes("x"));
  await client.read(new Uint8Array(1));
  using other = await connect(server);
  assertEquals(await textOf(other), "");
  assertStringIncludes(String(failures.shift()), "the limit is 1");
  assertEquals(counts(await server.close()), [0, 1, 0]);
  await server.finished;
  assertEquals(await textOf(client), "");
  return failures;
}

/** How a subclass's close() may fail before it has closed anything. */
const FAILURES: Record<string, (cause: Error) => Promise<void>> = {
  "rejects": (cause) => Promise.reject(cause),
  "throws": (cause) => {
    throw cause;
  },
};

Deno.test("shutdown() closes a listener whose subclass fails to", {
  timeout: STUCK_MS,
}, async (t) => {
  const cause = new Error("the registry does not answer");
  for (const [name, fail] of Object.entries(FAILURES)) {
    await t.step(name, async () => {
      class Registered extends Listener {
        override close(): Promise<void> {
          return fail(cause);
        }
      }
      const inner = await listenAnew(() => Deno.listen(ownAddr(20_007)));
      const server = serve(new Registered(inner), echo);
      assertStrictEquals(await server.shutdown().catch((e) => e), cause);
      assertStrictEquals(await server.close().catch((e) => e), cause);
      await server.finished;
      const next = () => listen("tcp", String(server.addr));
      await (await listenAnew(next)).close();
    });
  }
});

Deno.test("shutdown() closes a listener whose subclass waits first", {
  timeout: STUCK_MS,
}, async () => {
  const told = Promise.withResolvers<void>();
  class Registered extends Listener {
    override async close(): Promise<void> {
      await told.promise;
      await super.close();
    }
  }
  const inner = Deno.listen(ownAddr(20_008));
  const server = serve(new Registered(inner), echo);
  const reporting = server.shutdown();
  const next = await listenAnew(() => listen("tcp", String(server.addr)));
  told.resolve(); // only now
  await next.close();
  assertEquals(counts(await reporting), [0, 0, 0]);
});

Deno.test(
  "serve() closes a connection whose subclass fails to",
  options,
  async (t) => {
    const cause = new Error("the log's disk is full");
    for (const [name, fail] of Object.entries(FAILURES)) {
      class Logged extends Conn {
        override close(): Promise<void> {
          return fail(cause);
        }
      }
      await t.step(`${name}, after its handler`, async () => {
        const told = Promise.withResolvers<unknown>();
        const server = serve(listenFor(Logged), () => {}, {
          onError: told.resolve,
        });
        const client = await connect(server);
        assertEquals(await textOf(client), "");
        client.close();
        assertStrictEquals(await told.promise, cause);
        assertEquals(counts(await server.close()), [0, 0, 0]);
        await server.finished;
      });
      await t.step(`${name}, by force, and one too many`, async () => {
        assertEquals(await refuseAndForce(listenFor(Logged)), [cause]);
      });
    }
  },
);

/** Waits in its close() for a goodbye that does not come. */
class Polite extends Conn {
  override async close(): Promise<void> {
    await this.read(new Uint8Array(1)).catch(() => {});
    await super.close();
  }
}

Deno.test(
  "serve() closes a connection whose subclass waits for its peer",
  options,
  async (t) => {
    await t.step("after its handler", async () => {
      const clock = new FakeClock();
      const server = serve(listenFor(Polite, clock), () => {});
      using client = await connect(server);
      assertEquals(await textOf(client), ""); // FIN; the client says nothing
      await clock.advance(5_000);
      assertEquals(counts(await server.shutdown()), [0, 0, 0]);
      await server.finished;
    });
    await t.step("by force, and one too many", async () => {
      assertEquals(await refuseAndForce(listenFor(Polite)), []);
    });
  },
);

Deno.test(
  "serve() gives a subclass's slot back although its closeWrite() never settles",
  options,
  async () => {
    class Flushing extends Conn {
      override closeWrite(): Promise<void> {
        return new Promise(() => {});
      }
    }
    const clock = new FakeClock();
    const server = serve(listenFor(Flushing, clock), () => {});
    using client = await connect(server);
    const seen = textOf(client);
    while (server.connections.size === 0) await turn();
    await clock.advance(5_000);
    assertEquals(await seen, "");
    assertEquals(counts(await server.shutdown()), [0, 0, 0]);
    await server.finished;
  },
);

Deno.test(
  "the close after a handler shows a subclass's read() no other's bytes",
  options,
  async () => {
    const seen: Uint8Array[] = [];
    class Metered extends Conn {
      override async read(
        p: Uint8Array,
        options?: IoOptions,
      ): Promise<number | null> {
        const n = await super.read(p, options);
        seen.push(p);
        return n;
      }
    }
    const handled: Promise<void>[] = [];
    const clients: Conn[] = [];
    for (let n = 0; n < 2; n++) {
      const [client, conn] = await pair();
      clients.push(client);
      handled.push(handle(new Metered(conn), async (conn) => {
        await conn.read(new Uint8Array(1));
      }));
      await client.write(bytes("hello")); // 4 more than are read
      await client.closeWrite();
    }
    await Promise.all(handled);
    assertEquals(seen.map((p) => p.length), [1, 1], "the handlers' own");
    for (const client of clients) client.close();
  },
);

Deno.test(
  "serve() lets no connection past a subclass's accept()",
  options,
  async () => {
    const fake = new FakeListener();
    class Checking extends Listener {
      override async accept(): Promise<Conn> {
        return new Polite(await super.accept());
      }
    }
    let served = 0;
    const server = serve(new Checking(fake.inner), () => void served++);
    await turn();
    const reporting = server.shutdown(); // with an accept under way
    const late = new FakeConn();
    await fake.settle(late);
    await reporting;
    assertEquals([served, late.calls.at(-1)], [0, "close"]);
  },
);

Deno.test(
  "serve() fails one connection whose remoteAddr throws, and goes on",
  options,
  async (t) => {
    const odd = {
      throws() {
        throw new Error("no header yet");
      },
      "is missing": () => undefined,
    };
    for (const [what, get] of Object.entries(odd)) {
      await t.step(what, async () => {
        let first = true;
        class Hidden extends Conn {
          readonly #first = first;
          constructor(inner: Deno.Conn) {
            super(inner);
            first = false;
          }
          override get remoteAddr(): Conn["remoteAddr"] {
            return this.#first ? get()! : super.remoteAddr;
          }
        }
        const failures: [unknown, Conn | undefined][] = [];
        await using server = serve(
          listenFor(Hidden),
          async (conn) => void await conn.write(bytes("welcome")),
          {
            maxConnectionsPerHost: 9,
            onError: (error, conn) => void failures.push([error, conn]),
          },
        );
        for (const answer of ["", "welcome"]) {
          using client = await connect(server);
          assertEquals(await textOf(client), answer);
        }
        const [[error, conn]] = failures as [[unknown, Conn]];
        assertEquals(failures.length, 1);
        assertInstanceOf(error, Error);
        assertInstanceOf(conn, Hidden);
      });
    }
  },
);

Deno.test(
  "serve() refuses one too many although its remoteAddr throws once it is closed",
  options,
  async () => {
    class Forgetful extends Conn {
      #open = true;
      override close(): void {
        this.#open = false;
        super.close();
      }
      override get remoteAddr(): Conn["remoteAddr"] {
        if (!this.#open) throw new Error("not connected");
        return super.remoteAddr;
      }
    }
    const failures: string[] = [];
    const server = serve(
      listenFor(Forgetful),
      (conn) => conn.read(new Uint8Array(1)),
      {
        maxConnectionsPerHost: 1,
        onError: (error) => void failures.push(String(error)),
      },
    );
    using client = await connect(server);
    using other = await connect(server);
    assertEquals(await textOf(other), "");
    client.close();
    await server.shutdown();
    assertEquals(failures.length, 1);
    assert(failures[0]!.includes(`${other.localAddr}: too many`), failures[0]);
  },
);

Deno.test(
  "shutdown() ends at its timeout although a subclass of Listener waits",
  options,
  async (t) => {
    const handler = () => new Promise(() => {});
    const open = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
    for (const timeout of [0, 100]) {
      await t.step(`in accept(), ${timeout} ms`, async () => {
        const greeting = Promise.withResolvers<Conn>();
        class Greeted extends Listener {
          override async accept(): Promise<Conn> {
            const conn = await super.accept();
            greeting.resolve(conn);
            await conn.read(new Uint8Array(1)); // its client says nothing
            return conn;
          }
        }
        const clock = new FakeClock();
        const server = serve(new Greeted(open(), { clock }), handler);
        using _client = await connect(server);
        using conn = await greeting.promise;
        const reporting = server.shutdown({ timeout });
        await clock.advance(timeout);
        assertEquals(counts(await reporting), [0, 0, 0]);
        assertEquals(clock.timers, []);
        conn.close();
        await server.finished;
      });
      await t.step(`in close(), ${timeout} ms`, async () => {
        class Registered extends Listener {
          override close(): Promise<void> {
            return new Promise(() => {});
          }
        }
        const clock = new FakeClock();
        const server = serve(new Registered(open(), { clock }), handler);
        using client = await connect(server);
        while (server.connections.size === 0) await turn();
        const reporting = server.shutdown({ timeout });
        await clock.advance(timeout);
        assertEquals(counts(await reporting), [0, 1, 0]);
        assertEquals(await textOf(client), "");
        assertEquals(clock.timers, []);
        const idle = serve(new Registered(open(), { clock }), handler);
        const idling = idle.shutdown({ timeout });
        await clock.advance(timeout);
        assertEquals(counts(await idling), [0, 0, 0]);
        await idle.finished;
      });
    }
    await t.step("in close(), for the server itself", async () => {
      class Patient extends Listener {
        override async close(): Promise<void> {
          await super.close();
          await server.finished;
        }
      }
      const clock = new FakeClock();
      const server = serve(new Patient(open(), { clock }), handler);
      using client = await connect(server);
      while (server.connections.size === 0) await turn();
      const reporting = server.shutdown({ timeout: 100 });
      await clock.advance(100);
      assertEquals(counts(await reporting), [0, 1, 0]);
      assertEquals(await textOf(client), "");
    });
  },
);

Deno.test(
  "by force, a Conn inside is closed, too, whatever it waits for",
  options,
  async () => {
    const [client, conn] = await pair();
    const controller = new AbortController();
    const handled = handle(
      new Conn(new Polite(conn)),
      () => new Promise(() => {}),
      controller,
    );
    controller.abort("enough");
    assertStrictEquals(await handled.catch((error) => error), "enough");
    assertEquals(await textOf(client), "");
    client.close();
  },
);

Deno.test(
  "copyBidirectional() ends at an abort although both its close() wait",
  options,
  async () => {
    const [[one, a], [two, b]] = await Promise.all([pair(), pair()]);
    const controller = new AbortController();
    const copying = copyBidirectional(new Polite(a), new Polite(b), controller);
    await turn();
    controller.abort("enough");
    assertStrictEquals(await copying.catch((error) => error), "enough");
    for (const client of [one, two]) {
      assertEquals(await textOf(client), "");
      client.close();
    }
  },
);

Deno.test(
  "two failures of one close are no unhandled rejection",
  options,
  async (t) => {
    await t.step("a subclass's, late, and its connection's own", async () => {
      class Late extends Conn {
        override async close(): Promise<void> {
          await turn();
          throw new Error("the log's disk is full");
        }
      }
      const inner = new InnerConn();
      inner.close = () => {
        throw new Error("destroyed already");
      };
      const controller = new AbortController();
      controller.abort("enough");
      const unhandled = await unhandledIn(async () => {
        await handle(new Late(inner), () => {}, controller).catch(() => {});
      });
      assertEquals(unhandled, []);
    });
    await t.step(
      "a closeWrite() that closes the other side, and throws",
      async () => {
        const [[one, a], [two, b]] = await Promise.all([pair(), pair()]);
        class Partner extends Conn {
          override closeWrite(): Promise<void> {
            a.close();
            throw new Error("the partner is gone");
          }
        }
        const unhandled = await unhandledIn(async () => {
          const copying = copyBidirectional(a, new Partner(b));
          await one.closeWrite();
          await assertRejects(() => copying, Error, "the partner is gone");
        });
        assertEquals(unhandled, []);
        for (const client of [one, two]) client.close();
      },
    );
  },
);
