/**
 * A child process of resolver_runtime_test.ts, in a network of its own, where
 * it is the name server, too: looks names up with `systemResolver`, and prints
 * the results as JSON.
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { dnsResolver, listen, systemResolver } from "../mod.ts";
import { AddrError, DnsError } from "../net/errors.ts";
import { type DnsScript, DnsServer } from "./dns_server.ts";

const script: DnsScript = {
  "both.test AAAA": ["2001:db8::1"],
  "both.test A": ["192.0.2.1"],
  "four.test AAAA": [],
  "four.test A": ["192.0.2.1"],
  "empty.test AAAA": [],
  "empty.test A": [],
  "broken.test AAAA": "SERVFAIL",
  "broken.test A": "SERVFAIL",
  "half.test AAAA": "silence",
  "half.test A": ["192.0.2.1"],
  "other-half.test AAAA": ["2001:db8::1"],
  "other-half.test A": "silence",
  "hidden.onion A": ["192.0.2.1"],
  "near.test AAAA": { reply: [] },
  "near.test A": {
    reply: ["192.0.2.1"],
    after: () => new Promise((resolve) => setTimeout(resolve, 400)),
  },
  "near.test.corp.test AAAA": ["2001:db8::bad"],
  "listed.corp.test AAAA": { reply: [] },
  "listed.corp.test A": {
    reply: ["192.0.2.1"],
    after: () => new Promise((resolve) => setTimeout(resolve, 400)),
  },
  "listed AAAA": [],
  "listed A": ["192.0.2.66"],
  "gone.test AAAA": "silence",
  "gone.test A": "NXDOMAIN",
  "lost.test AAAA": { reply: ["2001:db8::1"], lost: 1 },
  "lost.test A": { reply: ["192.0.2.1"], lost: 1 },
  "silent.test AAAA": "silence",
  "silent.test A": "silence",
  "slow.test AAAA": {
    reply: [],
    after: () => new Promise((resolve) => setTimeout(resolve, 400)),
  },
  "slow.test A": ["127.0.0.1"],
};

/** Enough names to take all of the runtime's threads, with three for each. */
const DEAD = Array.from({ length: 12 }, (_, i) => `dead-${i}.test`);
for (const name of DEAD) {
  script[`${name} AAAA`] = script[`${name} A`] = "silence";
}

/** One name looked up. */
export interface Lookup {
  addresses: string[];
  /** When the first batch came, or the error. */
  ms: number;
  error?: {
    message: string;
    notFound?: boolean;
    temporary?: boolean;
    code?: string;
  };
}

async function look(
  hostname: string,
  { enough = 1, family }: { enough?: number; family?: 4 | 6 } = {},
): Promise<Lookup> {
  const { signal } = new AbortController();
  const start = performance.now();
  const addresses: string[] = [];
  let ms = NaN;
  try {
    const options = family ? { family, signal } : { signal };
    const batches = systemResolver(hostname, options);
    for await (const batch of batches as AsyncIterable<string[]>) {
      if (addresses.length === 0) ms = performance.now() - start;
      addresses.push(...batch);
      if (addresses.length >= enough) break;
    }
    return { addresses, ms };
  } catch (error) {
    ms = performance.now() - start;
    if (error instanceof AddrError) {
      return { addresses, ms, error: { message: error.message } };
    }
    if (!(error instanceof DnsError)) throw error;
    const { cause, message, notFound, temporary } = error;
    const { code } = (cause ?? {}) as { code?: string };
    return {
      addresses,
      ms,
      error: { message, notFound, temporary, ...code && { code } },
    };
  }
}

/** Opens files until there is no descriptor left. */
function exhaustFiles(): Deno.FsFile[] {
  // Otherwise the runtime takes some for its signals half a second after its
  // start, and panics if there are none.
  Deno.addSignalListener("SIGUSR2", () => {});
  const files: Deno.FsFile[] = [];
  while (true) {
    try {
      files.push(Deno.openSync("/dev/null"));
    } catch (error) {
      if ((error as { code?: string }).code === "EMFILE") return files;
      throw error;
    }
  }
}

async function ask(hostname: string): Promise<string[]> {
  const { signal } = new AbortController();
  const batches = dnsResolver()(hostname, { signal });
  return (await Array.fromAsync(batches as AsyncIterable<string[]>)).flat();
}

/** `dnsResolver` if the first of two name servers is silent. */
async function askSecond(): Promise<Lookup> {
  const silent = createSocket("udp4");
  silent.bind(53, "127.0.0.2");
  await once(silent, "listening");
  const servers = ["127.0.0.2", "127.0.0.1"];
  await Deno.writeTextFile(
    "/etc/resolv.conf",
    servers.map((address) => `nameserver ${address}\n`).join(""),
  );
  const asked = once(silent, "message");
  const start = performance.now();
  const addresses = await ask("four.test");
  const ms = performance.now() - start;
  await asked;
  silent.close();
  return { addresses, ms };
}

if (import.meta.main) {
  await using server = await DnsServer.start(script, 53);
  const found = {
    hosts: await look("hosts.test"),
    hostsSix: await look("hosts.test", { family: 6 }),
    both: await look("both.test", { enough: 2 }),
    four: await look("both.test", { family: 4 }),
    six: await look("both.test", { family: 6 }),
    otherSix: await look("four.test", { family: 6 }),
    emptySix: await look("empty.test", { family: 6 }),
    nosuch: await look("nosuch.test"),
    gone: await look("gone.test", { family: 4 }),
    empty: await look("empty.test"),
    broken: await look("broken.test"),
    near: await look("near.test", { enough: 2 }),
    listed: await look("listed", { enough: 2 }),
    onion: await look("hidden.Onion."),
    half: await look("half.test"),
    otherHalf: await look("other-half.test"),
    lost: await look("lost.test", { enough: 2 }),
  };
  await using listener = await listen("tcp", "slow.test:0");
  const bound = {
    hostname: (listener.addr as Deno.NetAddr).hostname,
    questions: server.questions.filter((q) => q.startsWith("slow")),
  };
  await ask("host").catch((error) => {
    if (!(error instanceof DnsError)) throw error;
  });
  const absolute = server.questions.filter((q) => /^host[ .]/.test(q));
  // Ten lookups in a row are abandoned; the system's own goes on.
  for (let i = 0; i < 10; i++) {
    const controller = new AbortController();
    const { signal } = controller;
    const batches = systemResolver("silent.test", { signal });
    const looking = Array.fromAsync(batches as AsyncIterable<string[]>);
    await server.asked("silent.test A");
    await look("hosts.test"); // by now a lookup of its own would have asked
    controller.abort();
    await looking.catch((error) => {
      if (error !== signal.reason) throw error;
    });
  }
  const questions = server.questions.filter((q) => q.startsWith("silent"));
  const files = exhaustFiles();
  const starved = await look("hosts.test");
  for (const file of files) file.close();
  const second = await askSecond();
  for (const name of DEAD) look(name); // until this process ends
  await new Promise((resolve) => setTimeout(resolve, 1_000)); // each asks again
  const start = performance.now();
  await Deno.readTextFile("/etc/hosts");
  const readMs = performance.now() - start;
  console.log(
    JSON.stringify({
      ...{ ...found, second, starved },
      ...{ absolute, bound, questions, readMs },
    }),
  );
  // getaddrinfo is still waiting for what is never answered.
  Deno.exit(0);
}
