import { lookup } from "node:dns/promises";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertThrows,
} from "@std/assert";
import {
  type Addr,
  isHostName,
  joinHostPort,
  parseAddress,
  type ParsedAddress,
  platformPath,
  splitHostPort,
  TcpAddr,
  toAddr,
  UnixAddr,
} from "../net/addr.ts";
import {
  AddrError,
  DnsError,
  printable,
  UnknownNetworkError,
} from "../net/errors.ts";

/** Checks an AddrError's message and its fields. */
function assertAddrError(fn: () => unknown, reason: string, addr: string) {
  const error = assertThrows(fn, AddrError);
  const message = addr === "" ? reason : `address ${addr}: ${reason}`;
  assertEquals(error.message, message);
  assertEquals([error.reason, error.addr], [reason, addr]);
}

const SPLIT: { [address: string]: [host: string, port: string] } = {
  "localhost:http": ["localhost", "http"],
  "localhost:80": ["localhost", "80"],
  "localhost%lo0:http": ["localhost%lo0", "http"],
  "localhost%lo0:80": ["localhost%lo0", "80"],
  "[localhost%lo0]:80": ["localhost%lo0", "80"],
  "127.0.0.1:http": ["127.0.0.1", "http"],
  "127.0.0.1:80": ["127.0.0.1", "80"],
  "[127.0.0.1]:80": ["127.0.0.1", "80"],
  "[::1]:http": ["::1", "http"],
  "[::1]:80": ["::1", "80"],
  "[::1%lo0]:80": ["::1%lo0", "80"],
  "[]:80": ["", "80"],
  ":http": ["", "http"],
  ":80": ["", "80"],
  "golang.org:": ["golang.org", ""],
  "127.0.0.1:": ["127.0.0.1", ""],
  "[::1]:": ["::1", ""],
  ":": ["", ""],
  "[]:": ["", ""],
  " foo : 80 ": [" foo ", " 80 "],
  "golang.org:https%foo": ["golang.org", "https%foo"],
  "unix:/tmp/x": ["unix", "/tmp/x"],
};

Deno.test("splitHostPort() splits without checking either part", async (t) => {
  for (const [address, [host, port]] of Object.entries(SPLIT)) {
    await t.step(JSON.stringify(address), () => {
      assertEquals(splitHostPort(address), { host, port });
    });
  }
});

const NO_SPLIT: { [reason: string]: string[] } = {
  "missing port in address": [
    "",
    "8080",
    "golang.org",
    "127.0.0.1",
    "[::1]",
    "[fe80::1%lo0]",
    "[localhost%lo0]",
    "localhost%lo0",
    "[foo:bar]baz",
    "[foo]bar:baz",
    "[[::1]]:80",
    "[::1]80",
  ],
  "too many colons in address": [
    "::1",
    "::1:0",
    "fe80::1%lo0",
    "fe80::1%lo0:80",
    "[foo]:[bar]:baz",
    "::1]:80",
    "http://a:80",
    "[::1]:80:90",
    "a:b:c",
  ],
  "missing ']' in address": ["[::1", "[::1:80"],
  "unexpected '[' in address": ["[foo]:[bar]baz", "foo[bar]:baz", "foo:[bar"],
  "unexpected ']' in address": ["foo]bar:baz", "foo:bar]", "[foo]:bar]"],
};

Deno.test("splitHostPort() says what is wrong", async (t) => {
  for (const [reason, addresses] of Object.entries(NO_SPLIT)) {
    for (const address of addresses) {
      await t.step(`${JSON.stringify(address)}: ${reason}`, () => {
        assertAddrError(() => splitHostPort(address), reason, address);
      });
    }
  }
});

const JOIN: { [joined: string]: [host: string, port: string | number] } = {
  "localhost:http": ["localhost", "http"],
  "127.0.0.1:80": ["127.0.0.1", 80],
  "[::1]:80": ["::1", "80"],
  "[::1%lo0]:80": ["::1%lo0", 80],
  "localhost%lo0:80": ["localhost%lo0", 80],
  ":80": ["", 80],
  "golang.org:": ["golang.org", ""],
  ":": ["", ""],
  "a:0": ["a", 0],
  // Broken on purpose: nothing is checked.
  "[[::1]]:80": ["[::1]", 80],
};

Deno.test("joinHostPort() puts a host with a colon in brackets", async (t) => {
  for (const [joined, [host, port]] of Object.entries(JOIN)) {
    await t.step(joined, () => {
      assertEquals(joinHostPort(host, port), joined);
    });
  }
});

Deno.test("splitHostPort() undoes joinHostPort()", async (t) => {
  for (const [host, port] of Object.values(SPLIT)) {
    const joined = joinHostPort(host, port);
    await t.step(JSON.stringify(joined), () => {
      assertEquals(splitHostPort(joined), { host, port });
    });
  }
});

// As net.Listen and net.Dial take them, except for the empty address, which
// each of them treats in its own way.
const PARSED: {
  [call: string]: [host: string, port: number, ip: string | null];
} = {
  "tcp :0": ["", 0, null],
  "tcp :": ["", 0, null],
  "tcp []:": ["", 0, null],
  "tcp4 :80": ["", 80, null],
  "tcp6 :80": ["", 80, null],
  "tcp 127.0.0.1:0": ["127.0.0.1", 0, "127.0.0.1"],
  "tcp 127.0.0.1:": ["127.0.0.1", 0, "127.0.0.1"],
  "tcp [127.0.0.1]:0": ["127.0.0.1", 0, "127.0.0.1"],
  "tcp 127.0.0.1:+0": ["127.0.0.1", 0, "127.0.0.1"],
  "tcp 127.0.0.1:00000": ["127.0.0.1", 0, "127.0.0.1"],
  "tcp4 127.0.0.1:80": ["127.0.0.1", 80, "127.0.0.1"],
  "tcp [::1]:0": ["::1", 0, "::1"],
  "tcp [0:0::1]:65535": ["0:0::1", 65535, "::1"],
  "tcp6 [::1]:80": ["::1", 80, "::1"],
  "tcp [::]:0": ["::", 0, "::"],
  "tcp 0.0.0.0:0": ["0.0.0.0", 0, "0.0.0.0"],
  "tcp [::ffff:0.0.0.0]:0": ["::ffff:0.0.0.0", 0, "0.0.0.0"],
  "tcp [::ffff:127.0.0.1]:0": ["::ffff:127.0.0.1", 0, "127.0.0.1"],
  "tcp4 [::ffff:127.0.0.1]:0": ["::ffff:127.0.0.1", 0, "127.0.0.1"],
  "tcp [::1%lo]:0": ["::1%lo", 0, "::1%lo"],
  "tcp [::1%1]:0": ["::1%1", 0, "::1%1"],
  "tcp [::1%25lo]:0": ["::1%25lo", 0, "::1%25lo"],
  "tcp [fe80::1%]:0": ["fe80::1%", 0, "fe80::1"],
  "tcp :http": ["", 80, null],
  "tcp localhost:0": ["localhost", 0, null],
  "tcp4 localhost:http": ["localhost", 80, null],
  "tcp6 EXAMPLE.com.:HTTPS": ["EXAMPLE.com.", 443, null],
  "tcp [localhost]:1": ["localhost", 1, null],
  "tcp bücher.example:1": ["xn--bcher-kva.example", 1, null],
  "tcp _sip.example:1": ["_sip.example", 1, null],
  // A quirk of Go: a lone `::` includes IPv4.
  "tcp4 [::]:0": ["::", 0, "::"],
  "tcp6 [::]:0": ["::", 0, "::"],
};

/** The two parts of `tcp 127.0.0.1:80`; either may be empty. */
function words(call: string): [network: string, address: string] {
  const space = call.indexOf(" ");
  return [call.slice(0, space), call.slice(space + 1)];
}

Deno.test("parseAddress() understands Go's TCP addresses", async (t) => {
  for (const [call, [host, port, literal]] of Object.entries(PARSED)) {
    await t.step(call, () => {
      const parsed = parseAddress(...words(call));
      assert(parsed.kind === "tcp");
      const { ip, ...rest } = parsed;
      const family = ({ tcp4: 4, tcp6: 6 } as const)[words(call)[0]];
      assertEquals<unknown>(rest, { kind: "tcp", family, host, port });
      const zone = ip?.zone ? `%${ip.zone}` : "";
      assertEquals(ip && ip.text + zone, literal);
    });
  }
});

Deno.test("parseAddress() takes any unix path as it is", async (t) => {
  for (const path of ["/run/x.sock", "@name", "", "a:80", "\0name"]) {
    await t.step(JSON.stringify(path), () => {
      const parsed: ParsedAddress = { kind: "unix", path };
      assertEquals(parseAddress("unix", path), parsed);
    });
  }
});

const MALFORMED: { [call: string]: [reason: string, addr: string] } = {
  "tcp 8080": ["missing port in address", "8080"],
  "tcp 127.0.0.1": ["missing port in address", "127.0.0.1"],
  "tcp [::1]": ["missing port in address", "[::1]"],
  "tcp [[::1]]:0": ["missing port in address", "[[::1]]:0"],
  "tcp ::1:0": ["too many colons in address", "::1:0"],
  "tcp ::1]:0": ["too many colons in address", "::1]:0"],
  "tcp [::1:0": ["missing ']' in address", "[::1:0"],
  "tcp 127.0.0.1:65536": ["invalid port", "65536"],
  "tcp :-1": ["invalid port", "-1"],
  "tcp :99999999999999999999": ["invalid port", "99999999999999999999"],
  "tcp 127.0.0.1:nosuch": ["unknown port", "tcp/nosuch"],
  "tcp4 127.0.0.1:nosuch": ["unknown port", "tcp/nosuch"],
  "tcp : 0": ["unknown port", "tcp/ 0"],
  "tcp :0x10": ["unknown port", "tcp/0x10"],
  "tcp :☺": ["unknown port", "tcp/☺"],
  "tcp :80a": ["unknown port", "tcp/80a"],
  "tcp4 [::1]:0": ["no suitable address found", "::1"],
  "tcp4 [::1%lo]:0": ["no suitable address found", "::1%lo"],
  "tcp6 127.0.0.1:0": ["no suitable address found", "127.0.0.1"],
  "tcp6 0.0.0.0:0": ["no suitable address found", "0.0.0.0"],
  "tcp6 [::ffff:127.0.0.1]:0": [
    "no suitable address found",
    "::ffff:127.0.0.1",
  ],
  "udp 127.0.0.1:0": ["unexpected address type", "127.0.0.1:0"],
  "udp4 127.0.0.1:0": ["unexpected address type", "127.0.0.1:0"],
  "udp6 [::1]:0": ["unexpected address type", "[::1]:0"],
  "unixgram /run/x.sock": ["unexpected address type", "/run/x.sock"],
};

Deno.test("parseAddress() refuses what Go refuses", async (t) => {
  for (const [call, [reason, addr]] of Object.entries(MALFORMED)) {
    await t.step(`${call}: ${reason}`, () => {
      assertAddrError(() => parseAddress(...words(call)), reason, addr);
    });
  }
});

Deno.test("parseAddress() accepts only exact network names", async (t) => {
  for (const network of ["ip", "TCP", "tcp5", "tcp ", "Unix", "foo", ""]) {
    await t.step(JSON.stringify(network), () => {
      const error = assertThrows(
        () => parseAddress(network, "127.0.0.1:0"),
        UnknownNetworkError,
      );
      assertEquals(error.message, `unknown network ${network}`);
    });
  }
});

// If they were not refused, they would reach getaddrinfo, which takes many of
// them for addresses, or Deno's permission parser, which throws URIError.
const NO_HOSTS: { [why: string]: string[] } = {
  "inet_aton's shorthand": ["127.1", "127.0.1", "2130706433", "0"],
  "inet_aton's octal": ["010.0.0.1", "127.0.0.01", "017700000001"],
  "inet_aton's hexadecimal": ["0x7f.1", "0X7F000001", "1.0x", "0x7f.0.0.0x1"],
  "an octet out of range": ["256.256.256.256", "1.2.3.4.5"],
  "with a root dot": ["127.1.", "127.0.0.1.", "0x7f."],
  "in digits from other scripts": [
    "１２７.１",
    "127.0.0.１",
    "①②⑦.0.0.1",
    "２１３０７０６４３３",
    "0ｘ7f.1",
  ],
  "with other full stops": ["127。0。0。1", "127．1", "127｡1"],
  "with characters that IDNA drops": ["127\u00AD.1", "127.\u200B1"],
  "space": [" ", "a b", " localhost", "localhost\n", "a\tb"],
  "two zones": ["::1%lo%eth0"],
  "a line of its own in a zone": ["::1%\r\nX: y", "fe80::1%lo\nX: y"],
  "a zone on IPv4": ["127.0.0.1%lo", "::ffff:127.0.0.1%lo"],
  "a zone on a name": ["localhost%lo"],
  "a colon, but not IPv6": ["::g", "1:2", ":::"],
  "punctuation": ["a/b", "a\\b", "a?b", "a#b", "a@b", "*", "a,b", "a;b", "a=b"],
  "punctuation in another script's name": ["bücher/a", "a@bücher", "bücher:1"],
  "fullwidth punctuation": ["ａ／ｂ", "a％b", "a＠b", "a，b", "＊.test"],
  "what has punctuation in ASCII": ["⑴.test", "℀.test"],
  "control characters": ["a\0b", "a\x7fb", "\x1b"],
  "an empty label": [".", "..", ".a", "a..b", "a.."],
  "a label of more than 63 bytes": [`${"a".repeat(64)}.test`],
  "more than 253 bytes": [`${"a23456789.".repeat(25)}test`],
};

Deno.test("parseAddress() refuses impossible host names as not found", async (t) => {
  for (const [why, hosts] of Object.entries(NO_HOSTS)) {
    for (const host of hosts) {
      await t.step(`${why}: ${JSON.stringify(host)}`, () => {
        const error = assertThrows(
          () => parseAddress("tcp", joinHostPort(host, 0)),
          DnsError,
        );
        assertEquals(error.message, `lookup ${printable(host)}: no such host`);
        assertEquals(error.hostname, host);
        assert(error.notFound);
      });
    }
  }
});

Deno.test({
  name: "node:dns takes some of the refused names for IPv4 addresses",
  ignore: Deno.build.os !== "linux",
  async fn(t) {
    for (const host of ["127.1", "0x7f.1", "2130706433", "１２７.１"]) {
      await t.step(host, async () => {
        assertEquals((await lookup(host)).address, "127.0.0.1");
      });
    }
  },
});

const HOSTS = [
  "localhost",
  "localhost.",
  "a",
  "example.com",
  "EXAMPLE.COM",
  "xn--bcher-kva.example",
  "bücher.example",
  "例え。テスト",
  "☺",
  "_dmarc.example",
  "a-b.example",
  "127.1.example",
  "web.1", // not to the URL standard, but to getaddrinfo and Go
  "0x7f.a.1",
  "1a",
  "0xg",
  "1e3",
  "dead.beef",
  "a".repeat(63),
  `${"a".repeat(63)}.`.repeat(3) + "a".repeat(61), // 253 bytes
  `${"a".repeat(63)}.`.repeat(3) + "a".repeat(61) + ".",
];

Deno.test("isHostName() accepts names that can be looked up", async (t) => {
  for (const host of HOSTS) {
    await t.step(host, () => assert(isHostName(host)));
  }
});

Deno.test("parseAddress() checks network, colons, port, host and family in this order", async (t) => {
  await t.step("network before colons", () => {
    assertThrows(() => parseAddress("foo", "8080"), UnknownNetworkError);
  });
  await t.step("colons before port", () => {
    assertAddrError(
      () => parseAddress("tcp", "1:2:nosuch"),
      "too many colons in address",
      "1:2:nosuch",
    );
  });
  await t.step("port before host", () => {
    assertAddrError(
      () => parseAddress("tcp", "127.1:nosuch"),
      "unknown port",
      "tcp/nosuch",
    );
  });
  await t.step("port before family", () => {
    assertAddrError(
      () => parseAddress("tcp6", "127.0.0.1:65536"),
      "invalid port",
      "65536",
    );
  });
  await t.step("host before family", () => {
    assertThrows(() => parseAddress("tcp6", "127.1:0"), DnsError);
  });
});

const TCP_ADDRS: [hostname: string, text: string, shown: string][] = [
  ["127.0.0.1", "127.0.0.1:80", "127.0.0.1"],
  ["0.0.0.0", "0.0.0.0:80", "0.0.0.0"],
  ["::1", "[::1]:80", "::1"],
  ["::", "[::]:80", "::"],
  ["2001:DB8:0::1", "[2001:db8::1]:80", "2001:db8::1"],
  ["fe80::1%eth0", "[fe80::1%eth0]:80", "fe80::1%eth0"],
  ["FE80::1%Eth0", "[fe80::1%Eth0]:80", "fe80::1%Eth0"],
  ["fe80::1%", "[fe80::1]:80", "fe80::1"],
  ["::ffff:127.0.0.1", "127.0.0.1:80", "127.0.0.1"],
  ["::ffff:7f00:1", "127.0.0.1:80", "127.0.0.1"],
  ["localhost", "localhost:80", "localhost"],
];

Deno.test("TcpAddr prints what dial() and listen() take", async (t) => {
  for (const [hostname, text, shown] of TCP_ADDRS) {
    await t.step(`${hostname} is ${text}`, () => {
      const addr = new TcpAddr(hostname, 80);
      assertEquals(String(addr), text);
      assertEquals(addr.hostname, shown);
      assertEquals(addr.port, 80);
      assertEquals(addr.transport, "tcp");
      const parsed = parseAddress("tcp", String(addr));
      assert(parsed.kind === "tcp");
      assertEquals(String(new TcpAddr(parsed.host, parsed.port)), text);
    });
  }
});

const UNIX_ADDRS: [path: string | null | undefined, text: string][] = [
  ["/run/x.sock", "/run/x.sock"],
  ["relative.sock", "relative.sock"],
  ["\0name", "@name"],
  ["@name", "@name"],
  ["", ""],
  // A peer without a name, as Deno shows it.
  [null, ""],
  [undefined, ""],
];

Deno.test("UnixAddr prints a path, or nothing", async (t) => {
  for (const [path, text] of UNIX_ADDRS) {
    await t.step(`${JSON.stringify(path)} is ${JSON.stringify(text)}`, () => {
      const addr = new UnixAddr(path);
      assertEquals([String(addr), addr.path], [text, text]);
      assertEquals(addr.transport, "unix");
    });
  }
});

Deno.test("platformPath() is undone by UnixAddr", async (t) => {
  for (const path of ["/run/x.sock", "@name", "", "a@b"]) {
    await t.step(JSON.stringify(path), () => {
      assertEquals(String(new UnixAddr(platformPath(path))), path);
    });
  }
  await t.step("an abstract name begins with NUL", () => {
    assertEquals(platformPath("@name"), "\0name");
  });
});

Deno.test("addresses are frozen: dials and errors share them", () => {
  for (const addr of [new TcpAddr("::1", 80), new UnixAddr("/s")]) {
    assert(Object.isFrozen(addr));
  }
});

Deno.test("addresses are Deno.Addr objects, and plain JSON", async (t) => {
  // That these lines compile is half of the test.
  const tcp: Deno.NetAddr = new TcpAddr("::1", 80);
  const unix: Deno.UnixAddr = new UnixAddr("/run/x.sock");
  const addrs: (Addr & Deno.Addr)[] = [
    new TcpAddr("::1", 80),
    new UnixAddr("/run/x.sock"),
  ];
  await t.step("transport tells TCP from unix", () => {
    const shown = addrs.map((addr) =>
      addr.transport === "tcp" ? addr.hostname : addr.path
    );
    assertEquals(shown, ["::1", "/run/x.sock"]);
  });
  await t.step("as JSON", () => {
    assertEquals(JSON.parse(JSON.stringify([tcp, unix])), [
      { transport: "tcp", hostname: "::1", port: 80 },
      { transport: "unix", path: "/run/x.sock" },
    ]);
  });
});

Deno.test("toAddr() converts the platform's addresses", async (t) => {
  await t.step("TCP, IPv4-mapped addresses as IPv4", () => {
    const addr = toAddr({
      transport: "tcp",
      hostname: "::ffff:127.0.0.1",
      port: 80,
    });
    assertInstanceOf(addr, TcpAddr);
    assertEquals(String(addr), "127.0.0.1:80");
  });
  await t.step("unix", () => {
    const addr = toAddr({ transport: "unix", path: "\0name" });
    assertInstanceOf(addr, UnixAddr);
    assertEquals(String(addr), "@name");
  });
  for (const transport of ["udp", "unixpacket", "vsock"] as const) {
    await t.step(`not ${transport}`, () => {
      assertThrows(
        () => toAddr({ transport } as Deno.Addr),
        TypeError,
        `not a stream address: ${transport}`,
      );
    });
  }
});

Deno.test("toAddr() turns a real listener's address into one that can be dialled", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const parsed = parseAddress("tcp", String(toAddr(listener.addr)));
  assert(parsed.kind === "tcp" && parsed.ip !== null);
  const [conn, accepted] = await Promise.all([
    Deno.connect({ hostname: parsed.ip.text, port: parsed.port }),
    listener.accept(),
  ]);
  const [remote, local] = [conn.remoteAddr, accepted.localAddr].map(toAddr);
  conn.close();
  accepted.close();
  assertEquals(String(remote), String(local));
});
