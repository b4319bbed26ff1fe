/**
 * What holds for every listener, whatever carries its connections: real
 * sockets and the in-memory network run the same tests.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import type { Listener, ListenOptions } from "../../listener.ts";
import type { Conn } from "../../net/conn.ts";
import { isClosed, OpError } from "../../net/errors.ts";
import {
  bytes,
  countedSignal,
  listenAnew,
  STUCK_MS,
  turn,
} from "../support.ts";

/** How the suite listens, and how clients connect. */
export interface ListenerWorld {
  /** Listens; on `address`, if given, where an earlier listener has been. */
  listen(options?: ListenOptions, address?: string): Promise<Listener>;
  /** Whether there is no such world here. */
  ignore?: boolean;
  /** An address that is free, and stays so unless the test takes it. */
  own?: string;
  /** A client, connected. */
  connect(listener: Listener): Promise<Conn>;
  /** Leaves a client in the queue that has already reset, where possible. */
  reset?(listener: Listener): Promise<void>;
}

/** Registers the tests. */
export function listenerSuite(name: string, world: ListenerWorld): void {
  const { listen, reset } = world;
  const listenOwn = (options: ListenOptions = {}) =>
    listenAnew(() => listen(options, world.own));
  const anew = ({ addr }: Listener) =>
    listenAnew(() => listen({}, String(addr)));

  /** A client that has sent its ID. */
  async function client(listener: Listener, id: number): Promise<Conn> {
    const conn = await world.connect(listener);
    await conn.write(Uint8Array.of(id));
    return conn;
  }

  function test(behaviour: string, fn: () => Promise<void>): void {
    const options = { ignore: world.ignore ?? false, timeout: STUCK_MS };
    Deno.test(`${name} listener: ${behaviour}`, options, fn);
  }

  test("addresses of both ends agree", async () => {
    await using listener = await listen();
    await using client = await world.connect(listener);
    await using server = await listener.accept();
    assertEquals(String(client.remoteAddr), String(listener.addr));
    assertEquals(String(server.localAddr), String(listener.addr));
    assertEquals(String(server.remoteAddr), String(client.localAddr));
    assertEquals(server.network, listener.addr.transport);
  });

  test("accept() calls are served first come, first served", async () => {
    await using listener = await listen();
    const calls = [1, 2, 3].map(() => listener.accept());
    for (const id of [1, 2, 3]) {
      await using _client = await client(listener, id);
      await using server = await calls[id - 1]!;
      assertEquals(await idOf(server), id);
    }
  });

  test("clients wait in the queue for accept()", async () => {
    await using listener = await listen();
    await using _one = await client(listener, 1);
    await using _two = await client(listener, 2);
    await using first = await listener.accept();
    await using second = await listener.accept();
    assertEquals([await idOf(first), await idOf(second)], [1, 2]);
  });

  test("accept() with an aborted signal fails, and takes no client", async () => {
    await using listener = await listen();
    await using _client = await client(listener, 1);
    const reason = new Error("gone");
    await rejectsWith(
      listener.accept({ signal: AbortSignal.abort(reason) }),
      reason,
    );
    await using server = await listener.accept();
    assertEquals(await idOf(server), 1);
  });

  test("an abort takes an accept() call out of the queue", async () => {
    await using listener = await listen();
    const { controller, signal, listeners } = countedSignal();
    const reason = new Error("gone");
    const gone = listener.accept({ signal });
    const waiting = listener.accept();
    controller.abort(reason);
    await rejectsWith(gone, reason);
    assertEquals(listeners(), 0);
    await using _client = await client(listener, 1);
    await using server = await waiting;
    assertEquals(await idOf(server), 1);
  });

  test("one signal for listen() and accept(): accept() rejects with its reason", async () => {
    const { controller, signal } = countedSignal();
    await using listener = await listen({ signal });
    const loop = (async () => {
      for await (const _ of listener) throw new Error("nobody called");
    })();
    const waiting = listener.accept({ signal });
    const other = listener.accept().catch(isClosed);
    controller.abort(new Error("mine"));
    await rejectsWith(waiting, signal.reason);
    assert(await other);
    await loop;
  });

  test("an abort in the middle of the queue does not affect other calls", async () => {
    await using listener = await listen();
    const controller = new AbortController();
    const first = listener.accept();
    const gone = listener.accept({ signal: controller.signal });
    const last = listener.accept();
    controller.abort();
    await rejectsWith(gone, controller.signal.reason);
    await using _one = await client(listener, 1);
    await using _two = await client(listener, 2);
    await using one = await first;
    await using two = await last;
    assertEquals([await idOf(one), await idOf(two)], [1, 2]);
  });

  test("a client that comes for an aborted call goes to the next call", async () => {
    await using listener = await listen();
    const controller = new AbortController();
    const gone = listener.accept({ signal: controller.signal });
    controller.abort();
    await rejectsWith(gone, controller.signal.reason);
    await using _one = await client(listener, 1);
    await using _two = await client(listener, 2);
    await turn(); // the first is the spare now, or is about to be
    await using one = await listener.accept();
    await using two = await listener.accept();
    assertEquals([await idOf(one), await idOf(two)], [1, 2]);
  });

  test("an abort that races a connection does not lose it", async () => {
    await using listener = await listen();
    for (let id = 0; id < 10; id++) {
      const controller = new AbortController();
      const call = listener.accept({ signal: controller.signal });
      await using _client = await client(listener, id);
      for (let i = 0; i < id % 5; i++) await turn();
      controller.abort();
      const conn = await call.catch((error) => {
        assertStrictEquals(error, controller.signal.reason);
        return listener.accept();
      });
      await using server = conn;
      assertEquals(await idOf(server), id);
    }
  });

  test("accept() leaves no listener on its signal", async () => {
    const listener = await listen();
    const { signal, listeners } = countedSignal();
    const calls = [listener.accept({ signal }), listener.accept({ signal })];
    assertEquals(listeners(), 1, "one for both");
    await using _client = await world.connect(listener);
    await using _server = await calls[0]!;
    assertEquals(listeners(), 1);
    const closed = rejectsClosed(calls[1]!, listener);
    await listener.close();
    await closed;
    assertEquals(listeners(), 0);
  });

  test("close() fails all pending calls at once", async () => {
    const listener = await listen();
    let failed = 0;
    const calls = Array.from({ length: 5 }, () => {
      const call = listener.accept();
      call.catch(() => failed++);
      return call;
    });
    const closed = listener.close();
    await Promise.resolve();
    assertEquals(failed, 5, "in the same turn of the event loop");
    await closed;
    for (const call of calls) await rejectsClosed(call, listener);
  });

  test("close() is idempotent, and the address stays", async () => {
    const listener = await listen();
    const address = String(listener.addr);
    await Promise.all([listener.close(), listener.close()]);
    await listener.close();
    assertEquals(String(listener.addr), address);
    await rejectsClosed(listener.accept(), listener);
    for await (const _ of listener) throw new Error("iterated");
    listener.ref();
    listener.unref();
  });

  test("the address is free when close() settles", async () => {
    const first = await listenOwn();
    const address = String(first.addr);
    const pending = first.accept();
    await using client = await world.connect(first);
    await using server = await pending;
    const waiting = rejectsClosed(first.accept(), first);
    await first.close();
    await using second = await anew(first);
    assertEquals(String(second.addr), address);
    await waiting;
    await roundTrip(client, server);
  });

  test("an address in use is refused", async () => {
    await using first = await listen();
    const address = String(first.addr);
    const error = await assertRejects(() => listen({}, address), OpError);
    assertEquals([error.op, error.code], ["listen", "EADDRINUSE"]);
    assertEquals(String(error.addr), address);
  });

  test("accepted connections stay open after close()", async () => {
    const listener = await listen();
    await using client = await world.connect(listener);
    await using server = await listener.accept();
    await listener.close();
    await roundTrip(client, server);
  });

  test("close() closes clients that nobody has accepted", async () => {
    const listener = await listen();
    const controller = new AbortController();
    const gone = listener.accept({ signal: controller.signal });
    controller.abort();
    await rejectsWith(gone, controller.signal.reason);
    // The first is accepted for the aborted call; the second waits.
    await using one = await world.connect(listener);
    await using two = await world.connect(listener);
    await turn();
    await listener.close();
    for (const conn of [one, two]) {
      const end = await conn.read(new Uint8Array(1)).catch((error) =>
        (error as OpError).code
      );
      assert(end === null || end === "ECONNRESET", `${end}`);
    }
  });

  test("a read that ends may close all others that are ready", async () => {
    await using listener = await listen();
    const accepting = Array.from({ length: 20 }, () => listener.accept());
    const clients = await Promise.all(
      accepting.map((_, id) => client(listener, id)),
    );
    const servers = await Promise.all(accepting);
    const closeAll = () => servers.forEach((server) => server.close());
    const reads = servers.map((server) =>
      server.read(new Uint8Array(1)).then((n) => {
        closeAll();
        return n === 1;
      }, isClosed)
    );
    assert((await Promise.all(reads)).every((fine) => fine));
    for (const conn of clients) conn.close();
  });

  test("for await accepts clients until close()", async () => {
    const listener = await listen();
    const ids: number[] = [];
    const loop = (async () => {
      for await (const conn of listener) {
        await using server = conn;
        ids.push(await idOf(server));
        if (ids.length === 3) listener.close();
      }
    })();
    for (const id of [1, 2, 3]) {
      await using _client = await client(listener, id);
    }
    await loop;
    assertEquals(ids, [1, 2, 3]);
  });

  test("close() ends a pending for await without an error", async () => {
    const listener = await listen();
    const loop = (async () => {
      for await (const _ of listener) throw new Error("iterated");
    })();
    await listener.close();
    await loop;
  });

  test("two for await loops share one listener", async () => {
    const listener = await listen();
    const ids: number[] = [];
    const loop = async () => {
      for await (const conn of listener) {
        await using server = conn;
        ids.push(await idOf(server));
        if (ids.length === 4) await listener.close();
      }
    };
    const loops = Promise.all([loop(), loop()]);
    for (const id of [1, 2, 3, 4]) {
      await using _client = await client(listener, id);
    }
    await loops;
    assertEquals(ids.sort(), [1, 2, 3, 4]);
  });

  test("break out of for await closes the listener", async () => {
    const listener = await listenOwn();
    await using _client = await world.connect(listener);
    for await (const conn of listener) {
      conn.close();
      break;
    }
    await rejectsClosed(listener.accept(), listener);
    await using _again = await anew(listener);
  });

  test("a throw in for await closes the listener", async () => {
    const listener = await listenOwn();
    await using _client = await world.connect(listener);
    const boom = new Error("boom");
    const loop = async () => {
      for await (const conn of listener) {
        conn.close();
        throw boom;
      }
    };
    await rejectsWith(loop(), boom);
    await using _again = await anew(listener);
  });

  test("close() before break is not an error", async () => {
    const listener = await listen();
    await using _client = await world.connect(listener);
    for await (const conn of listener) {
      conn.close();
      await listener.close();
      break;
    }
  });

  test("await using closes the listener", async () => {
    let closed: Listener;
    {
      await using listener = await listenOwn();
      closed = listener;
    }
    await using _again = await anew(closed);
  });

  test("an aborted signal fails listen() with its reason", async () => {
    const reason = new Error("not today");
    const signal = AbortSignal.abort(reason);
    await rejectsWith(listen({ signal }), reason);
    // It fails before it opens anything: it does not find the address taken.
    await using listener = await listen();
    await rejectsWith(listen({ signal }, String(listener.addr)), reason);
  });

  test("an abort during listen() leaves nothing open", async () => {
    const { controller, signal, listeners } = countedSignal();
    const listening = listen({ signal });
    controller.abort();
    // It may have been too late to reject.
    const error = await listening
      .then((listener) => listener.accept())
      .catch((error) => error);
    assert(error === signal.reason || isClosed(error), String(error));
    assertEquals(listeners(), 0);
  });

  test("an abort of its signal closes the listener", async () => {
    const { controller, signal, listeners } = countedSignal();
    const listener = await listenOwn({ signal });
    assertEquals(listeners(), 1);
    const call = listener.accept();
    const loop = (async () => {
      for await (const _ of listener) throw new Error("iterated");
    })();
    controller.abort(new Error("enough"));
    await rejectsClosed(call, listener);
    await loop;
    await listener.close();
    await using _again = await anew(listener);
    assertEquals(listeners(), 0);
  });

  test("an abort of its signal leaves nothing behind", async () => {
    const { controller, signal } = countedSignal();
    const listener = await listen({ signal });
    const loop = (async () => {
      for await (const _ of listener) throw new Error("nobody called");
    })();
    await turn(); // an accept is under way
    controller.abort();
    await loop; // nobody awaits close(): the sanitizers see what is left
  });

  test("close() leaves no listener on its signal", async () => {
    const { signal, listeners } = countedSignal();
    const listener = await listen({ signal });
    await listener.close();
    assertEquals(listeners(), 0);
  });

  Deno.test(`${name} listener: listen() checks its options first`, async (t) => {
    const types: Record<string, unknown> = {
      noDelay: 1,
      keepAlive: "yes",
      reusePort: 0,
      onAcceptError: {},
      signal: {},
      backlog: "5",
    };
    for (const [option, value] of Object.entries(types)) {
      await t.step(`${option} has the wrong type`, async () => {
        await assertRejects(() => listen({ [option]: value }), TypeError);
      });
    }
    for (const backlog of [0, -1, 1.5, NaN, Infinity]) {
      await t.step(`backlog is ${backlog}`, async () => {
        await assertRejects(() => listen({ backlog }), RangeError);
      });
    }
  });

  if (!reset) return;

  test("a client that has already reset is reported, and skipped", async () => {
    const kinds: string[] = [];
    await using listener = await listen({
      onAcceptError: ({ error, kind, retryMs }) => {
        assertInstanceOf(error, OpError);
        assertEquals([error.op, String(error.addr)], [
          "accept",
          String(listener.addr),
        ]);
        kinds.push(`${kind} ${retryMs}`);
      },
    });
    await reset(listener);
    await reset(listener);
    await using _client = await client(listener, 3);
    await using server = await listener.accept();
    assertEquals(await idOf(server), 3);
    assertEquals(kinds, ["peer 0", "peer 0"]);
  });

  const failures: Record<string, (thrown: Error) => void | Promise<void>> = {
    throws: (thrown) => {
      throw thrown;
    },
    rejects: (thrown) => Promise.reject(thrown),
  };
  for (const [how, fail] of Object.entries(failures)) {
    test(`if onAcceptError ${how}, its error is printed`, async () => {
      const thrown = new Error("boom");
      const printed = Promise.withResolvers<unknown[]>();
      const original = console.error;
      console.error = (...args) => printed.resolve(args);
      try {
        await using listener = await listen({
          onAcceptError: () => fail(thrown),
        });
        await reset(listener);
        await using _client = await client(listener, 1);
        await using server = await listener.accept();
        assertEquals(await idOf(server), 1);
        assertStrictEquals((await printed.promise).at(-1), thrown);
      } finally {
        console.error = original;
      }
    });
  }

  test("onAcceptError may close the listener", async () => {
    const listener = await listen({
      onAcceptError: () => void listener.close(),
    });
    for (let i = 0; i < 3; i++) await reset(listener);
    for await (const _ of listener) throw new Error("iterated");
    await listener.close();
  });
}

async function idOf(conn: Conn): Promise<number> {
  const p = new Uint8Array(1);
  assertEquals(await conn.read(p), 1);
  return p[0]!;
}

async function roundTrip(a: Conn, b: Conn): Promise<void> {
  for (const [from, to] of [[a, b], [b, a]] as const) {
    await from.write(bytes("ping"));
    const p = new Uint8Array(8);
    assertEquals(await to.read(p), 4);
  }
}

async function rejectsWith(call: Promise<unknown>, reason: unknown) {
  const error = await call.then(() => "no error", (error) => error);
  assertStrictEquals(error, reason);
}

async function rejectsClosed(call: Promise<unknown>, { addr }: Listener) {
  const error = await assertRejects(() => call, OpError);
  assert(isClosed(error));
  assertEquals(
    error.message,
    `accept ${addr.transport} ${addr}: use of closed network connection`,
  );
  assertEquals([error.timeout, error.temporary], [false, false]);
}
