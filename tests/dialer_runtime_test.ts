/**
 * What the runtime itself says and does: names that are granted without their
 * addresses, zones, abstract sockets, and sockets that it would leave open.
 */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
} from "@std/assert";
import {
  canEnterNamespace,
  enterNamespace,
} from "../bench/harness/namespace.ts";
import { dial, DialError } from "../dialer.ts";
import { listen } from "../listener.ts";
import { DnsServer } from "./dns_server.ts";
import {
  blackHole,
  canUnshare,
  installed,
  preload,
  quote,
  runChild,
  turn,
} from "./support.ts";

const linux = Deno.build.os === "linux";

/** Whether a child may have an /etc/hosts of its own. */
const canEnter = await canEnterNamespace();

/** A dial in a child; its options are code, since JSON knows no Infinity. */
type Dial = [network: string, address: string, options?: string];

/** Dials in a child with these grants, one by one; returns each outcome. */
async function dialled(
  dials: Dial[],
  { flags, wrap = [] }: { flags: string[]; wrap?: string[] },
) {
  const calls = dials.map(([network, address, options = "{}"]) =>
    `() => dial("${network}", "${address}", ${options}),`
  );
  const { stdout, stderr } = await runChild(
    `
    import { dial } from "./mod.ts";
    const outcomes = [];
    for (const call of [${calls.join("")}]) {
      outcomes.push(await call().then((conn) => {
        conn.close();
        return { trace: conn.dialTrace };
      }, (error) => {
        const { name, message, code, timeout, trace, cause } = error;
        const { temporary } = error;
        const because = cause && { name: cause.name, notFound: cause.notFound };
        return { name, message, code, timeout, temporary, trace, because };
      }));
    }
    console.log(JSON.stringify(outcomes));
    `,
    { flags, wrap },
  );
  assertEquals(stderr, "");
  return JSON.parse(stdout);
}

Deno.test("dial() leaves no name of Tor's to the runtime (needs unshare)", {
  ignore: !canEnter,
}, async () => {
  const temporary = await Deno.makeTempDir();
  const files = { "/etc/hosts": "127.0.0.1 hidden.onion\n" };
  const wrap = await enterNamespace({ temporary, files, network: true }, []);
  const flags = ["--allow-net=hidden.onion"];
  const [failed] = await dialled([["tcp", "hidden.onion:1"]], { flags, wrap })
    .finally(() => Deno.remove(temporary, { recursive: true }));
  assertEquals(failed.message, "dial tcp: lookup hidden.onion: no such host");
  assertEquals(failed.because, { name: "DnsError", notFound: true });
});

Deno.test("dial() that is left to the runtime can be cancelled", {
  ignore: !linux,
}, async () => {
  await using hole = await blackHole();
  const name = `localhost:${hole.port}`;
  const [late, aborted] = await dialled([
    // attemptTimeout does not apply
    ["tcp4", name, "{ attemptTimeout: 50, timeout: 300 }"],
    ["tcp4", name, "{ signal: AbortSignal.timeout(50) }"],
  ], { flags: [`--allow-net=${name}`] });
  assertEquals(
    [late.message, late.timeout, late.trace.mode],
    [`dial tcp4 ${name}: i/o timeout`, true, "native"],
  );
  assert(late.trace.totalMs >= 300, `${late.trace.totalMs} ms`);
  assertEquals(aborted.name, "TimeoutError", "the signal's reason");
});

Deno.test("dial() that is left to the runtime passes attemptDelay on", async () => {
  const { stdout } = await runChild(
    `
    import { dial } from "./mod.ts";
    Deno.connect = ({ autoSelectFamilyAttemptDelay }) => {
      console.log(autoSelectFamilyAttemptDelay);
      return Promise.reject(new Deno.errors.ConnectionRefused("none"));
    };
    for (const attemptDelay of [undefined, 300, 0, Infinity]) {
      await dial("tcp", "localhost:1", { attemptDelay }).catch(() => {});
    }
    `,
    { flags: ["--allow-net=localhost:1"] },
  );
  assertEquals(stdout, "250\n300\n10\n2147483647\n");
});

Deno.test("dial() that is left to the runtime sets the socket's options", async () => {
  const { stdout } = await runChild(
    `
    import { dial } from "./mod.ts";
    const addr = (port) => ({ transport: "tcp", hostname: "127.0.0.1", port });
    let calls;
    Deno.connect = () => Promise.resolve({
      localAddr: addr(1),
      remoteAddr: addr(2),
      read() {},
      write() {},
      close() {},
      setNoDelay: (on) => calls.push("noDelay", on),
      setKeepAlive: (on) => calls.push("keepAlive", on),
    });
    for (const options of [{}, { noDelay: false }, { keepAlive: false }]) {
      calls = [];
      const conn = await dial("tcp", "localhost:1", options);
      console.log(conn.dialTrace.mode, ...calls);
    }
    `,
    { flags: ["--allow-net=localhost:1"] },
  );
  assertEquals(
    stdout,
    [
      "native noDelay true keepAlive true\n",
      "native keepAlive true\n",
      "native noDelay true\n",
    ].join(""),
  );
});

Deno.test("dial() of a name is left to the runtime if only the name is granted", async (t) => {
  await using listener = await listen("tcp4", "127.0.0.1:0");
  const { port } = listener.addr as Deno.NetAddr;
  const accepting = (async () => {
    for await (const conn of listener) conn.close();
  })();
  const name = `localhost:${port}`;
  const native = { addr: name, startMs: 0, outcome: "connected" };
  const delays = ["undefined", "-1", "0.5", "1e9", "Infinity"];
  const lookups = ["{}", "{ timeout: 1e9 }"];
  const outcomes = await dialled([
    ...delays.map((attemptDelay): Dial => {
      const given = attemptDelay !== "undefined";
      return ["tcp", name, given ? `{ attemptDelay: ${attemptDelay} }` : "{}"];
    }),
    ["tcp", name, "{ attemptTimeout: 1e-9 }"],
    ["tcp", name, "{ timeout: 0 }"],
    ["tcp4", name],
    ["tcp6", name],
    ["tcp", "localhost:0"],
    ...lookups.map((options): Dial => ["tcp", "nosuch.invalid:80", options]),
  ], { flags: ["--allow-net=localhost,nosuch.invalid"] });
  const next = () => outcomes.shift();
  for (const attemptDelay of delays) {
    const { trace } = next();
    await t.step(`attemptDelay ${attemptDelay}`, () => {
      const [{ durationMs, ...attempt }] = trace.attempts;
      assertEquals([trace.mode, trace.resolveMs, attempt], [
        "native",
        0,
        native,
      ]);
      assert(durationMs > 0 && durationMs <= trace.totalMs);
    });
  }
  const untimed = next();
  await t.step("attemptTimeout does not apply", () => {
    assertEquals(untimed.trace.attempts[0].outcome, "connected");
  });
  const timed = next();
  await t.step("timeout applies", () => {
    assertEquals(
      [timed.message, timed.timeout],
      ["dial tcp: lookup localhost: i/o timeout", true],
    );
  });
  const [four, six] = [next(), next()];
  await t.step("tcp4 and tcp6 are checked afterwards", () => {
    assertEquals(four.trace.attempts[0].outcome, "connected");
    assertEquals(six.name, "DialError");
    assertEquals(
      six.message,
      `dial tcp6 ${name}: address localhost: no suitable address found`,
    );
    assertEquals(six.trace.attempts[0].outcome, "failed");
  });
  const refused = next();
  await t.step("port 0", () => assertEquals(refused.code, "ECONNREFUSED"));
  for (const options of lookups) {
    const { because, message, name } = next();
    await t.step(`a failed lookup is not an attempt, ${options}`, () => {
      // There may be no name server where this runs.
      const reason = because.notFound
        ? "no such host"
        : "temporary failure in name resolution";
      assertEquals(
        [name, because.name, message],
        ["OpError", "DnsError", `dial tcp: lookup nosuch.invalid: ${reason}`],
      );
    });
  }
  assertEquals(outcomes, []);
  await listener.close();
  await accepting;
});

Deno.test("an unreachable name server is not reported as name not found", {
  ignore: !canUnshare(),
}, async () => {
  const wrap = ["unshare", "-rn"];
  const flags = ["--allow-net=nosuch.invalid"];
  const [error] = await dialled([["tcp", "nosuch.invalid:80"]], {
    flags,
    wrap,
  });
  assertEquals(error.because, { name: "DnsError", notFound: false });
  assertEquals([error.timeout, error.temporary], [false, true]);
  assertEquals(
    error.message,
    "dial tcp: lookup nosuch.invalid: temporary failure in name resolution",
  );
});

/** What a program prints on a terminal where nobody answers its prompts. */
async function onTerminal(source: string, grant: string): Promise<string> {
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  const module = new URL("../mod.ts", import.meta.url);
  await Deno.writeTextFile(program, source.replace("./mod.ts", String(module)));
  const deno = ["timeout", "--foreground", "20", Deno.execPath()];
  const run = ["run", "--quiet", "--no-config", grant, program];
  const { stdout } = await new Deno.Command("script", {
    args: ["-qec", quote([...deno, ...run]), "/dev/null"],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  await Deno.remove(program);
  return new TextDecoder().decode(stdout).trim();
}

Deno.test("dial() of [::] over tcp4 raises no prompt for 0.0.0.0", {
  ignore: !linux || !installed("script"),
}, async () => {
  const said = await onTerminal(
    `
    import { dial } from "./mod.ts";
    const error = await dial("tcp4", "[::]:1").catch((error) => error);
    console.log(error.trace.attempts[0].outcome, error.message);
    `,
    "--allow-net=[::]",
  );
  assertEquals(
    said,
    "denied dial tcp4 127.0.0.1:1: run again with --allow-net=0.0.0.0:1",
  );
});

Deno.test("dnsResolver() on a terminal asks a name server that is granted", {
  ignore: !linux || !installed("script"),
}, async () => {
  await using server = await DnsServer.start({ "db.test A": ["127.0.0.1"] });
  const { port } = server.nameServer;
  const said = await onTerminal(
    `
    import { dnsResolver } from "./mod.ts";
    const nameServer = { ipAddr: "127.0.0.1", port: ${port} };
    const { signal } = new AbortController();
    const addresses = dnsResolver({ nameServer })("db.test", { signal });
    for await (const batch of addresses) console.log(...batch);
    `,
    `--allow-net=127.0.0.1:${port}`,
  );
  assertEquals(said, "127.0.0.1");
});

Deno.test("dnsResolver() without a grant names the one that it needs", async () => {
  const { stdout } = await runChild(
    `
    import { dial, dnsResolver } from "./mod.ts";
    const resolve = dnsResolver();
    const error = await dial("tcp", "nosuch.test:80", { resolve })
      .catch((error) => error);
    console.log(error.message);
    `,
    { flags: [] },
  );
  assertMatch(
    stdout,
    /^dial tcp: lookup nosuch.test: run again with --allow-net=\S+:53\n$/,
  );
});

Deno.test("dial() keeps the process alive while it waits for a timer", async (t) => {
  const dials = {
    "to try the next address": {
      source: `dial("tcp", "db.test:1", { connect, resolve })`,
      said: "127.0.0.1:2",
    },
    "to give up an address": {
      source: `dial("tcp", "192.0.2.1:1", { connect, attemptTimeout: 20 })`,
      said: "i/o timeout",
    },
  };
  for (const [name, { source, said }] of Object.entries(dials)) {
    await t.step(name, async () => {
      const { code, stdout } = await runChild(
        `
        import { dial } from "./mod.ts";
        const addr = (port) => ({
          transport: "tcp",
          hostname: "127.0.0.1",
          port,
        });
        const conn = {
          localAddr: addr(1),
          remoteAddr: addr(2),
          read() {},
          write() {},
          close() {},
        };
        const resolve = () => Promise.resolve(["192.0.2.1", "192.0.2.2"]);
        // A connector that waits for nothing of the runtime's.
        const connect = ({ hostname }) =>
          hostname === "192.0.2.1" ? new Promise(() => {}) : conn;
        ${source}.then(
          (conn) => console.log(String(conn.remoteAddr)),
          (error) => console.log(error.message.split(": ").at(-1)),
        );
        `,
        { flags: ["--allow-net"] },
      );
      assertEquals([code, stdout], [0, `${said}\n`]);
    });
  }
});

Deno.test("dial() of a literal leaves the refusal to the runtime", async () => {
  const [error] = await dialled([["tcp", "127.0.0.1:1"]], { flags: [] });
  assertEquals(error.trace.attempts[0].outcome, "denied");
  assertEquals(
    error.message,
    "dial tcp 127.0.0.1:1: run again with --allow-net=127.0.0.1:1",
  );
});

Deno.test("dial() handles IPv6 zones", { ignore: !linux }, async (t) => {
  await t.step("link-local without one: EINVAL, not a TypeError", async () => {
    const error = await dial("tcp", "[fe80::1]:80").catch((e) => e);
    assertInstanceOf(error, DialError);
    assertEquals(error.message, "dial tcp [fe80::1]:80: invalid argument");
    assertEquals([error.code, error.timeout], ["EINVAL", false]);
    assertEquals(error.trace.attempts[0]!.code, "EINVAL");
  });
  await t.step("an unknown one: EINVAL, not a failed lookup", async () => {
    const error = await dial("tcp", "[fe80::1%nosuch0]:80").catch((e) => e);
    assertInstanceOf(error, DialError);
    assertEquals(
      error.message,
      "dial tcp [fe80::1%nosuch0]:80: no such zone",
    );
    assertEquals(error.code, "EINVAL");
  });
  const ipv6 = await listen("tcp6", "[::1]:0").catch(() => null);
  await t.step({
    name: "elsewhere they are ignored",
    ignore: ipv6 === null,
    fn: async () => {
      const { port } = ipv6!.addr as Deno.NetAddr;
      using conn = await dial("tcp", `[::1%lo]:${port}`);
      using _peer = await ipv6!.accept();
      assertEquals(conn.dialTrace!.attempts[0]!.addr, `[::1%lo]:${port}`);
    },
  });
  await ipv6?.close();
});

Deno.test(
  "dial() connects to an abstract unix socket",
  { ignore: !linux },
  async () => {
    const name = `@switchboard-${crypto.randomUUID()}`;
    const refused = await dial("unix", name).catch((e) => e);
    assertEquals(refused.message, `dial unix ${name}: connection refused`);
    await using listener = await listen("unix", name);
    using conn = await dial("unix", name);
    using _peer = await listener.accept();
    assertEquals(String(conn.remoteAddr), name);
  },
);

Deno.test({
  name: "dial() tries three times if the kernel finds no local port",
  // A preloaded C library lets the first $ACCIDENTS connects fail, and all
  // over IPv6, as on a host without it.
  ignore: !linux || !installed("cc"),
  fn: async () => {
    await using library = await preload(`
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <errno.h>
      #include <netinet/in.h>
      #include <stdlib.h>
      int connect(int fd, const struct sockaddr *addr, socklen_t size) {
        int (*next)(int, const struct sockaddr *, socklen_t) =
          dlsym(RTLD_NEXT, "connect");
        static int accidents = 0;
        if (addr->sa_family == AF_INET6 ||
            (addr->sa_family == AF_INET &&
             accidents++ < atoi(getenv("ACCIDENTS")))) {
          errno = EADDRNOTAVAIL;
          return -1;
        }
        return next(fd, addr, size);
      }
    `);
    for (const options of ["{}", "{ timeout: 1e9 }"]) {
      for (
        const [accidents, ends] of [
          [2, ["connected", "connected", "connected"]],
          // Ports have run out: one search each, for a second.
          [4, ["EADDRNOTAVAIL", "EADDRNOTAVAIL", "connected"]],
          [5, ["EADDRNOTAVAIL", "EADDRNOTAVAIL", "connected"]],
          [7, ["EADDRNOTAVAIL", "EADDRNOTAVAIL", "EADDRNOTAVAIL"]],
        ]
      ) {
        const { stdout, stderr } = await runChild(
          `
          import { dial, listen } from "./mod.ts";
          await using listener = await listen("tcp", "127.0.0.1:0");
          const end = (conn) => {
            conn.close();
            return "connected";
          };
          const { code } = await dial("tcp", "[::1]:1").catch((e) => e);
          if (code !== "EADDRNOTAVAIL") throw new Error(code);
          const ends = [];
          for (const later of [0, 0, 1_001]) {
            const now = performance.now() + later;
            performance.now = () => now;
            const dialling = dial("tcp", String(listener.addr), ${options});
            ends.push(await dialling.then(end, ({ code }) => code));
          }
          console.log(ends.join());
          `,
          {
            flags: ["--allow-net=127.0.0.1,[::1]"],
            wrap: [...library.wrap, `ACCIDENTS=${accidents}`],
          },
        );
        assertEquals([stdout.trim(), stderr], [`${ends}`, ""], `${accidents}`);
      }
    }
  },
});

Deno.test({
  name: "dial() says reset if the peer resets before it returns",
  // The kernel's answer then, on purpose: 82 of 15,000 dials got it.
  ignore: !linux || !installed("cc"),
  fn: async () => {
    await using library = await preload(`
      #include <errno.h>
      #include <sys/socket.h>
      int getpeername(int fd, struct sockaddr *addr, socklen_t *size) {
        errno = ENOTCONN;
        return -1;
      }
    `);
    const { stdout, stderr } = await runChild(
      `
      import { dial, listen } from "./mod.ts";
      await using listener = await listen("tcp", "127.0.0.1:0");
      const address = String(listener.addr);
      const error = await dial("tcp", address).catch((e) => e);
      console.log(error.message.replace(address, "ADDRESS"), error.code);
      `,
      { flags: ["--allow-net=127.0.0.1"], wrap: library.wrap },
    );
    assertEquals(
      [stdout, stderr],
      ["dial tcp ADDRESS: connection reset by peer ECONNRESET\n", ""],
    );
  },
});

/** How the dials that were cut short in one way ended. */
interface Report {
  ended: number;
  connected: number;
  left: number;
  odd: string[];
}

/**
 * Dials in a process of its own, which can count its sockets: 300 times with
 * each of `cuts`, 50 at a time, each cut short at a random moment; that up to
 * `rounds` times, until a socket is left.
 */
async function dials(cuts: string[], { rounds = 1 } = {}): Promise<Report[]> {
  const { stdout, stderr } = await runChild(
    `
    import { dial, isTimeout, listen } from "./mod.ts";

    // TCP sockets: the runtime makes others for itself, when it is half a
    // second old. The table has thousands of others' lines: it is read for
    // sockets only that have not been seen yet.
    const kinds = new Map();
    function sockets(): number {
      const inodes = [];
      for (const { name } of Deno.readDirSync("/proc/self/fd")) {
        try {
          const target = Deno.readLinkSync("/proc/self/fd/" + name);
          const inode = /^socket:.(\\d+)/.exec(target)?.[1];
          if (inode !== undefined) inodes.push(inode);
        } catch {
          // The descriptor of this very listing.
        }
      }
      if (inodes.some((inode) => !kinds.has(inode))) {
        const table = Deno.readTextFileSync("/proc/self/net/tcp").split("\\n");
        const tcp = new Set(table.map((line) => line.trim().split(/ +/)[9]));
        for (const inode of inodes) kinds.set(inode, tcp.has(inode));
      }
      return inodes.filter((inode) => kinds.get(inode)).length;
    }

    let soon;

    async function run(cut) {
      soon = () => 1e6; // never
      const before = sockets();
      const listener = await listen("tcp", "127.0.0.1:0");
      const accepting = (async () => {
        for await (const conn of listener) conn.close();
      })();
      let calmMs;
      for (const _ of ["warming up", "measured"]) {
        const start = performance.now();
        const { signal } = new AbortController();
        const calm = Array.from({ length: 50 }, () =>
          cut(listener.addr, signal, () => {}));
        for (const conn of await Promise.all(calm)) conn.close();
        calmMs = performance.now() - start;
      }
      // However busy this machine is: now too soon for one connection, now
      // late enough for two.
      soon = () => Math.random() * 3 * calmMs;
      let connected = 0, ended = 0, left = 0;
      const odd = new Set();
      const worker = async () => {
        while (left-- > 0) {
          const controller = new AbortController();
          const { signal } = controller;
          let timer;
          const abortSoon = () =>
            timer = setTimeout(() => controller.abort("enough"), soon());
          try {
            const conn = await cut(listener.addr, signal, abortSoon);
            connected++;
            conn.close();
          } catch (error) {
            if (error !== "enough" && !isTimeout(error)) odd.add(String(error));
          }
          clearTimeout(timer);
          ended++;
        }
      };
      // The listener is one, and may have one in hand.
      const tight = () => sockets() < before + 4;
      // Both kinds have to be seen, however this machine is loaded.
      const oneSided = () => connected === 0 || connected === ended;
      for (
        let round = 0;
        tight() && (round < ${rounds} || round < 9 && oneSided());
        round++
      ) {
        left = 300;
        await Promise.all(Array.from({ length: 50 }, worker));
      }
      await listener.close();
      await accepting;
      // A connector's connection may come late: up to 9 ms, below.
      for (let i = 0; sockets() !== before && i < 100; i++) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return { ended, connected, left: sockets() - before, odd: [...odd] };
    }

    const reports = [];
    for (const cut of [${cuts.join(", ")}]) reports.push(await run(cut));
    console.log(JSON.stringify(reports));
    Deno.exit();
    `,
    { flags: ["-A"] },
  );
  assertEquals(stderr, "");
  return JSON.parse(stdout);
}

Deno.test("no dial reaches a port where nobody listens, whenever it is aborted", async () => {
  let left = 1_000;
  const dialAll = async () => {
    while (left-- > 0) {
      const controller = new AbortController();
      const dialling = dial("tcp", "127.0.0.1:1", controller)
        .then(() => "connected", (error) => error);
      for (let n = left % 40; n > 0; n--) await Promise.resolve();
      if (left % 2) await turn();
      controller.abort();
      const error = await dialling;
      const { code, name } = error;
      assert(code === "ECONNREFUSED" || name === "AbortError", `${error}`);
    }
  };
  await Promise.all(Array.from({ length: 5 }, dialAll));
});

Deno.test("dial() that is cut short at a random moment leaves no socket", {
  ignore: !linux,
}, async (t) => {
  await t.step("raw: Deno.connect() leaves some", async () => {
    const [raw] = await dials([
      `({ hostname, port }, signal, abortSoon) => {
        abortSoon();
        return Deno.connect({ hostname, port, signal });
      }`,
    ], { rounds: 40 });
    assert(raw!.left > 0, "Deno no longer leaks: this test proves nothing now");
  });
  const cuts: Record<string, string> = {
    "a signal": `(addr, signal, abortSoon) => {
      abortSoon();
      return dial("tcp", String(addr), { signal });
    }`,
    "timeout": `(addr) => dial("tcp", String(addr), { timeout: soon() })`,
    // A connection that is there when time is over is kept: so it comes late.
    "attemptTimeout": `(addr) =>
      dial("tcp", String(addr), {
        attemptTimeout: soon() + 0.1,
        connect: async ({ hostname, port }) => {
          const conn = await Deno.connect({ hostname, port });
          await new Promise((resolve) => setTimeout(resolve, Math.random() * 9));
          return conn;
        },
      })`,
    "a signal and a timeout, and a race": `({ port }, signal, abortSoon) => {
      abortSoon();
      return dial("tcp", "db.test:" + port, {
        signal,
        timeout: soon(),
        attemptDelay: 10,
        resolve: async function* () {
          yield ["127.0.0.2"]; // refuses
          yield ["127.0.0.1"];
        },
      });
    }`,
  };
  const reports = await dials(Object.values(cuts));
  for (const [i, name] of Object.keys(cuts).entries()) {
    await t.step(name, () => {
      const { connected, ended, left, odd } = reports[i]!;
      assertEquals([left, odd], [0, []]);
      assert(ended >= 300);
      assert(connected > 0 && connected < ended, `${connected} connected`);
    });
  }
});
