/**
 * What dial() does under each kind of grant, and what the runtime asks the
 * user: in child processes, without a terminal and on one.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { listen } from "../mod.ts";
import { deniedReason } from "../net/sandbox.ts";
import type { Dial, Outcome } from "./sandbox_child.ts";
import { bytes, installed, quote, runChild } from "./support.ts";

/** script(1) gives a command its own terminal; BSD's has other options. */
const hasTerminal = Deno.build.os === "linux" && installed("script");

const child = `${import.meta.dirname}/sandbox_child.ts`;

function command(grants: string[], dials: Dial[]): string[] {
  const run = ["run", "--no-config", ...grants, child, JSON.stringify(dials)];
  return [Deno.execPath(), ...run];
}

/** The outcomes among what a child has printed. */
function outcomes(text: string): Outcome[] {
  return [...text.matchAll(/^outcome (.*?)\r?$/gm)].map((match) =>
    JSON.parse(match[1]!)
  );
}

/** Dials in a process that has no user to ask. */
async function dialAll(
  grants: string[],
  dials: Dial[],
  flags = ["--no-prompt"],
): Promise<Outcome[]> {
  const [program = "", ...args] = command([...flags, ...grants], dials);
  const { stderr, stdout } = await new Deno.Command(program, { args }).output();
  const found = outcomes(new TextDecoder().decode(stdout));
  assertEquals(found.length, dials.length, new TextDecoder().decode(stderr));
  return found;
}

/**
 * After a question the runtime discards what is typed, until there has been
 * nothing for 100 ms: an answer is repeated until it is taken.
 */
const ANSWER_MS = 200;

/**
 * Dials in a process on a terminal; `redirected` takes one of its streams off
 * the terminal again. The user gives one answer to all questions: a repeated
 * answer may be taken late, for the next question.
 */
async function dialOnTerminal(
  grants: string[],
  dials: Dial[],
  answer: "y" | "n",
  redirected = "",
): Promise<{ found: Outcome[]; prompts: string[] }> {
  const quoted = quote(command(grants, dials));
  await using process = new Deno.Command("script", {
    args: ["-qec", `${quoted} ${redirected}`, "/dev/null"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = process.stdin.getWriter();
  let text = "";
  const found = (pattern: RegExp) =>
    [...text.matchAll(pattern)].map((match) => match[1]!);
  const prompts = () => found(/Deno requests (.+)\.\r\n/g);
  // Once the process has ended nobody reads it; only the output counts.
  const unheard = () => {};
  const timer = setInterval(() => {
    if (prompts().length > found(/(Granted|Denied) /g).length) {
      writer.write(bytes(`${answer}\n`)).catch(unheard);
    }
  }, ANSWER_MS);
  try {
    const pieces = process.stdout.pipeThrough(new TextDecoderStream());
    for await (const piece of pieces) {
      // deno-lint-ignore no-control-regex -- colours and cursor movements
      text = (text + piece).replaceAll(/\x1b\[\d*[A-Za-z]/g, "");
    }
  } finally {
    clearInterval(timer);
    await writer.close().catch(unheard);
  }
  const told = outcomes(text);
  assertEquals(told.length, dials.length, text);
  return { found: told, prompts: prompts() };
}

/** One dial, and how it must go; `PORT` stands for the listener's port. */
type Case = [name: string, dial: Dial, expected: Outcome];

const name = { address: "localhost:PORT" };
const literal = { address: "127.0.0.1:PORT" };
const resolved = { address: "db.test:PORT", resolve: ["127.0.0.1"] };
const socket: Dial = { network: "unix", address: "/nosuch.sock" };
const tunnelled = { address: "db.test:PORT", connect: true };

function connected(
  mode: "race" | "native",
  addr = "127.0.0.1:PORT",
): Outcome {
  return { mode, attempts: [`${addr} connected`] };
}

function denied(
  mode: "race" | "native",
  addr: string,
  reason = `run again with --allow-net=${addr}`,
): Outcome {
  return {
    mode,
    attempts: [`${addr} denied`],
    error: `dial tcp ${addr}: ${reason}`,
    cause: "NotCapable",
  };
}

/** Dials all of them in one process, and compares one by one. */
async function check(
  t: Deno.TestContext,
  grants: string,
  cases: Case[],
  terminal?: "missing" | { answer?: "y" | "n"; prompts: string[] },
): Promise<void> {
  await using listener = await listen("tcp4", "127.0.0.1:0");
  const { port } = listener.addr as Deno.NetAddr;
  const fill = <T>(value: T): T =>
    JSON.parse(JSON.stringify(value).replaceAll("PORT", `${port}`));
  const flags = fill(grants.split(" ").filter((flag) => flag !== ""));
  const dials = fill(cases.map(([, dial]) => dial));
  const where = terminal === "missing"
    ? "without a terminal to prompt on"
    : terminal
    ? "on a terminal"
    : "with --no-prompt";
  await t.step(`${grants || "no grant"}, ${where}`, async (t) => {
    let found: Outcome[];
    if (terminal === "missing") found = await dialAll(flags, dials, []);
    else if (terminal) {
      const { answer = "n", prompts } = fill(terminal);
      const told = await dialOnTerminal(flags, dials, answer);
      assertEquals(
        told.prompts,
        prompts.map((host) => `net access to "${host}"`),
      );
      found = told.found;
    } else found = await dialAll(flags, dials);
    for (const [i, [name, , expected]] of cases.entries()) {
      await t.step(name, () => assertEquals(found[i], fill(expected)));
    }
  });
}

/** On a terminal, too, where the user must not be asked anything. */
async function checkSilent(
  t: Deno.TestContext,
  grants: string,
  cases: Case[],
): Promise<void> {
  await check(t, grants, cases);
  if (hasTerminal) await check(t, grants, cases, { prompts: [] });
}

/** On a terminal, too: there an answer of the user's may have forbidden it. */
async function checkForbidden(
  t: Deno.TestContext,
  grants: string,
  cases: (forbidden: string) => Case[],
): Promise<void> {
  const forbidden = "--deny-net forbids it";
  await check(t, grants, cases(forbidden));
  if (!hasTerminal) return;
  const there = `${forbidden}, or an answer at the prompt`;
  await check(t, grants, cases(there), { prompts: [] });
}

Deno.test("dial() races if all of net is granted", async (t) => {
  await checkSilent(t, "--allow-net", [
    ["a literal", literal, connected("race")],
    ["the resolve option", resolved, connected("race")],
    ["the connect option", { ...resolved, connect: true }, connected("race")],
    ["a name", { ...name, network: "tcp4" }, connected("race")],
    ["no host", { address: ":PORT" }, connected("race")],
  ]);
});

Deno.test("dial() checks each address under --deny-net", async (t) => {
  await checkForbidden(
    t,
    "--allow-net --deny-net=127.0.0.1:PORT",
    (forbidden) => [
      ["a literal", literal, denied("race", "127.0.0.1:PORT", forbidden)],
      [
        "a name",
        { ...name, network: "tcp4" },
        {
          ...denied("race", "127.0.0.1:PORT"),
          error: `dial tcp4 127.0.0.1:PORT: ${forbidden}`,
        },
      ],
      [
        "one address of several",
        { ...resolved, resolve: ["127.0.0.1", "127.0.0.2"] },
        {
          mode: "race",
          attempts: ["127.0.0.1:PORT denied", "127.0.0.2:PORT refused"],
          error: "dial tcp db.test:PORT: all 2 addresses failed: " +
            `127.0.0.1:PORT ${forbidden}; 127.0.0.2:PORT connection refused`,
          cause: "NotCapable",
        },
      ],
      [
        "a name whose address is a wildcard",
        { ...resolved, resolve: ["0.0.0.0"] },
        connected("race", "0.0.0.0:PORT"),
      ],
    ],
  );
  await checkForbidden(
    t,
    "--allow-net --deny-net=127.0.0.1,0.0.0.0",
    (forbidden) => [
      [
        "a name whose address is a wildcard, denied as well",
        { ...resolved, resolve: ["0.0.0.0"] },
        {
          ...denied("race", "0.0.0.0:PORT"),
          error: `dial tcp 0.0.0.0:PORT: ${forbidden}`,
        },
      ],
    ],
  );
  await checkForbidden(t, "--allow-net --deny-net=localhost", (forbidden) => [
    ["a literal", literal, connected("race")],
    [
      "the denied name",
      name,
      denied("native", "localhost:PORT", forbidden),
    ],
    [
      "the denied name, with systemResolver",
      { ...name, resolve: "system" },
      {
        error: `dial tcp: lookup localhost: ${forbidden}`,
        cause: "NotCapable",
      },
    ],
  ]);
});

Deno.test("dial() says that a wider --deny-net wins over a grant", async (t) => {
  await checkForbidden(
    t,
    "--allow-net=127.0.0.1:PORT --deny-net=127.0.0.0/8",
    (forbidden) => [
      ["a literal", literal, denied("race", "127.0.0.1:PORT", forbidden)],
    ],
  );
});

Deno.test("dial() does not name a flag that only has exceptions", async (t) => {
  const flags = "--allow-read --deny-read=/nosuch.sock/below --allow-write";
  await check(t, flags, [
    ["a unix socket", socket, {
      ...denied("race", "/nosuch.sock"),
      error: "dial unix /nosuch.sock: " +
        "run again with --allow-net=unix:/nosuch.sock",
    }],
  ]);
});

Deno.test("a permission broker's own words are left as they are", () => {
  // Queries do not reach a broker, so nothing is known to be missing.
  const refusal = new Deno.errors.NotCapable("policy says no");
  assertEquals(deniedReason("db.test:80", refusal), undefined);
  assertEquals(deniedReason({ path: "/run/db.sock" }, refusal), undefined);
});

/** What applies to a name that is granted with its port, or without. */
const nameGranted: Case[] = [
  ["the name", name, connected("native", "localhost:PORT")],
  [
    "the name, tcp4",
    { ...name, network: "tcp4" },
    connected("native", "localhost:PORT"),
  ],
  [
    "the name, tcp6, of an IPv4 address",
    { ...name, network: "tcp6" },
    {
      mode: "native",
      attempts: ["localhost:PORT failed"],
      error: "dial tcp6 localhost:PORT: " +
        "address localhost: no suitable address found",
      cause: "AddrError",
    },
  ],
  [
    "an address that the resolve option gives",
    resolved,
    denied("race", "127.0.0.1:PORT"),
  ],
  ["the connect option", tunnelled, connected("native", "db.test:PORT")],
  [
    "the connect option, with a tunnel of another family",
    { ...tunnelled, network: "tcp6" },
    connected("native", "db.test:PORT"),
  ],
];

Deno.test("dial() leaves a name to the runtime if only the name is granted", async (t) => {
  await checkSilent(t, "--allow-net=localhost:PORT", nameGranted);
  await checkSilent(t, "--allow-net=localhost", nameGranted);
});

Deno.test("dial() names the forbidden address behind a granted name", async (t) => {
  const dial: Dial = { ...name, network: "tcp4" };
  const reason = "--deny-net forbids it (127.0.0.1:PORT)";
  await check(t, "--allow-net=localhost --deny-net=127.0.0.1", [
    ["the name", dial, {
      ...denied("native", "localhost:PORT", reason),
      error: `dial tcp4 localhost:PORT: ${reason}`,
    }],
  ]);
});

Deno.test("dial() needs no grant for a literal but the literal's own", async (t) => {
  await checkSilent(t, "--allow-net=127.0.0.1:PORT", [
    ["the literal", literal, connected("race")],
    ["no host", { address: ":PORT", network: "tcp4" }, connected("race")],
    ["the resolve option", resolved, connected("race")],
    [
      "one address of several",
      { ...resolved, resolve: ["127.0.0.2", "127.0.0.1"] },
      {
        mode: "race",
        attempts: ["127.0.0.2:PORT denied", "127.0.0.1:PORT connected"],
      },
    ],
  ]);
});

/** What the user is never asked about, granted or not. */
const neverAsked: Case[] = [
  ["the resolve option", resolved, denied("race", "127.0.0.1:PORT")],
  [
    "systemResolver",
    { ...resolved, resolve: "system" },
    {
      error: "dial tcp: lookup db.test: run again with --allow-net=db.test",
      cause: "NotCapable",
    },
  ],
  [
    "dnsResolver() with a nameServer",
    { ...resolved, resolve: "dns 127.0.0.1" },
    {
      error: "dial tcp: lookup db.test on 127.0.0.1:53: " +
        "run again with --allow-net=127.0.0.1:53",
      cause: "NotCapable",
    },
  ],
  ["the connect option", tunnelled, connected("native", "db.test:PORT")],
  [
    "both options",
    { ...resolved, connect: true },
    connected("race"),
  ],
];

/** Without a terminal the runtime answers "no" to its own prompt. */
async function checkUnasked(
  t: Deno.TestContext,
  grants: string,
  cases: Case[],
): Promise<void> {
  await check(t, grants, cases);
  await check(t, grants, cases, "missing");
}

Deno.test("dial() names the flag if nothing is granted", async (t) => {
  await checkUnasked(t, "", [
    ["a name", name, denied("native", "localhost:PORT")],
    ["a literal", literal, denied("race", "127.0.0.1:PORT")],
    ["an IPv6 literal", { address: "[::1]:80" }, denied("race", "[::1]:80")],
    ["a unix socket", socket, {
      ...denied("race", "/nosuch.sock"),
      error: "dial unix /nosuch.sock: run again with " +
        "--allow-read=/nosuch.sock --allow-write=/nosuch.sock " +
        "--allow-net=unix:/nosuch.sock",
    }],
    ["a unix socket by a relative path", { ...socket, address: "nosuch" }, {
      ...denied("race", "nosuch"),
      error: "dial unix nosuch: run again with " +
        "--allow-read=nosuch --allow-write=nosuch " +
        `--allow-net=unix:${Deno.cwd()}/nosuch`,
    }],
    ["a unix socket that no flag can name", {
      ...socket,
      address: "/no,such.sock",
    }, {
      ...denied("race", "/no,such.sock"),
      error: "dial unix /no,such.sock: run again with " +
        "--allow-read --allow-write --allow-net without a list",
    }],
    ["an abstract socket", { ...socket, address: "@nosuch" }, {
      ...denied("race", "@nosuch"),
      error: "dial unix @nosuch: run again with --allow-net without a list",
    }],
    ...neverAsked,
  ]);
  await checkUnasked(
    t,
    "--allow-read=/nosuch.sock --allow-write=/nosuch.sock",
    [
      ["a unix socket, which lacks one of three flags", socket, {
        ...denied("race", "/nosuch.sock"),
        error: "dial unix /nosuch.sock: run again with " +
          "--allow-net=unix:/nosuch.sock",
      }],
    ],
  );
  const forbidden = "--deny-net forbids it";
  await checkUnasked(t, "--deny-net", [
    ["a name", name, denied("native", "localhost:PORT", forbidden)],
    ["a literal", literal, denied("race", "127.0.0.1:PORT", forbidden)],
    ["a nameServer", { ...resolved, resolve: "dns 127.0.0.1" }, {
      error: `dial tcp: lookup db.test on 127.0.0.1:53: ${forbidden}`,
      cause: "NotCapable",
    }],
    ["an abstract socket", { ...socket, address: "@nosuch" }, {
      ...denied("race", "@nosuch"),
      error: `dial unix @nosuch: ${forbidden}`,
    }],
  ]);
  await checkUnasked(t, "--deny-net=127.0.0.1:PORT", [
    [
      "the denied address",
      literal,
      denied("race", "127.0.0.1:PORT", forbidden),
    ],
    [
      "another address",
      { address: "127.0.0.2:1" },
      denied("race", "127.0.0.2:1"),
    ],
  ]);
  await checkUnasked(t, "--allow-net --allow-write --deny-read=/nosuch.sock", [
    ["a unix socket", socket, {
      ...denied("race", "/nosuch.sock"),
      error: "dial unix /nosuch.sock: --deny-read forbids it",
    }],
  ]);
});

Deno.test("a grant for a name in another script is for its ASCII form", async (t) => {
  const address = "b\u00fccher.invalid:80";
  const ascii = "xn--bcher-kva.invalid";
  for (const grants of [`--allow-net=${ascii}`, "--allow-net"]) {
    const [asked] = await dialAll([grants], [{ address }]);
    await t.step(grants, () => {
      // There may be no name server where this runs.
      const reason = asked?.error?.includes("temporary")
        ? "temporary failure in name resolution"
        : "no such host";
      assertEquals(asked?.error, `dial tcp: lookup ${ascii}: ${reason}`);
    });
  }
  const refusals: [flags: string, reason: string][] = [
    ["--allow-net=localhost", `run again with --allow-net=${ascii}:80`],
    [`--allow-net --deny-net=${ascii}`, "--deny-net forbids it"],
  ];
  for (const [flags, reason] of refusals) {
    const [found] = await dialAll(flags.split(" "), [{ address }]);
    await t.step(flags, () => {
      assertEquals(found?.error, `dial tcp ${ascii}:80: ${reason}`);
    });
  }
});

Deno.test("systemResolver() asks about a name that no grant can name if all is granted but others", async (t) => {
  const cases: [flags: string[], reason: RegExp][] = [
    [["--allow-net=localhost"], /: run again with --allow-net without a list$/],
    [["--allow-net", "--deny-net=no.invalid"], /: (no such host|temporary.*)$/],
  ];
  for (const [flags, reason] of cases) {
    await t.step(flags.join(" "), async () => {
      const { stdout } = await runChild(
        `
        import { systemResolver } from "./mod.ts";
        const { signal } = new AbortController();
        await Array.fromAsync(systemResolver("b\u00fccher.invalid", { signal }))
          .catch((error) => console.log(error.message));
        `,
        { flags },
      );
      assertMatch(stdout.trim(), reason);
    });
  }
});

Deno.test("a grant that is revoked during a lookup is reported as missing", async () => {
  const { stdout, stderr } = await runChild(
    `
    import { systemResolver } from "./mod.ts";
    const { signal } = new AbortController();
    const looking = Array.fromAsync(systemResolver("localhost", { signal }));
    Deno.permissions.revokeSync({ name: "net" });
    await looking.catch((error) => console.log(error.name, error.message));
    `,
    { flags: ["--allow-net"] },
  );
  assertEquals([stderr, stdout.trim()], [
    "",
    "DnsError lookup localhost: run again with --allow-net=localhost",
  ]);
});

Deno.test({
  name:
    "dial() makes the runtime prompt for exactly what the caller named (needs script)",
  ignore: !hasTerminal,
  async fn(t) {
    await check(t, "", [
      ...neverAsked,
      [
        "dnsResolver() with the system's server",
        { ...resolved, resolve: "dns" },
        {
          error: "dial tcp: lookup db.test: " +
            "run again with --allow-net without a list, or set nameServer " +
            "and allow it",
          cause: "NotCapable",
        },
      ],
      ["a name, yes", name, connected("native", "localhost:PORT")],
      ["a literal, yes", literal, connected("race")],
      [
        "a literal with a timeout that the answer exceeds, yes",
        { address: "127.0.0.2:PORT", timeout: 80 },
        {
          mode: "race",
          attempts: ["127.0.0.2:PORT refused"],
          error: "dial tcp 127.0.0.2:PORT: connection refused",
          cause: "ConnectionRefused",
        },
      ],
      ["a wildcard, yes", { address: "0.0.0.0:PORT" }, connected("race")],
      ["the resolve option, now granted", resolved, connected("race")],
    ], {
      answer: "y",
      prompts: [
        "localhost:PORT",
        "127.0.0.1:PORT",
        "127.0.0.2:PORT",
        "0.0.0.0:PORT",
      ],
    });
    await check(t, "", [
      [
        "a name, no",
        { address: "localhost:1" },
        denied(
          "native",
          "localhost:1",
          "--deny-net forbids it, or an answer at the prompt",
        ),
      ],
      [
        "a name server, after a no",
        { ...resolved, resolve: "dns" },
        {
          error: "dial tcp: lookup db.test: " +
            "run again with --allow-net without a list, or set nameServer " +
            "and allow it",
          cause: "NotCapable",
        },
      ],
    ], { prompts: ["localhost:1"] });
    // With all but some of net granted, DNS may be asked, and the user is not.
    await check(t, "--allow-net --deny-net=192.0.2.1", [
      [
        "dnsResolver() with the system's server",
        { ...name, network: "tcp4", resolve: "dns" },
        connected("race"),
      ],
    ], { prompts: [] });
    await check(t, "--allow-net", [
      ["a name whose grant is revoked meanwhile", { ...name, revoked: true }, {
        error: "dial tcp: lookup localhost: " +
          "run again with --allow-net=localhost",
        cause: "NotCapable",
      }],
    ], { prompts: [] });
  },
});

Deno.test({
  name: "dial() does not prompt on half a terminal (needs script)",
  ignore: !hasTerminal,
  fn: async (t) => {
    const address = "127.0.0.1:1";
    const dials: Dial[] = [
      { address },
      { address: "db.test:1", resolve: "dns" },
    ];
    for (const redirected of ["< /dev/null", "2> /dev/null"]) {
      await t.step(redirected, async () => {
        const told = await dialOnTerminal([], dials, "n", redirected);
        const [literal, dns] = told.found;
        assertEquals(told.prompts, []);
        assertEquals(literal, denied("race", address));
        // The runtime's error names what it wanted: the system's name server.
        assertEquals(dns?.error?.includes("or set nameServer"), false);
      });
    }
  },
});
