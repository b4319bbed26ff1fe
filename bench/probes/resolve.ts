/**
 * Looks names up in every way there is, in a network of its own, where it is
 * the name server, too; prints a line of JSON for each. See resolvers.ts.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { dnsResolver, type Resolver, systemResolver } from "../../mod.ts";
import { type DnsScript, DnsServer } from "../../tests/dns_server.ts";
import { pause } from "../hazards/hazard.ts";

/** How a lookup went. */
export interface Looked {
  what: string;
  who: string;
  /** Addresses, each batch with the millisecond at which it came. */
  batches: [addresses: string, ms: number][];
  /** When it was over. */
  endMs: number;
  error?: string;
}

/** Lookups that were aborted. */
export interface CalledOff {
  who: string;
  /** From the abort to the last rejection. */
  ms: number;
  questions: number;
  /** Sockets that are open half a second later. */
  left: number;
}

const v4 = ["192.0.2.1"];
const v6 = ["2001:db8::1"];

/** By the first label; the second is who asks, so that all ask afresh. */
const names: Record<string, { A: DnsScript[string]; AAAA: DnsScript[string] }> =
  {
    both: { A: v4, AAAA: v6 },
    broken: { A: "SERVFAIL", AAAA: "SERVFAIL" },
    half: { A: v4, AAAA: "silence" },
    other: { A: "silence", AAAA: v6 },
    lost: { A: { reply: v4, lost: 1 }, AAAA: { reply: v6, lost: 1 } },
    silent: { A: "silence", AAAA: "silence" },
    soon: { A: v4, AAAA: { reply: v6, after: () => pause(30) } },
    late: { A: v4, AAAA: { reply: v6, after: () => pause(100) } },
  };

const askers: Record<string, Resolver> = {
  "node:dns lookup": async (hostname) => {
    const found = await lookup(hostname, { all: true, verbatim: true });
    return found.map(({ address }) => address);
  },
  "systemResolver": systemResolver,
  "Deno.resolveDns": (hostname) => Deno.resolveDns(`${hostname}.`, "A"),
  "dnsResolver": dnsResolver({ nameServer: { ipAddr: "127.0.0.1" } }),
};

/** Who asks for what; the lookups that take seconds run at the same time. */
const lookups: [what: string, who: string[]][] = [
  ["hosts", ["node:dns lookup", "systemResolver"]],
  ["both", ["node:dns lookup", "systemResolver", "dnsResolver"]],
  ["soon", ["dnsResolver"]],
  ["late", ["dnsResolver"]],
  ["nosuch", ["node:dns lookup", "systemResolver", "dnsResolver"]],
  ["broken", ["node:dns lookup", "systemResolver", "dnsResolver"]],
];
const slowLookups: [what: string, who: string[]][] = [
  ["half", ["node:dns lookup", "systemResolver", "dnsResolver"]],
  ["other", ["node:dns lookup", "systemResolver", "dnsResolver"]],
  ["lost", Object.keys(askers)],
  ["silent", Object.keys(askers)],
];

function hostnameOf(what: string, who: string): string {
  return `${what}.${who.replaceAll(/\W/g, "").toLowerCase()}.test`;
}

async function look(what: string, who: string): Promise<Looked> {
  const batches: Looked["batches"] = [];
  const { signal } = new AbortController();
  const start = performance.now();
  const elapsed = () => performance.now() - start;
  try {
    const answer = askers[who]!(hostnameOf(what, who), { signal });
    const all = Symbol.asyncIterator in answer ? answer : [answer];
    for await (const batch of all) batches.push([batch.join(" "), elapsed()]);
    return { what, who, batches, endMs: elapsed() };
  } catch (error) {
    const endMs = elapsed();
    return { what, who, batches, endMs, error: (error as Error).message };
  }
}

/** How many sockets this process has open, by its descriptor table. */
function sockets(): number {
  let found = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      const target = Deno.readLinkSync(`/proc/self/fd/${name}`);
      if (target.startsWith("socket:")) found++;
    } catch (error) {
      // The descriptor of this very listing.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return found;
}

/** 50 lookups of one name, aborted as soon as the name server is asked. */
async function callOff(server: DnsServer, who: string): Promise<CalledOff> {
  const controller = new AbortController();
  const { signal } = controller;
  const before = sockets();
  const asked = server.questions.length;
  const hostname = hostnameOf("silent", `again${who}`);
  const looking = Array.from({ length: 50 }, () => {
    const batches = askers[who]!(hostname, { signal });
    return Array.fromAsync(batches as AsyncIterable<string[]>)
      .catch((error) => {
        if (error !== signal.reason) throw error;
      });
  });
  await server.asked(`${hostname} A`);
  const start = performance.now();
  controller.abort();
  await Promise.all(looking);
  const ms = performance.now() - start;
  await pause(500);
  const questions = server.questions.length - asked;
  return { who, ms, questions, left: sockets() - before };
}

function script(): DnsScript {
  const all: DnsScript = {};
  for (const who of [...Object.keys(askers), "againsystemResolver"]) {
    for (const [what, { A, AAAA }] of Object.entries(names)) {
      all[`${hostnameOf(what, who)} A`] = A;
      all[`${hostnameOf(what, who)} AAAA`] = AAAA;
    }
  }
  const off = hostnameOf("silent", "againdnsResolver");
  return { ...all, [`${off} A`]: "silence", [`${off} AAAA`]: "silence" };
}

await using server = await DnsServer.start(script(), 53);
// A warm-up: what is loaded on first use must not be measured.
for (const who of Object.keys(askers)) await look("both", who);
for (const [what, everybody] of lookups) {
  for (const who of everybody) {
    console.log(JSON.stringify(await look(what, who)));
  }
}
// In its first second the runtime opens a pair of sockets for a signal.
await pause(1_000);
console.log(JSON.stringify(await callOff(server, "dnsResolver")));
const slow: Promise<Looked>[] = [];
for (const [what, everybody] of slowLookups) {
  for (const who of everybody) {
    slow.push(look(what, who));
    await pause(100); // so that the fast ones run alone
  }
}
for (const looked of slow) console.log(JSON.stringify(await looked));
console.log(JSON.stringify(await callOff(server, "systemResolver")));
// getaddrinfo is still waiting for what is never answered.
Deno.exit(0);
