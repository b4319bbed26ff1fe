import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import { listen, type Listener } from "../listener.ts";
import type { Network } from "../net/addr.ts";
import { Conn } from "../net/conn.ts";
import {
  AddrError,
  DnsError,
  isClosed,
  OpError,
  UnknownNetworkError,
} from "../net/errors.ts";
import {
  canUnshare,
  hasIpv6,
  installed,
  preload,
  runChild,
  sysctl,
} from "./support.ts";

const linux = Deno.build.os === "linux";

async function dialIp(hostname: string, port: number): Promise<Conn> {
  return new Conn(await Deno.connect({ hostname, port }));
}

function portOf({ addr }: Listener): number {
  return (addr as Deno.NetAddr).port;
}

async function refusal(
  network: string,
  address: string,
  options = {},
): Promise<OpError> {
  const error = await assertRejects(
    () => listen(network as Network, address, options),
    OpError,
  );
  assertEquals([error.op, error.network], ["listen", network]);
  return error;
}

Deno.test("listen() binds the address that Go would bind", async (t) => {
  const rows: [Network, string, string][] = [
    ["tcp", "", "::"],
    ["tcp", ":", "::"],
    ["tcp", ":0", "::"],
    ["tcp", "[::]:0", "::"],
    ["tcp", "0.0.0.0:0", "::"],
    ["tcp", "[::ffff:0.0.0.0]:0", "::"],
    ["tcp", "127.0.0.1:0", "127.0.0.1"],
    ["tcp", "127.0.0.1:", "127.0.0.1"],
    ["tcp", "[127.0.0.1]:0", "127.0.0.1"],
    ["tcp", "127.0.0.1:+0", "127.0.0.1"],
    ["tcp", "127.0.0.1:-0", "127.0.0.1"],
    ["tcp", "127.0.0.1:00000", "127.0.0.1"],
    ["tcp", "[::ffff:127.0.0.1]:0", "127.0.0.1"],
    ["tcp", "[::1]:0", "::1"],
    ["tcp", "[0:0::0:1]:0", "::1"],
    ["tcp", "[::1%lo]:0", "::1"],
    ["tcp", "[::1%1]:0", "::1"],
    ["tcp", "localhost:0", "127.0.0.1"],
    ["tcp4", "", "0.0.0.0"],
    ["tcp4", ":0", "0.0.0.0"],
    ["tcp4", "0.0.0.0:0", "0.0.0.0"],
    ["tcp4", "[::]:0", "0.0.0.0"],
    ["tcp4", "127.0.0.1:0", "127.0.0.1"],
    ["tcp4", "localhost:0", "127.0.0.1"],
    ["tcp6", "", "::"],
    ["tcp6", "[::]:0", "::"],
    ["tcp6", "[::1]:0", "::1"],
  ];
  for (const [network, address, hostname] of rows) {
    await t.step({
      name: `${network} "${address}"`,
      ignore: hostname === "::1" && !hasIpv6,
      fn: async () => {
        await using listener = await listen(network, address);
        const { addr } = listener;
        assert(addr.transport === "tcp");
        assertEquals(addr.hostname, hostname);
        assert(addr.port > 0);
      },
    });
  }
});

Deno.test("listen() takes a service name for the port", async () => {
  // Port 80 may be ours or not; either way the address shows it.
  const addr = await listen("tcp", "127.0.0.1:http").then(
    async (listener) => {
      await listener.close();
      return listener.addr;
    },
    (error) => error.addr,
  );
  assertEquals(String(addr), "127.0.0.1:80");
});

Deno.test("listen() refuses bad addresses with Go's messages, without a lookup", async (t) => {
  type Cause = abstract new (...args: never[]) => Error;
  const rows: [string, string, Cause, string][] = [
    ["ip", ":0", UnknownNetworkError, "listen ip: unknown network ip"],
    ["TCP", ":0", UnknownNetworkError, "listen TCP: unknown network TCP"],
    ["tcp5", ":0", UnknownNetworkError, "listen tcp5: unknown network tcp5"],
    ["", ":0", UnknownNetworkError, "listen: unknown network "],
    ["foo", "8080", UnknownNetworkError, "listen foo: unknown network foo"],
    ...["udp", "udp4", "udp6", "unixgram"].map((network) =>
      [
        network,
        ":0",
        AddrError,
        `listen ${network}: address :0: unexpected address type`,
      ] as [string, string, Cause, string]
    ),
    ...["8080", "127.0.0.1", "[::1]", "[[::1]]:0"].map((address) =>
      [
        "tcp",
        address,
        AddrError,
        `listen tcp: address ${address}: missing port in address`,
      ] as [string, string, Cause, string]
    ),
    ...["::1:0", "::1]:0"].map((address) =>
      [
        "tcp",
        address,
        AddrError,
        `listen tcp: address ${address}: too many colons in address`,
      ] as [string, string, Cause, string]
    ),
    [
      "tcp",
      "[::1:0",
      AddrError,
      "listen tcp: address [::1:0: missing ']' in address",
    ],
    ...["65536", "-1", "99999999999999999999"].map((port) =>
      [
        "tcp",
        `127.0.0.1:${port}`,
        AddrError,
        `listen tcp: address ${port}: invalid port`,
      ] as [string, string, Cause, string]
    ),
    ...["nosuch", " 0", "0x10", "☺", "80a", "1e3"].map((port) =>
      [
        "tcp",
        `nosuch host:${port}`,
        AddrError,
        `listen tcp: address tcp/${port}: unknown port`,
      ] as [string, string, Cause, string]
    ),
    ...[
      "127.1",
      "010.0.0.1",
      "256.256.256.256",
      "2130706433",
      "0x7f.1",
      " ",
      "a/b",
      "127.0.0.1%lo",
    ].map((host) =>
      [
        "tcp",
        `${host}:0`,
        DnsError,
        `listen tcp: lookup ${host}: no such host`,
      ] as [string, string, Cause, string]
    ),
    [
      "tcp",
      "[::1%a%b]:0",
      DnsError,
      "listen tcp: lookup ::1%a%b: no such host",
    ],
    ...([
      ["tcp4", "::1"],
      ["tcp6", "127.0.0.1"],
      ["tcp6", "0.0.0.0"],
      ["tcp6", "::ffff:127.0.0.1"],
    ] as const).map(([network, host]) =>
      [
        network,
        `[${host}]:0`,
        AddrError,
        `listen ${network}: address ${host}: no suitable address found`,
      ] as [string, string, Cause, string]
    ),
  ];
  for (const [network, address, type, message] of rows) {
    await t.step(`${network} "${address}"`, async () => {
      const error = await refusal(network, address);
      assertEquals(error.message, message);
      assertInstanceOf(error.cause, type);
      assertEquals([error.addr, error.code], [undefined, undefined]);
      assertEquals([error.timeout, error.temporary], [false, false]);
    });
  }
});

Deno.test("listen() refuses a network or an address that is not a string", async () => {
  for (const [network, address] of [[undefined, ":0"], ["tcp", 80]]) {
    await assertRejects(
      () => listen(network as Network, address as string),
      TypeError,
      "is not a string",
    );
  }
});

Deno.test("listen() checks options before addresses", async () => {
  await assertRejects(() => listen("tcp", "bad", { backlog: 0 }), RangeError);
});

Deno.test("listen() opens nothing if its signal has aborted", async () => {
  await using listener = await listen("tcp", "127.0.0.1:0");
  const reason = new Error("too late");
  const signal = AbortSignal.abort(reason);
  for (const address of [String(listener.addr), "127.0.0.1:0", "no port"]) {
    const error = await listen("tcp", address, { signal }).catch((e) => e);
    assertStrictEquals(error, reason, address);
  }
});

Deno.test("listen() accepts options from a class's getters", async () => {
  const controller = new AbortController();
  class Config {
    get signal() {
      return controller.signal;
    }
  }
  await using listener = await listen("tcp", "127.0.0.1:0", new Config());
  controller.abort();
  assert(isClosed(await listener.accept().catch((error) => error)));
});

Deno.test("listen() reads its options when it is called", async () => {
  const controllers = [new AbortController(), new AbortController()] as const;
  const options = { signal: controllers[0].signal };
  const first = listen("tcp", "127.0.0.1:0", options);
  options.signal = controllers[1].signal;
  const second = listen("tcp", "127.0.0.1:0", options);
  controllers[1].abort();
  await assertRejects(() => second, DOMException);
  const listener = await first;
  controllers[0].abort();
  assert(isClosed(await listener.accept().catch((error) => error)));
});

Deno.test("listen() reports the address that the kernel refuses, and why", async (t) => {
  await t.step("in use", async () => {
    await using first = await listen("tcp", "127.0.0.1:0");
    const error = await refusal("tcp", String(first.addr));
    assertEquals(
      error.message,
      `listen tcp ${first.addr}: address already in use`,
    );
    assertEquals(error.code, "EADDRINUSE");
    assertInstanceOf(error.cause, Deno.errors.AddrInUse);
  });
  await t.step("not an address of this host", async () => {
    const error = await refusal("tcp", "192.0.2.1:0");
    assertEquals(
      error.message,
      "listen tcp 192.0.2.1:0: cannot assign requested address",
    );
    assertEquals(error.code, "EADDRNOTAVAIL");
  });
  await t.step("link-local without a zone", async () => {
    const error = await refusal("tcp", "[fe80::1]:0");
    assertEquals(error.message, "listen tcp [fe80::1]:0: invalid argument");
    assertEquals(error.code, "EINVAL");
  });
  await t.step("with a zone that does not exist", async () => {
    const error = await refusal("tcp", "[fe80::1%nosuch0]:0");
    assertEquals(
      [error.code, error.message],
      ["EINVAL", "listen tcp [fe80::1%nosuch0]:0: no such zone"],
    );
  });
});

Deno.test({
  name: "listen() fails with EACCES on a privileged port",
  // With capabilities dropped, root is like anybody else.
  ignore: !linux || !installed("setpriv"),
  fn: async () => {
    const { stdout, stderr } = await runChild(
      `
      import { listen } from "./listener.ts";
      try {
        const listener = await listen("tcp", "127.0.0.1:1");
        console.log("bound", String(listener.addr)); // no port is reserved here
        await listener.close();
      } catch (error) {
        console.log(error.code, error.message);
      }
      `,
      {
        flags: ["--allow-net"],
        wrap: [
          "sh",
          "-c",
          '[ "$(id -u)" = 0 ] && set -- setpriv --bounding-set=-all "$@"\n' +
          'exec "$@"',
          "sh",
        ],
      },
    );
    const start = await sysctl("net/ipv4/ip_unprivileged_port_start");
    assertEquals(
      stdout,
      start > 1
        ? "EACCES listen tcp 127.0.0.1:1: permission denied\n"
        : "bound 127.0.0.1:1\n",
      stderr,
    );
  },
});

Deno.test(
  "listen() on all addresses serves both families, and shows IPv4 as IPv4",
  { ignore: !hasIpv6 },
  async (t) => {
    for (const address of ["", ":0", "0.0.0.0:0", "[::]:0"]) {
      await t.step(`"${address}"`, async () => {
        await using listener = await listen("tcp", address);
        for (const hostname of ["127.0.0.1", "::1"]) {
          const accepted = listener.accept();
          await using client = await dialIp(hostname, portOf(listener));
          await using server = await accepted;
          assertEquals(String(server.remoteAddr), String(client.localAddr));
          assertEquals(String(server.localAddr), String(client.remoteAddr));
          assertEquals((server.remoteAddr as Deno.NetAddr).hostname, hostname);
        }
      });
    }
  },
);

Deno.test("a tcp4 listener on all addresses cannot be reached over IPv6", {
  ignore: !hasIpv6,
}, async () => {
  await using listener = await listen("tcp4", ":0");
  await assertRejects(
    () => dialIp("::1", portOf(listener)),
    Deno.errors.ConnectionRefused,
  );
});

Deno.test(
  "a tcp6 listener on all addresses closes IPv4 connections by itself",
  { ignore: !hasIpv6 },
  async () => {
    const events: unknown[] = [];
    await using listener = await listen("tcp6", ":0", {
      onAcceptError: (event) => events.push(event),
    });
    const accepted = listener.accept();
    await using hidden = await dialIp("127.0.0.1", portOf(listener));
    assertEquals(await hidden.read(new Uint8Array(1)), null);
    await using client = await dialIp("::1", portOf(listener));
    await using server = await accepted;
    assertEquals(String(server.remoteAddr), String(client.localAddr));
    assertEquals(events, []);
  },
);

Deno.test("two wildcard listeners cannot share a port", async (t) => {
  const wildcards = ["", "0.0.0.0", "[::]"];
  for (const first of wildcards) {
    for (const second of wildcards) {
      await t.step(`"${first}" before "${second}"`, async () => {
        await using listener = await listen("tcp", `${first}:0`);
        const error = await refusal("tcp", `${second}:${portOf(listener)}`);
        assertEquals(error.code, "EADDRINUSE");
      });
    }
  }
});

Deno.test("two loopback addresses can share a port", {
  ignore: !hasIpv6,
}, async () => {
  for (;;) {
    await using four = await listen("tcp", "127.0.0.1:0");
    const address = `[::1]:${portOf(four)}`;
    const six = await listen("tcp", address).catch((error) => {
      assertEquals(error.code, "EADDRINUSE"); // it is taken: try another
    });
    if (!six) continue;
    await six.close();
    return;
  }
});

Deno.test({
  name:
    "listen() on a name binds its first IPv4 address, or else its first address",
  // The child has its own /etc/hosts, in its own mount namespace.
  ignore: !linux || !installed("unshare") || !hasIpv6,
  fn: async (t) => {
    const hosts = await Deno.makeTempFile({ prefix: "hosts" });
    await Deno.writeTextFile(
      hosts,
      "::1 both.test only6.test\n::2 only6.test\n127.0.0.2 both.test\n127.0.0.3 both.test\n" +
        "127.0.0.4 only4.test hidden.onion\n",
    );
    type Row = [network: string, host: string, found: string];
    const named: Row[] = [
      ["tcp", "both.test", "127.0.0.2"],
      ["tcp4", "both.test", "127.0.0.2"],
      ["tcp6", "both.test", "::1"],
    ];
    const granted: Record<string, Row[]> = {
      "--allow-net": [
        ...named,
        ["tcp", "only4.test", "127.0.0.4"],
        ["tcp", "only6.test", "::1"],
        [
          "tcp4",
          "only6.test",
          "listen tcp4: address only6.test: no suitable address found",
        ],
        [
          "tcp6",
          "only4.test",
          "listen tcp6: address only4.test: no suitable address found",
        ],
      ],
      "--allow-net=both.test,127.0.0.2,[::1]": named,
      "--allow-net=hidden.onion:0": [
        [
          "tcp",
          "hidden.onion",
          "listen tcp: lookup hidden.onion: no such host",
        ],
      ],
      // Then the runtime does the lookup, and binds getaddrinfo's first.
      "--allow-net=both.test": [
        ["tcp", "both.test", "::1"],
        ["tcp6", "both.test", "::1"],
        [
          "tcp4",
          "both.test",
          "listen tcp4 127.0.0.2:0: run again with --allow-net=127.0.0.2:0",
        ],
      ],
      "--allow-net=both.test --deny-net=127.0.0.2": [
        [
          "tcp4",
          "both.test",
          "listen tcp4 127.0.0.2:0: --deny-net forbids it",
        ],
      ],
      "--allow-net=both.test:0": [
        ["tcp", "both.test", "::1"],
        [
          "tcp4",
          "both.test",
          "listen tcp4 both.test:0: run again with --allow-net=both.test",
        ],
      ],
      "--allow-net --deny-net=both.test:0": [
        ["tcp", "both.test", "listen tcp both.test:0: --deny-net forbids it"],
      ],
    };
    const outputs = Object.entries(granted).map(([flag, asked]) =>
      runChild(
        `
        import { listen } from "./listener.ts";
        const open = new Set();
        const platform = Deno.listen;
        Deno.listen = (options) => {
          const inner = platform(options);
          const { close } = inner;
          open.add(inner);
          inner.close = () => {
            open.delete(inner);
            close.call(inner);
          };
          return inner;
        };
        const found = [];
        for (const [network, host] of ${JSON.stringify(asked)}) {
          try {
            await using listener = await listen(network, host + ":0");
            found.push(listener.addr.hostname);
          } catch ({ cause, message }) {
            found.push(cause instanceof Error ? message : "no cause");
          }
        }
        console.log(JSON.stringify([...found, "open: " + open.size]));
        `,
        {
          flags: flag.split(" "),
          wrap: [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            `mount --bind "${hosts}" /etc/hosts || exit 77; exec "$@"`,
            "sh",
          ],
        },
      )
    );
    const all = await Promise.all(outputs);
    await Deno.remove(hosts);
    for (const [i, [flag, asked]] of Object.entries(granted).entries()) {
      const { stdout, stderr } = all[i]!;
      if (stdout === "") {
        return console.warn(`skipped, no namespace: ${stderr}`);
      }
      const found = JSON.parse(stdout);
      assertEquals(found.at(-1), "open: 0");
      for (const [j, [network, host, expected]] of asked.entries()) {
        await t.step(`${flag}: ${network} ${host}`, () => {
          assertEquals(found[j], expected);
        });
      }
    }
  },
});

Deno.test("a signal ends the lookup of a name", async () => {
  const controller = new AbortController();
  const listening = listen("tcp", "localhost:0", controller);
  controller.abort(new Error("enough"));
  const error = await listening.then(() => null, (error) => error);
  assertStrictEquals(error, controller.signal.reason);
  // The lookup itself cannot be cancelled; this call shares it.
  await using _ = await listen("tcp", "localhost:0");
});

/** Listens in a child; returns each address without its port, or the error. */
async function listenInChild(
  asked: [network: Network, address: string][],
  options: Parameters<typeof runChild>[1],
): Promise<string[]> {
  const { stdout, stderr } = await runChild(
    `
    import { listen } from "./listener.ts";
    const found = [];
    for (const [network, address] of ${JSON.stringify(asked)}) {
      try {
        await using listener = await listen(network, address);
        const at = String(listener.addr).replace(/:\\d+$/, "");
        found.push(at.startsWith("@") ? "@" : at); // the kernel's choice
      } catch (error) {
        found.push(error.message);
      }
    }
    console.log(JSON.stringify(found));
    `,
    options,
  );
  assert(stdout !== "", stderr);
  return JSON.parse(stdout);
}

Deno.test({
  name: "listen() on a relative path under -A: close() resolves the path anew",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const source = `
      import { listen } from "./mod.ts";
      const dir = await Deno.makeTempDir();
      Deno.chdir(dir);
      const listener = await listen("unix", "a.sock");
      Deno.chdir("/");
      await listener.close();
      const left = await Array.fromAsync(Deno.readDir(dir));
      const { path } = listener.addr;
      console.log(JSON.stringify([left.length, path === dir + "/a.sock"]));
      await Deno.remove(dir, { recursive: true });
    `;
    const all = ["--allow-net", "--allow-read", "--allow-write"];
    const found = [];
    for (const flags of [["-A"], all]) {
      const { stderr, stdout } = await runChild(source, { flags });
      assert(stdout !== "", stderr);
      found.push(JSON.parse(stdout));
    }
    assertEquals(found, [[1, false], [0, true]]);
  },
});

Deno.test("listen() needs a grant only for what it binds", async (t) => {
  type Row = [name: string, network: Network, address: string, found: string];
  // Which of a name's addresses comes first is the system's business.
  const raw = Deno.listen({ hostname: "localhost", port: 0 });
  const ipv6 = raw.addr.hostname === "::1";
  raw.close();
  const local = ipv6 ? "[::1]" : "127.0.0.1";
  const wrong = ipv6 ? "tcp4" : "tcp6";
  const granted: [flags: string[], rows: Row[]][] = [
    [["--allow-net=0.0.0.0"], [
      ["only the IPv4 wildcard, which is bound", "tcp", ":0", "0.0.0.0"],
    ]],
    [["--allow-net=0.0.0.0:0"], [
      ["one port of the IPv4 wildcard", "tcp", ":0", "0.0.0.0"],
    ]],
    [["--allow-net=[::]:0"], [
      ["the IPv6 wildcard", "tcp", ":0", "[::]"],
    ]],
    [["--allow-net=0.0.0.0,[::]"], [
      ["both wildcards", "tcp", ":0", "[::]"],
    ]],
    [["--allow-net", "--deny-net=[::]"], [
      ["all but the IPv6 wildcard", "tcp", ":0", "0.0.0.0"],
    ]],
    [["--allow-net=localhost"], [
      ["a name", "tcp", "localhost:0", local],
    ]],
    [["--allow-net=localhost:0"], [
      ["a name and a port", ipv6 ? "tcp6" : "tcp4", "localhost:0", local],
      [
        "a name of the wrong family",
        wrong,
        "localhost:0",
        `listen ${wrong} localhost:0: run again with --allow-net=localhost`,
      ],
    ]],
    [["--allow-net=127.0.0.1"], [
      ["an address", "tcp", "[::ffff:127.0.0.1]:0", "127.0.0.1"],
    ]],
    [[], [
      [
        "nothing",
        "tcp",
        ":8000",
        "listen tcp [::]:8000: run again with --allow-net=[::]:8000",
      ],
      [
        "nothing, tcp4",
        "tcp4",
        ":8000",
        "listen tcp4 0.0.0.0:8000: run again with --allow-net=0.0.0.0:8000",
      ],
      [
        "nothing, a name",
        "tcp",
        "localhost:8000",
        "listen tcp localhost:8000: run again with --allow-net=localhost:8000",
      ],
      [
        "nothing, a unix socket",
        "unix",
        "/nosuch/socket",
        "listen unix /nosuch/socket: run again with " +
        "--allow-read=/nosuch/socket --allow-write=/nosuch/socket " +
        "--allow-net=unix:/nosuch/socket",
      ],
    ]],
    [["--allow-net", "--deny-net=127.0.0.1:8000"], [
      [
        "a denial",
        "tcp",
        "127.0.0.1:8000",
        "listen tcp 127.0.0.1:8000: --deny-net forbids it",
      ],
    ]],
  ];
  if (linux) { // where the kernel makes up a name
    granted.push([["--allow-net", "--allow-read", "--allow-write"], [
      ["all but -A, a unix socket without a path", "unix", "", "@"],
    ]]);
  }
  // In parallel: each child takes a tenth of a second to start.
  const outputs = await Promise.all(
    granted.map(([flags, rows]) =>
      listenInChild(rows.map(([, network, address]) => [network, address]), {
        flags,
      })
    ),
  );
  for (const [i, [, rows]] of granted.entries()) {
    for (const [j, [name, , , expected]] of rows.entries()) {
      await t.step(name, () => {
        const found = outputs[i]![j]!;
        assertEquals(found.slice(0, expected.length), expected, found);
      });
    }
  }
});

Deno.test({
  name:
    "listen() keeps the zone of a link-local address, so that it can be dialled",
  // In a network namespace with fe80::1 on the loopback interface.
  ignore: !canUnshare() || !installed("ip"),
  fn: async () => {
    const setUp = "ip link set lo up && ip addr add fe80::1/64 dev lo";
    const { stdout, stderr } = await runChild(
      `
      import { dial, listen } from "./mod.ts";
      await using listener = await listen("tcp", "[fe80::1%lo]:0");
      await using conn = await dial("tcp", String(listener.addr));
      console.log(String(listener.addr), conn.dialTrace.attempts[0].addr);
      `,
      {
        flags: ["--allow-net"],
        wrap: ["unshare", "-rn", "sh", "-c", `${setUp} && exec "$@"`, "sh"],
      },
    );
    assertMatch(stdout, /^(\[fe80::1%lo\]:\d+) \1\n$/, stderr);
  },
});

Deno.test("listen() reports the runtime's failed lookup as dial() does", async () => {
  const { stdout, stderr } = await runChild(
    `
    import { dial, listen } from "./mod.ts";
    const found = [];
    for (const call of [listen, dial]) {
      const { cause, message } = await call("tcp", "nosuch.invalid:8000")
        .catch((e) => e);
      const { hostname, notFound } = cause;
      found.push({ class: cause.name, hostname, message, notFound });
    }
    console.log(JSON.stringify(found));
    `,
    { flags: ["--allow-net=nosuch.invalid:8000"] },
  );
  assert(stdout !== "", stderr);
  const [listening, dialling] = JSON.parse(stdout);
  assertMatch(listening.message, /^listen tcp: lookup /);
  const message = listening.message.replace("listen", "dial");
  assertEquals({ ...listening, message }, dialling);
  const { class: name, hostname } = listening;
  assertEquals([name, hostname], ["DnsError", "nosuch.invalid"]);
});

Deno.test({
  name: "listen() falls back to IPv4 where there is no IPv6",
  // With a preloaded C library whose socket() refuses AF_INET6.
  ignore: !linux || !installed("cc"),
  fn: async () => {
    await using library = await preload(`
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <errno.h>
      #include <stdlib.h>
      #include <sys/socket.h>
      int socket(int domain, int type, int protocol) {
        int (*next)(int, int, int) = dlsym(RTLD_NEXT, "socket");
        if (domain != AF_INET6) return next(domain, type, protocol);
        errno = atoi(getenv("NO_IPV6"));
        return -1;
      }
    `);
    const reasons: [errno: number, reason: string][] = [
      [97, "address family not supported by protocol"], // EAFNOSUPPORT
      [99, "cannot assign requested address"], // EADDRNOTAVAIL
    ];
    for (const [errno, reason] of reasons) {
      assertEquals(
        await listenInChild(
          [["tcp", ":0"], ["tcp", "[::1]:0"], ["tcp6", ":0"]],
          {
            flags: ["--allow-net"],
            wrap: [...library.wrap, `NO_IPV6=${errno}`],
          },
        ),
        [
          "0.0.0.0",
          `listen tcp [::1]:0: ${reason}`,
          `listen tcp6 [::]:0: ${reason}`,
        ],
      );
    }
  },
});

Deno.test({
  name: "backlog is how many clients the kernel queues",
  ignore: !linux || !installed("ss"),
  fn: async (t) => {
    const somaxconn = await sysctl("net/core/somaxconn");
    const rows: [string, number | undefined, number][] = [
      ["default: the kernel's limit", undefined, somaxconn],
      ["the minimum: 1", 1, 1],
      ["below the kernel's limit", 5, 5],
      ["above the kernel's limit", 2 ** 40, somaxconn],
    ];
    for (const [name, backlog, expected] of rows) {
      await t.step(name, async () => {
        await using listener = await listen(
          "tcp",
          "127.0.0.1:0",
          backlog === undefined ? {} : { backlog },
        );
        const { stdout } = await new Deno.Command("ss", {
          args: ["-Hltn", `sport = :${portOf(listener)}`],
        }).output();
        // State, Recv-Q, Send-Q; of a listening socket, Send-Q is the backlog.
        const [, , sendQueue] = new TextDecoder().decode(stdout).split(/\s+/);
        assertEquals(Number(sendQueue), expected);
      });
    }
  },
});

Deno.test("backlog may be larger than 65,535 (needs ss, unshare)", {
  ignore: !canUnshare() || !installed("ss"),
}, async () => {
  const raise = "ip link set lo up; " +
    'echo 200000 > /proc/sys/net/core/somaxconn; exec "$@"';
  const { stdout, stderr } = await runChild(
    `
    import { listen } from "./listener.ts";
    for (const options of [{}, { backlog: 100_000 }]) {
      await using listener = await listen("tcp", "127.0.0.1:0", options);
      const args = ["-Hltn", \`sport = :\${listener.addr.port}\`];
      const { stdout } = await new Deno.Command("ss", { args }).output();
      console.log(new TextDecoder().decode(stdout).split(/\\s+/)[2]);
    }
    `,
    {
      flags: ["--allow-net", "--allow-run=ss"],
      wrap: ["unshare", "-rn", "sh", "-c", raise, "sh"],
    },
  );
  assertEquals(stdout, "200000\n100000\n", stderr);
});

Deno.test("reusePort without --unstable-net is an error, not the end of the process", async () => {
  const dying = runChild(
    `
    try {
      Deno.listen({ hostname: "127.0.0.1", port: 0, reusePort: true });
    } finally {
      console.log("never said");
    }
    `,
    { flags: ["--allow-net"] },
  );
  const mending = runChild(
    `
    import { listen } from "./listener.ts";
    const reusePort = true;
    for (const address of ["127.0.0.1:0", ":80", "127.0.0.1"]) {
      await listen("tcp", address, { reusePort }).catch(({ name, message }) =>
        console.log(name, message)
      );
    }
    if (Deno.build.os === "linux") {
      await using _unix = await listen("unix", "@", { reusePort });
    }
    await using _ = await listen("tcp", "127.0.0.1:0", { reusePort: false });
    `,
    { flags: ["--allow-net"] },
  );
  const [raw, ours] = await Promise.all([dying, mending]);
  assertEquals([raw.code, raw.stdout], [70, ""], "plain Deno ends the process");
  assertEquals(
    [ours.code, ours.stdout],
    [
      0,
      "OpError listen tcp 127.0.0.1:0: reusePort: run again with --unstable-net\n" +
      "OpError listen tcp :80: reusePort: run again with --unstable-net\n" +
      "OpError listen tcp: address 127.0.0.1: missing port in address\n",
    ],
    ours.stderr,
  );
});

Deno.test({
  name: "reusePort lets two listeners share a port",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const { code, stdout, stderr } = await runChild(
      `
      import { listen } from "./listener.ts";
      const reusePort = true;
      await using one = await listen("tcp", "127.0.0.1:0", { reusePort });
      await using two = await listen("tcp", String(one.addr), { reusePort });
      console.log(String(one.addr) === String(two.addr));
      `,
      { flags: ["--allow-net", "--unstable-net"] },
    );
    assertEquals([code, stdout], [0, "true\n"], stderr);
  },
});

Deno.test("listen() on a unix path leaves what is there alone", {
  ignore: Deno.build.os === "windows",
}, async (t) => {
  const folder = await Deno.makeTempDir({ prefix: "bind" });
  await Deno.writeTextFile(`${folder}/file`, "precious");
  await Deno.symlink(`${folder}/nowhere`, `${folder}/link`);
  for (const path of [`${folder}/file`, `${folder}/link`, folder]) {
    await t.step(path.slice(folder.length) || "a folder", async () => {
      const error = await assertRejects(() => listen("unix", path), OpError);
      assertEquals(
        error.message,
        `listen unix ${path}: address already in use`,
      );
    });
  }
  assertEquals(await Deno.readTextFile(`${folder}/file`), "precious");
  await Deno.remove(folder, { recursive: true });
});
