import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStringIncludes,
} from "@std/assert";
import { handle, type Handler, serve, type ServeOptions } from "../handler.ts";
import { listen, Listener } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { copy, copyBidirectional } from "../net/copy.ts";
import { isTimeout, OpError } from "../net/errors.ts";
import { FakeClock } from "../testing/fake_clock.ts";
import { inMemory } from "../testing/in_memory.ts";
import {
  bytes,
  canQueue,
  connect,
  hasIpv6,
  runChild,
  STUCK_MS,
  textOf,
  turn,
} from "./support.ts";

const echo: Handler = async (conn) => {
  for await (const chunk of conn) await conn.write(chunk);
};

/** Sends a byte and waits for its echo: the server has seen it. */
async function trip(client: Conn): Promise<void> {
  await client.write(bytes("x"));
  assertEquals(await client.read(new Uint8Array(1)), 1);
}

Deno.test("maxConnections is never exceeded, and all are served in the end", {
  timeout: STUCK_MS,
}, async (t) => {
  for (const [limit, count] of [[1, 10], [50, 300]] as const) {
    await t.step(`${count} through ${limit}`, async () => {
      let running = 0;
      let most = 0;
      const server = serve(
        await listen("tcp", "127.0.0.1:0"),
        async (conn) => {
          most = Math.max(most, ++running, server.connections.size);
          await conn.read(new Uint8Array(1));
          await conn.write(bytes("served"));
          running--;
        },
        { maxConnections: limit },
      );
      const clients = await Promise.all(
        Array.from({ length: count }, () => connect(server)),
      );
      // All connected, and nobody has said anything: the limit is reached.
      while (server.connections.size < limit) await turn();
      const replies = await Promise.all(clients.map(async (client) => {
        await client.write(bytes("x"));
        await client.closeWrite();
        const text = await textOf(client);
        client.close();
        return text;
      }));
      assertEquals(replies, clients.map(() => "served"));
      assertEquals(most, limit);
      await server.shutdown();
    });
  }
});

Deno.test(
  "maxConnections: a handler that has closed and goes on holds its slot",
  inMemory(async ({ clock, net }) => {
    const work = Promise.withResolvers<void>();
    let handlers = 0;
    await using server = serve(await net.listen("tcp", ":80"), async (conn) => {
      handlers++;
      conn.close();
      await work.promise;
    }, { maxConnections: 1 });
    await using _first = await net.dial("tcp", "10.0.0.1:80");
    await using _second = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    assertEquals([handlers, server.connections.size], [1, 1]);
    work.resolve();
    await clock.advance(0);
    assertEquals([handlers, server.connections.size], [2, 0]);
  }),
);

Deno.test("maxConnections frees the slot of a handler that throws, detaches or closes", async () => {
  const ways: Handler[] = [
    () => {
      throw new Error("sync");
    },
    () => Promise.reject(new Error("async")),
    (_conn, context) => context.detach().close(),
    (conn) => conn.close(),
    echo,
  ];
  const failures: unknown[] = [];
  let n = 0;
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    (conn, context) => ways[n++]!(conn, context),
    { maxConnections: 1, onError: (error) => void failures.push(error) },
  );
  for (let i = 1; i < ways.length; i++) {
    const client = await connect(server);
    assertEquals(await textOf(client), "");
    client.close();
  }
  const client = await connect(server);
  await trip(client);
  client.close();
  await server.shutdown();
  assertEquals(failures.length, 2);
});

Deno.test("maxConnections counts a connection during its lingering close", {
  timeout: STUCK_MS,
}, async () => {
  const clock = new FakeClock();
  let served = 0;
  const server = serve(
    await listen("tcp", "127.0.0.1:0", { clock }),
    () => void served++,
    { maxConnections: 1 },
  );
  const first = await connect(server);
  const second = await connect(server);
  assertEquals(await textOf(first), ""); // FIN; first stays open
  await clock.advance(4_999);
  assertEquals([served, server.connections.size], [1, 1]);
  await clock.advance(1);
  assertEquals(await textOf(second), "");
  assertEquals(served, 2);
  second.close(); // this one does
  while (server.connections.size > 0) await turn();
  first.close();
  await server.shutdown();
  assertEquals(clock.timers, []);
});

Deno.test("maxConnectionsPerHost closes one too many at once, and reports it", {
  timeout: STUCK_MS,
}, async () => {
  const reported = Promise.withResolvers<[unknown, Conn | undefined]>();
  let refusals = 0;
  const server = serve(await listen("tcp", "127.0.0.1:0"), echo, {
    maxConnectionsPerHost: 2,
    onError: (error, conn) => {
      refusals++;
      reported.resolve([error, conn]);
    },
  });
  const [a, b] = [await connect(server), await connect(server)];
  await trip(a);
  await trip(b);
  const c = await connect(server);
  assertEquals(await textOf(c), "");
  const [error, conn] = await reported.promise;
  assertInstanceOf(error, OpError);
  assertEquals(error.op, "accept");
  assertEquals(
    error.message,
    `accept tcp ${c.localAddr}: too many connections from 127.0.0.1, the ` +
      "limit is 2",
  );
  assertEquals(String(conn!.remoteAddr), String(c.localAddr));
  assertEquals(server.connections.size, 2);
  c.close();
  // A place that is given back can be taken again.
  a.close();
  while (server.connections.size > 1) await turn();
  const d = await connect(server);
  await trip(d);
  const e = await connect(server); // but only once
  await e.closeWrite(); // so that an echo would end, too
  assertEquals(await textOf(e), "");
  assertEquals(refusals, 2);
  for (const client of [b, d, e]) client.close();
  const { forced, failed } = await server.shutdown();
  assertEquals([forced, failed], [0, 0]);
});

// The runtime often reports a client's next connection before the end of its
// last one, which then has the only place.
const rounds: Record<string, Handler> = {
  "echoes until EOF": echo,
  "returns after its reply": async (conn) => {
    await conn.read(new Uint8Array(1));
    await conn.write(bytes("x"));
  },
};
for (const [name, handler] of Object.entries(rounds)) {
  Deno.test(
    `maxConnectionsPerHost serves a client that comes again, if the handler ${name}`,
    { timeout: STUCK_MS },
    async () => {
      const refused: unknown[] = [];
      await using server = serve(await listen("tcp", "127.0.0.1:0"), handler, {
        maxConnectionsPerHost: 1,
        onError: (error) => void refused.push(error),
      });
      for (let round = 0; round < 200; round++) {
        using client = await connect(server);
        await trip(client);
        await client.closeWrite();
        assertEquals(await textOf(client), "");
      }
      assertEquals(refused, []);
    },
  );
}

Deno.test(
  "maxConnectionsPerHost: one too many during a shutdown counts as failed",
  inMemory(async ({ clock, net }) => {
    const refused: unknown[] = [];
    const server = serve(
      await net.listen("tcp", ":80"),
      async (conn) => {
        for await (const _ of conn);
      },
      {
        maxConnectionsPerHost: 1,
        onError: (error) => void refused.push(error),
      },
    );
    using first = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    using _second = await net.dial("tcp", "10.0.0.1:80");
    while (server.connections.size < 2) await Promise.resolve();
    const shutdown = server.shutdown();
    await clock.advance(0);
    assertEquals(refused.length, 1);
    first.close();
    const { drained, forced, failed } = await shutdown;
    assertEquals([drained, forced, failed], [1, 0, 1]);
  }),
);

Deno.test(
  "maxConnectionsPerHost: a shutdown counts connections that wait for a place",
  inMemory(async ({ clock, net }, t) => {
    type Case = [string, number, boolean, report: number[], ran: boolean[]];
    const cases: Case[] = [
      ["in time", 1_000, true, [2, 0, 0], [false, true]],
      ["by force", 0, true, [0, 2, 0], [false]],
      ["by force, with a handler that goes on", 0, false, [0, 2, 0], [false]],
    ];
    for (const [name, timeout, obedient, report, aborted] of cases) {
      await t.step(name, async () => {
        const release = Promise.withResolvers<void>();
        const ran: boolean[] = [];
        const failures: unknown[] = [];
        const server = serve(
          await net.listen("tcp", ":80"),
          async (_conn, { signal }) => {
            ran.push(signal.aborted);
            if (signal.aborted) return;
            if (obedient) signal.onabort = () => release.resolve();
            await release.promise;
          },
          {
            maxConnectionsPerHost: 1,
            onError: (error) => void failures.push(error),
          },
        );
        using first = await net.dial("tcp", "10.0.0.1:80");
        await clock.advance(0);
        using second = await net.dial("tcp", "10.0.0.1:80");
        while (server.connections.size < 2) await Promise.resolve();
        const shutdown = server.shutdown({ timeout });
        first.close();
        second.close();
        const { drained, forced, failed } = await shutdown;
        assertEquals([drained, forced, failed], report);
        await clock.advance(0);
        assertEquals(server.connections.size, obedient ? 0 : 1);
        release.resolve();
        await server.finished;
        assertEquals([ran, failures], [aborted, []]);
      });
    }
  }),
);

Deno.test(
  "maxConnectionsPerHost: nobody waits in the last slot of maxConnections",
  inMemory(async ({ clock, net }) => {
    let refused = 0;
    const server = serve(await net.listen("tcp", ":80"), echo, {
      maxConnections: 2,
      maxConnectionsPerHost: 1,
      onError: () => refused++,
    });
    using first = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    using _second = await net.dial("tcp", "10.0.0.1:80");
    using other = await net.dial("tcp", "10.0.0.2:80");
    const served = trip(other).then(() => "served");
    const turned = turn().then(() => "kept out for a turn");
    assertEquals(await Promise.race([served, turned]), "served");
    assertEquals(refused, 1);
    first.close();
    other.close();
    await server.shutdown();
  }),
);

Deno.test("maxConnectionsPerHost: a listener that gives no Conn ends the server", async () => {
  class Odd extends Listener {
    override accept(): Promise<Conn> {
      return Promise.resolve({} as Conn);
    }
  }
  const inner = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const reported: unknown[] = [];
  const server = serve(new Odd(inner), echo, {
    maxConnectionsPerHost: 1,
    onError: (error) => void reported.push(error),
  });
  const error = await server.finished.catch((error) => error);
  assertInstanceOf(error, TypeError);
  assertEquals([reported, server.connections.size], [[error], 0]);
});

Deno.test(
  "maxConnectionsPerHost counts each host separately, IPv4-mapped as IPv4",
  { ignore: !hasIpv6 },
  async () => {
    const failures: string[] = [];
    const server = serve(await listen("tcp", ":0"), echo, {
      maxConnectionsPerHost: 1,
      onError: (error) => void failures.push((error as Error).message),
    });
    const { port } = server.addr as Deno.NetAddr;
    const hosts = ["127.0.0.1", "::1"];
    const dialHost = async (hostname: string) =>
      new Conn(await Deno.connect({ hostname, port }));
    const clients = await Promise.all(hosts.map(dialHost));
    for (const client of clients) await trip(client);
    for (const host of hosts) {
      const more = await dialHost(host);
      assertEquals(await textOf(more), "");
      more.close();
      assertStringIncludes(failures.shift()!, `from ${host}, the limit is 1`);
    }
    for (const client of clients) client.close();
    await server.shutdown();
  },
);

Deno.test("idleTimeout fails the handler's calls after exactly that time", async (t) => {
  const ways: Record<string, Handler> = {
    "read()": async (conn) => {
      const p = new Uint8Array(64);
      for (let n; (n = await conn.read(p)) !== null;) {
        await conn.write(p.subarray(0, n));
      }
    },
    "for await": echo,
    "copy()": async (conn) => void await copy(conn, conn),
    "streams": (conn) => conn.readable.pipeTo(conn.writable),
  };
  for (const [name, handler] of Object.entries(ways)) {
    await t.step(name, async () => {
      const clock = new FakeClock();
      const failures: unknown[] = [];
      const server = serve(
        await listen("tcp", "127.0.0.1:0", { clock }),
        handler,
        { idleTimeout: 1_000, onError: (error) => void failures.push(error) },
      );
      const client = await connect(server);
      await trip(client);
      await clock.advance(999);
      await trip(client); // traffic puts it off
      await clock.advance(999);
      assertEquals(failures, []);
      await clock.advance(1);
      assertEquals(failures.length, 1);
      assert(isTimeout(failures[0]));
      assertEquals(await textOf(client), "");
      client.close();
      await server.shutdown();
      assertEquals(clock.timers, []);
    });
  }
});

Deno.test(
  "maxConnectionsPerHost closes without lingering",
  inMemory(async ({ clock, net }) => {
    const refused: unknown[] = [];
    const server = serve(await net.listen("tcp", ":80"), async (conn) => {
      await conn.read(new Uint8Array(1));
    }, {
      maxConnectionsPerHost: 1,
      onError: (error) => void refused.push(error),
    });
    using first = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    using second = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    assertEquals(refused.length, 1);
    await second.write(bytes("is anybody there?"));
    const error = await second.write(bytes("no")).catch((e) => e);
    assertInstanceOf(error, OpError, "the server still reads");
    first.close();
    await server.shutdown();
  }),
);

Deno.test(
  "idleTimeout fails a write that nobody reads",
  { timeout: STUCK_MS },
  async () => {
    const clock = new FakeClock();
    const size = 64 * 1024 * 1024; // more than the kernel takes
    const failed = Promise.withResolvers<unknown>();
    const server = serve(
      await listen("tcp", "127.0.0.1:0", { clock }),
      async (conn) => {
        await conn.write(new Uint8Array(size));
      },
      { idleTimeout: 1_000, onError: failed.resolve },
    );
    const client = await connect(server);
    await client.read(new Uint8Array(1)); // it is under way
    const { promise } = failed;
    let error: unknown;
    promise.then((e) => error = e);
    while (!error) await clock.advance(1_000); // until the kernel takes no more
    assertInstanceOf(error, OpError);
    assertEquals([error.op, isTimeout(error)], ["write", true]);
    assert(error.bytesWritten! < size);
    client.close();
    await server.shutdown();
  },
);

Deno.test(
  "idleTimeout counts bytes that leave through an inner Conn",
  inMemory(async ({ clock, net }) => {
    const inside = await net.listen("tcp", "10.0.0.1:80") as unknown;
    await using server = serve(
      new Listener(inside as Deno.Listener, { clock }),
      (conn) => conn.write(new Uint8Array(1024 * 1024)), // one operation
      { idleTimeout: 10_000 },
    );
    await using client = await net.dial("tcp", String(server.addr));
    let got = 0;
    for await (const chunk of client) {
      got += chunk.length;
      await clock.advance(9_000);
    }
    assertEquals(got, 1024 * 1024);
  }),
);

Deno.test(
  "idleTimeout counts bytes that leave during a lingering close",
  inMemory(async ({ clock, net }) => {
    const failures: unknown[] = [];
    const server = serve(await net.listen("tcp", ":80"), (conn) => {
      const written = conn.write(new Uint8Array(1024 * 1024)); // not awaited
      written.catch((error) => failures.push(error));
    }, { idleTimeout: 1_000 });
    const client = await net.dial("tcp", "10.0.0.1:80");
    const p = new Uint8Array(64 * 1024);
    for (let i = 0; i < 6; i++) {
      assert(await client.read(p));
      await clock.advance(900);
    }
    assertEquals(failures, []);
    client.close();
    await server.close();
  }),
);

/** Handlers that have answered; then no byte moves for a second. */
const ANSWERED: Record<string, (answer: Handler) => Handler> = {
  "has returned": (answer) => answer,
  "ran in handle()": (answer) => (conn) => handle(conn, answer),
  "ran in handle(), on a Conn around it": (answer) => (conn) =>
    handle(new Conn(conn), answer),
  "reads on, and is timed out": readingOn,
  "reads on, and is timed out, on a Conn around it": (answer) => (conn) =>
    handle(new Conn(conn), readingOn(answer)),
  "ran in handle(), on a Conn around one with a deadline":
    (answer) => (conn) => {
      conn.setDeadline(2_000); // of a clock that begins at 0
      return handle(new Conn(conn), answer);
    },
};

function readingOn(answer: Handler): Handler {
  return async (conn, context) => {
    await answer(conn, context);
    await conn.read(new Uint8Array(1));
  };
}

for (const [what, handlerOf] of Object.entries(ANSWERED)) {
  Deno.test(
    `idleTimeout loses nothing that was written by a handler that ${what}`,
    {
      timeout: STUCK_MS,
    },
    async () => {
      const clock = new FakeClock(0);
      const reply = new Uint8Array(256 * 1024); // the kernel takes it at once
      const written = Promise.withResolvers<void>();
      const handler = handlerOf(async (conn) => {
        await conn.read(new Uint8Array(3));
        await conn.write(reply);
        written.resolve();
      });
      const server = serve(
        await listen("tcp", "127.0.0.1:0", { clock }),
        handler,
        { idleTimeout: 1_000, onError: (error) => assert(isTimeout(error)) },
      );
      using client = await connect(server);
      await client.write(new Uint8Array(3));
      await written.promise;
      await clock.advance(4_000); // of the 5 s that a close lingers
      await client.write(new Uint8Array(1)); // a closed socket would reset
      const got = await new Response(client.readable).bytes();
      assertEquals(got.length, reply.length);
      client.close();
      await server.shutdown();
    },
  );
}

/** What leaves a proxy waiting for its upstream alone. */
const WAITING: Record<string, (client: Conn) => void> = {
  "client has half-closed and upstream is silent": (client) =>
    void client.closeWrite(),
  "client uploads and upstream does not read": (client) =>
    void client.write(new Uint8Array(1024 * 1024)),
};

const PROXIES: Record<string, (a: Conn, b: Conn) => Promise<unknown>> = {
  "by copies": copyBidirectional,
  "by pipes": (a, b) =>
    Promise.all([a.readable.pipeTo(b.writable), b.readable.pipeTo(a.writable)]),
};

for (const [what, play] of Object.entries(WAITING)) {
  for (
    const [end, how] of [
      ["idleTimeout", "by copies"],
      ["idleTimeout", "by pipes"],
      ["a forced shutdown", "by copies"],
      ["a forced shutdown", "by pipes"],
    ] as const
  ) {
    Deno.test(
      `${end} ends a proxy ${how} whose ${what}`,
      inMemory(async ({ clock, net }) => {
        const idle = end === "idleTimeout";
        const failures: unknown[] = [];
        const backend = await net.listen("tcp", "10.0.0.2:80");
        const listener = await net.listen("tcp", "10.0.0.1:80");
        const proxy = serve(listener, async (conn) => {
          await using upstream = await net.dial("tcp", "10.0.0.2:80");
          await PROXIES[how]!(conn, upstream);
        }, {
          idleTimeout: idle ? 1_000 : Infinity,
          onError: (error) => failures.push(error),
        });
        const client = await net.dial("tcp", "10.0.0.1:80");
        const upstream = await backend.accept();
        play(client);
        await clock.advance(0);
        const report = idle ? null : proxy.shutdown({ timeout: 1_000 });
        await clock.advance(999);
        assertEquals(proxy.connections.size, 1);
        await clock.advance(1);
        assertEquals(proxy.connections.size, 0);
        assertEquals(failures.map(isTimeout), idle ? [true] : []);
        client.close();
        upstream.close();
        await backend.close();
        await (report ?? proxy.shutdown());
        await proxy.finished; // its handlers have ended
      }),
    );
  }
}

for (const end of ["idleTimeout", "a forced shutdown"]) {
  Deno.test(
    `${end} ends a proxy whose copy starts only afterwards`,
    inMemory(async ({ clock, net }) => {
      const backend = await net.listen("tcp", "10.0.0.2:80");
      const listener = await net.listen("tcp", "10.0.0.1:80");
      const found = Promise.withResolvers<void>();
      const failures: unknown[] = [];
      const proxy = serve(listener, async (conn) => {
        await using upstream = await net.dial("tcp", "10.0.0.2:80");
        await found.promise;
        await copy(upstream, conn); // the upstream is silent
      }, { idleTimeout: 1_000, onError: (error) => failures.push(error) });
      const client = await net.dial("tcp", "10.0.0.1:80");
      const upstream = await backend.accept();
      await clock.advance(0);
      if (end === "idleTimeout") await clock.advance(1_000);
      else await proxy.close();
      found.resolve();
      assertEquals(await upstream.read(new Uint8Array(1)), null);
      client.close();
      upstream.close();
      await backend.close();
      await proxy.close();
      await proxy.finished;
      assertEquals(
        failures.map(isTimeout),
        end === "idleTimeout" ? [true] : [],
      );
    }),
  );
}

/** How long a peer may be silent before and during a stall of the process. */
const LIMIT_MS = 2_000;

/**
 * Echoes until EOF or a time limit; whoever says "!" makes the process stand
 * still. If a connection is `hasty`, each of its messages has to come in time.
 */
function stallingEcho(hasty: (conn: Conn) => boolean): Handler {
  return async (conn) => {
    const p = new Uint8Array(1);
    for (;;) {
      if (hasty(conn)) conn.setReadDeadline(Date.now() + LIMIT_MS);
      if (await conn.read(p) === null) return;
      if (p[0] === 33) { // all have been answered: now compute for a while
        const end = Date.now() + LIMIT_MS + 100;
        while (Date.now() < end);
      } else await conn.write(p);
    }
  };
}

/** Clients in a process that does not stall: all but the first answer. */
const punctual = (port: number, count: number) => `
  const connect = () => Deno.connect({ hostname: "127.0.0.1", port: ${port} });
  const clients = await Promise.all(Array.from({ length: ${count} }, connect));
  const trip = async (client) => {
    await client.write(new Uint8Array([120]));
    return await client.read(new Uint8Array(1)).catch(() => null);
  };
  await Promise.all(clients.map(trip));
  const [silent, ...others] = clients;
  await others[0].write(new Uint8Array([33]));
  await new Promise((resolve) => setTimeout(resolve, 100)); // it computes
  const answers = await Promise.all(others.map(trip));
  console.log(answers.filter((n) => n === 1).length);
  console.log(await silent.read(new Uint8Array(1)).catch(() => null));
  Deno.exit();
`;

const stalls: Record<
  string,
  [hasty: (order: number) => boolean, options: ServeOptions]
> = {
  "idleTimeout lets": [() => false, { idleTimeout: LIMIT_MS }],
  "read deadlines let": [() => true, {}],
  "a few read deadlines among many connections let": [
    (order) => order === 1 || order > 590,
    {},
  ],
};

for (const [limit, [hasty, options]] of Object.entries(stalls)) {
  Deno.test(`${limit} a process that stood still read what has arrived`, {
    ignore: !await canQueue(600),
    timeout: STUCK_MS,
  }, async () => {
    const failures: unknown[] = [];
    const order = new Map<Conn, number>();
    const handler = stallingEcho((conn) => {
      if (!order.has(conn)) order.set(conn, order.size + 1);
      return hasty(order.get(conn)!);
    });
    await using server = serve(await listen("tcp", "127.0.0.1:0"), handler, {
      ...options,
      onError: (error) => failures.push(error),
    });
    const { port } = server.addr as Deno.NetAddr;
    const { stdout } = await runChild(punctual(port, 600), {
      flags: ["--allow-net=127.0.0.1"],
    });
    assertEquals(stdout, "599\nnull\n");
    assertEquals(failures.length, 1);
    assert(isTimeout(failures[0]));
  });
}

for (const step of [3_600_000, -3_600_000]) {
  Deno.test(`idleTimeout is not affected when the clock is set by ${step} ms`, async () => {
    const clock = new class extends FakeClock {
      step = 0;

      override now(): number {
        return super.now() + this.step;
      }
    }();
    const failures: unknown[] = [];
    await using server = serve(
      await listen("tcp", "127.0.0.1:0", { clock }),
      echo,
      { idleTimeout: 1_000, onError: (error) => void failures.push(error) },
    );
    using client = await connect(server);
    await clock.advance(900);
    await trip(client);
    clock.step = step;
    await clock.advance(999);
    assertEquals(failures, []);
    await clock.advance(1);
    assertEquals(failures.length, 1);
  });
}

Deno.test("idleTimeout does not keep the process alive", async () => {
  const { code, stderr } = await runChild(
    `
    import { dial, listen, serve } from "./mod.ts";
    const begun = Promise.withResolvers();
    const server = serve(await listen("tcp", "127.0.0.1:0"), () => {
      begun.resolve();
      return new Promise(() => {});
    }, { idleTimeout: 60_000 });
    await dial("tcp", String(server.addr));
    await begun.promise;
    server.unref();
    Deno.unrefTimer(setTimeout(() => Deno.exit(1), 10_000));
    `,
    { flags: ["--allow-net=127.0.0.1"] },
  );
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
});

Deno.test("idleTimeout needs silence in both directions", async () => {
  const clock = new FakeClock();
  const failures: unknown[] = [];
  const told = Promise.withResolvers<Conn>();
  const server = serve(
    await listen("tcp", "127.0.0.1:0", { clock }),
    async (conn) => {
      told.resolve(conn);
      await conn.read(new Uint8Array(1)); // the client never sends
    },
    { idleTimeout: 1_000, onError: (error) => void failures.push(error) },
  );
  const client = await connect(server);
  const conn = await told.promise;
  for (let i = 0; i < 3; i++) {
    await clock.advance(999);
    await conn.write(bytes("x"));
    await client.read(new Uint8Array(1));
  }
  assertEquals(failures, []);
  await clock.advance(1_000);
  assertEquals(failures.map(isTimeout), [true]);
  client.close();
  await server.shutdown();
});

Deno.test("idleTimeout cannot be undone by a deadline of the handler", {
  timeout: STUCK_MS,
}, async () => {
  const clock = new FakeClock();
  const failures: unknown[] = [];
  const ended = Promise.withResolvers<void>();
  const server = serve(
    await listen("tcp", "127.0.0.1:0", { clock }),
    async (conn) => {
      conn.setDeadline(clock.now() + 60_000);
      for (let i = 0; i < 2; i++) {
        await conn.read(new Uint8Array(1)).catch((e) => failures.push(e));
        conn.setDeadline(null);
      }
      await conn.write(bytes("x")).catch((e) => failures.push(e));
      ended.resolve();
    },
    { idleTimeout: 1 }, // the minimum
  );
  const client = await connect(server);
  while (server.connections.size === 0) await turn();
  await clock.advance(1);
  await ended.promise;
  assertEquals(failures.map(isTimeout), [true, true, true]);
  assertEquals(await textOf(client), "");
  client.close();
  await server.shutdown();
});

Deno.test("idleTimeout may be longer than a timer can be", async () => {
  const clock = new FakeClock();
  const month = 30 * 24 * 3_600_000; // 2^31 ms are 24.8 days
  const failures: unknown[] = [];
  const server = serve(
    await listen("tcp", "127.0.0.1:0", { clock }),
    echo,
    { idleTimeout: month, onError: (error) => void failures.push(error) },
  );
  const client = await connect(server);
  await trip(client);
  await clock.advance(month - 1);
  assertEquals(failures, []);
  await clock.advance(1);
  assertEquals(failures.map(isTimeout), [true]);
  client.close();
  await server.shutdown();
});

Deno.test(
  "idleTimeout leaves no timer after a connection was closed by force",
  inMemory(async ({ clock, net }) => {
    const gate = Promise.withResolvers<void>();
    const server = serve(
      await net.listen("tcp", ":7000"),
      () => gate.promise,
      { idleTimeout: 60_000 },
    );
    await using client = await net.dial("tcp", "10.0.0.1:7000");
    await clock.advance(0);
    assertEquals((await server.close()).forced, 1);
    assertEquals(clock.timers, []);
    assertEquals(await client.read(new Uint8Array(1)), null);
    gate.resolve();
    await server.finished;
  }),
);

Deno.test(
  "idleTimeout does not affect the close of a detached connection",
  inMemory(async ({ clock, net }) => {
    const reply = new Uint8Array(256 * 1024);
    const closed = Promise.withResolvers<void>();
    const over = Promise.withResolvers<void>();
    const server = serve(
      await net.listen("tcp", "10.0.0.1:80"),
      (_conn, context) => {
        const inner = handle(context.detach(), (conn) => {
          conn.write(reply); // not awaited
        });
        inner.then(closed.resolve, closed.reject);
        return over.promise;
      },
      { idleTimeout: 60_000 },
    );
    const client = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    over.resolve(); // while the inner close waits for the slow reader
    let got = 0;
    for await (const chunk of client) {
      got += chunk.length;
      await clock.advance(1_000);
    }
    assertEquals(got, reply.length);
    client.close();
    await closed.promise;
    await server.shutdown();
  }),
);

Deno.test(
  "idleTimeout leaves no timer after detach() during an inner lingering close",
  inMemory(async ({ clock, net }) => {
    const closed = Promise.withResolvers<void>();
    const over = Promise.withResolvers<void>();
    const server = serve(
      await net.listen("tcp", "10.0.0.1:80"),
      async (conn, context) => {
        handle(conn, () => void conn.write(new Uint8Array(256 * 1024)))
          .then(closed.resolve, closed.reject);
        await over.promise;
        context.detach();
      },
      { idleTimeout: 60_000 },
    );
    const client = await net.dial("tcp", "10.0.0.1:80");
    await clock.advance(0);
    over.resolve(); // while the inner close waits for the slow reader
    await clock.advance(0);
    for await (const _ of client) await clock.advance(0);
    client.close();
    await closed.promise;
    assertEquals(clock.timers, []);
    await server.shutdown();
  }),
);

Deno.test(
  "idleTimeout does not apply to a detached connection",
  inMemory(async ({ clock, net }) => {
    const kept = Promise.withResolvers<Conn>();
    const server = serve(
      await net.listen("tcp", ":7000"),
      (_conn, context) => kept.resolve(context.detach()),
      { idleTimeout: 1_000 },
    );
    await using client = await net.dial("tcp", "10.0.0.1:7000");
    await using conn = await kept.promise;
    await client.write(bytes("x"));
    assertEquals(await conn.read(new Uint8Array(1)), 1);
    // Neither the time before counts, nor does a byte since then start it anew.
    await clock.advance(5_000);
    assertEquals(await conn.write(bytes("x")), 1);
    await server.shutdown();
  }),
);
