/** Resolvers, connectors and callers that misbehave. */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertStrictEquals,
} from "@std/assert";
import {
  type Connector,
  dial,
  Dialer,
  DialError,
  type DialOptions,
} from "../dialer.ts";
import { listen } from "../listener.ts";
import type { Conn } from "../net/conn.ts";
import {
  DeadlineExceededError,
  DnsError,
  isTimeout,
  OpError,
} from "../net/errors.ts";
import type { Resolver } from "../net/resolver.ts";
import { FakeClock } from "../testing/mod.ts";
import { Scenario } from "./scenario.ts";
import { canQueue, countedSignal, turn } from "./support.ts";

/** A connection that counts how often it is closed. */
function counted(): { conn: Deno.Conn; closed: () => number } {
  let count = 0;
  const addr = (port: number) =>
    ({ transport: "tcp", hostname: "10.0.0.1", port }) as const;
  const conn = {
    localAddr: addr(9),
    remoteAddr: addr(1),
    close: () => count++,
  };
  return { conn: conn as unknown as Deno.Conn, closed: () => count };
}

const refuse: Connector = () =>
  Promise.reject(
    new Deno.errors.ConnectionRefused("Connection refused (os error 111)"),
  );

function failureOf(options: DialOptions, address = "db.test:1") {
  return dial("tcp", address, options).then(
    () => {
      throw new Error("connected");
    },
    (error) => error,
  );
}

Deno.test("a resolver that rejects with undefined is not reported as name not found", async () => {
  const error = await failureOf({
    resolve: () => Promise.reject(undefined),
    connect: refuse,
  });
  assertEquals(
    error.message,
    "dial tcp: lookup db.test: the resolver threw undefined",
  );
  assertEquals((error.cause as DnsError).notFound, false);
});

Deno.test("dial() reports what a resolver gives instead of addresses", async (t) => {
  const cases: Record<string, [resolve: unknown, gave: string]> = {
    "nothing": [() => undefined, "undefined"],
    "null": [() => null, "null"],
    "a promise of nothing": [() => Promise.resolve(), "undefined"],
    "a name": [() => Promise.resolve(["other.test"]), '"other.test"'],
    "a shortened address": [() => Promise.resolve(["127.1"]), '"127.1"'],
    "numbers": [() => Promise.resolve([2130706433n]), "2130706433n"],
    "records": [
      () => Promise.resolve([{ address: "10.0.0.1" }]),
      '{ address: "10.0.0.1" }',
    ],
  };
  for (const [name, [resolve, gave]] of Object.entries(cases)) {
    await t.step(name, async () => {
      const error = await failureOf({
        resolve: resolve as Resolver,
        connect: refuse,
      });
      assertInstanceOf(error, OpError);
      assertInstanceOf(error.cause, DnsError);
      assertEquals(
        error.message,
        `dial tcp: lookup db.test: the resolver gave ${gave}, not an IP`,
      );
    });
  }
  await t.step("valid addresses among it are still dialled", async () => {
    const { conn } = counted();
    const tried: string[] = [];
    using _conn = await dial("tcp", "db.test:1", {
      resolve: () => Promise.resolve(["nonsense", "10.0.0.1"]),
      connect: (addr) => {
        tried.push(String(addr));
        return Promise.resolve(conn);
      },
    });
    assertEquals(tried, ["10.0.0.1:1"]);
  });
  await t.step("one address without a list is accepted", async () => {
    const resolve = () => Promise.resolve("10.0.0.1" as unknown as string[]);
    const error = await failureOf({ resolve, connect: refuse });
    assertEquals(error.message, "dial tcp 10.0.0.1:1: connection refused");
  });
});

Deno.test("dial() reports a lookup that broke off, and the addresses that failed", async (t) => {
  const breaking = (batch: string[], reason: unknown): Resolver =>
    async function* () {
      yield batch;
      throw reason;
    };
  const boom = new DnsError({ hostname: "db.test", reason: "boom" });
  const cases: Record<string, [resolve: Resolver, words: string]> = {
    "after one address": [
      breaking(["10.0.0.1"], boom),
      "lookup broke off after 1 failed: 10.0.0.1:1 connection refused; " +
      "lookup db.test: boom",
    ],
    "after several": [
      breaking(["10.0.0.1", "10.0.0.2"], new Error("boom")),
      "lookup broke off after 2 failed: 10.0.0.1:1 connection refused; " +
      "10.0.0.2:1 connection refused; lookup db.test: boom",
    ],
    "with something that is not an address": [
      () => Promise.resolve(["nonsense", "10.0.0.1"]),
      "lookup broke off after 1 failed: 10.0.0.1:1 connection refused; " +
      'lookup db.test: the resolver gave "nonsense", not an IP',
    ],
  };
  for (const [name, [resolve, words]] of Object.entries(cases)) {
    await t.step(name, async () => {
      const error = await failureOf({ resolve, connect: refuse });
      assertInstanceOf(error, DialError);
      assertEquals(error.message, `dial tcp db.test:1: ${words}`);
      assertEquals(error.code, "ECONNREFUSED");
      assertEquals(error.errors.length, error.trace.attempts.length);
    });
  }
});

/** Batches that never end, with a `return()` of the test's own. */
function batches(
  list: unknown[],
  onReturn: () => Promise<IteratorResult<string[]>>,
): Resolver {
  return () => ({
    [Symbol.asyncIterator]: () => ({
      next: () => {
        const value = list.shift() as string[];
        return value === undefined
          ? new Promise<never>(() => {})
          : Promise.resolve({ done: false, value });
      },
      return: onReturn,
    }),
  });
}

Deno.test("a resolver that does not end does not hold a dial up", async (t) => {
  const hangs = () => new Promise<never>(() => {});
  const rejects = () => Promise.reject(new Error("return() failed"));
  for (const [name, onReturn] of Object.entries({ hangs, rejects })) {
    await t.step(`return() ${name} after the race`, async () => {
      const { conn, closed } = counted();
      const won = await dial("tcp", "db.test:1", {
        resolve: batches([["10.0.0.1"], ["10.0.0.2"]], onReturn),
        connect: () => Promise.resolve(conn),
      });
      won.close();
      assertEquals(closed(), 1);
    });
    await t.step(`return() ${name} after an invalid address`, async () => {
      const clock = new FakeClock(0);
      const dialling = failureOf({
        clock,
        timeout: 50,
        resolve: batches([[17]], onReturn),
        connect: refuse,
      });
      await clock.advance(50);
      assertInstanceOf(await dialling, OpError);
      assertEquals(clock.pending, 0);
    });
  }
  await t.step("it answers after the dial is over", async () => {
    const clock = new FakeClock(0);
    const later = Promise.withResolvers<string[]>();
    const tried: string[] = [];
    const dialling = failureOf({
      clock,
      timeout: 50,
      resolve: () => later.promise,
      connect: (addr) => {
        tried.push(String(addr));
        return Promise.reject(new Error("tried"));
      },
    });
    await clock.advance(50);
    assert(isTimeout(await dialling));
    later.resolve(["10.0.0.1"]);
    await clock.advance(50);
    assertEquals([tried, clock.pending], [[], 0]);
  });
  await t.step("it fails after the dial is over", async () => {
    const clock = new FakeClock(0);
    const later = Promise.withResolvers<string[]>();
    const resolve = () => later.promise;
    const dialling = failureOf({ clock, timeout: 50, resolve });
    await clock.advance(50);
    assert(isTimeout(await dialling));
    later.reject(new Error("late")); // an unhandled rejection fails the test
    await clock.advance(50);
  });
  await t.step("it throws from its iterator", async () => {
    const resolve = () => ({
      [Symbol.asyncIterator]: () => {
        throw new Error("no iterator");
      },
    });
    const error = await failureOf({ resolve });
    assertEquals(error.message, "dial tcp: lookup db.test: no iterator");
  });
});

Deno.test("a timeout during the lookup is reported with the addresses that failed", async () => {
  const clock = new FakeClock(0);
  const dialling = failureOf({
    clock,
    timeout: 50,
    resolve: batches([["10.0.0.1", "?", "::1"]], () => new Promise(() => {})),
    connect: refuse,
  });
  await clock.advance(50);
  const error = await dialling;
  assertInstanceOf(error, DialError);
  assertEquals(
    error.message,
    "dial tcp db.test:1: i/o timeout in lookup after 2 failed: " +
      "10.0.0.1:1 connection refused; [::1]:1 connection refused; " +
      'lookup db.test: the resolver gave "?", not an IP',
  );
  assertEquals([error.timeout, error.code], [true, "ECONNREFUSED"]);
  assertEquals(error.errors.map((e) => e.timeout), [false, false]);
});

Deno.test("a timeout during the lookup is not that of the only address", async () => {
  const clock = new FakeClock(0);
  const dialling = failureOf({
    clock,
    timeout: 50,
    resolve: batches([["10.0.0.1"]], () => new Promise(() => {})),
    connect: refuse,
  });
  await clock.advance(50);
  assertEquals(
    (await dialling).message,
    "dial tcp db.test:1: i/o timeout in lookup after 1 failed: " +
      "10.0.0.1:1 connection refused",
  );
});

Deno.test("an address that was not tried fails with the timeout, not another's error", async () => {
  const { error } = await new Scenario({
    "10.0.0.1": [0, "hang"],
    "10.0.0.2": [2, "refused"],
    "10.0.0.3": [0, "ok"], // would start at 260
  }).play({ timeout: 255 });
  assertInstanceOf(error, DialError);
  assertEquals(error.errors.map((e) => e.message), [
    "dial tcp 10.0.0.1:80: i/o timeout",
    "dial tcp 10.0.0.2:80: connection refused",
    "dial tcp 10.0.0.3:80: i/o timeout",
  ]);
  assertInstanceOf(error.errors[2]!.cause, DeadlineExceededError);
});

Deno.test("a connector that misbehaves fails its address", async (t) => {
  const cases: Record<string, unknown> = {
    "throws": () => {
      throw new Error("boom");
    },
    "gives nothing": () => undefined,
    "gives a promise of nothing": () => Promise.resolve(),
    "gives what is not a connection": () => Promise.resolve({}),
    "gives what has one address": () =>
      Promise.resolve({ localAddr: { transport: "tcp" } }),
    "rejects with nothing": () => Promise.reject(),
    "rejects with a symbol": () => Promise.reject(Symbol("no")),
  };
  for (const [name, connect] of Object.entries(cases)) {
    for (const [way, options] of [["alone", {}], ["race", { timeout: 9e9 }]]) {
      await t.step(`${name}, ${way}`, async () => {
        const clock = new FakeClock(0);
        const error = await failureOf(
          { clock, connect: connect as Connector, ...options as DialOptions },
          "10.0.0.1:1",
        );
        assertInstanceOf(error, DialError);
        assertMatch(
          error.message,
          name.startsWith("gives")
            ? /^dial tcp 10\.0\.0\.1:1: not a connection: (undefined|\{.*\})$/
            : /^dial tcp 10\.0\.0\.1:1: ./,
        );
        assertEquals(error.trace.attempts[0]!.outcome, "failed");
        assertEquals(clock.pending, 0);
      });
    }
  }
  await t.step("fails with EADDRNOTAVAIL: it is not asked again", async () => {
    let calls = 0;
    const cause = Object.assign(new Error("no"), { code: "EADDRNOTAVAIL" });
    const error = await failureOf({
      connect: () => {
        calls++;
        return Promise.reject(cause);
      },
    }, "10.0.0.1:1");
    assertStrictEquals((error as DialError).cause, cause);
    assertEquals(calls, 1);
  });
  await t.step("gives a connection without an address: closed", async () => {
    const { conn, closed } = counted();
    const broken = Object.defineProperty(conn, "localAddr", {
      get: () => {
        throw new Error("no address");
      },
    });
    const connect = () => Promise.resolve(broken);
    const error = await failureOf({ connect }, "10.0.0.1:1");
    assertEquals(error.message, "dial tcp 10.0.0.1:1: no address");
    assertEquals(closed(), 1);
  });
  await t.step("gives one that fails, and whose close() fails", async () => {
    const { conn } = counted();
    Object.assign(conn, {
      setNoDelay: () => {
        throw new Error("not this one");
      },
      close: () => {
        throw new Deno.errors.BadResource("closed already");
      },
    });
    const connect = () => Promise.resolve(conn);
    const error = await failureOf({ connect }, "10.0.0.1:1");
    assertEquals(error.message, "dial tcp 10.0.0.1:1: not this one");
  });
});

Deno.test("an abort at the moment of success comes too late or closes the connection", async (t) => {
  // Whichever microtask it hits, a dial that rejects has closed what it had.
  for (const settleFirst of [true, false]) {
    await t.step(settleFirst ? "just after it" : "just before it", async () => {
      const outcomes = new Set<string>();
      for (let ticks = 0; ticks < 16; ticks++) {
        const { conn, closed } = counted();
        const { controller, listeners, signal } = countedSignal();
        const pending = Promise.withResolvers<Deno.Conn>();
        const dialling = dial("tcp", "10.0.0.1:1", {
          signal,
          connect: () => pending.promise,
        });
        const ended = dialling.then(() => "connected", () => "aborted");
        if (settleFirst) pending.resolve(conn);
        for (let i = 0; i < ticks; i++) await Promise.resolve();
        controller.abort("enough");
        if (!settleFirst) pending.resolve(conn);
        const outcome = await ended;
        await new Promise((resolve) => setTimeout(resolve, 0));
        assertEquals(closed(), outcome === "connected" ? 0 : 1, `${ticks}`);
        assertEquals(listeners(), 0);
        outcomes.add(outcome);
      }
      assertEquals(
        outcomes,
        new Set(settleFirst ? ["aborted", "connected"] : ["aborted"]),
      );
    });
  }
  await t.step("while socket options are set", async () => {
    const { conn, closed } = counted();
    const { controller, listeners, signal } = countedSignal();
    Object.assign(conn, { setNoDelay: () => controller.abort("enough") });
    const error = await failureOf(
      { signal, connect: () => Promise.resolve(conn) },
      "10.0.0.1:1",
    );
    assertEquals([error, closed(), listeners()], ["enough", 1, 0]);
  });
  await t.step("from the abort of one of its own attempts", async () => {
    const clock = new FakeClock(0);
    const { controller, listeners, signal } = countedSignal();
    const dialling = failureOf(
      {
        clock,
        signal,
        timeout: 50,
        connect: (_, { signal }) =>
          new Promise((_, reject) =>
            signal.addEventListener("abort", () => {
              controller.abort("me, too");
              reject(signal.reason);
            })
          ),
      },
      "10.0.0.1:1",
    );
    await clock.advance(50);
    assertEquals(await dialling, "me, too");
    assertEquals([listeners(), clock.pending], [0, 0]);
  });
});

Deno.test("one signal aborts many dials at once", async () => {
  const { controller, listeners, signal } = countedSignal();
  const reason = new Error("enough");
  const connect: Connector = (_, { signal }) =>
    new Promise((_, reject) =>
      signal.addEventListener("abort", () => reject(signal.reason))
    );
  const dialling = Array.from(
    { length: 20 },
    (_, i) => failureOf({ signal, connect }, `10.0.0.${i}:1`),
  );
  await Promise.resolve();
  controller.abort(reason);
  for (const error of await Promise.all(dialling)) {
    assertStrictEquals(error, reason);
  }
  assertEquals(listeners(), 0);
});

Deno.test("a timeout and a connection in the same millisecond: only one counts", async (t) => {
  for (const option of ["timeout", "attemptTimeout"]) {
    await t.step(option, async () => {
      const scenario = new Scenario({ "10.0.0.1": [100, "deaf"] });
      const { endMs } = await scenario.play({ [option]: 100 });
      assertEquals(endMs, 100); // and play() checks for open connections
    });
  }
});

Deno.test("Dialer: an undefined option of a call leaves the default in place", async () => {
  const clock = new FakeClock(0);
  const dialer = new Dialer({
    clock,
    timeout: 50,
    connect: () => new Promise(() => {}),
  });
  const options: unknown = { timeout: undefined };
  const dialling = dialer.dial("tcp", "10.0.0.1:1", options as DialOptions)
    .then((conn: Conn) => conn.close(), (error) => error);
  await clock.advance(50);
  assert(isTimeout(await dialling));
  assertEquals(clock.pending, 0);
});

Deno.test("Dialer remembers an address after an abort, and after a failed lookup", async () => {
  const clock = new FakeClock(0);
  const tried: string[] = [];
  let found = Promise.resolve(["10.0.0.1", "10.0.0.2"]);
  const dialer = new Dialer({
    clock,
    resolve: () => found,
    connect: (addr) => {
      const { hostname } = addr as Deno.NetAddr;
      tried.push(hostname);
      return hostname === "10.0.0.2"
        ? Promise.resolve(counted().conn)
        : refuse(addr, { signal: new AbortController().signal });
    },
  });
  const start = async (options: DialOptions = {}) => {
    tried.length = 0;
    await dialer.dial("tcp", "db.test:1", options)
      .then((conn) => conn.close(), () => {});
    return tried;
  };
  assertEquals(await start(), ["10.0.0.1", "10.0.0.2"]);
  assertEquals(await start({ signal: AbortSignal.abort() }), []);
  const addresses = found;
  found = Promise.reject(new Error("name server down"));
  assertEquals(await start(), []);
  found = addresses;
  assertEquals(await start(), ["10.0.0.2"]);
});

Deno.test("dial() with AbortSignal.timeout() rejects with the signal's reason", async () => {
  const signal = AbortSignal.timeout(5);
  const connect = () => new Promise<never>(() => {});
  const error = await failureOf({ signal, connect }, "10.0.0.1:1");
  assertStrictEquals(error, signal.reason);
  assertEquals(error.name, "TimeoutError");
  assert(isTimeout(error));
});

Deno.test("a resolver may yield empty batches", async (t) => {
  await t.step(
    "the first is empty: the lookup lasts until there are addresses",
    async () => {
      const scenario = new Scenario({ "10.0.0.1": [5, "ok"] });
      const { clock } = scenario;
      const dialling = scenario.dial({
        async *resolve() {
          yield [];
          await new Promise<void>((done) => clock.setTimeout(done, 30));
          yield ["10.0.0.1"];
        },
      });
      await clock.advance(100);
      const conn = await dialling;
      const { attempts, resolveMs, totalMs } = conn.dialTrace!;
      assertEquals([resolveMs, attempts[0]!.startMs, totalMs], [30, 30, 35]);
      scenario.check(conn);
    },
  );
  await t.step("all are empty: no such host", async () => {
    const error = await failureOf({
      async *resolve() {
        yield [];
        yield [];
      },
    });
    assertEquals(error.message, "dial tcp: lookup db.test: no such host");
  });
  await t.step("there is none: no such host", async () => {
    const error = await failureOf({ async *resolve() {} });
    assertEquals(error.message, "dial tcp: lookup db.test: no such host");
  });
});

Deno.test("Dialer tries the remembered address at once when it comes late", async (t) => {
  for (
    const [attemptDelay, expected] of [
      [250, [["10.0.0.1", 0], ["10.0.0.2", 100]]],
      // One after another, even if one is remembered.
      [Infinity, [["10.0.0.1", 0], ["10.0.0.2", 500]]],
    ] as const
  ) {
    await t.step(`attemptDelay ${attemptDelay}`, async () => {
      const scenario = new Scenario({
        "10.0.0.1": [500, "refused"],
        "10.0.0.2": [0, "ok"],
        "10.0.0.3": [0, "hang"],
      });
      const { clock, connect, starts } = scenario;
      const dialer = new Dialer({ attemptDelay, clock, connect });
      const learning = dialer.dial("tcp", "target.test:80", {
        resolve: () => Promise.resolve(["10.0.0.2", "10.0.0.3"]),
      });
      await clock.advance(0);
      (await learning).close();
      starts.length = 0;
      const dialling = dialer.dial("tcp", "target.test:80", {
        async *resolve() {
          yield ["10.0.0.1"];
          await new Promise<void>((done) => clock.setTimeout(done, 100));
          yield ["10.0.0.3", "10.0.0.2"];
        },
      });
      await clock.advance(1_000);
      assertEquals(starts, expected.map((start) => [...start]));
      scenario.check(await dialling);
    });
  }
});

Deno.test("a connector that never settles leaves no timer", async (t) => {
  for (const end of ["won", "timed out", "aborted", "aborted by it"]) {
    await t.step(`when the race is ${end}`, async () => {
      const clock = new FakeClock(0);
      const { controller, signal } = countedSignal();
      const dialling = dial("tcp", "db.test:1", {
        clock,
        signal,
        attemptTimeout: 60_000,
        timeout: end === "timed out" ? 300 : 60_000,
        resolve: () => Promise.resolve(["10.0.0.1", "10.0.0.2"]),
        connect: (addr) => {
          if (end === "aborted by it") controller.abort();
          return end === "won" && String(addr) === "10.0.0.2:1"
            ? Promise.resolve(counted().conn)
            : new Promise(() => {});
        },
      }).then((conn) => conn.close(), () => {});
      await clock.advance(300);
      if (end === "aborted") controller.abort();
      await dialling;
      assertEquals(clock.timers, []);
    });
  }
});

Deno.test("a connector's connection that is neither TCP nor unix is closed", async () => {
  for (const options of [{}, { timeout: 60_000 }]) {
    let closed = 0;
    const addr = { transport: "vsock", cid: 1, port: 1 };
    const conn = { localAddr: addr, remoteAddr: addr, close: () => closed++ };
    const error = await dial("tcp", "10.0.0.1:1", {
      ...options,
      connect: () => Promise.resolve(conn as unknown as Deno.Conn),
    }).catch((e) => e);
    assertInstanceOf(error, DialError);
    assertEquals(
      error.message,
      "dial tcp 10.0.0.1:1: not a stream address: vsock",
    );
    assertEquals(error.trace.attempts[0]!.outcome, "failed");
    assertEquals(closed, 1);
  }
});

Deno.test("a resolver that ignores its signal is asked no more after the dial", async () => {
  let asked = 0;
  let ended = false;
  const resolve: Resolver = async function* () {
    try {
      while (asked < 20) yield [`10.0.0.${++asked}`];
    } finally {
      ended = true;
    }
  };
  const connect = () => Promise.resolve(counted().conn);
  (await dial("tcp", "db.test:1", { connect, resolve })).close();
  while (!ended) await turn();
  assert(asked < 20, "asked to its end");
});

Deno.test("attemptTimeout does not lose a connection made while the process stood still", async () => {
  await using listener = await listen("tcp", "127.0.0.1:0");
  for (const resolve of [undefined, () => Promise.resolve(["127.0.0.1"])]) {
    const { port } = listener.addr as Deno.NetAddr;
    const host = resolve ? "db.test" : "127.0.0.1";
    const dialling = dial("tcp", `${host}:${port}`, {
      attemptTimeout: 50,
      ...resolve && { resolve },
    });
    for (let i = 0; i < 20; i++) await Promise.resolve(); // under way
    const end = Date.now() + 100;
    while (Date.now() < end);
    const conn = await dialling;
    assertEquals(conn.dialTrace!.attempts[0]!.outcome, "connected");
    conn.close();
    (await listener.accept()).close();
  }
});

Deno.test(
  "timeout does not lose connections made while the process stood still",
  {
    ignore: !await canQueue(200),
  },
  async () => {
    await using listener = await listen("tcp", "127.0.0.1:0");
    const dials = Array.from(
      { length: 200 },
      () => dial("tcp", String(listener.addr), { timeout: 50 }),
    );
    for (let i = 0; i < 20; i++) await Promise.resolve(); // under way
    const end = Date.now() + 100;
    while (Date.now() < end);
    const conns = await Promise.allSettled(dials);
    for (const { status } of conns) assertEquals(status, "fulfilled");
    for (const { value } of conns as PromiseFulfilledResult<Conn>[]) {
      value
        .close();
    }
  },
);

Deno.test("attemptTimeout gives a process that stood still two turns of the event loop", async () => {
  const conn = counted().conn;
  const dialled = await dial("tcp", "db.test:1", {
    resolve: () => Promise.resolve(["10.0.0.1"]),
    attemptTimeout: 20,
    connect: async () => {
      setTimeout(() => {
        const end = performance.now() + 60;
        while (performance.now() < end);
      }, 0);
      // The process stands still in the first turn; the alarm rings next.
      for (let turns = 0; turns < 3; turns++) await turn();
      return conn;
    },
  });
  dialled.close();
});

Deno.test("an address that this host's firewall forbids is reported as denied", async () => {
  for (const code of ["EPERM", "EACCES"]) {
    const error = await dial("tcp", "127.0.0.1:443", {
      connect: () => Promise.reject(Object.assign(new Error(), { code })),
    }).catch((e) => e);
    assertInstanceOf(error, DialError);
    const [attempt] = error.trace.attempts;
    assertEquals([attempt!.outcome, attempt!.code], ["denied", code]);
  }
});

Deno.test("a connector that lacks another grant is reported in its own words", async () => {
  const message = 'Requires read access to "/ca.pem", run again with ' +
    "the --allow-read flag";
  for (const [network, address] of [["tcp", "127.0.0.1:443"], ["unix", "/s"]]) {
    const error = await dial(network as "tcp" | "unix", address!, {
      connect: () => Promise.reject(new Deno.errors.NotCapable(message)),
    }).catch((e) => e);
    assertInstanceOf(error, DialError);
    assertEquals(error.message, `dial ${network} ${address}: ${message}`);
    assertEquals(error.trace.attempts[0]!.outcome, "denied");
  }
});

Deno.test("a tunnel without a grant names the flag for its proxy", async () => {
  const message = 'Requires net access to "127.0.0.2:3128", run again with ' +
    "the --allow-net flag";
  const error = await dial("unix", "/s", {
    connect: () => Promise.reject(new Deno.errors.NotCapable(message)),
  }).catch((e) => e);
  assertEquals(
    error.message,
    "dial unix /s: run again with --allow-net=127.0.0.2:3128",
  );
});
