import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { DialError } from "../dialer.ts";
import { serve } from "../handler.ts";
import { TcpAddr, UnixAddr } from "../net/addr.ts";
import type { Conn } from "../net/conn.ts";
import { AddrError, isTimeout, OpError } from "../net/errors.ts";
import {
  FakeClock,
  type Fault,
  inMemory,
  MemoryNetwork,
  pipe,
} from "../testing/mod.ts";
import { bytes, textOf } from "./support.ts";

const ADDRESS = "10.0.0.1:80";

/** What a call resolves to, or its error's code. */
function outcome(call: Promise<unknown>): Promise<unknown> {
  return call.catch((error) => (error as OpError).code);
}

/** A connection on a network of its own; all of it is closed afterwards. */
function connected(
  body: (
    world: { client: Conn; server: Conn; net: MemoryNetwork; clock: FakeClock },
  ) => Promise<void>,
): (t: Deno.TestContext) => Promise<void> {
  return inMemory(async ({ net, clock }) => {
    await using listener = await net.listen("tcp", ADDRESS);
    await using client = await net.dial("tcp", ADDRESS);
    await using server = await listener.accept();
    await body({ client, server, net, clock });
  });
}

Deno.test("connect: a fault decides how it ends", async (t) => {
  const cases: [NonNullable<Fault["connect"]>, string, string, string][] = [
    ["refuse", "ECONNREFUSED", "refused", "connection refused"],
    ["unreachable", "EHOSTUNREACH", "unreachable", "no route to host"],
  ];
  for (const [connect, code, outcome, text] of cases) {
    await t.step(
      connect,
      inMemory(async ({ clock, net }) => {
        await using _listener = await net.listen("tcp", ADDRESS);
        net.fault(ADDRESS, { connect });
        const error = await assertRejects(
          () => net.dial("tcp", ADDRESS),
          DialError,
        );
        assertEquals(error.message, `dial tcp ${ADDRESS}: ${text}`);
        assertEquals(error.code, code);
        assertEquals(error.trace.attempts[0]?.outcome, outcome);

        net.fault(ADDRESS, { connect, delay: 30 });
        const dialling = assertRejects(
          () => net.dial("tcp", ADDRESS),
          DialError,
        );
        await clock.advance(30);
        assertEquals((await dialling).trace.totalMs, 30);

        net.fault(ADDRESS, null);
        await using _client = await net.dial("tcp", ADDRESS);
      }),
    );
  }
});

Deno.test(
  'connect: "deny" is a refusal by the sandbox, and the message names the flag',
  { permissions: "none" },
  inMemory(async ({ net }) => {
    net.fault(ADDRESS, { connect: "deny", listen: "deny" });
    net.fault("/run/a.sock", { listen: "deny" });
    const error = await assertRejects(
      () => net.dial("tcp", ADDRESS),
      DialError,
    );
    assertEquals(
      error.message,
      `dial tcp ${ADDRESS}: run again with --allow-net=${ADDRESS}`,
    );
    assertInstanceOf(error.cause, Deno.errors.NotCapable);
    assertEquals(error.trace.attempts[0]?.outcome, "denied");

    const listening = await assertRejects(
      () => net.listen("tcp", ADDRESS),
      OpError,
    );
    assertEquals(
      listening.message,
      `listen tcp ${ADDRESS}: run again with --allow-net=${ADDRESS}`,
    );
    const unix = await assertRejects(
      () => net.listen("unix", "/run/a.sock"),
      OpError,
    );
    assertStringIncludes(unix.message, "--allow-read=/run/a.sock");
  }),
);

Deno.test(
  'listen: "unavailable" is EADDRNOTAVAIL',
  inMemory(async ({ net }) => {
    net.fault("192.0.2.1", { listen: "unavailable" });
    const error = await assertRejects(
      () => net.listen("tcp", "192.0.2.1:80"),
      OpError,
    );
    assertEquals(error.code, "EADDRNOTAVAIL");
    await using _listener = await net.listen("tcp", "192.0.2.2:80");
  }),
);

Deno.test(
  "a listener for all addresses does without IPv6, as the real one",
  inMemory(async ({ net }) => {
    for (const listen of ["unavailable", "deny"] as const) {
      net.fault("::", { listen });
      await using listener = await net.listen("tcp", ":80");
      assertEquals(String(listener.addr), "0.0.0.0:80");
      await using _client = await net.dial("tcp", "127.0.0.1:80");
      await assertRejects(() => net.dial("tcp", "[::1]:80"), DialError);
      await assertRejects(() => net.listen("tcp6", ":81"), OpError);
    }
    net.fault("*", { listen: "deny" });
    const error = await assertRejects(() => net.listen("tcp", ":80"), OpError);
    assertEquals(String(error.addr), "[::]:80");
  }),
);

Deno.test(
  'connect: "drop" is a black hole, until it is lifted',
  inMemory(async ({ clock, net }) => {
    await using _listener = await net.listen("tcp", ADDRESS);
    net.fault(ADDRESS, { connect: "drop" });
    const hopeless = net.dial("tcp", ADDRESS, { timeout: 60_000 });
    const failed = assertRejects(() => hopeless, DialError);
    await clock.advance(60_000);
    assert(isTimeout(await failed));

    const patient = net.dial("tcp", ADDRESS);
    await clock.advance(1_000);
    net.fault("*", { connect: "drop" }); // which does not let the dial go on
    await clock.advance(1_000);
    net.fault(ADDRESS, null);
    await clock.advance(1_000);
    net.fault("*", null);
    await using conn = await patient;
    assertEquals(conn.dialTrace?.totalMs, 3_000);
  }),
);

Deno.test(
  "delay: a connect takes that long",
  inMemory(async ({ clock, net }) => {
    await using _listener = await net.listen("tcp", ADDRESS);
    net.fault(ADDRESS, { delay: 120 });
    const dialling = net.dial("tcp", ADDRESS);
    await clock.advance(120);
    await using conn = await dialling;
    assertEquals(conn.dialTrace?.attempts[0]?.durationMs, 120);
  }),
);

Deno.test(
  'accept: "reset" is a client that has reset before accept()',
  inMemory(async ({ net }) => {
    const kinds: string[] = [];
    await using listener = await net.listen("tcp", ADDRESS, {
      onAcceptError: ({ error, kind }) => kinds.push(`${kind} ${error.code}`),
    });
    net.fault(ADDRESS, { accept: "reset" });
    await using bad = await net.dial("tcp", ADDRESS);
    assertEquals(await outcome(bad.read(new Uint8Array(1))), "ECONNRESET");
    net.fault(ADDRESS, null);
    await using good = await net.dial("tcp", ADDRESS);
    await using server = await listener.accept();
    assertEquals(String(server.remoteAddr), String(good.localAddr));
    assertEquals(kinds, ["peer ENOTCONN"]);
  }),
);

Deno.test(
  'accept: "half-close" is a client whose FIN is there already',
  inMemory(async ({ net }) => {
    net.fault(ADDRESS, { accept: "half-close" });
    await using listener = await net.listen("tcp", ADDRESS);
    await using client = await net.dial("tcp", ADDRESS);
    await using server = await listener.accept();
    assertEquals(await server.read(new Uint8Array(1)), null);
    await server.write(bytes("bye"));
    await server.closeWrite();
    assertEquals(await textOf(client), "bye");
    assertEquals(await outcome(client.write(bytes("x"))), "EPIPE");
  }),
);

for (const accept of ["reset", "half-close"] as const) {
  Deno.test(
    `accept: "${accept}" applies only to clients that connect after it was set`,
    inMemory(async ({ net }) => {
      await using listener = await net.listen("tcp", ADDRESS);
      await using client = await net.dial("tcp", ADDRESS);
      net.fault(ADDRESS, { accept });
      await using server = await listener.accept();
      await client.write(bytes("hello"));
      assertEquals(await server.read(new Uint8Array(9)), 5);
    }),
  );
}

for (
  const [code, text] of [
    ["EMFILE", "Too many open files (os error 24)"],
    ["ENFILE", "Too many open files in system (os error 23)"],
    ["ENOBUFS", "No buffer space available (os error 105)"],
    ["ENOMEM", "Cannot allocate memory (os error 12)"],
  ] as const
) {
  Deno.test(
    `accept: ${code} is retried with a back-off, 5 ms to 1 s`,
    inMemory(async ({ clock, net }) => {
      const events: string[] = [];
      await using listener = await net.listen("tcp", ADDRESS, {
        onAcceptError: ({ error, kind, retryMs }) => {
          const { message } = error.cause as Error;
          events.push(`${kind} ${retryMs} ${message}`);
        },
      });
      const accepting = listener.accept();
      await clock.advance(10);
      net.fault(ADDRESS, { accept: code }); // no client, so no failure
      await clock.advance(90);
      await using client = await net.dial("tcp", ADDRESS);
      await clock.advance(4_000);
      const tries = () =>
        net.log.filter(({ detail }) => detail === `accept: ${code}`)
          .map(({ ms }) => ms - 100);
      const expected = [0, 5, 15, 35, 75, 155, 315, 635, 1_275, 2_275, 3_275];
      assertEquals(tries(), expected);
      assertEquals(events, [`capacity 5 ${text}`]);

      net.fault(ADDRESS, null);
      await clock.advance(275);
      await using server = await accepting;
      assertEquals(String(server.remoteAddr), String(client.localAddr));
      assertEquals(clock.monotonic(), 4_375);

      net.fault(ADDRESS, { accept: code });
      const again = listener.accept();
      await using _other = await net.dial("tcp", ADDRESS);
      await clock.advance(0);
      assertEquals(events.length, 2, "a new episode");
      net.fault(ADDRESS, null);
      await clock.advance(5);
      await using _accepted = await again;
    }),
  );
}

Deno.test("resetAfter: that many bytes pass, counting both directions", async (t) => {
  for (const resetAfter of [0, 1, 4, 5, 9]) {
    await t.step(
      `${resetAfter}`,
      connected(async ({ client, net, server }) => {
        net.fault(ADDRESS, { resetAfter });
        const question = new Uint8Array(64);
        await client.write(bytes("ping")); // the kernel takes it all
        const asked = Math.min(4, resetAfter);
        if (asked > 0) assertEquals(await server.read(question), asked);
        if (resetAfter > 4) {
          await server.write(bytes("answer"));
          const n = await client.read(new Uint8Array(64));
          assertEquals(n, Math.min(6, resetAfter - 4));
        }
        for (const conn of [client, server]) {
          assertEquals(await outcome(conn.read(question)), "ECONNRESET");
          assertEquals(await outcome(conn.read(question)), null);
          assertEquals(await outcome(conn.write(question)), "EPIPE");
        }
      }),
    );
  }
});

Deno.test(
  "resetAfter: a read that waits gets the bytes that passed, then the reset",
  connected(async ({ client, net, server }) => {
    net.fault(ADDRESS, { resetAfter: 3 });
    const p = new Uint8Array(9);
    const reads = [server.read(p), server.read(p)].map(outcome);
    await client.write(bytes("12345"));
    assertEquals(await Promise.all(reads), [3, "ECONNRESET"]);
  }),
);

Deno.test(
  "resetAfter: lowered while the connection is open, it waits for a write",
  connected(async ({ client, clock, net, server }) => {
    await client.write(bytes("12345"));
    let told = false;
    const reading = outcome(client.read(new Uint8Array(9)))
      .finally(() => told = true);
    net.fault(ADDRESS, { resetAfter: 3 });
    await clock.advance(0);
    assertEquals(told, false);
    await client.write(bytes("6"));
    assertEquals(await reading, "ECONNRESET");
    assertEquals(await server.read(new Uint8Array(9)), 5);
    assertEquals(await outcome(server.read(new Uint8Array(9))), "ECONNRESET");
  }),
);

Deno.test(
  "reset() resets an address's connections, after their data",
  inMemory(async ({ net }) => {
    await using listener = await net.listen("tcp", ADDRESS);
    await using one = await net.dial("tcp", ADDRESS);
    await using peerOfOne = await listener.accept();
    await using two = await net.dial("tcp", ADDRESS);
    await using peerOfTwo = await listener.accept();
    await one.write(bytes("abc"));
    assertEquals(net.reset(String(one.localAddr)), 1);
    assertEquals(await peerOfOne.read(new Uint8Array(9)), 3);
    assertEquals(
      await outcome(peerOfOne.read(new Uint8Array(9))),
      "ECONNRESET",
    );
    await two.write(bytes("abc"));
    assertEquals(await peerOfTwo.read(new Uint8Array(9)), 3);
    const waiting = outcome(two.read(new Uint8Array(9)));
    assertEquals(net.reset(listener.addr), 2, "of the listener's address");
    assertEquals(await waiting, "ECONNRESET");
    two.close();
    assertEquals(net.reset(listener.addr), 2, "one end is still open");
    assertEquals(net.reset("10.9.9.9:9"), 0);
  }),
);

Deno.test(
  "a reset is told once, whatever else ends the connection",
  inMemory(async ({ net }) => {
    await using listener = await net.listen("tcp", ADDRESS);
    await using client = await net.dial("tcp", ADDRESS);
    const p = new Uint8Array(1);
    assertEquals(net.reset("*"), 1);
    assertEquals(await outcome(client.read(p)), "ECONNRESET");
    assertEquals(net.reset("*"), 1);
    await listener.close(); // the client was not accepted
    assertEquals(await outcome(client.read(p)), null);
    const resets = net.log.filter(({ event }) => event === "reset");
    assertEquals(resets.length, 2, "the second is the close of the other end");
  }),
);

Deno.test(
  "a unix client that was reset is accepted all the same",
  inMemory(async ({ net }) => {
    await using listener = await net.listen("unix", "/run/a.sock");
    await using _client = await net.dial("unix", "/run/a.sock");
    assertEquals(net.reset(listener.addr), 1);
    await using server = await listener.accept();
    assertEquals(await outcome(server.read(new Uint8Array(9))), "ECONNRESET");
  }),
);

Deno.test(
  "fault() and reset() take the address listened on, even a wildcard",
  inMemory(async ({ net }) => {
    await using listener = await net.listen("tcp", ":80");
    const dial = () => net.dial("tcp", "10.0.0.1:80");
    {
      await using _client = await dial();
      await using server = await listener.accept();
      assertEquals(net.reset(listener.addr), 1);
      assertEquals(await outcome(server.read(new Uint8Array(1))), "ECONNRESET");
    }
    net.fault(listener.addr, { connect: "refuse" });
    assertEquals(await outcome(dial()), "ECONNREFUSED");
    net.fault(listener.addr, null);
    (await dial()).close();
    (await listener.accept()).close();
  }),
);

Deno.test(
  "a fault of a client's address applies only to its connects",
  inMemory(async ({ clock, net }) => {
    await using listener = await net.listen("tcp", "10.0.0.1:80");
    const dialFrom = (from: string) =>
      net.dial("tcp", "10.0.0.1:80", { connect: net.connectFrom(from) });
    net.fault("10.9.9.9", { connect: "refuse" });
    assertEquals(await outcome(dialFrom("10.9.9.9")), "ECONNREFUSED");
    (await dialFrom("10.9.9.8")).close();
    (await listener.accept()).close();
    net.fault("10.9.9.9", { delay: 500 });
    const late = dialFrom("10.9.9.9");
    await clock.advance(500);
    using conn = await late;
    assertEquals(conn.dialTrace!.totalMs, 500);
    (await listener.accept()).close();
  }),
);

Deno.test(
  "a fault of a unix listener's own address needs no slash",
  inMemory(async ({ net }) => {
    await using listener = await net.listen("unix", "app.sock");
    net.fault(listener.addr, { connect: "deny" });
    const error = await net.dial("unix", "app.sock").catch((e) => e);
    assertEquals(error.trace.attempts[0].outcome, "denied");
  }),
);

Deno.test(
  "latency: a connect is not held up",
  inMemory(async ({ clock, net }) => {
    await using _listener = await net.listen("tcp", ADDRESS);
    for (const latency of [40, Infinity]) {
      net.fault("*", { latency });
      (await net.dial("tcp", ADDRESS)).close();
    }
    assertEquals(clock.monotonic(), 0);
  }),
);

Deno.test(
  "latency: bytes and FIN arrive in order, later",
  connected(async ({ client, clock, net, server }) => {
    net.fault(ADDRESS, { latency: 40 });
    const arrivals: [number, number | null][] = [];
    const reading = (async () => {
      for (;;) {
        const n = await server.read(new Uint8Array(64));
        arrivals.push([clock.monotonic(), n]);
        if (n === null) return;
      }
    })();
    await client.write(bytes("one"));
    await clock.advance(10);
    await client.write(bytes("three"));
    net.fault(ADDRESS, { latency: 5 }); // faster, but not past the others
    await client.write(bytes("7"));
    await client.closeWrite();
    await clock.advance(100);
    await reading;
    assertEquals(arrivals, [[40, 3], [50, 6], [50, null]]);
  }),
);

Deno.test(
  "latency: a FIN on its way is not held up, by a fault or a close",
  connected(async ({ client, clock, net, server }) => {
    net.fault(ADDRESS, { latency: 40 });
    await client.closeWrite();
    await clock.advance(10);
    net.fault(ADDRESS, { latency: 1_000 });
    client.close();
    const end = server.read(new Uint8Array(1));
    await clock.advance(30);
    assertEquals(clock.pending, 0, "it has arrived");
    assertEquals(await end, null);
    net.fault(ADDRESS, { latency: 5_000 });
    assertEquals(await server.read(new Uint8Array(1)), null);
    const fins = net.log.filter(({ event }) => event === "fin");
    assertEquals(fins.length, 1);
  }),
);

Deno.test(
  "latency: bytes in flight fill the buffer, and a close drops them",
  inMemory(async ({ clock, net }) => {
    net.fault("*", { latency: 1_000 });
    await using listener = await net.listen("tcp", ADDRESS);
    await using client = await net.dial("tcp", ADDRESS);
    const server = await listener.accept();
    client.setWriteDeadline(clock.now() + 10);
    const failed = assertRejects(
      () => client.write(new Uint8Array(64)),
      OpError,
    );
    await clock.advance(10);
    assertEquals((await failed).bytesWritten, 20);
    const reading = outcome(server.read(new Uint8Array(1)));
    server.close();
    await reading;
    client.close();
    assertEquals(clock.pending, 0, "the reset in flight is dropped, too");
  }, { bufferSize: 20 }),
);

Deno.test(
  "latency: a close with bytes unread arrives later, too",
  connected(async ({ client, clock, net, server }) => {
    await client.write(bytes("unread"));
    net.fault("*", { latency: 40 });
    const end = outcome(client.read(new Uint8Array(1)));
    let done = false;
    end.then(() => done = true);
    server.close();
    await clock.advance(39);
    assertEquals(done, false);
    assertEquals(await client.write(bytes("x")), 1, "it does not know yet");
    await clock.advance(1);
    assertEquals(await end, null); // FIN comes before the reset
    assertEquals(await outcome(client.write(bytes("x"))), "EPIPE");
  }),
);

Deno.test(
  "latency: the answer of a peer that has closed takes a round trip",
  connected(async ({ client, clock, net, server }) => {
    server.close();
    await clock.advance(0);
    net.fault("*", { latency: 40 });
    assertEquals(await client.write(bytes("x")), 1);
    await clock.advance(79); // there and back
    assertEquals(await client.write(bytes("x")), 1);
    await clock.advance(1);
    assertEquals(await outcome(client.write(bytes("x"))), "EPIPE");
  }),
);

Deno.test(
  "latency: Infinity hides the peer's close until it is lifted",
  connected(async ({ client, clock, net, server }) => {
    net.fault("*", { latency: Infinity });
    await client.write(bytes("never"));
    server.close();
    const end = outcome(client.read(new Uint8Array(1)));
    let done = false;
    end.then(() => done = true);
    assertEquals(await client.write(bytes("x")), 1);
    await clock.advance(1_000_000);
    assertEquals(done, false);
    net.fault("*", null);
    assertEquals(await end, null);
    assertEquals(await outcome(client.write(bytes("x"))), "EPIPE");
  }),
);

Deno.test("delay: a connect leaves no timer of the system's clock", async () => {
  const net = new MemoryNetwork();
  await using _listener = await net.listen("tcp", ADDRESS);
  net.fault("*", { delay: 1 });
  (await net.dial("tcp", ADDRESS)).close();
});

Deno.test("a fault is copied when it is set", async () => {
  const net = new MemoryNetwork();
  await using listener = await net.listen("tcp", ADDRESS);
  const fault: Fault = { maxRead: 1 };
  net.fault("*", fault);
  fault.maxRead = 2;
  await using client = await net.dial("tcp", ADDRESS);
  await using server = await listener.accept();
  await client.write(bytes("abc"));
  assertEquals(await server.read(new Uint8Array(3)), 1);
});

Deno.test("pipe(): the next call notices that latency Infinity was lifted", async () => {
  const clock = new FakeClock();
  const fault: Fault = { latency: Infinity };
  const [client, server] = pipe({ clock, fault });
  await client.write(bytes("one"));
  const p = new Uint8Array(8);
  const reading = server.read(p);
  await clock.advance(1_000);
  delete fault.latency;
  await client.write(bytes("two"));
  assertEquals(await reading, 3);
  assertEquals(await server.read(p), 3);
  fault.latency = Infinity;
  await client.write(bytes("three"));
  delete fault.latency;
  assertEquals(await server.read(p), 5, "a read is one, too");
  client.close();
  server.close();
});

Deno.test(
  "delay: a change applies to connects that wait, too",
  inMemory(async ({ clock, net }) => {
    await using _listener = await net.listen("tcp", ADDRESS);
    const changes: [before: Fault, after: Fault | null, ms: number][] = [
      [{ delay: Infinity }, null, 5],
      [{ delay: 10_000 }, { delay: 50 }, 50],
      [{ delay: 10 }, { delay: 50 }, 50],
      [{ connect: "drop" }, { delay: 50 }, 50],
    ];
    for (const [before, after, ms] of changes) {
      net.fault(ADDRESS, before);
      const dialling = net.dial("tcp", ADDRESS);
      await clock.advance(5);
      net.fault(ADDRESS, after);
      await clock.advance(5);
      await clock.advance(40);
      await using conn = await dialling;
      assertEquals(conn.dialTrace?.totalMs, ms);
    }
    net.fault(ADDRESS, { delay: 10_000 });
    const dialling = outcome(net.dial("tcp", ADDRESS));
    await clock.advance(5);
    net.fault(ADDRESS, { connect: "refuse" });
    assertEquals(await dialling, "ECONNREFUSED");
  }),
);

Deno.test(
  "latency: Infinity is a peer that has vanished silently",
  connected(async ({ client, clock, net, server }) => {
    await client.write(bytes("before"));
    net.fault(ADDRESS, { latency: Infinity });
    await client.write(bytes("lost"));
    await client.closeWrite();
    assertEquals(await server.read(new Uint8Array(64)), 6);
    server.setReadDeadline(clock.now() + 86_400_000);
    const failed = assertRejects(() => server.read(new Uint8Array(64)));
    await clock.advance(86_400_000);
    assert(isTimeout(await failed));
    server.setReadDeadline(null);
    const waiting = outcome(server.read(new Uint8Array(64)));
    net.reset(ADDRESS);
    assertEquals(await waiting, "ECONNRESET");
  }),
);

Deno.test(
  "latency: what was sent meanwhile arrives when Infinity is lifted",
  connected(async ({ client, clock, net, server }) => {
    net.fault(ADDRESS, { latency: Infinity });
    await client.write(bytes("during;"));
    const p = new Uint8Array(64);
    const reading = outcome(server.read(p));
    await clock.advance(1_000);
    net.fault(ADDRESS, { latency: 40 });
    await client.write(bytes("after"));
    await clock.advance(39);
    net.fault(ADDRESS, null); // faster, but not past the others
    await client.closeWrite();
    let got = false;
    reading.then(() => got = true);
    await clock.advance(0);
    assertEquals(got, false, "a millisecond is left");
    await clock.advance(1);
    assertEquals(await reading, 12);
    assertEquals(await server.read(p), null);
  }),
);

Deno.test(
  "latency: a FIN that was sent meanwhile arrives when Infinity is lifted",
  connected(async ({ client, net, server }) => {
    net.fault(ADDRESS, { latency: Infinity });
    await client.closeWrite();
    const reading = server.read(new Uint8Array(64));
    net.fault(ADDRESS, { maxRead: 1 });
    assertEquals(await reading, null);
  }),
);

Deno.test(
  "maxRead: bytes come in small pieces",
  connected(async ({ client, net, server }) => {
    net.fault(ADDRESS, { maxRead: 2 });
    await client.write(bytes("hello"));
    await client.closeWrite();
    const p = new Uint8Array(64);
    const sizes: (number | null)[] = [];
    for (let i = 0; i < 4; i++) sizes.push(await server.read(p));
    assertEquals(sizes, [2, 2, 1, null]);
  }),
);

Deno.test(
  "maxWrite: writes of the platform are short, ours are complete",
  connected(async ({ client, net, server }) => {
    net.fault(ADDRESS, { maxWrite: 3 });
    assertEquals(await client.write(bytes("hello world")), 11);
    await client.closeWrite();
    assertEquals(await textOf(server), "hello world");
    const writes = net.log.filter(({ event }) => event === "write");
    assertEquals(
      writes.map(({ detail }) => detail),
      ["3 bytes", "3 bytes", "3 bytes", "2 bytes"],
    );
  }),
);

Deno.test("pipe() takes a fault that can be changed, too", async () => {
  const fault: Fault = { maxRead: 1 };
  const [client, server] = pipe({ clock: new FakeClock(), fault });
  await client.write(bytes("ab"));
  const p = new Uint8Array(8);
  assertEquals(await server.read(p), 1);
  fault.maxRead = 8;
  fault.resetAfter = 3;
  await client.write(bytes("cd"));
  assertEquals(await server.read(p), 2);
  assertEquals(await outcome(server.read(p)), "ECONNRESET");
  client.close();
  server.close();
  assertThrows(() => pipe({ fault: { maxRead: 0 } }), TypeError);
});

Deno.test("the most specific fault counts", async (t) => {
  const order = [
    ADDRESS,
    "10.0.0.1",
    "192.0.2.1", // the client
    "[::]:80", // the listener
    "*",
  ];
  await t.step(
    "of a connection",
    inMemory(async ({ net }) => {
      await using listener = await net.listen("tcp", ":80");
      await using client = await net.dial("tcp", ADDRESS, {
        connect: net.connectFrom("192.0.2.1"),
      });
      await using server = await listener.accept();
      for (const [i, address] of order.entries()) {
        net.fault(address, { maxRead: i + 1 });
      }
      await client.write(new Uint8Array(64));
      for (const [i, address] of order.entries()) {
        assertEquals(await server.read(new Uint8Array(9)), i + 1, address);
        net.fault(address, null);
      }
      assertEquals(await server.read(new Uint8Array(9)), 9);
    }),
  );
  await t.step(
    "of a connect",
    inMemory(async ({ net }) => {
      await using _listener = await net.listen("tcp", ":80");
      net.fault("*", { connect: "refuse" });
      net.fault("10.0.0.1", {});
      await using _client = await net.dial("tcp", ADDRESS);
      net.fault(ADDRESS, { connect: "unreachable" });
      assertEquals(await outcome(net.dial("tcp", ADDRESS)), "EHOSTUNREACH");
      assertEquals(
        await outcome(net.dial("tcp", "10.0.0.2:80")),
        "ECONNREFUSED",
      );
      const connect = net.connectFrom("192.0.2.1");
      net.fault("*", null);
      for (const [i, address] of order.entries()) {
        net.fault(address, { connect: i % 2 ? "refuse" : "unreachable" });
      }
      for (const [i, address] of order.entries()) {
        assertEquals(
          await outcome(net.dial("tcp", ADDRESS, { connect })),
          i % 2 ? "ECONNREFUSED" : "EHOSTUNREACH",
          address,
        );
        net.fault(address, null);
      }
    }),
  );
});

Deno.test("a fault's address may be written in any form", async (t) => {
  const spellings: [string, string][] = [
    ["10.0.0.1:http", ADDRESS],
    ["[::ffff:10.0.0.1]:80", ADDRESS],
    ["[0:0::1]:80", "[::1]:80"],
    ["0:0::1", "[::1]:80"],
    ["fe80::1%eth0", "[fe80::1%eth0]:80"],
  ];
  for (const [spelling, address] of spellings) {
    await t.step(
      spelling,
      inMemory(async ({ net }) => {
        net.fault(spelling, { connect: "unreachable" });
        assertEquals(await outcome(net.dial("tcp", address)), "EHOSTUNREACH");
        net.fault(spelling, null);
        assertEquals(await outcome(net.dial("tcp", address)), "ECONNREFUSED");
      }),
    );
  }
  await t.step(
    "a path",
    inMemory(async ({ net }) => {
      for (const path of ["/run/a.sock", "@a", "0::1"]) {
        await using listener = await net.listen("unix", path);
        const spellings = path === "0::1"
          ? [listener.addr] // as text it is an IP address
          : [listener.addr, path];
        for (const address of spellings) {
          net.fault(address, { connect: "refuse" });
          assertEquals(await outcome(net.dial("unix", path)), "ECONNREFUSED");
          net.fault(address, null);
        }
      }
    }),
  );
});

Deno.test("fault() refuses what is no fault", () => {
  const net = new MemoryNetwork();
  const faults: Record<string, unknown>[] = [
    { connect: "refused" },
    { accept: "EPIPE" },
    { listen: 1 },
    { delay: -1 },
    { latency: NaN },
    { maxRead: 0 },
    { maxRead: 1.5 },
    { maxWrite: 1.5 },
    { resetAfter: 0.5 },
    { maxWrite: "3" },
    { resetAfter: -1 },
    { resetafter: 1 },
  ];
  for (const fault of faults) {
    const set = () => net.fault(ADDRESS, fault as Fault);
    assertThrows(set, TypeError, "no such fault", Deno.inspect(fault));
  }
  const named = new TcpAddr("db.test", 80);
  for (const address of ["db.test:80", named, "10.0.0.1:x", "nowhere"]) {
    const set = () => net.fault(address, null);
    assertThrows(set, AddrError, undefined, Deno.inspect(address));
  }
  const name = () => net.fault("db.test", null);
  assertThrows(name, AddrError, "not an IP address");
  const unnamed = new UnixAddr("");
  assertThrows(() => net.fault(unnamed, null), AddrError, "no address");
});

Deno.test(
  "a server survives whatever happens to its clients",
  inMemory(async ({ clock, net }) => {
    const failures: (string | undefined)[] = [];
    await using server = serve(
      await net.listen("tcp", ":80"),
      async (conn) => {
        for await (const chunk of conn) await conn.write(chunk);
      },
      { onError: (error) => void failures.push((error as OpError).code) },
    );
    const faults: Fault[] = [
      { accept: "reset" },
      { accept: "half-close" },
      { accept: "EMFILE" },
      { resetAfter: 7 },
      { maxRead: 1, maxWrite: 1 },
    ];
    for (const fault of faults) {
      net.fault("*", fault);
      const client = await net.dial("tcp", ADDRESS);
      await outcome(client.write(bytes("hello")));
      const read = outcome(client.read(new Uint8Array(8)));
      await clock.advance(100);
      net.fault("*", null);
      await clock.advance(1_000);
      await read;
      client.close();
      await clock.advance(0);
    }
    await using client = await net.dial("tcp", ADDRESS);
    await client.write(bytes("still there"));
    await client.closeWrite();
    assertEquals(await textOf(client), "still there");
    assertEquals(failures, ["ECONNRESET"]);
    assertEquals(server.connections.size, 0);
  }),
);
