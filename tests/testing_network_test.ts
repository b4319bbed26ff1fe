import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { Dialer, DialError, type DialOptions } from "../dialer.ts";
import { Listener } from "../listener.ts";
import { serve, Server } from "../handler.ts";
import { Conn } from "../net/conn.ts";
import { AddrError, isClosed, isTimeout, OpError } from "../net/errors.ts";
import { FakeClock, inMemory, MemoryNetwork, pipe } from "../testing/mod.ts";
import { Ports } from "../testing/ports.ts";
import { bytes, runChild, textOf } from "./support.ts";

/** What a dial did: address, outcome and start of each attempt. */
function attempts({ dialTrace }: Conn): [string, string, number][] {
  return dialTrace!.attempts.map((
    { addr, outcome, startMs },
  ) => [addr, outcome, startMs]);
}

Deno.test("pipe() connects two ends", async () => {
  const [client, server] = pipe();
  assertInstanceOf(client, Conn);
  assertEquals(String(client.remoteAddr), String(server.localAddr));
  assertEquals(String(server.remoteAddr), String(client.localAddr));
  await client.write(bytes("hello"));
  await client.closeWrite();
  assertEquals(await textOf(server), "hello");
  await server.write(bytes("bye"));
  server.close();
  assertEquals(await textOf(client), "bye");
  client.close();
});

Deno.test("a test may end while an operation in memory waits for its turn", async () => {
  // The sanitizers see what is left, if there is no time for it to end.
  for (let round = 0; round < 20; round++) {
    const [a, b] = pipe();
    for (let i = 1; i < 1_000; i++) await a.write(bytes("x"));
    a.write(bytes("x")); // the thousandth waits
    await Promise.resolve(); // it is under way
    a.close();
    b.close();
  }
});

Deno.test("pipe() holds 64 KiB unless told otherwise", async (t) => {
  for (const bufferSize of [undefined, 1, 1000]) {
    await t.step(`bufferSize ${bufferSize}`, async () => {
      const clock = new FakeClock();
      const options = bufferSize === undefined ? {} : { bufferSize };
      const [client, server] = pipe({ clock, ...options });
      client.setWriteDeadline(clock.now() + 50);
      const p = new Uint8Array(200_000);
      const failed = assertRejects(() => client.write(p), OpError);
      await clock.advance(50);
      const error = await failed;
      assert(isTimeout(error));
      assertEquals(error.bytesWritten, bufferSize ?? 65_536);
      client.close();
      server.close();
      assertEquals(clock.pending, 0);
    });
  }
  for (const bufferSize of [0, -1, 1.5, NaN, Infinity]) {
    await t.step(`bufferSize ${bufferSize}`, () => {
      assertThrows(() => pipe({ bufferSize }), RangeError, "bufferSize");
      assertThrows(() => new MemoryNetwork({ bufferSize }), RangeError);
    });
  }
});

Deno.test("an option that is undefined is the network's own, not the system's", async () => {
  const clock = new FakeClock();
  const net = new MemoryNetwork({ clock, hosts: { "db.test": ["10.0.0.1"] } });
  // As a user without exactOptionalPropertyTypes may write it.
  const nothing = {
    clock: undefined,
    connect: undefined,
    resolve: undefined,
  } as unknown as DialOptions;
  const listener = await net.listen("tcp", "10.0.0.1:80", nothing);
  const client = await net.dial("tcp", "db.test:80", nothing);
  const server = await listener.accept();
  for (const conn of [client, server]) {
    conn.setReadDeadline(clock.now() + 1);
    const read = assertRejects(() => conn.read(new Uint8Array(1)), OpError);
    assertEquals(clock.pending, 1);
    await clock.advance(1);
    await read;
  }
  client.close();
  server.close();
  await listener.close();
  net.check();
});

Deno.test("a dial's options may come from a class's getters", async () => {
  class Config {
    get signal(): AbortSignal {
      return AbortSignal.abort(new Error("enough"));
    }
  }
  const net = new MemoryNetwork();
  const dialling = net.dial("tcp", "10.0.0.1:80", new Config());
  await assertRejects(() => dialling, Error, "enough");
});

Deno.test("a listen() that is aborted while it looks up a name binds nothing", async () => {
  const net = new MemoryNetwork({ hosts: { "a.test": ["10.0.0.1"] } });
  await using _taken = await net.listen("tcp", "10.0.0.1:80");
  const controller = new AbortController();
  const { signal } = controller;
  const listening = net.listen("tcp", "a.test:80", { signal });
  controller.abort(new Error("enough"));
  assertStrictEquals(await listening.catch((e) => e), signal.reason);
});

Deno.test("a name with only the other family fails as one of the system's does", async () => {
  const net = new MemoryNetwork({ hosts: { "six.test": ["::1"] } });
  const dialling = net.dial("tcp4", "six.test:80");
  await assertRejects(() => dialling, OpError, "no suitable address found");
});

Deno.test("peers that answer each other for ever do not block timers", async () => {
  const [client, server] = pipe();
  const signal = AbortSignal.timeout(1);
  const pingPong = async (conn: Conn) => {
    const p = new Uint8Array(1);
    while (!signal.aborted) {
      await conn.write(p);
      await conn.read(p);
    }
  };
  await Promise.all([pingPong(client), pingPong(server)]);
  client.close();
  server.close();
});

Deno.test("a network in memory does not keep the process alive after unref()", async () => {
  const { code, stderr } = await runChild(`
    import { MemoryNetwork } from "./testing/mod.ts";
    Deno.unrefTimer(setTimeout(() => Deno.exit(1), 5_000));
    const net = new MemoryNetwork();
    const listener = await net.listen("tcp", ":80");
    const client = await net.dial("tcp", ":80");
    (await listener.accept()).unref();
    client.unref();
    client.read(new Uint8Array(1));
    listener.unref();
    listener.accept();
    const other = await net.listen("tcp", ":81"); // for which nobody waits
    await Promise.all([net.dial("tcp", ":81"), other.accept()]);`);
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
});

Deno.test("bytes on their way to an unref'd read do not keep the process alive", async () => {
  const { code, stderr } = await runChild(`
    import { pipe } from "./testing/mod.ts";
    Deno.unrefTimer(setTimeout(() => Deno.exit(1), 5_000));
    const [a, b] = pipe({ fault: { latency: 60_000 } });
    await b.write(new Uint8Array(1));
    a.unref();
    a.read(new Uint8Array(1));`);
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
});

Deno.test("bytes on their way to a read keep the process alive", async () => {
  const { stdout, stderr } = await runChild(`
    import { pipe } from "./testing/mod.ts";
    const [a, b] = pipe({ fault: { latency: 100 } });
    await b.write(new Uint8Array(1));
    a.read(new Uint8Array(1)).then(console.log);`);
  assertEquals({ stdout, stderr }, { stdout: "1\n", stderr: "" });
});

Deno.test("a fake clock moves although a program has replaced setTimeout()", async () => {
  const { stdout, stderr } = await runChild(`
    import { FakeClock } from "./testing/mod.ts";
    globalThis.setTimeout = () => 0;
    const clock = new FakeClock(0);
    await clock.advance(1);
    console.log(clock.now());`);
  assertEquals({ stdout, stderr }, { stdout: "1\n", stderr: "" });
});

Deno.test("what waits on a fake clock does not keep the process alive", async () => {
  const { code, stderr } = await runChild(`
    import { serve } from "./handler.ts";
    import { FakeClock, MemoryNetwork } from "./testing/mod.ts";
    Deno.unrefTimer(setTimeout(() => Deno.exit(1), 5_000));
    const net = new MemoryNetwork({ clock: new FakeClock() });
    const server = serve(await net.listen("tcp", ":80"), () => {});
    server.pause(); // with an accept under way, whose client waits then
    const client = await net.dial("tcp", ":80");
    client.read(new Uint8Array(1));`);
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
});

Deno.test("a connect that waits in memory keeps the process alive", async () => {
  const { stdout, stderr } = await runChild(`
    import { MemoryNetwork } from "./testing/mod.ts";
    const net = new MemoryNetwork();
    net.fault("*", { connect: "drop" });
    Deno.unrefTimer(setTimeout(() => net.fault("*", null), 200));
    net.dial("tcp", "10.0.0.1:80").catch((e) => console.log(e.code));`);
  assertEquals({ stdout, stderr }, { stdout: "ECONNREFUSED\n", stderr: "" });
});

Deno.test("a deadline on the system's clock fires in memory, too", async () => {
  const [client, server] = pipe();
  client.setReadDeadline(Date.now() + 1);
  // Nothing but this read keeps the process alive.
  await assertRejects(() => client.read(bytes("x")), OpError, "i/o timeout");
  client.close();
  server.close();
});

Deno.test(
  "MemoryNetwork returns the library's own classes",
  inMemory(async ({ net }) => {
    const listener = await net.listen("tcp", "10.0.0.1:80");
    assertInstanceOf(listener, Listener);
    await using server = serve(listener, async (conn) => {
      for await (const chunk of conn) await conn.write(chunk);
    });
    assertInstanceOf(server, Server);
    await using client = await net.dial("tcp", "10.0.0.1:80");
    assertInstanceOf(client, Conn);
    await client.write(bytes("echo"));
    await client.closeWrite();
    assertEquals(await textOf(client), "echo");
  }),
);

Deno.test(
  "what a MemoryNetwork's connect() gives has one stream for each direction",
  inMemory(async ({ net }) => {
    await using listener = await net.listen("tcp", "10.0.0.1:80");
    const { signal } = new AbortController();
    using conn = await net.connect(listener.addr, { signal });
    assertStrictEquals(conn.readable, conn.readable);
    assertStrictEquals(conn.writable, conn.writable);
    (await listener.accept()).close();
  }),
);

Deno.test(
  'what a MemoryNetwork\'s connect() gives is closed by "using"',
  inMemory(async ({ net }) => {
    await using listener = await net.listen("tcp", "10.0.0.1:80");
    const { signal } = new AbortController();
    {
      using conn = await net.connect(listener.addr, { signal });
      conn.close();
      using _other = await net.connect(listener.addr, { signal });
    }
    for (let i = 0; i < 2; i++) {
      using server = await listener.accept();
      assertEquals(await server.read(new Uint8Array(1)), null);
    }
  }),
);

Deno.test(
  "MemoryNetwork.listen() takes Go's addresses",
  inMemory(async ({ net }, t) => {
    const cases: [string, "tcp" | "tcp4" | "tcp6" | "unix", string, string][] =
      [
        ["a literal", "tcp", "10.0.0.1:80", "10.0.0.1:80"],
        ["a service's name", "tcp", "10.0.0.1:http", "10.0.0.1:80"],
        ["nothing", "tcp", "", "[::]:49152"],
        ["no host", "tcp", ":80", "[::]:80"],
        ["the IPv4 wildcard", "tcp", "0.0.0.0:80", "[::]:80"],
        ["no host, tcp4", "tcp4", ":80", "0.0.0.0:80"],
        ["no host, tcp6", "tcp6", ":80", "[::]:80"],
        ["a mapped address", "tcp", "[::ffff:10.0.0.1]:80", "10.0.0.1:80"],
        ["a zone", "tcp", "[fe80::1%eth0]:80", "[fe80::1%eth0]:80"],
        ["a name's first IPv4 address", "tcp", "two.test:80", "10.0.0.7:80"],
        ["a name's first address", "tcp", "six.test:80", "[::6]:80"],
        ["a name's IPv6 address", "tcp6", "two.test:80", "[::1]:80"],
        ["a path", "unix", "/run/a.sock", "/run/a.sock"],
        ["an abstract name", "unix", "@a", "@a"],
        ["no path", "unix", "", "@00001"],
        ["an abstract name of no letters", "unix", "@", "@00002"],
      ];
    for (const [name, network, address, bound] of cases) {
      await t.step(name, async () => {
        await using listener = await net.listen(network, address);
        assertEquals(String(listener.addr), bound);
      });
    }
    const failures: [string, string, string, string][] = [
      ["an unknown network", "foo", ":80", "listen foo: unknown network foo"],
      [
        "no port",
        "tcp",
        "10.0.0.1",
        "address 10.0.0.1: missing port in address",
      ],
      ["the wrong family", "tcp6", "10.0.0.1:80", "no suitable address found"],
      ["an unknown name", "tcp", "no.test:80", "lookup no.test: no such host"],
      [
        "a name without addresses",
        "tcp",
        "none.test:80",
        "no suitable address",
      ],
      ["the wrong family's name", "tcp4", "six.test:80", "no suitable address"],
    ];
    for (const [name, network, address, text] of failures) {
      await t.step(name, async () => {
        const listening = () => net.listen(network as "tcp", address);
        await assertRejects(listening, OpError, text);
      });
    }
    for (const [network, address] of [[1, ":80"], ["tcp", 80]]) {
      await t.step(`(${network}, ${address})`, async () => {
        const listening = () => net.listen(network as "tcp", address as string);
        await assertRejects(listening, TypeError, "is not a string");
      });
    }
  }, {
    hosts: {
      "two.test": ["::1", "10.0.0.7"],
      "six.test": ["::6"],
      "none.test": [],
    },
  }),
);

Deno.test(
  "MemoryNetwork knows names in other scripts",
  inMemory(async ({ net }) => {
    await using _listener = await net.listen("tcp", "b\u00fccher.test:80");
    for (const host of ["B\u00dcCHER.test.", "xn--bcher-kva.test"]) {
      await using conn = await net.dial("tcp", `${host}:80`);
      assertEquals(String(conn.remoteAddr), "10.0.0.1:80");
    }
  }, { hosts: { "b\u00fccher.test": ["10.0.0.1"] } }),
);

Deno.test(
  "MemoryNetwork.listen() assigns free ports",
  inMemory(async ({ net }) => {
    await using _taken = await net.listen("tcp", "10.0.0.1:49152");
    await using one = await net.listen("tcp", "10.0.0.1:0");
    await using two = await net.listen("tcp", "10.0.0.1:0");
    assertEquals(
      [String(one.addr), String(two.addr)],
      ["10.0.0.1:49153", "10.0.0.1:49154"],
    );
  }),
);

Deno.test(
  "MemoryNetwork.listen() shares a port if all listeners set reusePort",
  inMemory(async ({ net }) => {
    const options = { reusePort: true };
    await using one = await net.listen("tcp", "10.0.0.1:80", options);
    await using two = await net.listen("tcp", "10.0.0.1:80", options);
    await assertRejects(
      () => net.listen("tcp", "10.0.0.1:80"),
      OpError,
      "address already in use",
    );
    await using _plain = await net.listen("tcp", "10.0.0.1:81");
    await using _unix = await net.listen("unix", "/run/a.sock", options);
    const alone = [
      ["tcp", "10.0.0.1:81"], // its first listener does not share
      ["unix", "/run/a.sock"], // has no such option
    ] as const;
    for (const [network, address] of alone) {
      await assertRejects(
        () => net.listen(network, address, options),
        OpError,
        "address already in use",
      );
    }
    for (const listener of [one, two, one]) {
      await using client = await net.dial("tcp", "10.0.0.1:80");
      await using server = await listener.accept();
      assertEquals(String(server.remoteAddr), String(client.localAddr));
    }
  }),
);

Deno.test(
  "a wildcard takes every address, unmapped; tcp6 turns IPv4 away",
  inMemory(async ({ net }) => {
    {
      await using listener = await net.listen("tcp", ":80");
      for (const address of ["10.0.0.1:80", "[2001:db8::1]:80", ":80"]) {
        await using client = await net.dial("tcp", address);
        await using server = await listener.accept();
        assertEquals(String(server.localAddr), String(client.remoteAddr));
        assertEquals(String(server.remoteAddr), String(client.localAddr));
      }
    }
    await using listener = await net.listen("tcp6", ":80");
    const accepted = listener.accept();
    await using four = await net.dial("tcp", "10.0.0.1:80");
    assertEquals(await four.read(new Uint8Array(1)), null);
    await using six = await net.dial("tcp", "[2001:db8::1]:80");
    await using server = await accepted;
    assertEquals(String(server.remoteAddr), String(six.localAddr));
  }),
);

Deno.test(
  "a zone means nothing on an address that is not link-local",
  inMemory(async ({ net }) => {
    for (const [bound, dialled] of [["::1", "::1%lo"], ["::1%lo", "::1"]]) {
      await using listener = await net.listen("tcp", `[${bound}]:80`);
      assertEquals(String(listener.addr), "[::1]:80");
      await using client = await net.dial("tcp", `[${dialled}]:80`);
      assertEquals(String(client.remoteAddr), "[::1]:80");
      (await listener.accept()).close();
    }
  }),
);

Deno.test(
  "the most specific listener gets the connection",
  inMemory(async ({ net }) => {
    await using ipv6 = await net.listen("tcp", "[::1]:80");
    await using any = await net.listen("tcp4", ":80");
    const dialled: [string, Listener][] = [["[::1]:80", ipv6], [
      "10.1.1.1:80",
      any,
    ]];
    for (const [address, listener] of dialled) {
      await using _client = await net.dial("tcp", address);
      await using _server = await listener.accept();
    }
    const error = await assertRejects(
      () => net.dial("tcp", "[::2]:80"),
      DialError,
    );
    assertEquals(error.message, "dial tcp [::2]:80: connection refused");
  }),
);

Deno.test(
  "a backlog is clamped to 4,096, as on Linux",
  inMemory(async ({ clock, net }) => {
    for (const options of [{}, { backlog: 10_000 }]) {
      const listener = await net.listen("tcp", "10.0.0.1:80", options);
      const dial = () => net.dial("tcp", "10.0.0.1:80", { timeout: 1_000 });
      // Linux takes one more than the backlog.
      const waiting = await Promise.all(Array.from({ length: 4_097 }, dial));
      const failed = assertRejects(dial, DialError, "i/o timeout");
      await clock.advance(1_000);
      await failed;
      for (const conn of waiting) conn.close();
      await listener.close();
    }
  }),
);

Deno.test(
  "a full queue makes TCP wait, and unix fail",
  inMemory(async ({ clock, net }) => {
    {
      const listener = await net.listen("tcp", "10.0.0.1:80", { backlog: 1 });
      await using _one = await net.dial("tcp", "10.0.0.1:80");
      await using _two = await net.dial("tcp", "10.0.0.1:80");
      const third = net.dial("tcp", "10.0.0.1:80", { timeout: 1_000 });
      await clock.advance(500);
      await using _server = await listener.accept();
      await using conn = await third;
      assertEquals(conn.dialTrace?.totalMs, 500);

      const late = net.dial("tcp", "10.0.0.1:80", { timeout: 1_000 });
      const failed = assertRejects(() => late, DialError, "i/o timeout");
      await clock.advance(1_000);
      await failed;

      const hopeless = net.dial("tcp", "10.0.0.1:80");
      const refused = assertRejects(() => hopeless, DialError, "refused");
      await listener.close();
      await refused;
    }
    // The runtime fixes its length, whatever `backlog` says.
    await using _listener = await net.listen("unix", "/a", { backlog: 1 });
    await using waiting = new AsyncDisposableStack();
    for (let i = 0; i < 1_025; i++) waiting.use(await net.dial("unix", "/a"));
    const error = await assertRejects(() => net.dial("unix", "/a"), DialError);
    assertEquals(error.code, "EAGAIN");
    assertEquals(
      (error.cause as Error).message,
      "Resource temporarily unavailable (os error 11)",
    );
  }),
);

Deno.test(
  "a dial() reaches a listen() of the same tick",
  inMemory(async ({ net }) => {
    const [listener, conn] = await Promise.all([
      net.listen("tcp", "10.0.0.1:80"),
      net.dial("tcp", "10.0.0.1:80"),
    ]);
    conn.close();
    await listener.close();
  }),
);

Deno.test(
  "a missing abstract unix socket is ECONNREFUSED, a missing file ENOENT",
  inMemory(async ({ net }) => {
    const codes = [];
    for (const path of ["@nobody", "/nobody"]) {
      const error = await assertRejects(
        () => net.dial("unix", path),
        DialError,
      );
      codes.push(error.code);
    }
    assertEquals(codes, ["ECONNREFUSED", "ENOENT"]); // as Linux says
  }),
);

Deno.test(
  "reset() understands an address as fault() does",
  inMemory(async ({ net }) => {
    await using listener = await net.listen("tcp", "[::1]:80");
    await using _unix = await net.listen("unix", "/a");
    await using other = await net.dial("unix", "/a");
    for (const address of ["[0:0:0:0:0:0:0:1]:http", "::1", "*"]) {
      await using client = await net.dial("tcp", String(listener.addr));
      await using _server = await listener.accept();
      assertEquals(net.reset(address), address === "*" ? 2 : 1);
      const error = await assertRejects(
        () => client.read(new Uint8Array(1)),
        OpError,
      );
      assertEquals(error.code, "ECONNRESET");
    }
    assertThrows(() => net.reset("garbage"), AddrError);
    assertThrows(() => net.reset(other.localAddr), AddrError); // has no name
  }),
);

Deno.test(
  "reusePort: listeners take turns, whatever else is dialled",
  inMemory(async ({ net }) => {
    const options = { reusePort: true };
    await using one = await net.listen("tcp", "10.0.0.1:80", options);
    await using two = await net.listen("tcp", "10.0.0.1:80", options);
    await using _other = await net.listen("tcp", "10.0.0.1:81");
    for (const listener of [one, two, one, two]) {
      await using _client = await net.dial("tcp", "10.0.0.1:80");
      await using _server = await listener.accept();
      await using _more = await net.dial("tcp", "10.0.0.1:81");
    }
  }),
);

Deno.test(
  "names are answered by script, whatever their case",
  inMemory(async ({ net }) => {
    await using _listener = await net.listen("tcp", ":80");
    for (const name of ["db.test", "DB.Test", "db.test.", "localhost"]) {
      await using _conn = await net.dial("tcp", `${name}:80`);
    }
    net.host("db.test", ["10.0.0.2"]);
    {
      await using conn = await net.dial("tcp", "db.test:80");
      assertEquals(String(conn.remoteAddr), "10.0.0.2:80");
    }
    net.host("db.test", null);
    const error = await assertRejects(
      () => net.dial("tcp", "db.test:80"),
      OpError,
    );
    assertEquals(error.message, "dial tcp: lookup db.test: no such host");
  }, { hosts: { "db.test": ["10.0.0.1"] } }),
);

Deno.test(
  "a name's answer may be late, come in batches, or not at all",
  inMemory(async ({ clock, net }) => {
    await using _listener = await net.listen("tcp", "10.0.0.1:80");
    {
      const dialling = net.dial("tcp", "late.test:80");
      await clock.advance(300);
      await using conn = await dialling;
      assertEquals(conn.dialTrace?.resolveMs, 300);
    }
    {
      const dialling = net.dial("tcp", "batches.test:80");
      await clock.advance(100);
      await using conn = await dialling;
      assertEquals(conn.dialTrace?.resolveMs, 0);
      assertEquals(attempts(conn), [
        ["[::1]:80", "refused", 0],
        ["10.0.0.1:80", "connected", 100],
      ]);
    }
    const answers = net.log.filter(({ event }) => event === "answer");
    assertEquals(answers.map(({ ms, detail }) => [ms, detail]), [
      [300, "10.0.0.1"],
      [300, "::1"],
      [400, "10.0.0.1"],
    ]);
    const failures: [string, string][] = [
      ["never.test", "dial tcp: lookup never.test: i/o timeout"],
      [
        "broken.test",
        "dial tcp broken.test:80: lookup broke off after 1 failed: [::1]:80 " +
        "connection refused; lookup broken.test: the name server is on fire",
      ],
      ["dead.test", "dial tcp: lookup dead.test: the name server is on fire"],
    ];
    for (const [name, text] of failures) {
      const dialling = net.dial("tcp", `${name}:80`, { timeout: 1_000 });
      const failed = assertRejects(() => dialling, OpError);
      await clock.advance(1_000);
      assertEquals((await failed).message, text);
    }
    assertEquals(clock.pending, 0);
  }, {
    hosts: {
      "late.test": [300, "10.0.0.1"],
      "batches.test": ["::1", 100, "10.0.0.1"],
      "never.test": [Infinity],
      "broken.test": ["::1", 10, new Error("the name server is on fire")],
      "dead.test": [new Error("the name server is on fire")],
    },
  }),
);

Deno.test(
  "an answer under way continues as it began",
  inMemory(async ({ clock, net }) => {
    const failed = assertRejects(() => net.dial("tcp", "a.test:80"), DialError);
    await clock.advance(50);
    net.host("a.test", ["10.0.0.9"]);
    await clock.advance(50);
    const addrs = (await failed).trace.attempts.map(({ addr }) => addr);
    assertEquals(addrs, ["10.0.0.1:80", "10.0.0.2:80"]);
  }, { hosts: { "a.test": ["10.0.0.1", 100, "10.0.0.2"] } }),
);

Deno.test(
  "localhost is ::1 and 127.0.0.1, in this order",
  inMemory(async ({ net }) => {
    const dialling = () => net.dial("tcp", "localhost:80");
    const { trace } = await assertRejects(dialling, DialError);
    const addrs = trace.attempts.map(({ addr }) => addr);
    assertEquals(addrs, ["[::1]:80", "127.0.0.1:80"]);
  }),
);

Deno.test("a host's script is checked", () => {
  const net = new MemoryNetwork();
  for (const step of ["db.test", "127.1", -1, NaN, null]) {
    const script = [step] as string[];
    assertThrows(() => net.host("a", script), TypeError, "not an IP address");
    assertThrows(() => new MemoryNetwork({ hosts: { a: script } }), TypeError);
  }
  net.host("a", [0, "10.0.0.1"]);
});

Deno.test(
  "a dial race runs on the network's clock, to the millisecond",
  inMemory(async ({ clock, net }) => {
    await using _listener = await net.listen("tcp", "10.0.0.3:80");
    net.fault("::1", { connect: "drop" });
    net.fault("10.0.0.1", { connect: "refuse", delay: 3 });
    net.fault("::2", { connect: "unreachable", delay: 400 });
    net.fault("10.0.0.2", { connect: "drop" });
    net.fault("10.0.0.3", { delay: 20 });
    const dialling = net.dial("tcp", "db.test:80");
    await clock.advance(1_000);
    await using conn = await dialling;
    assertEquals(
      attempts(conn),
      [
        ["[::1]:80", "canceled", 0],
        ["10.0.0.1:80", "refused", 250], // the Connection Attempt Delay
        ["[::2]:80", "unreachable", 260], // a failure, but 10 ms after the last
        ["10.0.0.2:80", "canceled", 510],
        ["10.0.0.3:80", "connected", 660], // as soon as ::2 had failed
      ],
    );
    assertEquals(conn.dialTrace?.totalMs, 680);
    const aborted = net.log.filter(({ event }) => event === "abort");
    assertEquals(aborted.map(({ ms, subject }) => [ms, subject]), [
      [680, "[::1]:80"],
      [680, "10.0.0.2:80"],
    ]);
  }, {
    hosts: {
      "db.test": ["::1", "::2", "10.0.0.1", "10.0.0.2", "10.0.0.3"],
    },
  }),
);

Deno.test(
  "a Dialer of your own takes a network's resolve and connect",
  inMemory(async ({ clock, net }) => {
    const { resolve, connect } = net;
    const dialer = new Dialer({ resolve, connect, clock });
    await using _listener = await net.listen("tcp", "10.0.0.2:80");
    const starts = async () => {
      await using conn = await dialer.dial("tcp", "db.test:80");
      return attempts(conn).filter(([, outcome]) => outcome !== "not-started");
    };
    assertEquals(await starts(), [
      ["10.0.0.1:80", "refused", 0],
      ["10.0.0.2:80", "connected", 0],
    ]);
    assertEquals(await starts(), [["10.0.0.2:80", "connected", 0]]);
    await clock.advance(10 * 60_000 + 1);
    assertEquals((await starts()).length, 2, "forgotten after ten minutes");
  }, { hosts: { "db.test": ["10.0.0.1", "10.0.0.2"] } }),
);

Deno.test(
  "an aborted dial leaves nothing on the network",
  inMemory(async ({ clock, net }) => {
    net.fault("*", { connect: "drop" });
    for (const name of ["db.test", "never.test"]) {
      const controller = new AbortController();
      const { signal } = controller;
      const dialling = net.dial("tcp", `${name}:80`, { signal });
      const failed = assertRejects(() => dialling, Error, "enough");
      await clock.advance(300);
      controller.abort(new Error("enough"));
      await failed;
      await clock.advance(0);
    }
    assertEquals(clock.pending, 0);
    const aborted = net.log.filter(({ event }) => event === "abort");
    assertEquals(aborted.map(({ subject }) => subject), [
      "[::1]:80",
      "10.0.0.1:80",
      "never.test",
    ]);
  }, { hosts: { "db.test": ["::1", "10.0.0.1"], "never.test": [Infinity] } }),
);

Deno.test(
  "connectFrom() sets the address that the server sees",
  inMemory(async ({ net }) => {
    const refused: string[] = [];
    await using _server = serve(
      await net.listen("tcp", ":80"),
      async (conn) => {
        await conn.write(bytes("welcome"));
      },
      {
        maxConnectionsPerHost: 1,
        onError: (_, conn) => void refused.push(String(conn?.remoteAddr)),
      },
    );
    const visit = (hostname: string) =>
      net.dial("tcp", "10.0.0.1:80", { connect: net.connectFrom(hostname) });
    await using one = await visit("192.0.2.1");
    await using two = await visit("192.0.2.2");
    await using more = await visit("192.0.2.1");
    assertEquals(await more.read(new Uint8Array(9)), null);
    assertEquals(await one.read(new Uint8Array(9)), 7);
    assertEquals(await two.read(new Uint8Array(9)), 7);
    assertEquals(refused, [String(more.localAddr)]);
    assertThrows(() => net.connectFrom("a.test"), TypeError, "not an IP");
    const zoned = "[fe80::1%eth0]:81";
    await using _zoned = await net.listen("tcp", zoned);
    const connect = net.connectFrom("fe80::2%eth0");
    await using local = await net.dial("tcp", zoned, { connect });
    assert(String(local.localAddr).startsWith("[fe80::2%eth0]:"));
    assertEquals(net.reset("fe80::2%eth0"), 1);
  }),
);

Deno.test(
  "a server drains on the network's clock",
  inMemory(async ({ clock, net }) => {
    const server = serve(
      await net.listen("tcp", ":80"),
      async (conn, context) => {
        for await (const _ of conn) {
          if (context.signal.aborted) return;
        }
      },
    );
    await using quick = await net.dial("tcp", "10.0.0.1:80");
    await using _slow = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    const shutdown = server.shutdown({ timeout: 3_000 });
    await clock.advance(1_000);
    await quick.closeWrite();
    await clock.advance(1_999);
    assertEquals(server.connections.size, 1);
    await clock.advance(1);
    assertEquals(await shutdown, {
      drained: 1,
      forced: 1,
      failed: 0,
      durationMs: 3_000,
    });
    await server.finished;
  }),
);

Deno.test(
  "an idle connection times out on the network's clock",
  inMemory(async ({ clock, net }) => {
    const ended: [number, boolean][] = [];
    await using server = serve(
      await net.listen("tcp", ":80"),
      async (conn) => {
        for await (const _ of conn);
      },
      {
        idleTimeout: 500,
        onError: (error) =>
          void ended.push([clock.monotonic(), isTimeout(error)]),
      },
    );
    await using client = await net.dial("tcp", "10.0.0.1:80");
    for (let i = 0; i < 3; i++) {
      await clock.advance(499);
      await client.write(bytes("."));
    }
    await clock.advance(499);
    assertEquals(ended, []);
    // Timed out, the server sends FIN and waits for ours.
    await clock.advance(1);
    client.close();
    await clock.advance(0);
    assertEquals(ended, [[1_997, true]]);
    await server.close();
  }),
);

/** One end of a connection as an adapter of one's own has it. */
function plain(conn: Conn): Deno.Conn {
  const { localAddr, remoteAddr } = conn;
  const read = (p: Uint8Array) => conn.read(p);
  const close = () => conn.close();
  return { localAddr, remoteAddr, read, close } as unknown as Deno.Conn;
}

Deno.test(
  "adapters of one's own take the fake clock as an option",
  inMemory(async ({ clock, net }) => {
    await using inner = await net.listen("tcp", ":80");
    const adapter = {
      addr: inner.addr,
      accept: () => inner.accept().then(plain),
      close() {},
    } as unknown as Deno.Listener;
    await using listener = new Listener(adapter, { clock });
    const accepting = listener.accept();
    const dialled = await net.dial("tcp", "10.0.0.1:80");
    await using client = new Conn(plain(dialled), { clock });
    await using server = await accepting;
    for (const conn of [client, server]) {
      conn.setReadDeadline(clock.now() + 1_000);
      const read = () => conn.read(new Uint8Array(1));
      const reading = assertRejects(read);
      await clock.advance(999);
      assertEquals(clock.pending, 1);
      await clock.advance(1);
      assert(isTimeout(await reading));
    }
  }),
);

Deno.test(
  "the log tells what happened, and when",
  inMemory(async ({ clock, net }) => {
    const listener = await net.listen("tcp", "10.0.0.1:80");
    net.fault("::1", { connect: "drop" });
    net.host("db.test", ["::1", "10.0.0.1"]);
    net.host("gone.test", null);
    const dialling = net.dial("tcp", "db.test:80");
    await clock.advance(250);
    const client = await dialling;
    const server = await listener.accept();
    await client.write(bytes("hello"));
    await client.closeWrite();
    server.close();
    net.reset(client.localAddr);
    client.close();
    await listener.close();
    const conn = "10.0.0.1:49153->10.0.0.1:80";
    const back = "10.0.0.1:80->10.0.0.1:49153";
    assertEquals(
      String(net).replaceAll(String(client.localAddr), "10.0.0.1:49153"),
      [
        `     0 ms  listen     10.0.0.1:80`,
        `     0 ms  fault      ::1: connect drop`,
        `     0 ms  host       db.test: ::1, 10.0.0.1`,
        `     0 ms  host       gone.test: unknown`,
        `     0 ms  lookup     db.test`,
        `     0 ms  answer     db.test: ::1, 10.0.0.1`,
        `     0 ms  connect    [::1]:80`,
        `   250 ms  connect    10.0.0.1:80`,
        `   250 ms  connected  ${conn}`,
        `   250 ms  abort      [::1]:80`,
        `   250 ms  accept     ${back}`,
        `   250 ms  write      ${conn}: 5 bytes`,
        `   250 ms  fin        ${conn}`,
        `   250 ms  close      ${back}`,
        `   250 ms  reset      ${conn}`,
        `   250 ms  close      ${conn}`,
        `   250 ms  close      10.0.0.1:80`,
      ].join("\n"),
    );
    assertEquals(net.log.at(0), {
      ms: 0,
      event: "listen",
      subject: "10.0.0.1:80",
      detail: "",
      text: "     0 ms  listen     10.0.0.1:80",
    });
    assertEquals(structuredClone(net.log), net.log, "plain objects");
  }),
);

Deno.test("the assigned ports start over after the last one", () => {
  const ports = new Ports();
  const given = Array.from(
    { length: 16_385 },
    () => ports.freePort("EADDRINUSE"),
  );
  assertEquals([given[0], given.at(-2), given.at(-1)], [
    49_152,
    65_535,
    49_152,
  ]);
});

Deno.test("a network whose ports are all in use has none to assign", async () => {
  const net = new MemoryNetwork();
  const listeners = await Promise.all(
    Array.from({ length: 16_384 }, () => net.listen("tcp", "10.0.0.1:0")),
  );
  await listeners.at(-1)!.close(); // its port would come last
  listeners.push(await net.listen("tcp", "10.0.0.1:0"));
  const late = await net.listen("tcp", "10.0.0.1:0").catch((e) => e);
  assertEquals(late.code, "EADDRINUSE");
  const dialled = await net.dial("tcp", "10.0.0.1:49152").catch((e) => e);
  assertEquals(dialled.code, "EADDRNOTAVAIL");
  await Promise.all(listeners.map((listener) => listener.close()));
});

Deno.test(
  "the log says why a listen() or a dial has failed",
  inMemory(async ({ net }) => {
    await using _listener = await net.listen("tcp", "10.0.0.1:80");
    await assertRejects(() => net.listen("tcp", "10.0.0.1:80"), OpError);
    await assertRejects(() => net.dial("tcp", "10.0.0.1:81"), OpError);
    const fails = net.log.filter(({ event }) => event === "fail");
    assertEquals(fails.map(({ detail, subject }) => [subject, detail]), [
      ["10.0.0.1:80", "listen: address already in use"],
      ["10.0.0.1:81", "connect: connection refused"],
    ]);
  }),
);

Deno.test(
  "one of several listeners on a port can be closed, and opened again",
  inMemory(async ({ net }) => {
    await using _other = await net.listen("tcp", "10.0.0.2:80");
    for (let i = 0; i < 2; i++) {
      await using listener = await net.listen("tcp", "10.0.0.1:80");
      (await net.dial("tcp", "10.0.0.1:80")).close();
      (await listener.accept()).close();
    }
    await assertRejects(() => net.dial("tcp", "10.0.0.1:80"), OpError);
  }),
);

Deno.test("the log keeps the last 10,000 entries", () => {
  const net = new MemoryNetwork({ clock: new FakeClock() });
  for (let i = 0; i < 10_001; i++) net.host("a.test", null);
  assertEquals(net.log.length, 10_000);
});

Deno.test("check() names what is open", async () => {
  const clock = new FakeClock();
  const net = new MemoryNetwork({ clock });
  net.check();
  const listener = await net.listen("tcp", "10.0.0.1:80");
  const client = await net.dial("tcp", "10.0.0.1:80");
  const queued = await net.dial("tcp", "10.0.0.1:80");
  queued.close(); // not accepted: it is the listener's
  const server = await listener.accept();
  server.setReadDeadline(clock.now() + 10);
  server.read(new Uint8Array(1)).catch(() => {});
  const error = assertThrows(() => net.check(), Error);
  assertEquals(error.name, "AssertionError");
  const [head, ...lines] = error.message.split("\n");
  assertEquals(head, "left open:");
  const local = String(client.localAddr);
  assertEquals(lines.slice(0, 3), [
    "  listener 10.0.0.1:80",
    `  dialled connection ${local}->10.0.0.1:80`,
    `  accepted connection 10.0.0.1:80->${local}`,
  ]);
  assertStringIncludes(lines[3]!, "  timer due in 10 ms, set at ");
  assertEquals(lines.length, 4);
  for (const conn of [server, client]) conn.close();
  await listener.close();
  net.check();
});

Deno.test("check() names dials and lookups that wait", async () => {
  const clock = new FakeClock();
  const net = new MemoryNetwork({
    clock,
    hosts: { "a.test": ["10.0.0.1", "10.0.0.2"], "never.test": [Infinity] },
  });
  net.fault("10.0.0.1", { connect: "drop" });
  await using _listener = await net.listen("tcp", "10.0.0.2:80");
  const winning = net.dial("tcp", "a.test:80");
  await clock.advance(250);
  (await winning).close();
  const controller = new AbortController();
  const { signal } = controller;
  const failed = ["10.0.0.1:80", "never.test:80"].map((address) =>
    assertRejects(() => net.dial("tcp", address, { signal }))
  );
  await clock.advance(0);
  const { message } = assertThrows(() => net.check(), Error);
  assertEquals(message.split("\n"), [
    "left open:",
    "  listener 10.0.0.2:80",
    "  connect to 10.0.0.1:80",
    "  lookup of never.test",
  ]);
  controller.abort();
  await Promise.all(failed);
  const after = assertThrows(() => net.check(), Error);
  assertEquals(after.message, "left open:\n  listener 10.0.0.2:80");
});

const context = {} as Deno.TestContext;

Deno.test(
  "inMemory() waits a turn before it checks",
  inMemory(async ({ net }) => {
    const listener = await net.listen("tcp", ":80");
    setTimeout(() => listener.close(), 0); // ends by itself, a turn later
  }),
);

Deno.test("inMemory() fails a test that leaves anything open", async () => {
  const test = inMemory(async ({ net }) => {
    await net.listen("tcp", ":80");
  });
  await assertRejects(() => test(context), Error, "listener [::]:80");
});

Deno.test("inMemory() lets a test's own failure through", async () => {
  const test = inMemory(async ({ net }) => {
    await net.listen("tcp", ":80");
    throw new Error("the test's own");
  });
  await assertRejects(() => test(context), Error, "the test's own");
});

Deno.test("inMemory() tells in the end what a test waited for that never ended", async () => {
  const { code, stderr } = await runChild(`
    import { inMemory } from "./testing/mod.ts";
    Deno.unrefTimer(setTimeout(() => Deno.exit(1), 5_000));
    inMemory(async ({ net }) => {
      for (let i = 1; i <= 30; i++) net.host("a.test", ["10.0.0." + i]);
      net.fault("*", { connect: "drop" });
      await net.dial("tcp", "a.test:80");
    })({ name: "a test" });
    inMemory(() => {})({ name: "another test" });`);
  assertEquals(code, 0);
  const lines = stderr.split("\n");
  assertEquals(lines.slice(0, 4), [
    '"a test" has not ended.',
    "left open:",
    "  connect to 10.0.0.30:80",
    "the log:",
  ]);
  assertEquals(lines.slice(4, -1).length, 20);
  assertEquals(lines.slice(-2), ["     0 ms  connect    10.0.0.30:80", ""]);
});

Deno.test(
  "inMemory() passes on options and the test's context",
  inMemory(async ({ clock, net }, t) => {
    assertEquals(net.clock, clock);
    await t.step("a step", async () => {
      const listening = net.listen("tcp", "a.test:80");
      await using listener = await listening;
      assertEquals(String(listener.addr), "10.0.0.1:80");
    });
  }, { hosts: { "a.test": ["10.0.0.1"] } }),
);

Deno.test("two networks share nothing", async () => {
  const one = new MemoryNetwork();
  const two = new MemoryNetwork();
  await using _listener = await one.listen("tcp", "10.0.0.1:80");
  await using _same = await two.listen("tcp", "10.0.0.1:80");
  await using _client = await one.dial("tcp", "10.0.0.1:80");
  assertEquals(two.log.length, 1);
});

Deno.test(
  "a dial to what is not on the network fails with the usual errors",
  inMemory(async ({ net }) => {
    const cases: [string, "tcp" | "unix", string, string][] = [
      [
        "nobody listens",
        "tcp",
        "10.0.0.1:80",
        "dial tcp 10.0.0.1:80: connection refused",
      ],
      ["no such path", "unix", "/a", "dial unix /a: no such file or directory"],
      ["no address", "tcp", "", "dial tcp: missing address"],
    ];
    for (const [name, network, address, text] of cases) {
      const dialling = () => net.dial(network, address);
      const error = await assertRejects(dialling, OpError, undefined, name);
      assertEquals(error.message, text, name);
    }
    const failed = () => net.dial("tcp", "10.0.0.1");
    const error = await assertRejects(failed, OpError);
    assertInstanceOf(error.cause, AddrError);
  }),
);

Deno.test("a MemoryNetwork needs no permission", {
  permissions: "none",
}, async () => {
  const net = new MemoryNetwork({
    hosts: { "chat.test": ["10.0.0.1"] },
  });
  await using listener = await net.listen("tcp", "chat.test:80");
  await using client = await net.dial("tcp", "chat.test:80");
  await using server = await listener.accept();
  await client.write(bytes("hi"));
  assertEquals(await server.read(new Uint8Array(9)), 2);
  await using _unix = await net.listen("unix", "/run/a.sock");
  await using _peer = await net.dial("unix", "/run/a.sock");
  await using _name = await net.listen("unix", "@name");
  await using _other = await net.dial("unix", "@name");
  assertEquals(client.dialTrace?.mode, "race");
  await listener.close();
  assert(await listener.accept().catch(isClosed));
});
