/** Two listeners as one: what Windows needs to listen on all addresses. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Listener } from "../listener.ts";
import { bothFamilies } from "../net/both_families.ts";
import { isClosed } from "../net/errors.ts";
import { closedInner, errno, FakeConn, FakeListener } from "./fake_listener.ts";
import {
  connect,
  hasIpv6,
  installed,
  listenAnew,
  ownAddr,
  preload,
  runChild,
  STUCK_MS,
  turn,
} from "./support.ts";

/** One platform listener on each address, and ours around both. */
function listenBoth(
  addrs = [{ hostname: "::1", port: 0 }, { hostname: "127.0.0.1", port: 0 }],
): { sides: Deno.TcpListener[]; listener: Listener } {
  const sides = addrs.map((addr) => Deno.listen(addr));
  return { sides, listener: new Listener(bothFamilies(sides[0]!, sides[1]!)) };
}

Deno.test("bothFamilies() accepts the clients of both listeners", {
  ignore: !hasIpv6,
  timeout: STUCK_MS,
}, async () => {
  const { sides, listener } = listenBoth();
  assertEquals(listener.addr.toString(), `[::1]:${sides[0]!.addr.port}`);
  const clients = await Promise.all(
    Array.from(
      { length: 100 },
      (_, i) => connect({ addr: sides[i % 2]!.addr }),
    ),
  );
  const expected = new Set(clients.map(({ localAddr }) => String(localAddr)));
  const came = new Set<string>();
  for (const _ of clients) {
    using conn = await listener.accept();
    came.add(String(conn.remoteAddr));
  }
  assertEquals(came, expected);
  for (const client of clients) client.close();
  await listener.close();
});

Deno.test("bothFamilies() frees both ports when it is closed", async (t) => {
  const addrs = [ownAddr(20_000), ownAddr(20_001)];
  const free = async () => {
    for (const addr of addrs) {
      (await listenAnew(() => Deno.listen(addr))).close();
    }
  };
  await t.step("while an accept waits", async () => {
    const { listener } = listenBoth(addrs);
    const waiting = assertRejects(() => listener.accept());
    await listener.close();
    await waiting;
    await free();
  });
  await t.step("while the slower one's accept is under way", async () => {
    const { sides, listener } = listenBoth(addrs);
    using _client = await connect({ addr: sides[1]!.addr });
    (await listener.accept()).close();
    await listener.close();
    await free();
  });
  await t.step("before the first accept", async () => {
    const { listener } = listenBoth(addrs);
    await listener.close();
    await free();
  });
});

Deno.test("bothFamilies() keeps the slower listener's client for the next accept", async () => {
  const [six, four] = [new FakeListener(), new FakeListener()];
  const both = bothFamilies(six.inner, four.inner);
  const first = both.accept();
  const [a, b] = [new FakeConn("::1"), new FakeConn("127.0.0.1")];
  await four.settle(b);
  assertEquals(await first, b as unknown as Deno.Conn);
  await six.settle(a);
  assertEquals(await both.accept(), a as unknown as Deno.Conn);
  assertEquals([six.accepts, four.accepts], [1, 1], "no accept ahead of time");
  both.close();
  for (const { calls } of [six, four]) assertEquals(calls.at(-1), "close");
});

Deno.test("bothFamilies() passes a failure on, and goes on accepting", async () => {
  const [six, four] = [new FakeListener(), new FakeListener()];
  const both = bothFamilies(six.inner, four.inner);
  const failing = assertRejects(() => both.accept(), Error, "EMFILE");
  await six.settle(errno("EMFILE"));
  await failing;
  await four.settle(errno("EMFILE")); // for the next accept
  await assertRejects(() => both.accept(), Error, "EMFILE");
  const accepted = both.accept();
  assertEquals([six.accepts, four.accepts], [2, 2]);
  const conn = new FakeConn();
  await four.settle(conn);
  assertEquals(await accepted, conn as unknown as Deno.Conn);
});

Deno.test("bothFamilies() closes a connection that nobody has accepted", async () => {
  const [six, four] = [new FakeListener(), new FakeListener()];
  const both = bothFamilies(six.inner, four.inner);
  const [taken, kept] = [new FakeConn(), new FakeConn()];
  const first = both.accept();
  await six.settle(taken);
  await first;
  await four.settle(kept); // nobody waits for it
  both.close();
  await turn();
  assertEquals([taken.calls, kept.calls], [[], ["close"]]);
  await assertRejects(() => both.accept(), Deno.errors.BadResource);
});

Deno.test("bothFamilies() gives a pending accept one client that comes during close(), and closes the other", async () => {
  for (const others of [closedInner, new FakeConn()]) {
    const [six, four] = [new FakeListener(), new FakeListener()];
    const both = bothFamilies(six.inner, four.inner);
    let told: unknown;
    both.accept().then((conn) => told = conn);
    both.close();
    const late = new FakeConn();
    await six.settle(late);
    assertEquals(told, undefined, "the other port is not free yet");
    await assertRejects(() => both.accept(), Deno.errors.BadResource);
    await four.settle(others);
    assertEquals(told, late as unknown as Deno.Conn);
    assertEquals(late.calls, []);
    if (others instanceof FakeConn) assertEquals(others.calls, ["close"]);
  }
  const [six, four] = [new FakeListener(), new FakeListener()];
  const both = bothFamilies(six.inner, four.inner);
  const failing = both.accept().catch((error) => error);
  both.close();
  await six.settle(closedInner);
  await four.settle(closedInner);
  assert(isClosed(await failing));
});

Deno.test("bothFamilies() keeps the process alive just as one listener does", async () => {
  const [six, four] = [new FakeListener(), new FakeListener()];
  const both = bothFamilies(six.inner, four.inner);
  const refs = () => [six, four].map(({ calls }) => calls.at(-1));
  const first = both.accept();
  assertEquals(refs(), ["ref", "ref"], "the default");
  for (const side of [six, four]) await side.settle(new FakeConn());
  await first;
  await both.accept(); // what the slower one brought
  both.unref();
  assertEquals(refs(), ["unref", "unref"]);
  both.ref();
  assertEquals(refs(), ["ref", "ref"]);
  const accepted = both.accept();
  await six.settle(new FakeConn());
  await accepted;
  assertEquals(refs(), ["ref", "unref"], "nobody waits for the slower one");
  both.ref();
  assertEquals(refs(), ["ref", "unref"]);
  both.accept();
  assertEquals(refs(), ["ref", "ref"]);
});

Deno.test({
  name:
    "bind() to all addresses opens two sockets where [::] is for IPv6 alone",
  // A preloaded C library does what Windows does: [::] is IPV6_V6ONLY. And the
  // first $CLASHES binds of IPv4 fail with $ERRNO.
  ignore: Deno.build.os !== "linux" || !installed("cc") || !hasIpv6,
  fn: async () => {
    await using library = await preload(`
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <errno.h>
      #include <netinet/in.h>
      #include <stdlib.h>
      int bind(int fd, const struct sockaddr *addr, socklen_t size) {
        int (*next)(int, const struct sockaddr *, socklen_t) =
          dlsym(RTLD_NEXT, "bind");
        static int clashes = 0;
        int on = 1;
        if (addr->sa_family == AF_INET6)
          setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        else if (clashes++ < atoi(getenv("CLASHES"))) {
          errno = atoi(getenv("ERRNO"));
          return -1;
        }
        return next(fd, addr, size);
      }
    `);
    const inChild = async (
      body: string,
      { clashes = 0, errno = 98, flag = "--allow-net" } = {}, // EADDRINUSE
    ) => {
      const { stdout, stderr } = await runChild(
        `
        import { Listener } from "./listener.ts";
        import { bind } from "./net/bind.ts";

        const { signal } = new AbortController();
        const options = { backlog: 8, reusePort: false, signal };
        /** Which loopback address answers where \`network\` listens. */
        async function answers(network, os) {
          const inner = await bind(network, ":0", options, os);
          await using listener = new Listener(inner);
          const { port } = listener.addr;
          const found = [];
          for (const hostname of ["::1", "127.0.0.1"]) {
            try {
              (await Deno.connect({ hostname, port })).close();
              found.push(hostname);
            } catch (error) {
              if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
            }
          }
          return found.join(" ");
        }
        ${body}
        `,
        {
          flags: [flag],
          wrap: [...library.wrap, `CLASHES=${clashes}`, `ERRNO=${errno}`],
        },
      );
      assert(stdout !== "", stderr);
      return JSON.parse(stdout);
    };

    const rows = [
      ["tcp", "windows", "::1 127.0.0.1"],
      ["tcp4", "windows", "127.0.0.1"],
      ["tcp6", "windows", "::1"],
      ["tcp", "linux", "::1"], // as with one socket
    ];
    const found = await inChild(
      `
      const found = [];
      for (const [network, os] of ${JSON.stringify(rows)}) {
        found.push([network, os, await answers(network, os)]);
      }
      console.log(JSON.stringify(found));
      `,
    );
    assertEquals(found, rows);

    // The port that the system chose for IPv6 may be taken for IPv4: then it
    // tries another one.
    const answers = `
      const found = await answers("tcp", "windows").catch(({ code }) => code);
      console.log(JSON.stringify(found));
    `;
    assertEquals(await inChild(answers, { clashes: 8 }), "::1 127.0.0.1");
    assertEquals(await inChild(answers, { clashes: 9 }), "EADDRINUSE");

    // Without IPv4 (EADDRNOTAVAIL) it listens on IPv6 alone.
    assertEquals(await inChild(answers, { clashes: 9, errno: 99 }), "::1");

    // Where [::] alone is granted, it does not ask for 0.0.0.0.
    assertEquals(
      await inChild(answers, { flag: "--allow-net=[::],[::1],127.0.0.1" }),
      "::1",
    );

    // If the IPv4 port is taken, the IPv6 socket is closed again.
    assertEquals(
      await inChild(
        `
        const { addr: { port } } = Deno.listen({ hostname: "0.0.0.0", port: 0 });
        const error = await bind("tcp", ":" + port, options, "windows")
          .catch((error) => error);
        Deno.listen({ hostname: "::", port }).close();
        const where = String(error.addr).replace(port, "PORT");
        console.log(JSON.stringify([error.code, where]));
        Deno.exit();
        `,
      ),
      ["EADDRINUSE", "0.0.0.0:PORT"],
    );
  },
});
