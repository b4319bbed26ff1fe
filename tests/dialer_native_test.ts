/**
 * What the runtime itself says and does: names under a grant for the name
 * alone, zones, abstract sockets.
 */
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { dial, DialError } from "../dialer.ts";
import { listen } from "../listener.ts";
import { installed, runChild } from "./support.ts";

const linux = Deno.build.os === "linux";

/** Whether a child may have a network of its own, with nobody in it. */
const canUnshare = linux && installed("unshare") &&
  (await new Deno.Command("unshare", {
    args: ["-rn", "true"],
    stderr: "null",
  }).output()).success;

/** A dial in a child; its options are code, since JSON knows no Infinity. */
type Dial = [network: string, address: string, options?: string];

/** Dials in a child with these grants, one after another; what came of each. */
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
        const because = cause && { name: cause.name, notFound: cause.notFound };
        return { name, message, code, timeout, trace, because };
      }));
    }
    console.log(JSON.stringify(outcomes));
    `,
    { flags, wrap },
  );
  assertEquals(stderr, "");
  return JSON.parse(stdout);
}

Deno.test("dial() of a name that alone is granted: the runtime dials", async (t) => {
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
    ["tcp", "ä.invalid:80"],
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
  await t.step("timeout does", () => {
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
    await t.step(`a failed lookup is no attempt, ${options}`, () => {
      // Whether there is a name server where this runs, nobody knows.
      const reason = because.notFound
        ? "no such host"
        : "temporary failure in name resolution";
      assertEquals(
        [name, because.name, message],
        ["OpError", "DnsError", `dial tcp: lookup nosuch.invalid: ${reason}`],
      );
    });
  }
  const impossible = next();
  await t.step("a name that no grant can be written for", () => {
    const { because, name } = impossible;
    assertEquals([name, because.name], ["OpError", "DnsError"]);
  });
  assertEquals(outcomes, []);
  await listener.close();
  await accepting;
});

Deno.test("a name server out of reach: not found is not certain", {
  ignore: !canUnshare,
}, async () => {
  const wrap = ["unshare", "-rn"];
  const flags = ["--allow-net=nosuch.invalid"];
  const [error] = await dialled([["tcp", "nosuch.invalid:80"]], {
    flags,
    wrap,
  });
  assertEquals(error.because, { name: "DnsError", notFound: false });
  assertEquals(
    error.message,
    "dial tcp: lookup nosuch.invalid: temporary failure in name resolution",
  );
});

Deno.test("dial() of [::] over tcp4 does not ask at the prompt for 0.0.0.0", {
  ignore: !linux || !installed("script"),
}, async () => {
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  const module = new URL("../mod.ts", import.meta.url);
  await Deno.writeTextFile(
    program,
    `
    import { dial } from "${module}";
    const error = await dial("tcp4", "[::]:1").catch((error) => error);
    console.log(error.trace.attempts[0].outcome, error.message);
    `,
  );
  const deno = `timeout --foreground 20 ${Deno.execPath()}`;
  const run = ["run", "--quiet", "--no-config", "--allow-net=[::]", program];
  // script(1) gives it a terminal, at which nobody answers.
  const { stdout } = await new Deno.Command("script", {
    args: ["-qec", [deno, ...run].join(" "), "/dev/null"],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  assertEquals(
    new TextDecoder().decode(stdout).trim(),
    "denied dial tcp4 127.0.0.1:1: run again with --allow-net=0.0.0.0:1",
  );
  await Deno.remove(program);
});

Deno.test("dial() of a literal leaves the refusal to the runtime", async () => {
  const [error] = await dialled([["tcp", "127.0.0.1:1"]], { flags: [] });
  assertEquals(error.trace.attempts[0].outcome, "denied");
  assertEquals(
    error.message,
    "dial tcp 127.0.0.1:1: run again with --allow-net=127.0.0.1:1",
  );
});

Deno.test("dial() knows zones", { ignore: !linux }, async (t) => {
  await t.step("link-local without one: EINVAL, no TypeError", async () => {
    const error = await dial("tcp", "[fe80::1]:80").catch((e) => e);
    assertInstanceOf(error, DialError);
    assertEquals(error.message, "dial tcp [fe80::1]:80: invalid argument");
    assertEquals([error.code, error.timeout], ["EINVAL", false]);
    assertEquals(error.trace.attempts[0]!.code, "EINVAL");
  });
  await t.step("one that is none: EINVAL, no failed lookup", async () => {
    const error = await dial("tcp", "[fe80::1%nosuch0]:80").catch((e) => e);
    assertInstanceOf(error, DialError);
    assertEquals(
      error.message,
      "dial tcp [fe80::1%nosuch0]:80: invalid argument",
    );
    assertEquals(error.code, "EINVAL");
  });
  const ipv6 = await listen("tcp6", "[::1]:0").catch(() => null);
  await t.step({
    name: "where there are none they mean nothing",
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
