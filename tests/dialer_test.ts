import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  type Connector,
  dial,
  Dialer,
  DialError,
  type DialOptions,
  type DialTrace,
} from "../dialer.ts";
import { listen } from "../listener.ts";
import type { Network } from "../net/addr.ts";
import { Conn } from "../net/conn.ts";
import {
  AddrError,
  DnsError,
  isTimeout,
  OpError,
  UnknownNetworkError,
} from "../net/errors.ts";
import { FakeClock } from "../testing/mod.ts";
import { InnerConn } from "./conn_inner.ts";
import { Scenario } from "./scenario.ts";
import {
  blackHole,
  bytes,
  countedSignal,
  hasIpv6,
  STUCK_MS,
  textOf,
  turn,
} from "./support.ts";

type ErrorClass = new (...args: never[]) => Error;

const never: DialOptions = {
  resolve: () => {
    throw new Error("asked a resolver");
  },
  connect: () => {
    throw new Error("opened a socket");
  },
};

/** Go's grammar: what fails before any lookup, and with which message. */
Deno.test("dial() rejects bad addresses before any lookup or connect", async (t) => {
  const cases: [string, string, string, ErrorClass][] = [
    [
      "foo",
      "127.0.0.1:80",
      "dial foo: unknown network foo",
      UnknownNetworkError,
    ],
    ["", "127.0.0.1:80", "dial: unknown network ", UnknownNetworkError],
    ["TCP", "", "dial TCP: unknown network TCP", UnknownNetworkError],
    [
      "udp",
      "1.2.3.4:5",
      "dial udp: address 1.2.3.4:5: unexpected address type",
      AddrError,
    ],
    ["tcp", "", "dial tcp: missing address", AddrError],
    ["unix", "", "dial unix: missing address", AddrError],
    [
      "tcp",
      "host",
      "dial tcp: address host: missing port in address",
      AddrError,
    ],
    [
      "tcp",
      "::1:80",
      "dial tcp: address ::1:80: too many colons in address",
      AddrError,
    ],
    [
      "tcp",
      "[::1:80",
      "dial tcp: address [::1:80: missing ']' in address",
      AddrError,
    ],
    ["tcp", "host:65536", "dial tcp: address 65536: invalid port", AddrError],
    ["tcp", "host:-1", "dial tcp: address -1: invalid port", AddrError],
    [
      "tcp",
      "host:nosuch",
      "dial tcp: address tcp/nosuch: unknown port",
      AddrError,
    ],
    ["tcp", "127.1:80", "dial tcp: lookup 127.1: no such host", DnsError],
    [
      "tcp",
      "010.0.0.1:80",
      "dial tcp: lookup 010.0.0.1: no such host",
      DnsError,
    ],
    [
      "tcp",
      "2130706433:80",
      "dial tcp: lookup 2130706433: no such host",
      DnsError,
    ],
    ["tcp", "a b:80", "dial tcp: lookup a b: no such host", DnsError],
    [
      "tcp4",
      "[::1]:80",
      "dial tcp4: address ::1: no suitable address found",
      AddrError,
    ],
    [
      "tcp6",
      "127.0.0.1:80",
      "dial tcp6: address 127.0.0.1: no suitable address found",
      AddrError,
    ],
    [
      "tcp6",
      "[::ffff:127.0.0.1]:80",
      "dial tcp6: address ::ffff:127.0.0.1: no suitable address found",
      AddrError,
    ],
  ];
  for (const [network, address, message, cause] of cases) {
    await t.step(`${network} ${address}`, async () => {
      const error = await dial(network as Network, address, never)
        .catch((e) => e);
      assertInstanceOf(error, OpError);
      assert(!(error instanceof DialError));
      assertEquals([error.message, error.op], [message, "dial"]);
      assertInstanceOf(error.cause, cause);
    });
  }
});

Deno.test("dial() and Dialer check options before anything else", async (t) => {
  const cases: [string, unknown, typeof TypeError | typeof RangeError][] = [
    ["timeout", "1", TypeError],
    ["timeout", NaN, RangeError],
    ["attemptTimeout", NaN, RangeError],
    ["attemptTimeout", 0, RangeError],
    ["attemptTimeout", -1, RangeError],
    ["attemptDelay", NaN, RangeError],
    ["attemptDelay", null, TypeError],
    ["resolve", "dns", TypeError],
    ["connect", {}, TypeError],
    ["noDelay", 1, TypeError],
    ["keepAlive", 15_000, TypeError],
    ["signal", {}, TypeError],
    ["clock", {}, TypeError],
    ["clock", null, TypeError],
  ];
  for (const [name, value, type] of cases) {
    await t.step(`${name}: ${value}`, async () => {
      const options = { ...never, [name]: value } as DialOptions;
      const error = await assertRejects(() => dial("tcp", "h:1", options));
      assertInstanceOf(error, type);
      assertMatch(error.message, new RegExp(name));
      assertThrows(() => new Dialer(options), type);
    });
  }
  await t.step("network and address are not strings", async () => {
    const [network, address] = [
      4 as unknown as Network,
      80 as unknown as string,
    ];
    await assertRejects(
      () => dial(network, "h:1", never),
      TypeError,
      "network",
    );
    await assertRejects(
      () => dial("tcp", address, never),
      TypeError,
      "address",
    );
  });
});

Deno.test("dial() asks no resolver about literals, the local host and unix paths", async (t) => {
  const { resolve } = never;
  const cases: [Network, string, string[]][] = [
    ["tcp", "10.0.0.1:80", ["10.0.0.1:80"]],
    ["tcp", "[10.0.0.1]:80", ["10.0.0.1:80"]],
    ["tcp", "[::ffff:10.0.0.1]:80", ["10.0.0.1:80"]],
    ["tcp", "[0:0::1]:http", ["[::1]:80"]],
    ["tcp", "[fe80::1%lo]:80", ["[fe80::1%lo]:80"]],
    ["tcp", ":80", ["127.0.0.1:80"]],
    ["tcp4", ":80", ["127.0.0.1:80"]],
    ["tcp6", ":80", ["[::1]:80"]],
    ["tcp", "0.0.0.0:80", ["127.0.0.1:80"]],
    ["tcp", "[::]:80", ["[::1]:80", "127.0.0.1:80"]],
    ["tcp4", "[::]:80", ["127.0.0.1:80"]],
    ["tcp6", "[::]:80", ["[::1]:80"]],
    ["unix", "/run/x.sock", ["/run/x.sock"]],
  ];
  for (const [network, address, asked] of cases) {
    await t.step(`${network} ${address}`, async () => {
      const addresses: string[] = [];
      const connect: DialOptions["connect"] = (addr) => {
        addresses.push(String(addr));
        return Promise.reject(new Deno.errors.ConnectionRefused("no"));
      };
      const error = await dial(network, address, { resolve: resolve!, connect })
        .catch((e) => e);
      assertInstanceOf(error, DialError);
      assertEquals(addresses, asked);
      assertEquals(error.trace.resolveMs, 0);
    });
  }
});

Deno.test("dial() reaches a listener by every name it has", async (t) => {
  const listener = await listen("tcp", hasIpv6 ? "" : "0.0.0.0:0");
  const { port } = listener.addr as Deno.NetAddr;
  const hosts = ["127.0.0.1", "localhost", "", "0.0.0.0", "[::]"];
  if (hasIpv6) hosts.push("[::1]");
  for (const host of hosts) {
    await t.step(`"${host}"`, async () => {
      using conn = await dial("tcp", `${host}:${port}`);
      using peer = await listener.accept();
      assertEquals(String(conn.localAddr), String(peer.remoteAddr));
      await conn.write(bytes("hello"));
      await conn.closeWrite();
      assertEquals(await textOf(peer), "hello");
    });
  }
  await t.step("the address that listen() prints", async () => {
    using _conn = await dial("tcp", String(listener.addr));
    using _peer = await listener.accept();
  });
  await listener.close();
});

Deno.test("dial() connects to a unix socket", {
  ignore: Deno.build.os === "windows",
}, async () => {
  const dir = await Deno.makeTempDir();
  await using listener = await listen("unix", `${dir}/s`);
  {
    await using conn = await dial("unix", `${dir}/s`);
    using peer = await listener.accept();
    assertEquals([conn.network, String(conn.remoteAddr)], ["unix", `${dir}/s`]);
    await conn.write(bytes("hi"));
    await conn.closeWrite();
    assertEquals(await textOf(peer), "hi");
    assertEquals(conn.dialTrace?.attempts[0]?.addr, `${dir}/s`);
  }
  const error = await dial("unix", `${dir}/none`).catch((e) => e);
  assertInstanceOf(error, DialError);
  assertEquals(
    error.message,
    `dial unix ${dir}/none: no such file or directory`,
  );
  await listener.close();
  await Deno.remove(dir, { recursive: true });
});

Deno.test("new DialError() takes the first error's cause if it is given none", () => {
  const causes = [new Error("first"), new Error("second")];
  const errors = causes.map((cause) => new OpError({ cause }));
  assertStrictEquals(new DialError({ errors }).cause, causes[0]);
  assertStrictEquals(new DialError({ errors, cause: 1 }).cause, 1);
  assert(!("cause" in new DialError()));
});

Deno.test("DialError says what failed, with Go's messages", async (t) => {
  const fails = (code: string) => {
    const error = Object.assign(new Error(`connect ${code}`), { code });
    return () => Promise.reject(error);
  };
  const resolve = () => Promise.resolve(["10.0.0.1"]);
  const cases: [string, string, string][] = [
    ["ECONNREFUSED", "connection refused", "refused"],
    ["ENETUNREACH", "network is unreachable", "unreachable"],
    ["EHOSTUNREACH", "no route to host", "unreachable"],
    ["ENETDOWN", "network is down", "unreachable"],
    ["EHOSTDOWN", "host is down", "unreachable"],
    ["ENONET", "machine is not on the network", "unreachable"],
    ["ETIMEDOUT", "connection timed out", "timeout"],
    ["EACCES", "permission denied", "denied"],
    ["EMFILE", "too many open files", "failed"],
  ];
  for (const [code, text, outcome] of cases) {
    await t.step(code, async () => {
      const error = await dial("tcp", "db.test:5432", {
        resolve,
        connect: fails(code),
      }).catch((e) => e);
      assertInstanceOf(error, DialError);
      assertEquals(error.message, `dial tcp 10.0.0.1:5432: ${text}`);
      assertEquals(error.code, code);
      assertEquals(error.timeout, code === "ETIMEDOUT");
      assertEquals(error.temporary, ["EMFILE", "ETIMEDOUT"].includes(code));
      const [attempt] = error.trace.attempts;
      assertEquals([attempt!.outcome, attempt!.code], [outcome, code]);
      assertEquals(String(error.addr), "10.0.0.1:5432");
      assertEquals(error.errors.length, 1);
    });
  }
  await t.step({
    name: "a path that is too long: the runtime's message says more",
    ignore: Deno.build.os === "windows",
    fn: async () => {
      const path = `/tmp/${"x".repeat(200)}`;
      const error = await dial("unix", path).catch((e) => e);
      assertEquals(error.code, "EINVAL");
      assertEquals(
        error.message,
        `dial unix ${path}: path must be shorter than SUN_LEN`,
      );
    },
  });
  await t.step("several: it lists all; the cause is the first's", async () => {
    const error = await dial("tcp", "db.test:5432", {
      resolve: () => Promise.resolve(["::1", "10.0.0.1", "10.0.0.2"]),
      connect: (addr) =>
        fails(
          String(addr) === "[::1]:5432" ? "ECONNREFUSED" : "EHOSTUNREACH",
        )(),
    }).catch((e) => e);
    assertEquals(
      error.message,
      "dial tcp db.test:5432: all 3 addresses failed: " +
        "[::1]:5432 connection refused; 10.0.0.1:5432 no route to host; " +
        "10.0.0.2:5432 no route to host",
    );
    assertEquals(error.code, "ECONNREFUSED");
    assertStrictEquals(error.cause, error.errors[0].cause);
    assertEquals(
      error.errors.map((e: OpError) => e.message),
      [
        "dial tcp [::1]:5432: connection refused",
        "dial tcp 10.0.0.1:5432: no route to host",
        "dial tcp 10.0.0.2:5432: no route to host",
      ],
    );
  });
  await t.step("at most five are named", async () => {
    const ips = [1, 2, 3, 4, 5, 6, 7].map((n) => `10.0.0.${n}`);
    const error = await dial("tcp", "db.test:1", {
      resolve: () => Promise.resolve(ips),
      connect: fails("ECONNREFUSED"),
    }).catch((e) => e);
    assertMatch(error.message, /^dial tcp db.test:1: all 7 addresses failed: /);
    assertMatch(error.message, /10\.0\.0\.5:1 connection refused; 2 more$/);
    assertEquals(error.errors.length, 7);
  });
  await t.step("new DialError() needs no argument", () => {
    const error = new DialError();
    assertEquals([error.name, error.errors], ["DialError", []]);
    assertEquals(error.trace.attempts, []);
  });
});

Deno.test("dial() to port 0 is refused, not a RangeError", async () => {
  const error = await dial("tcp", "127.0.0.1:0").catch((e) => e);
  assertEquals(error.message, "dial tcp 127.0.0.1:0: connection refused");
  assertEquals(error.code, "ECONNREFUSED");
});

Deno.test("dial() says why a name has no address", async (t) => {
  const connect = never.connect!;
  const message = async (options: DialOptions, network: Network = "tcp") => {
    const error = await dial(network, "db.test:1", { connect, ...options })
      .catch((e) => e);
    assertInstanceOf(error, OpError);
    assert(!(error instanceof DialError));
    return error;
  };
  await t.step("it does not exist", async () => {
    const error = await message({ resolve: () => Promise.resolve([]) });
    assertEquals(error.message, "dial tcp: lookup db.test: no such host");
    assert((error.cause as DnsError).notFound);
  });
  await t.step("it has only the other family", async () => {
    const resolve = () => Promise.resolve(["127.0.0.1"]);
    const error = await message({ resolve }, "tcp6");
    assertEquals(
      error.message,
      "dial tcp6: address db.test: no suitable address found",
    );
  });
  await t.step("the resolver fails with one of our errors", async () => {
    for (
      const cause of [
        new DnsError({ hostname: "db.test", server: "10.0.0.53:53" }),
        new AddrError("no suitable address found", "db.test"),
      ]
    ) {
      const error = await message({ resolve: () => Promise.reject(cause) });
      assertStrictEquals(error.cause, cause);
    }
  });
  await t.step(
    "the resolver is from another version of this library",
    async () => {
      const cause = Object.assign(new Error("lookup db.test: no such host"), {
        name: "DnsError",
        hostname: "db.test",
        temporary: true,
      });
      const error = await message({ resolve: () => Promise.reject(cause) });
      assertEquals(error.message, "dial tcp: lookup db.test: no such host");
      assertStrictEquals(error.cause, cause);
      assert(error.temporary);
    },
  );
  await t.step("a batch of the wrong family, and an empty one", async () => {
    const resolve = async function* () {
      yield ["::1"];
      yield [];
    };
    const dialling = dial("tcp4", "db.test:1", { ...never, resolve });
    await assertRejects(() => dialling, OpError, "no suitable address found");
  });
  await t.step("the resolver fails with another error", async () => {
    const anothers = Object.assign(new Error("boom"), { name: "DnsError" });
    for (const cause of [new Error("boom"), anothers]) {
      const error = await message({
        resolve: () => {
          throw cause;
        },
      });
      assertEquals(error.message, "dial tcp: lookup db.test: boom");
      assertStrictEquals((error.cause as DnsError).cause, cause);
    }
  });
  await t.step("the resolver gives what is not an address", async () => {
    const error = await message({ resolve: () => Promise.resolve(["127.1"]) });
    assertEquals(
      error.message,
      'dial tcp: lookup db.test: the resolver gave "127.1", not an IP',
    );
  });
  await t.step("the timeout passes first", async () => {
    const clock = new FakeClock(0);
    const dialling = message({
      clock,
      timeout: 100,
      resolve: () => new Promise(() => {}),
    });
    await clock.advance(100);
    const error = await dialling;
    assertEquals(error.message, "dial tcp: lookup db.test: i/o timeout");
    assert(error.timeout && isTimeout(error));
    assert((error.cause as DnsError).timeout);
    assertEquals(clock.pending, 0);
  });
});

Deno.test("a timeout of 0 or less is already over", async (t) => {
  for (const timeout of [0, -1, -Infinity]) {
    await t.step(`${timeout}, literal`, async () => {
      const error = await dial("tcp", "127.0.0.1:80", { ...never, timeout })
        .catch((e) => e);
      assertEquals(error.message, "dial tcp 127.0.0.1:80: i/o timeout");
      assert(isTimeout(error));
    });
    await t.step(`${timeout}, name`, async () => {
      const error = await dial("tcp", "db.test:80", { ...never, timeout })
        .catch((e) => e);
      assertEquals(error.message, "dial tcp: lookup db.test: i/o timeout");
      assert(isTimeout(error));
    });
  }
});

Deno.test("dialTrace is plain JSON, exact on a fake clock", async () => {
  const scenario = new Scenario({
    "::1": [5, "refused"],
    "10.0.0.1": [0, "hang"],
    "::2": [100, "ok"],
    "::3": [0, "ok"],
  });
  const { clock } = scenario;
  const dialling = scenario.dial({
    async resolve() {
      await new Promise<void>((done) => clock.setTimeout(done, 20));
      return ["::1", "10.0.0.1", "::2", "::3"];
    },
  });
  await clock.advance(10_000);
  const conn = await dialling;
  const trace = conn.dialTrace!;
  assertEquals(JSON.parse(JSON.stringify(trace)), trace);
  assertEquals(trace, {
    network: "tcp",
    address: "target.test:80",
    mode: "race",
    resolveMs: 20,
    totalMs: 375,
    attempts: [
      {
        addr: "[::1]:80",
        startMs: 20,
        durationMs: 5,
        outcome: "refused",
        code: "ECONNREFUSED",
      },
      {
        addr: "10.0.0.1:80",
        startMs: 25,
        durationMs: 350,
        outcome: "canceled",
      },
      {
        addr: "[::2]:80",
        startMs: 275,
        durationMs: 100,
        outcome: "connected",
      },
      { addr: "[::3]:80", startMs: 0, durationMs: 0, outcome: "not-started" },
    ],
  });
  scenario.check(conn);
});

Deno.test("dialTrace is exact for an address that needs no race, too", async () => {
  for (const outcome of ["ok", "refused"] as const) {
    const scenario = new Scenario({ "10.0.0.1": [30, outcome] });
    const { clock, connect } = scenario;
    let trace: DialTrace | undefined;
    const dialling = dial("tcp", "10.0.0.1:80", { clock, connect }).then(
      (conn) => {
        trace = conn.dialTrace;
        return conn;
      },
      (error) => {
        trace = error.trace;
        return null;
      },
    );
    await clock.advance(30);
    scenario.check(await dialling);
    assertEquals([trace?.totalMs, trace?.attempts[0]?.durationMs], [30, 30]);
  }
});

Deno.test("dial() that is aborted after it was won closes the connection", async () => {
  const reason = new Error("too late");
  let looks = 0;
  const dialled = async (abortAt: number) => {
    looks = 0;
    const controller = new AbortController();
    const { signal } = controller;
    const clock = new class extends FakeClock {
      override monotonic(): number {
        if (++looks === abortAt) controller.abort(reason);
        return super.monotonic();
      }
    }(0);
    const inner = new InnerConn();
    const connect = () => Promise.resolve(inner);
    const options = { clock, connect, signal };
    const outcome = await dial("tcp", "10.0.0.1:80", options).catch((e) => e);
    return { inner, outcome };
  };
  const { outcome: conn } = await dialled(Infinity);
  assertInstanceOf(conn, Conn);
  // The last look at the clock says how long it took.
  const { inner, outcome } = await dialled(looks);
  assertStrictEquals(outcome, reason);
  assertEquals(inner.closes, 1);
});

Deno.test("dial() of real sockets that hang, refuse and work takes one delay", {
  ignore: Deno.build.os !== "linux",
  timeout: STUCK_MS,
}, async () => {
  await using hole = await blackHole();
  const { port } = hole;
  await using good = await listen("tcp", `127.0.0.3:${port}`);
  const resolve = () =>
    Promise.resolve(["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
  const clock = new FakeClock();
  const dialer = new Dialer({ resolve, clock });
  const platform = Deno.connect;
  let dialling = 0;
  let left = -1;
  Deno.connect = ((options: Deno.ConnectOptions) => {
    dialling++;
    return platform(options).finally(async () => {
      for (let i = 0; i < 10; i++) await turn(); // later than the winner
      dialling--;
    });
  }) as typeof Deno.connect;
  try {
    const connecting = dialer.dial("tcp", `db.test:${port}`);
    connecting.then(() => left = dialling, () => {});
    await clock.advance(250);
    await clock.advance(10); // the minimum between two attempts
    using conn = await connecting;
    assertEquals(left, 0, "the losers have ended, too");
    const { attempts, totalMs } = conn.dialTrace!;
    assertEquals(attempts.map(({ addr, outcome }) => [addr, outcome]), [
      [`127.0.0.1:${port}`, "canceled"],
      [`127.0.0.2:${port}`, "refused"],
      [`127.0.0.3:${port}`, "connected"],
    ]);
    // The runtime's own dial waits for a second delay: 506 ms.
    assertEquals(totalMs, 260);
  } finally {
    Deno.connect = platform;
  }
  // The second dial begins with the address that worked.
  using again = await dialer.dial("tcp", `db.test:${port}`);
  assertEquals(again.dialTrace!.attempts[0], {
    ...again.dialTrace!.attempts[0]!,
    addr: `127.0.0.3:${port}`,
    outcome: "connected",
  });
  await good.close();
});

Deno.test("dial() aborted while a real connect hangs leaves nothing open", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  await using hole = await blackHole();
  const { controller, listeners, signal } = countedSignal();
  const dialling = dial("tcp", `127.0.0.1:${hole.port}`, { signal });
  await turn();
  controller.abort("enough");
  assertEquals(await dialling.catch((e) => e), "enough");
  assertEquals(listeners(), 0);
  const error = await dial("tcp", `127.0.0.1:${hole.port}`, { timeout: 20 })
    .catch((e) => e);
  assertEquals(error.message, `dial tcp 127.0.0.1:${hole.port}: i/o timeout`);
});

/** A platform connection that records the calls. */
function recorded(
  local: Deno.NetAddr,
  remote: Deno.NetAddr,
): { conn: Deno.Conn; calls: string[] } {
  const calls: string[] = [];
  const conn = {
    localAddr: local,
    remoteAddr: remote,
    close: () => calls.push("close"),
    setNoDelay: (on: boolean) => calls.push(`setNoDelay ${on}`),
    setKeepAlive: (on: boolean) => calls.push(`setKeepAlive ${on}`),
  };
  return { conn: conn as unknown as Deno.Conn, calls };
}

const net = (hostname: string, port: number): Deno.NetAddr => ({
  transport: "tcp",
  hostname,
  port,
});

Deno.test("noDelay and keepAlive are on by default, and can be switched off", async (t) => {
  const cases: [DialOptions, string[]][] = [
    [{}, ["setNoDelay true", "setKeepAlive true", "close"]],
    [{ noDelay: false }, ["setKeepAlive true", "close"]],
    [{ keepAlive: false }, ["setNoDelay true", "close"]],
  ];
  for (const [options, expected] of cases) {
    await t.step(JSON.stringify(options), async () => {
      const { calls, conn } = recorded(net("10.0.0.9", 9), net("10.0.0.1", 1));
      const connect = () => Promise.resolve(conn);
      (await dial("tcp", "10.0.0.1:1", { connect, ...options })).close();
      assertEquals(calls, expected);
    });
  }
  await t.step("an option that fails closes the connection", async () => {
    const { calls, conn } = recorded(net("10.0.0.9", 9), net("10.0.0.1", 1));
    (conn as Deno.TcpConn).setNoDelay = () => {
      throw Object.assign(new Error("reset"), { code: "EINVAL" });
    };
    const error = await dial("tcp", "10.0.0.1:1", {
      connect: () => Promise.resolve(conn),
    }).catch((e) => e);
    assertEquals([error.code, calls], ["EINVAL", ["close"]]);
  });
});

Deno.test("dial() never returns a connection to itself", async () => {
  const made: string[][] = [];
  const error = await dial("tcp", "127.0.0.1:4000", {
    connect: () => {
      const self = net("127.0.0.1", 4000);
      const { calls, conn } = recorded(self, self);
      made.push(calls);
      return Promise.resolve(conn);
    },
  }).catch((e) => e);
  assertEquals(error.code, "ECONNREFUSED");
  assertEquals(made, [["close"], ["close"], ["close"]]); // Go: tried 3 times
});

Deno.test("a connection is to itself only if both address and port are the same", async (t) => {
  const others: [string, Deno.NetAddr, Deno.NetAddr][] = [
    ["another address", net("127.0.0.1", 4000), net("127.0.0.2", 4000)],
    ["placeholders", net("0.0.0.0", 0), net("0.0.0.0", 0)],
  ];
  for (const [name, local, remote] of others) {
    await t.step(`${name} is not`, async () => {
      const { calls, conn } = recorded(local, remote);
      const connect = () => Promise.resolve(conn);
      (await dial("tcp", "10.0.0.1:1", { connect })).close();
      assertEquals(calls.filter((call) => call === "close").length, 1);
    });
  }
});

Deno.test("Dialer.dial() checks the options of a single dial", async () => {
  const connect = () => Promise.reject(new Error("must not be called"));
  const dialer = new Dialer({ connect });
  for (const wrong of [{ timeout: NaN }, { attemptDelay: NaN }]) {
    const dialling = () => dialer.dial("tcp", "10.0.0.1:1", wrong);
    await assertRejects(dialling, RangeError);
  }
});

Deno.test("Dialer: the options of a call override its defaults", async () => {
  const seen: string[] = [];
  const connectVia = (name: string): Connector => () => {
    seen.push(name);
    return Promise.reject(new Deno.errors.ConnectionRefused("no"));
  };
  const dialer = new Dialer({ connect: connectVia("default") });
  await assertRejects(() => dialer.dial("tcp", "10.0.0.1:1"), DialError);
  const connect = connectVia("call");
  await assertRejects(
    () => dialer.dial("tcp", "10.0.0.1:1", { connect }),
    DialError,
  );
  assertEquals(seen, ["default", "call"]);
});

Deno.test("Dialer: options may come from a class's getters, as in dial()", async () => {
  const seen: string[] = [];
  class Config {
    constructor(readonly name: string) {}
    get connect(): Connector {
      return () => {
        seen.push(this.name);
        return Promise.reject(new Deno.errors.ConnectionRefused("no"));
      };
    }
  }
  const dialer = new Dialer(new Config("default"));
  await assertRejects(() => dialer.dial("tcp", "10.0.0.1:1"), DialError);
  const call = new Config("call");
  await assertRejects(() => dialer.dial("tcp", "10.0.0.1:1", call), DialError);
  assertEquals(seen, ["default", "call"]);
});

/** A Dialer on a scripted network: which addresses answer can change. */
class Remembering {
  readonly clock = new FakeClock(0);
  readonly tried: string[] = [];
  addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
  alive = new Set(["10.0.0.2", "10.0.0.3"]);
  /** After how many milliseconds an address answers; the others do at once. */
  delays: Record<string, number> = {};
  readonly dialer = new Dialer({
    clock: this.clock,
    resolve: () => Promise.resolve(this.addresses),
    connect: async (addr) => {
      const { hostname, port } = addr as Deno.NetAddr;
      this.tried.push(hostname);
      const ms = this.delays[hostname];
      if (ms) await new Promise<void>((r) => this.clock.setTimeout(r, ms));
      if (!this.alive.has(hostname)) {
        throw new Deno.errors.ConnectionRefused("no");
      }
      return recorded(net("10.0.0.9", 9), net(hostname, port)).conn;
    },
  });

  /** Dials, and returns which addresses were tried. */
  async dial(address = "db.test:1", network: Network = "tcp") {
    this.tried.length = 0;
    const dialling = this.dialer.dial(network, address).then(
      (conn: Conn) => conn.close(),
      (error) => assertInstanceOf(error, DialError),
    );
    if (Object.keys(this.delays).length > 0) await this.clock.advance(1_000);
    await dialling;
    return this.tried.map((ip) => ip.replace("10.0.0", ""));
  }
}

Deno.test("Dialer remembers which address last worked", async (t) => {
  await t.step("and starts there, for this host and port only", async () => {
    const memory = new Remembering();
    assertEquals(await memory.dial(), [".1", ".2"]);
    assertEquals(await memory.dial(), [".2"]);
    assertEquals(await memory.dial("db.test:2"), [".1", ".2"]);
    assertEquals(await memory.dial("other.test:1"), [".1", ".2"]);
  });
  await t.step("until it fails, and then learns the new one", async () => {
    const memory = new Remembering();
    await memory.dial();
    memory.alive.delete("10.0.0.2");
    assertEquals(await memory.dial(), [".2", ".1", ".3"]);
    assertEquals(await memory.dial(), [".3"]);
    memory.alive.clear();
    assertEquals(await memory.dial(), [".3", ".1", ".2"]);
    memory.alive.add("10.0.0.1");
    assertEquals(await memory.dial(), [".1"]);
  });
  await t.step("only if the resolver still gives it", async () => {
    const memory = new Remembering();
    await memory.dial();
    memory.addresses = ["10.0.0.3", "10.0.0.1"];
    assertEquals(await memory.dial(), [".3"]);
  });
  await t.step("only if the network allows it", async () => {
    const memory = new Remembering();
    memory.addresses = ["::1", "10.0.0.1", "10.0.0.2"];
    await memory.dial();
    assertEquals(await memory.dial("db.test:1", "tcp6"), ["::1"]);
  });
  await t.step("whatever network it worked on", async () => {
    const memory = new Remembering();
    assertEquals(await memory.dial("db.test:1", "tcp4"), [".1", ".2"]);
    assertEquals(await memory.dial("db.test:1", "tcp"), [".2"]);
  });
  await t.step("one of each family", async () => {
    const memory = new Remembering();
    memory.addresses = ["::1", "10.0.0.1", "::2", "10.0.0.2"];
    memory.alive.add("::2");
    const [four, six] = [[".1", ".2"], ["::1", "::2"]];
    assertEquals(await memory.dial("db.test:1", "tcp4"), four);
    assertEquals(await memory.dial("db.test:1", "tcp6"), six);
    assertEquals(await memory.dial("db.test:1", "tcp4"), [".2"]);
    assertEquals(await memory.dial("db.test:1", "tcp6"), ["::2"]);
    assertEquals(await memory.dial("db.test:1", "tcp"), ["::2"], "the last");
  });
  await t.step("but not one that failed when another worked", async () => {
    const memory = new Remembering();
    memory.addresses = ["10.0.0.1", "10.0.0.2", "::2"];
    await memory.dial("db.test:1", "tcp4");
    memory.alive = new Set(["::2"]);
    assertEquals(await memory.dial(), [".2", "::2"]);
    assertEquals(await memory.dial("db.test:1", "tcp4"), [".1", ".2"]);
  });
  await t.step("even when another address fails", async () => {
    const memory = new Remembering();
    await memory.dial();
    memory.addresses = ["10.0.0.2"];
    assertEquals(await memory.dial(), [".2"], "it works alone, too");
    memory.addresses = ["10.0.0.1"];
    assertEquals(await memory.dial(), [".1"], "another one fails");
    memory.addresses = ["10.0.0.1", "10.0.0.2"];
    assertEquals(await memory.dial(), [".2"]);
  });
  await t.step("even if it was the only one then", async () => {
    const memory = new Remembering();
    memory.addresses = ["10.0.0.3"];
    assertEquals(await memory.dial(), [".3"]);
    memory.addresses = ["10.0.0.2", "10.0.0.3"];
    assertEquals(await memory.dial(), [".3"]);
  });
  await t.step("but none that has failed, preferred or not", async () => {
    const memory = new Remembering();
    memory.addresses = ["10.0.0.1", "10.0.0.2", "::1", "::2"];
    memory.alive.add("::2");
    await memory.dial("db.test:1", "tcp4"); // .2
    await memory.dial("db.test:1", "tcp6"); // ::2, preferred from now on
    memory.alive.clear();
    assertEquals(
      await memory.dial(),
      ["::2", ".1", "::1", ".2"],
    );
    assertEquals(await memory.dial("db.test:1", "tcp4"), [".1", ".2"]);
  });
  await t.step("also one that was not tried, or was cancelled", async () => {
    for (const slow of [false, true]) {
      const memory = new Remembering();
      memory.addresses = ["10.0.0.1", "10.0.0.2", "::1", "::2"];
      memory.alive.add("::2");
      await memory.dial("db.test:1", "tcp4"); // .2
      await memory.dial("db.test:1", "tcp6"); // ::2
      memory.addresses = ["::2", "10.0.0.2"];
      memory.delays = slow ? { "::2": 300, "10.0.0.2": 300 } : {};
      assertEquals(await memory.dial(), slow ? ["::2", ".2"] : ["::2"]);
      memory.delays = {};
      memory.addresses = ["10.0.0.1", "10.0.0.2"];
      assertEquals(await memory.dial("db.test:1", "tcp4"), [".2"]);
    }
  });
  await t.step("but not one that was preferred and slower", async () => {
    const memory = new Remembering();
    await memory.dial(); // .2
    memory.delays = { "10.0.0.2": 300 };
    memory.addresses = ["10.0.0.2", "::2"];
    memory.alive.add("::2");
    assertEquals(await memory.dial(), [".2", "::2"]);
    memory.delays = {};
    memory.addresses = ["10.0.0.1", "10.0.0.2"];
    assertEquals(await memory.dial("db.test:1", "tcp4"), [".1", ".2"]);
  });
  await t.step("but not one that failed or hung before an abort", async () => {
    for (const [ms, tried] of [[0, ".1"], [10_000, ".1"]] as const) {
      const memory = new Remembering();
      await memory.dial(); // .2
      memory.alive = new Set(["10.0.0.1"]);
      memory.delays = { "10.0.0.1": 500, "10.0.0.2": ms };
      const controller = new AbortController();
      const { signal } = controller;
      const dialling = memory.dialer.dial("tcp", "db.test:1", { signal })
        .then((conn: Conn) => conn.close(), (error: unknown) => error);
      await memory.clock.advance(300);
      controller.abort("enough");
      assertEquals(await dialling, "enough");
      memory.delays = {};
      assertEquals(await memory.dial(), [tried]);
      await memory.clock.advance(10_000); // the cancelled attempts end
    }
  });
  await t.step("also one that has worked since it failed", async () => {
    const memory = new Remembering();
    await memory.dial(); // .2
    memory.alive.delete("10.0.0.2");
    memory.delays = { "10.0.0.1": 500 };
    memory.addresses = ["10.0.0.1", "10.0.0.2"];
    // .2 refuses at once, and .1 after 500 ms.
    const slow = assertRejects(() => memory.dialer.dial("tcp", "db.test:1"));
    await memory.clock.advance(100);
    memory.alive.add("10.0.0.2");
    (await memory.dialer.dial("tcp", "db.test:1")).close();
    await memory.clock.advance(500);
    await slow;
    memory.delays = {};
    assertEquals(await memory.dial(), [".2"]);
  });
  await t.step("also one that worked before another dial's abort", async () => {
    const memory = new Remembering();
    await memory.dial(); // .2
    memory.delays = { "10.0.0.1": 500, "10.0.0.2": 100 };
    const controller = new AbortController();
    const { signal } = controller;
    const first = memory.dialer.dial("tcp", "db.test:1");
    await memory.clock.advance(50);
    const second = memory.dialer.dial("tcp", "db.test:1", { signal })
      .catch((error: unknown) => error);
    await memory.clock.advance(60);
    (await first).close();
    controller.abort("not needed any more");
    assertEquals(await second, "not needed any more");
    await memory.clock.advance(1_000);
    memory.delays = {};
    assertEquals(await memory.dial(), [".2"]);
  });
  await t.step("for ten minutes", async () => {
    const memory = new Remembering();
    await memory.dial();
    await memory.clock.advance(10 * 60_000 - 1);
    assertEquals(await memory.dial(), [".2"]); // which does not extend the time
    await memory.clock.advance(1);
    assertEquals(await memory.dial(), [".1", ".2"]); // expired; learned anew
    await memory.clock.advance(10 * 60_000 - 1);
    assertEquals(await memory.dial(), [".2"]);
    memory.alive.add("10.0.0.1");
    await memory.clock.advance(1);
    assertEquals(await memory.dial(), [".1"]); // the first is up again
  });
  await t.step("one of each family: a new one replaces the last", async () => {
    const memory = new Remembering();
    await memory.dial(); // .2
    memory.addresses = ["10.0.0.3"];
    await memory.dial();
    memory.alive.delete("10.0.0.3");
    await memory.dial();
    memory.addresses = ["10.0.0.1", "10.0.0.2"];
    assertEquals(await memory.dial(), [".1", ".2"]);
  });
  await t.step("and no literals, which leave nothing to choose", async () => {
    const memory = new Remembering();
    await memory.dial();
    for (let i = 1; i <= 256; i++) await memory.dial(`10.0.0.2:${i}`);
    assertEquals(await memory.dial(), [".2"]);
  });
  await t.step("and no address that is longer than any name", async () => {
    const memory = new Remembering();
    const address = `db.test:${"0".repeat(600)}1`;
    for (let i = 0; i < 2; i++) {
      assertEquals(await memory.dial(address), [".1", ".2"]);
    }
  });
  await t.step("256 hosts; the least recently used goes first", async () => {
    const memory = new Remembering();
    for (let i = 0; i < 256; i++) await memory.dial(`host${i}.test:1`);
    assertEquals(await memory.dial("host0.test:1"), [".2"]); // used again
    await memory.dial("one-more.test:1");
    assertEquals(await memory.dial("host0.test:1"), [".2"]);
    assertEquals(await memory.dial("host1.test:1"), [".1", ".2"]);
  });
});
