/**
 * How `systemResolver` and `dnsResolver` cope with a name server that is slow,
 * silent or broken, beside the lookups that they are built on; in a network
 * namespace with a scripted name server: `deno run -A bench/resolvers.ts`.
 * Takes 20 s.
 *
 * @module
 */

import { Child } from "./harness/child.ts";
import { describeMachine } from "./harness/machine.ts";
import { enterNamespace } from "./harness/namespace.ts";
import { short } from "./harness/stats.ts";
import { table } from "./harness/table.ts";
import type { CalledOff, Looked } from "./probes/resolve.ts";

const titles: Record<string, string> = {
  hosts: "a name in /etc/hosts",
  both: "AAAA and A",
  soon: "AAAA 30 ms after A",
  late: "AAAA 100 ms after A",
  nosuch: "NXDOMAIN",
  broken: "SERVFAIL",
  half: "AAAA is never answered",
  other: "A is never answered",
  lost: "the first packets are lost",
  silent: "silence",
};

/** What is promised: the text, and whether it is kept. */
const promises: Record<
  string,
  Record<string, [string, (looked: Looked) => boolean]>
> = {
  soon: { dnsResolver: ["one batch", within(30, 50)] },
  late: { dnsResolver: ["A after 50 ms, AAAA joins", within(50, 70, 2)] },
  half: {
    systemResolver: ["first within 300 ms", within(0, 300)],
    dnsResolver: ["first after 50 ms", within(50, 70)],
  },
  other: {
    systemResolver: ["first within 300 ms", within(0, 300)],
    dnsResolver: ["first at once", within(0, 20)],
  },
  lost: {
    systemResolver: ["within 300 ms", within(0, 300)],
    dnsResolver: ["within 1.1 s", within(0, 1_100)],
  },
  silent: { dnsResolver: ["over after 2 s", ({ endMs }) => endMs < 2_100] },
};

function within(
  least: number,
  most: number,
  batches?: number,
): (looked: Looked) => boolean {
  return (looked) => {
    const ms = looked.batches[0]?.[1] ?? NaN;
    // setTimeout() may be a fraction of a millisecond early.
    return ms >= least - 1 && ms <= most &&
      (batches === undefined || looked.batches.length === batches);
  };
}

function lineOf(looked: Looked): string[] {
  const { batches, endMs, error, what, who } = looked;
  const came = batches.map(([addresses, ms]) =>
    `${addresses} at ${short(ms)} ms`
  );
  if (error !== undefined) came.push(`${error} at ${short(endMs)} ms`);
  else if (endMs > batches.at(-1)![1] + 10) {
    came.push(`over at ${short(endMs)} ms`);
  }
  const [text, kept] = promises[what]?.[who] ?? [];
  return [titles[what]!, who, came.join(", "), verdict(text, kept?.(looked))];
}

function offLineOf({ left, ms, questions, who }: CalledOff): string[] {
  const came = `over after ${short(ms)} ms, ${questions} questions`;
  const soon = verdict("within 200 ms", ms < 200);
  // getaddrinfo goes on, with its socket; it asks one question per family.
  const [what, then] = who === "dnsResolver"
    ? [`${came}, ${left} sockets left`, verdict("no socket left", left === 0)]
    : [came, verdict("one lookup for all", questions === 2)];
  return ["50 of one name called off", who, what, `${soon}; ${then}`];
}

function verdict(text: string | undefined, kept: boolean | undefined): string {
  if (text === undefined) return "";
  if (!kept) Deno.exitCode = 1;
  return `${text}: ${kept ? "yes" : "NO"}`;
}

async function main(): Promise<void> {
  const temporary = await Deno.makeTempDir({ prefix: "switchboard-bench-" });
  try {
    const files = {
      "/etc/hosts": "127.0.0.1 localhost\n" +
        "192.0.2.1 hosts.nodednslookup.test hosts.systemresolver.test\n",
      "/etc/resolv.conf": "nameserver 127.0.0.1\n",
    };
    const probe = `${import.meta.dirname}/probes/resolve.ts`;
    await using child = new Child(
      await enterNamespace(
        { temporary, files, network: true },
        [Deno.execPath(), "run", "-A", probe],
      ),
    );
    const lines: string[][] = [];
    for (let off = 0; off < 2;) {
      const found = await child.json<Looked | CalledOff>();
      if ("questions" in found) off++;
      const line = "questions" in found ? offLineOf(found) : lineOf(found);
      const again = lines.findLast(([title]) => title !== "")?.[0] === line[0];
      lines.push(again ? ["", ...line.slice(1)] : line);
    }
    console.log(table(["name server", "who", "came", "promised"], lines));
    console.log(`\n${await describeMachine()}`);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

await main();
