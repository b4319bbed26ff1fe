/** The two resolvers, with a scripted name server. */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  canEnterNamespace,
  enterNamespace,
} from "../bench/harness/namespace.ts";
import {
  dial,
  dnsResolver,
  isTimeout,
  listen,
  type Resolver,
  systemResolver,
} from "../mod.ts";
import { DnsError, OpError } from "../net/errors.ts";
import { DnsServer } from "./dns_server.ts";
import { countedSignal, installed, preload, runChild } from "./support.ts";
import type { Lookup } from "./system_lookups.ts";

/** What a resolver gives, batch by batch. */
function batchesOf(
  resolve: Resolver,
  hostname: string,
  { family, signal = new AbortController().signal }: {
    family?: 4 | 6;
    signal?: AbortSignal;
  } = {},
): AsyncIterable<string[]> {
  const options = family ? { family, signal } : { signal };
  return resolve(hostname, options) as AsyncIterable<string[]>;
}

/** All that a resolver gives. */
async function addressesOf(
  ...args: Parameters<typeof batchesOf>
): Promise<string[]> {
  const batches = await Array.fromAsync(batchesOf(...args));
  return batches.flat().sort();
}

async function failureOf(
  ...args: Parameters<typeof batchesOf>
): Promise<DnsError> {
  const error = await addressesOf(...args).catch((error) => error);
  assertInstanceOf(error, DnsError);
  return error;
}

Deno.test("dnsResolver() asks the name server for AAAA and A", async (t) => {
  await using server = await DnsServer.start({
    "both.test AAAA": ["2001:db8::1", "2001:db8::2"],
    "both.test A": ["192.0.2.1", "192.0.2.2"],
    "six.test AAAA": ["2001:db8::1"],
    "four.test A": ["192.0.2.1"],
    "empty4.test AAAA": [],
    "empty4.test A": ["192.0.2.1"],
    "broken6.test AAAA": "SERVFAIL",
    "broken6.test A": ["192.0.2.1"],
    "broken4.test AAAA": ["2001:db8::1"],
    "broken4.test A": "REFUSED",
  });
  const resolve = dnsResolver(server);
  const v4 = "192.0.2.1";
  const v6 = "2001:db8::1";
  const both = [v4, "192.0.2.2", v6, "2001:db8::2"];
  const cases: [hostname: string, addresses: string[], family?: 4 | 6][] = [
    ["both.test", both],
    ["both.test.", both],
    ["both.test", both.slice(0, 2), 4],
    ["both.test", both.slice(2), 6],
    ["six.test", [v6]],
    ["four.test", [v4]],
    ["empty4.test", [v4]],
    ["broken6.test", [v4]],
    ["broken4.test", [v6]],
  ];
  for (const [hostname, addresses, family] of cases) {
    await t.step(`${hostname} ${family ?? "any"}`, async () => {
      server.questions.length = 0;
      const options = family ? { family } : {};
      assertEquals(await addressesOf(resolve, hostname, options), addresses);
      const name = hostname.replace(/\.$/, "");
      const asked = family === 4
        ? [`${name} A`]
        : family === 6
        ? [`${name} AAAA`]
        : [`${name} A`, `${name} AAAA`];
      // Names are absolute: no search list is tried.
      assertEquals([...new Set(server.questions)].toSorted(), asked);
    });
  }
});

Deno.test("dnsResolver() fails with a DnsError that names the server", async (t) => {
  await using server = await DnsServer.start({
    "empty.test AAAA": [],
    "empty.test A": [],
    "broken.test AAAA": "SERVFAIL",
    "broken.test A": "SERVFAIL",
    "refused.test AAAA": "REFUSED",
    "refused.test A": "REFUSED",
  });
  const { ipAddr, port } = server.nameServer;
  for (const name of ["nosuch", "empty", "broken", "refused"]) {
    await t.step(name, async () => {
      const error = await failureOf(dnsResolver(server), `${name}.test`);
      assertEquals(error.hostname, `${name}.test`);
      assertEquals(error.server, `${ipAddr}:${port}`);
      // Deno does not tell them apart.
      assertInstanceOf(error.cause, Deno.errors.NotFound);
      assertEquals(error.notFound, false);
      assertEquals(error.timeout, false);
      assertEquals(
        error.message,
        `lookup ${name}.test on 127.0.0.1:${port}: no address found`,
      );
    });
  }
});

Deno.test("dnsResolver() fails as temporary if it cannot ask", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  // The kernel sends nothing there, unless a socket asks for broadcasts.
  const nameServer = { ipAddr: "127.255.255.255" };
  const error = await failureOf(dnsResolver({ nameServer }), "host.test");
  const { notFound, temporary, timeout } = error;
  assertEquals(
    { notFound, temporary, timeout },
    { notFound: false, temporary: true, timeout: false },
  );
  const where = "host.test on 127.255.255.255:53";
  assertEquals(error.message, `lookup ${where}: permission denied`); // EACCES
});

Deno.test("dnsResolver() gives A first if AAAA takes longer than 50 ms", async () => {
  const late = Promise.withResolvers<void>();
  await using server = await DnsServer.start({
    "late.test AAAA": { reply: ["2001:db8::1"], after: () => late.promise },
    "late.test A": ["192.0.2.1"],
  });
  const start = performance.now();
  const batches: string[][] = [];
  for await (const batch of batchesOf(dnsResolver(server), "late.test")) {
    if (batches.push(batch) === 1) {
      // Minus one millisecond: timers are rounded.
      assertEquals(performance.now() - start >= 49, true);
      late.resolve();
    }
  }
  assertEquals(batches, [["192.0.2.1"], ["2001:db8::1"]]);
});

Deno.test("dnsResolver() rejects with the signal's reason, and leaves nothing behind", async (t) => {
  await using server = await DnsServer.start({
    "silent.test AAAA": "silence",
    "silent.test A": "silence",
  });
  const resolve = dnsResolver(server);
  await t.step("aborted before", async () => {
    const reason = new Error("before");
    const signal = AbortSignal.abort(reason);
    const error = await addressesOf(resolve, "silent.test", { signal })
      .catch((error) => error);
    assertStrictEquals(error, reason);
    assertEquals(server.questions, []);
  });
  await t.step("aborted during the lookup", async () => {
    const { controller, signal, listeners } = countedSignal();
    const reason = new Error("meanwhile");
    const resolving = addressesOf(resolve, "silent.test", { signal })
      .catch((error) => error);
    await server.asked("silent.test A");
    await server.asked("silent.test AAAA");
    controller.abort(reason);
    assertStrictEquals(await resolving, reason);
    assertEquals(listeners(), 0);
  });
});

Deno.test("dnsResolver() cancels a question that nobody waits for", async () => {
  await using server = await DnsServer.start({
    "half.test AAAA": "silence",
    "half.test A": ["192.0.2.1"],
  });
  // The sanitizers would see an operation, a timer or a socket left behind.
  await Promise.all(Array.from({ length: 50 }, async () => {
    for await (const batch of batchesOf(dnsResolver(server), "half.test")) {
      assertEquals(batch, ["192.0.2.1"]);
      break;
    }
  }));
});

Deno.test("dnsResolver() resolves localhost without asking the name server", async () => {
  await using server = await DnsServer.start({});
  const resolve = dnsResolver(server);
  assertEquals(
    await addressesOf(resolve, "localhost"),
    ["127.0.0.1", "::1"],
  );
  assertEquals(server.questions, []);
});

Deno.test("systemResolver() rejects shorthand addresses, which getaddrinfo accepts", async (t) => {
  for (const host of ["127.1", "2130706433", "010.0.0.1", "0x7f.1", ""]) {
    await t.step(host || "an empty name", async () => {
      const error = await assertRejects(
        () => addressesOf(systemResolver, host),
        DnsError,
      );
      assert(error.notFound);
      assertEquals(error.hostname, host);
    });
  }
  assertEquals(await addressesOf(systemResolver, "127.0.0.1"), ["127.0.0.1"]);
});

Deno.test("dnsResolver() checks its options at the call", () => {
  const notAddresses: unknown[] = [
    "",
    "ns.test",
    "127.1",
    "fe80::1%lo",
    53,
    null,
  ];
  for (const ipAddr of notAddresses) {
    assertThrows(
      () => dnsResolver({ nameServer: { ipAddr: ipAddr as string } }),
      TypeError,
      "nameServer.ipAddr is not an IP address",
    );
  }
  for (const port of [0, -1, 65536, 5.5, NaN, Infinity]) {
    assertThrows(
      () => dnsResolver({ nameServer: { ipAddr: "127.0.0.1", port } }),
      RangeError,
      "nameServer.port is not a port",
    );
  }
  for (const port of [1, 65535]) {
    dnsResolver({ nameServer: { ipAddr: "::1", port } });
  }
});

Deno.test("dial() works with dnsResolver()", async (t) => {
  await using server = await DnsServer.start({
    "db.test AAAA": ["2001:db8::1"],
    "db.test A": ["127.0.0.1"],
    "half.test AAAA": "silence",
    "half.test A": ["127.0.0.1"],
  });
  const resolve = dnsResolver(server);
  await using listener = await listen("tcp4", "127.0.0.1:0");
  const { port } = listener.addr as Deno.NetAddr;
  await t.step("found", async () => {
    await using conn = await dial("tcp4", `db.test:${port}`, { resolve });
    assertEquals(String(conn.remoteAddr), String(listener.addr));
    assertEquals(server.questions, ["db.test A"]);
  });
  await t.step("found, though AAAA is never answered", async () => {
    await using conn = await dial("tcp", `half.test:${port}`, { resolve });
    assertEquals(String(conn.remoteAddr), String(listener.addr));
  });
  await t.step("not found", async () => {
    const { ipAddr, port } = server.nameServer;
    await assertRejects(
      () => dial("tcp", "nosuch.test:80", { resolve }),
      OpError,
      `dial tcp: lookup nosuch.test on ${ipAddr}:${port}: no address found`,
    );
  });
});

/** Whether a child may have its own network and name server. */
const canEnter = await canEnterNamespace();

/** What the child process has found. */
type Found =
  & Record<
    | "hosts"
    | "hostsSix"
    | "both"
    | "four"
    | "six"
    | "otherSix"
    | "emptySix"
    | "nosuch"
    | "gone"
    | "empty"
    | "broken"
    | "near"
    | "listed"
    | "onion"
    | "half"
    | "otherHalf"
    | "lost"
    | "second"
    | "starved",
    Lookup
  >
  & { bound: { hostname: string; questions: string[] } }
  & { absolute: string[]; questions: string[]; readMs: number };

/** Looks names up in a child process, with a scripted name server. */
async function lookUpAll(): Promise<Found> {
  const child = `${import.meta.dirname}/system_lookups.ts`;
  const temporary = await Deno.makeTempDir();
  try {
    const files = {
      "/etc/hosts": "127.0.0.1 localhost hosts.test\n",
      "/etc/resolv.conf": "search corp.test\nnameserver 127.0.0.1\n",
    };
    const limited = 'ulimit -n 64 && exec "$@"';
    const [program = "", ...args] = await enterNamespace(
      { temporary, files, network: true },
      [
        ...["sh", "-c", limited, "sh"],
        ...[Deno.execPath(), "run", "-A", "--no-config", child],
      ],
    );
    const { code, stdout, stderr } = await new Deno.Command(program, { args })
      .output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    return JSON.parse(new TextDecoder().decode(stdout));
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

/** dnsResolver() with a name server that loses packets, or never answers. */
async function resolveSlowly() {
  await using server = await DnsServer.start({
    "lost.test AAAA": "NXDOMAIN",
    "lost.test A": { reply: ["192.0.2.1"], lost: 1 },
    "silent.test AAAA": "NXDOMAIN",
    "silent.test A": "silence",
    "half.test AAAA": "silence",
    "half.test A": ["192.0.2.1"],
  });
  const resolve = dnsResolver(server);
  const [lost, silent, half] = await Promise.all([
    addressesOf(resolve, "lost.test"),
    failureOf(resolve, "silent.test"),
    Array.fromAsync(batchesOf(resolve, "half.test")),
  ]);
  return { lost, silent, half, port: server.nameServer.port };
}

Deno.test("resolvers survive a lost packet, and give up on silence", async (t) => {
  // All at once, because they take seconds.
  const [{ lost, silent, half, port }, found] = await Promise.all([
    resolveSlowly(),
    canEnter ? lookUpAll() : null,
  ]);
  await t.step("dnsResolver(): a lost packet", () => {
    assertEquals(lost, ["192.0.2.1"]);
  });
  await t.step("dnsResolver(): silence", () => {
    assertEquals(isTimeout(silent), true);
    assertEquals(silent.timeout, true);
    assertEquals(silent.notFound, false);
    assertEquals(
      silent.message,
      `lookup silent.test on 127.0.0.1:${port}: i/o timeout`,
    );
  });
  await t.step("dnsResolver(): silence for one family", () => {
    assertEquals(half, [["192.0.2.1"]]);
  });
  await t.step({
    name:
      "systemResolver() gives the system's answer, and does not wait long for one family (needs unshare)",
    ignore: !found,
    fn: (t) => assertSystemAnswers(t, found!),
  });
});

async function assertSystemAnswers(t: Deno.TestContext, found: Found) {
  await t.step("a name in /etc/hosts", () => {
    assertEquals(found.hosts.addresses, ["127.0.0.1"]);
  });
  await t.step("a name in /etc/hosts that has only the other family", () => {
    assertEquals(found.hostsSix.error, {
      message: "address hosts.test: no suitable address found", // as Go's
    });
  });
  await t.step("both families", () => {
    // In the system's order: with a route to neither, IPv6 comes first (RFC
    // 6724, section 2.1).
    assertEquals(found.both.addresses, ["2001:db8::1", "192.0.2.1"]);
  });
  await t.step("one family", () => {
    assertEquals(found.four.addresses, ["192.0.2.1"]);
    assertEquals(found.six.addresses, ["2001:db8::1"]);
  });
  await t.step("a name that has only the other family", () => {
    assertEquals(found.otherSix.error, {
      message: "address four.test: no suitable address found",
    });
  });
  await t.step("a name that does not exist", () => {
    assertEquals(found.nosuch.error, {
      message: "lookup nosuch.test: no such host",
      notFound: true,
      temporary: false,
      code: "ENOTFOUND",
    });
  });
  await t.step("no IPv4 address, and AAAA is never answered", () => {
    // Whether there is one of the other family is not worth 15 s.
    assertEquals(found.gone.error, {
      message: "lookup gone.test: no such host",
      notFound: true,
      temporary: false,
      code: "ENOTFOUND",
    });
    assert(found.gone.ms < 1_500, `${found.gone.ms}`);
  });
  await t.step("a name without addresses", () => {
    assertEquals(found.empty.error, {
      message: "lookup empty.test: no address found",
      notFound: false,
      temporary: false,
      code: "ENOTFOUND",
    });
  });
  await t.step("a name without addresses, and one family asked for", () => {
    assertEquals(found.emptySix.error, found.empty.error);
  });
  await t.step(
    "a slow answer for one family is not taken from the search list",
    () => {
      assertEquals(found.near.addresses, ["192.0.2.1"]);
    },
  );
  await t.step(
    "a slow answer from the search list is not overtaken by the name as it stands",
    () => {
      assertEquals(found.listed.addresses, ["192.0.2.1"]);
    },
  );
  await t.step("a name of Tor's, which is not looked up", () => {
    assertEquals(found.onion.error, {
      message: "lookup hidden.Onion.: no such host",
      notFound: true,
      temporary: false,
    });
  });
  await t.step("a name server that fails", () => {
    assertEquals(found.broken.error, {
      message: "lookup broken.test: temporary failure in name resolution",
      notFound: false,
      temporary: true,
      code: "EAI_AGAIN",
    });
  });
  // getaddrinfo alone takes 15, 10 and 5 s for these.
  await t.step("AAAA is never answered", () => {
    assertEquals(found.half.addresses, ["192.0.2.1"]);
    assert(found.half.ms < 1_500, `${found.half.ms}`);
  });
  await t.step("A is never answered", () => {
    assertEquals(found.otherHalf.addresses, ["2001:db8::1"]);
    assert(found.otherHalf.ms < 1_500, `${found.otherHalf.ms}`);
  });
  await t.step("a lost packet", () => {
    assertEquals(
      found.lost.addresses.toSorted(),
      ["192.0.2.1", "2001:db8::1"],
    );
    assert(found.lost.ms < 1_500, `${found.lost.ms}`);
  });
  await t.step("listen() does not ask again after 250 ms", () => {
    assertEquals(found.bound.hostname, "127.0.0.1");
    assertEquals(found.bound.questions.toSorted(), [
      "slow.test A",
      "slow.test AAAA",
    ]);
  });
  await t.step("dnsResolver() asks for absolute names", () => {
    // Questions may be repeated, but host.corp.test must not be asked for.
    assertEquals([...new Set(found.absolute)].toSorted(), [
      "host A",
      "host AAAA",
    ]);
  });
  await t.step("dnsResolver() asks two name servers at once", () => {
    assertEquals(found.second.addresses, ["192.0.2.1"]);
    assert(found.second.ms < 1_500, `${found.second.ms}`);
  });
  await t.step("an abandoned lookup is shared by the next ones", () => {
    // Not 20. But each family may have been asked for as well by now, and
    // getaddrinfo repeats questions that are not answered.
    const { length } = found.questions;
    assert(length < 10, `${found.questions}`);
  });
  await t.step(
    "12 names without an answer leave threads for the program",
    () => {
      assert(found.readMs < 3_000, `reading a file took ${found.readMs} ms`);
    },
  );
  await t.step("no file descriptor left is not 'no such host'", () => {
    assertEquals(found.starved.error, {
      message: "lookup hosts.test: too many open files",
      notFound: false,
      temporary: true,
      code: "EMFILE",
    });
  });
}

Deno.test("systemResolver() rejects with the signal's reason", async (t) => {
  const reason = new Error("stop");
  const next = (signal: AbortSignal, family?: 4) => {
    const options = family ? { family, signal } : { signal };
    const batches = systemResolver("localhost", options);
    return (batches as AsyncIterable<string[]>)[Symbol.asyncIterator]().next();
  };
  await t.step("aborted before", async () => {
    const rejected = next(AbortSignal.abort(reason)).catch((error) => error);
    assertStrictEquals(await rejected, reason);
  });
  await t.step("no error, and one family asked for", async () => {
    const rejected = next(AbortSignal.abort(null), 4).catch((error) => error);
    assertStrictEquals(await rejected, null);
  });
  await t.step("aborted during the lookup", async () => {
    const { controller, signal, listeners } = countedSignal();
    const rejected = next(signal).catch((error) => error);
    controller.abort(reason);
    assertStrictEquals(await rejected, reason);
    assertEquals(listeners(), 0);
    // The lookup goes on, and this one joins it.
    assertEquals((await next(new AbortController().signal)).done, false);
  });
});

Deno.test("dnsResolver() reports that one family has no record", async () => {
  await using server = await DnsServer.start({});
  const error = await failureOf(dnsResolver(server), "nosuch.test", {
    family: 4,
  });
  const { ipAddr, port } = server.nameServer;
  assertEquals(
    error.message,
    `lookup nosuch.test on ${ipAddr}:${port}: no address found`,
  );
  assertInstanceOf(error.cause, Deno.errors.NotFound);
});

/** A getaddrinfo that ignores its hints, or fails, always or once. */
const GETADDRINFO = `
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>

int getaddrinfo(const char *node, const char *service,
                const struct addrinfo *hints, struct addrinfo **found) {
  *found = 0;
  static int calls;
  int fails = calls++ == 0 || !getenv("ONCE");
  if (getenv("FAIL") && fails) return atoi(getenv("FAIL"));
  struct addrinfo *info = calloc(1, sizeof *info);
  struct sockaddr_in *addr = calloc(1, sizeof *addr);
  addr->sin_family = AF_INET;
  inet_pton(AF_INET, "192.0.2.1", &addr->sin_addr);
  info->ai_family = AF_INET;
  info->ai_socktype = SOCK_STREAM;
  info->ai_addr = (struct sockaddr *)addr;
  info->ai_addrlen = sizeof *addr;
  *found = info;
  return 0;
}

void freeaddrinfo(struct addrinfo *info) {}
`;

Deno.test("systemResolver() names the host of a failed lookup (needs cc)", {
  ignore: Deno.build.os !== "linux" || !installed("cc"),
}, async (t) => {
  await using library = await preload(GETADDRINFO);
  const failed = "lookup db.test: getaddrinfo EAI_FAIL db.test";
  type Case = [name: string, family: 4 | 6, variables: string[], said: string];
  const cases: Case[] = [
    [
      "one family, but only the other one came",
      6,
      [],
      "address db.test: no suitable address found",
    ],
    ["EAI_FAIL", 6, ["FAIL=-4"], failed],
    ["EAI_FAIL, for a moment", 4, ["FAIL=-4", "ONCE=1"], failed],
    [
      "EAI_AGAIN, for a moment",
      6,
      ["FAIL=-3", "ONCE=1"],
      "lookup db.test: temporary failure in name resolution",
    ],
  ];
  for (const [name, family, variables, said] of cases) {
    await t.step(name, async () => {
      const { stdout } = await runChild(
        `
        import { systemResolver } from "./mod.ts";
        const { signal } = new AbortController();
        try {
          const options = { family: ${family}, signal };
          for await (const batch of systemResolver("db.test", options));
        } catch (error) {
          console.log(error.message);
        }
        `,
        { flags: ["--allow-net"], wrap: [...library.wrap, ...variables] },
      );
      assertEquals(stdout, `${said}\n`);
    });
  }
});
