import {
  assert,
  assertEquals,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { lookupPort, type Network } from "../net/addr.ts";
import { AddrError } from "../net/errors.ts";
import { SERVICES } from "../net/services.ts";

/** `addr` may be empty, and is then left out of the message. */
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
  // What an object in place of a table would know.
  "constructor",
  "__proto__",
];

Deno.test("lookupPort() knows no other names", async (t) => {
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

Deno.test("lookupPort() keeps the networks' names apart", async (t) => {
  await t.step("mdns is no TCP service", () => {
    assertEquals(lookupPort("udp", "mdns"), 5353);
    assertAddrError(
      () => lookupPort("tcp6", "mdns"),
      "unknown port",
      "tcp6/mdns",
    );
  });
  await t.step("ssh is no UDP service", () => {
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

// What a Debian machine has in /etc/services, for names that programs use,
// and Go's built-in few.
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

Deno.test("SERVICES has only entries that can be found", () => {
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
