import { assert, assertEquals } from "@std/assert";
import { isWildcard, parseIp } from "../net/ip.ts";

Deno.test("parseIp() takes four decimal numbers for IPv4", async (t) => {
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

// RFC 4291, section 2.2, in; RFC 5952, section 4, out.
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
  // 4.2.2: one group of zeros is not shortened, whoever wrote it that way.
  "2001:db8:0:1:1:1:1:1": "2001:db8:0:1:1:1:1:1",
  "2001:db8::1:1:1:1:1": "2001:db8:0:1:1:1:1:1",
  "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
  "::2:3:4:5:6:7:8": "0:2:3:4:5:6:7:8",
  // 4.2.3: the longest gap, the first one of two.
  "2001:0:0:1:0:0:0:1": "2001:0:0:1::1",
  "2001:db8:0:0:1:0:0:1": "2001:db8::1:0:0:1",
  "1:0:0:2:3:4:0:0": "1::2:3:4:0:0",
  // Dotted IPv4 at the end that is not the mapped kind.
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

const MAPPED: { [text: string]: string } = {
  "::ffff:127.0.0.1": "127.0.0.1",
  "::FFFF:192.0.2.1": "192.0.2.1",
  "::ffff:7f00:1": "127.0.0.1",
  "::ffff:0:0": "0.0.0.0",
  "::ffff:0.0.0.0": "0.0.0.0",
  "0:0:0:0:0:ffff:ffff:ffff": "255.255.255.255",
};

Deno.test("parseIp() shows an IPv4-mapped address as IPv4", async (t) => {
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
  "space around": [" 127.0.0.1", "127.0.0.1 ", "127.0.0.1\n", "::1 ", " ::1"],
  "brackets": ["[::1]", "[127.0.0.1]", "[::1"],
  "a port": ["127.0.0.1:80", "[::1]:80"],
  "a wrong number of groups": [
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "::1:2:3:4:5:6:7:8",
    "1:2:3:4::5:6:7:8",
  ],
  "more than one gap": ["1::2::3", ":::", "::::", "1:::2"],
  "a colon too many": [":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:", "::1:", ":1::"],
  "a group of more than four digits": ["::00001", "::12345", "0ffff::"],
  "a group that is no hexadecimal": ["::0x1", "::-1", "::+1", "::1_0", ":: 1"],
  "IPv4 anywhere but at the end": [
    "1.2.3.4::",
    "::1.2.3.4:5",
    "1.2.3.4:1:2:3:4:5:6",
  ],
  "IPv4 with no room for it": ["1:2:3:4:5:6:7:1.2.3.4"],
  "IPv4 with a fault": ["::ffff:127.1", "::ffff:010.0.0.1", "::1.2.3.256"],
  "a prefix length": ["::1/128", "10.0.0.0/8"],
  "a zone on IPv4": ["127.0.0.1%lo", "::ffff:127.0.0.1%lo", "::ffff:1.2.3.4%"],
  "two zones": ["::1%lo%eth0", "::1%%"],
  "digits of other scripts": ["１２７.0.0.1", "127.0.0.١", "::１"],
  "other full stops": ["127。0。0。1", "127．0．0．1"],
};

Deno.test("parseIp() takes nothing else", async (t) => {
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
    // Half of the groups are zero, so that there are gaps of every length; none
    // is ffff, so that none is IPv4-mapped.
    const groups = Array.from(
      { length: 8 },
      () => (random(2) * random(0xffff)).toString(16),
    );
    const text = groups.join(":");
    const { hostname } = new URL(`http://[${text}]`);
    assertEquals(`[${parseIp(text)?.text}]`, hostname);
  }
});

Deno.test("isWildcard() tells the addresses that mean all", async (t) => {
  for (const text of ["0.0.0.0", "::", "0:0::0:0", "::ffff:0.0.0.0"]) {
    await t.step(text, () => assert(isWildcard(parseIp(text)!)));
  }
  for (const text of ["127.0.0.1", "::1", "0.0.0.1", "::ffff:127.0.0.1"]) {
    await t.step(`not ${text}`, () => assert(!isWildcard(parseIp(text)!)));
  }
});
