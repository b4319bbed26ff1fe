/** The parts of an address: IP literals, port numbers and service names. */
import {
  assert,
  assertEquals,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { lookupPort, type Network } from "../net/addr.ts";
import { AddrError } from "../net/errors.ts";
import { isWildcard, parseIp, platformHost } from "../net/ip.ts";
import { SERVICES } from "../net/services.ts";

/** Checks an AddrError; an empty `addr` is not in its message. */
function assertAddrError(fn: () => unknown, reason: string, addr: string) {
  const error = assertThrows(fn, AddrError, reason);
  assertEquals([error.reason, error.addr], [reason, addr]);
}

const PORTS: [service: string, port: number, network?: Network | "udp"][] = [
  ["", 0],
  ["0", 0],
  ["1", 1],
  ["80", 80],
  ["65535", 65535],
  ["00000", 0],
  ["0080", 80],
  ["+0", 0],
  ["+80", 80],
  ["-0", 0],
  ["-00", 0],
  ["+", 0],
  ["-", 0],
  ["http", 80],
  ["HTTP", 80],
  ["hTTp", 80],
  ["www", 80],
  ["HTTP-Alt", 8080],
  ["http", 80, "tcp4"],
  ["http", 80, "tcp6"],
  ["domain", 53, "udp"],
  // A number needs no protocol.
  ["80", 80, "unix"],
  ["", 0, "unix"],
];

Deno.test("lookupPort() takes numbers and names", async (t) => {
  for (const [service, port, network = "tcp"] of PORTS) {
    await t.step(`${network} ${JSON.stringify(service)} is ${port}`, () => {
      // Not -0: a port is printed, and compared.
      assertStrictEquals(lookupPort(network, service), port);
    });
  }
});

const INVALID_PORTS = [
  "65536",
  "-1",
  "-65535",
  "99999",
  "1073741823",
  "1073741824",
  "2147483648",
  "4294967376", // 80, if it were cut to 32 bits
  "18446744073709551696", // 80, if it were cut to 64 bits
  "99999999999999999999",
  "-99999999999999999999",
  "9".repeat(400), // Infinity to Number()
];

Deno.test("lookupPort() refuses numbers out of range", async (t) => {
  for (const service of INVALID_PORTS) {
    await t.step(service, () => {
      assertAddrError(
        () => lookupPort("tcp", service),
        "invalid port",
        service,
      );
    });
  }
});

const UNKNOWN_PORTS = [
  "nosuch",
  "80 ",
  " 0",
  " ",
  "80\n",
  "0x10",
  "0x50",
  "1e3",
  "8_0",
  "80a",
  "+http",
  "-http",
  "++80",
  "+-80",
  "80.0",
  "☺",
  "٨٠", // 80 in Arabic-Indic digits
  "８０", // and in fullwidth ones
  "\u212Aerberos", // KELVIN SIGN; its lower case is k
  "webcach\u0435", // a Cyrillic е
  "http\0",
  "a".repeat(25),
  "a".repeat(26),
  // What a plain object used as a table would inherit.
  "constructor",
  "__proto__",
];

Deno.test("lookupPort() refuses all other names", async (t) => {
  for (const service of UNKNOWN_PORTS) {
    await t.step(JSON.stringify(service), () => {
      assertAddrError(
        () => lookupPort("tcp", service),
        "unknown port",
        `tcp/${service}`,
      );
    });
  }
});

Deno.test("lookupPort() keeps TCP and UDP service names apart", async (t) => {
  await t.step("mdns is not a TCP service", () => {
    assertEquals(lookupPort("udp", "mdns"), 5353);
    assertAddrError(
      () => lookupPort("tcp6", "mdns"),
      "unknown port",
      "tcp/mdns",
    );
  });
  await t.step("ssh is not a UDP service", () => {
    assertAddrError(() => lookupPort("udp", "ssh"), "unknown port", "udp/ssh");
  });
  for (const network of ["unix", "tcp5", "TCP", "ip", "foo", ""]) {
    await t.step(`${JSON.stringify(network)} has no services`, () => {
      assertAddrError(
        () => lookupPort(network as Network, "http"),
        "unknown network",
        network,
      );
    });
  }
});

// From Debian's /etc/services, the names that programs use, and the few that
// are built into Go.
const TCP: { [name: string]: number } = {
  "amqp": 5672,
  "amqps": 5671,
  "auth": 113,
  "bgp": 179,
  "daytime": 13,
  "discard": 9,
  "domain": 53,
  "domain-s": 853,
  "echo": 7,
  "epmd": 4369,
  "finger": 79,
  "ftp": 21,
  "ftp-data": 20,
  "ftps": 990,
  "git": 9418,
  "gopher": 70,
  "http": 80,
  "http-alt": 8080,
  "https": 443,
  "imap": 143,
  "imap2": 143,
  "imap3": 220,
  "imaps": 993,
  "ipp": 631,
  "irc": 194,
  "ircs-u": 6697,
  "iscsi-target": 3260,
  "kerberos": 88,
  "ldap": 389,
  "ldaps": 636,
  "login": 513,
  "mail": 25,
  "memcached": 11211,
  "microsoft-ds": 445,
  "mongodb": 27017,
  "mqtt": 1883,
  "ms-sql-s": 1433,
  "ms-wbt-server": 3389,
  "mysql": 3306,
  "netbios-ssn": 139,
  "nfs": 2049,
  "nntp": 119,
  "nntps": 563,
  "ntp": 123,
  "openvpn": 1194,
  "pop3": 110,
  "pop3s": 995,
  "postgres": 5432,
  "postgresql": 5432,
  "printer": 515,
  "radius": 1812,
  "redis": 6379,
  "rsync": 873,
  "rtsp": 554,
  "secure-mqtt": 8883,
  "sip": 5060,
  "sips": 5061,
  "smtp": 25,
  "smtps": 465,
  "snmp": 161,
  "socks": 1080,
  "ssh": 22,
  "submission": 587,
  "submissions": 465,
  "sunrpc": 111,
  "svn": 3690,
  "telnet": 23,
  "telnets": 992,
  "vnc": 5900,
  "whois": 43,
  "www": 80,
  "x11": 6000,
  "xmpp-client": 5222,
  "xmpp-server": 5269,
};

const UDP: { [name: string]: number } = {
  "domain": 53,
  "https": 443,
  "mdns": 5353,
  "ntp": 123,
  "radius": 1812,
  "snmp": 161,
  "syslog": 514,
  "tftp": 69,
};

Deno.test("lookupPort() knows the usual TCP services", async (t) => {
  for (const [name, port] of Object.entries(TCP)) {
    await t.step(`${name} ${port}`, () => {
      assertEquals(lookupPort("tcp", name), port);
    });
  }
});

Deno.test("lookupPort() knows the usual UDP services", async (t) => {
  for (const [name, port] of Object.entries(UDP)) {
    await t.step(`${name} ${port}`, () => {
      assertEquals(lookupPort("udp", name), port);
    });
  }
});

Deno.test("SERVICES has only valid ports and valid, lower-case names", () => {
  assert(SERVICES.tcp.size >= 60, `${SERVICES.tcp.size} TCP services`);
  for (const table of [SERVICES.tcp, SERVICES.udp]) {
    for (const [name, port] of table) {
      // RFC 6335, section 5.1: letters, digits and hyphens, one letter at least.
      assert(/^[a-z0-9-]{1,15}$/.test(name), name);
      assert(/[a-z]/.test(name), name);
      assert(Number.isInteger(port) && port >= 1 && port <= 65535, name);
    }
  }
});

Deno.test("parseIp() reads four decimal numbers as IPv4", async (t) => {
  for (
    const text of [
      "0.0.0.0",
      "127.0.0.1",
      "255.255.255.255",
      "1.20.199.249",
    ]
  ) {
    await t.step(text, () => {
      assertEquals(parseIp(text), { family: 4, text, zone: "" });
    });
  }
});

// Input as in RFC 4291, section 2.2; output as in RFC 5952, section 4.
const IPV6: { [text: string]: string } = {
  "::": "::",
  "::1": "::1",
  "0:0:0:0:0:0:0:0": "::",
  "0000:0000:0000:0000:0000:0000:0000:0001": "::1",
  "1::": "1::",
  "1:2:3:4:5:6:7:8": "1:2:3:4:5:6:7:8",
  "2001:DB8::ABCD": "2001:db8::abcd",
  "2001:0db8:0000:0000:0008:0800:200c:417a": "2001:db8::8:800:200c:417a",
  "ff01:0:0:0:0:0:0:101": "ff01::101",
  // 4.2.2: a single group of zeros is written out, even if the input was not.
  "2001:db8:0:1:1:1:1:1": "2001:db8:0:1:1:1:1:1",
  "2001:db8::1:1:1:1:1": "2001:db8:0:1:1:1:1:1",
  "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
  "::2:3:4:5:6:7:8": "0:2:3:4:5:6:7:8",
  // 4.2.3: the longest run of zeros is shortened; of equal ones, the first.
  "2001:0:0:1:0:0:0:1": "2001:0:0:1::1",
  "2001:db8:0:0:1:0:0:1": "2001:db8::1:0:0:1",
  "1:0:0:2:3:4:0:0": "1::2:3:4:0:0",
  // Dotted IPv4 at the end, but not an IPv4-mapped address.
  "::1.2.3.4": "::102:304",
  "64:ff9b::192.0.2.33": "64:ff9b::c000:221",
  "1:2:3:4:5:6:255.255.255.255": "1:2:3:4:5:6:ffff:ffff",
  "::ffff:0:127.0.0.1": "::ffff:0:7f00:1",
};

Deno.test("parseIp() reads RFC 4291 text and prints RFC 5952 text", async (t) => {
  for (const [input, text] of Object.entries(IPV6)) {
    await t.step(`${input} is ${text}`, () => {
      assertEquals(parseIp(input), {
        family: 6,
        text,
        zone: "",
      });
      assertEquals(parseIp(text)?.text, text);
    });
  }
});

const ZONES: { [text: string]: [text: string, zone: string] } = {
  "fe80::1%eth0": ["fe80::1", "eth0"],
  "FE80:0::1%Eth0": ["fe80::1", "Eth0"],
  "::1%1": ["::1", "1"],
  "::%lo": ["::", "lo"],
  "::1%25lo": ["::1", "25lo"],
  "fe80::1%": ["fe80::1", ""],
};

Deno.test("parseIp() keeps a zone as it is", async (t) => {
  for (const [input, [text, zone]] of Object.entries(ZONES)) {
    await t.step(input, () => {
      assertEquals(parseIp(input), { family: 6, text, zone });
    });
  }
});

const FOR_PLATFORM: { [text: string]: string } = {
  "fe80::1%eth0": "fe80::1%eth0",
  "febf:ffff::1%2": "febf:ffff::1%2",
  "fe80::1": "fe80::1",
  "fec0::1%lo": "fec0::1",
  "fe8::1%lo": "fe8::1", // 0fe8::1, not link-local
  "::1%lo": "::1",
};

Deno.test("platformHost() keeps the zone of link-local addresses only", async (t) => {
  for (const [input, expected] of Object.entries(FOR_PLATFORM)) {
    await t.step(input, () => {
      assertEquals(platformHost(parseIp(input)!), expected);
    });
  }
});

const MAPPED: { [text: string]: string } = {
  "::ffff:127.0.0.1": "127.0.0.1",
  "::FFFF:192.0.2.1": "192.0.2.1",
  "::ffff:7f00:1": "127.0.0.1",
  "::ffff:0:0": "0.0.0.0",
  "::ffff:0.0.0.0": "0.0.0.0",
  "0:0:0:0:0:ffff:ffff:ffff": "255.255.255.255",
};

Deno.test("parseIp() turns an IPv4-mapped address into IPv4", async (t) => {
  for (const [input, text] of Object.entries(MAPPED)) {
    await t.step(`${input} is ${text}`, () => {
      assertEquals(parseIp(input), { family: 4, text, zone: "" });
    });
  }
});

const NO_IPS: { [why: string]: string[] } = {
  "nothing": ["", " ", ".", ":", "%", "%lo"],
  "a name": ["localhost", "a.b.c.d", "::g", "dead.beef", "cafe"],
  "inet_aton's shorthand": ["127.1", "127.0.1", "2130706433", "1.2.3.4."],
  "inet_aton's octal and hexadecimal": [
    "010.0.0.1",
    "127.0.0.01",
    "00.0.0.0",
    "0x7f.0.0.1",
    "0x7f000001",
  ],
  "an octet out of range": ["256.0.0.1", "1.2.3.999", "1.2.3.-4", "1.2.3.+4"],
  "a wrong number of octets": ["1.2.3", "1.2.3.4.5", "1..2.3", ".1.2.3.4"],
  "space at an end": [
    " 127.0.0.1",
    "127.0.0.1 ",
    "127.0.0.1\n",
    "::1 ",
    " ::1",
  ],
  "brackets": ["[::1]", "[127.0.0.1]", "[::1"],
  "a port": ["127.0.0.1:80", "[::1]:80"],
  "a wrong number of groups": [
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "::1:2:3:4:5:6:7:8",
    "1:2:3:4::5:6:7:8",
  ],
  "more than one double colon": ["1::2::3", ":::", "::::", "1:::2"],
  "one colon too many": [":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:", "::1:", ":1::"],
  "a group of more than four digits": ["::00001", "::12345", "0ffff::"],
  "a group that is not hexadecimal": ["::0x1", "::-1", "::+1", "::1_0", ":: 1"],
  "IPv4 anywhere but at the end": [
    "1.2.3.4::",
    "::1.2.3.4:5",
    "1.2.3.4:1:2:3:4:5:6",
  ],
  "IPv4 with no room for it": ["1:2:3:4:5:6:7:1.2.3.4"],
  "invalid IPv4 tail": ["::ffff:127.1", "::ffff:010.0.0.1", "::1.2.3.256"],
  "a prefix length": ["::1/128", "10.0.0.0/8"],
  "a zone on IPv4": ["127.0.0.1%lo", "::ffff:127.0.0.1%lo", "::ffff:1.2.3.4%"],
  "two zones": ["::1%lo%eth0", "::1%%"],
  "space in a zone": ["::1% ", "fe80::1%a b", "::1%lo\r\nX: y", "::1%\u2028"],
  "control characters in a zone": ["::1%\0", "fe80::1%\x1b[2J", "::1%\u202e"],
  "digits from other scripts": ["１２７.0.0.1", "127.0.0.١", "::１"],
  "other full stops": ["127。0。0。1", "127．0．0．1"],
};

Deno.test("parseIp() returns null for everything else", async (t) => {
  for (const [why, texts] of Object.entries(NO_IPS)) {
    for (const text of texts) {
      await t.step(`${why}: ${JSON.stringify(text)}`, () => {
        assertEquals(parseIp(text), null);
      });
    }
  }
});

Deno.test("parseIp() agrees with URL on random addresses", () => {
  const random = (below: number) => Math.floor(Math.random() * below);
  for (let i = 0; i < 1_000; i++) {
    // Half of the groups are zero, which gives runs of zeros of every length;
    // none is ffff, so no address is IPv4-mapped.
    const groups = Array.from(
      { length: 8 },
      () => (random(2) * random(0xffff)).toString(16),
    );
    const text = groups.join(":");
    const { hostname } = new URL(`http://[${text}]`);
    assertEquals(`[${parseIp(text)?.text}]`, hostname);
  }
});

Deno.test("isWildcard() is true for unspecified addresses only", async (t) => {
  for (const text of ["0.0.0.0", "::", "0:0::0:0", "::ffff:0.0.0.0"]) {
    await t.step(text, () => assert(isWildcard(parseIp(text)!)));
  }
  for (const text of ["127.0.0.1", "::1", "0.0.0.1", "::ffff:127.0.0.1"]) {
    await t.step(`not ${text}`, () => assert(!isWildcard(parseIp(text)!)));
  }
});
