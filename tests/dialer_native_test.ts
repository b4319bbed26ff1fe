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

/** Dials in a child with these grants; what came of it. */
async function dialled(
  network: string,
  address: string,
  { options = "{}", flags, wrap = [] }: {
    options?: string;
    flags: string[];
    wrap?: string[];
  },
) {
  const { stdout, stderr } = await runChild(
    `
    import { dial } from "./mod.ts";
    const [network, address] = ${JSON.stringify([network, address])};
    const outcome = await dial(network, address, ${options}).then((conn) => {
      conn.close();
      return { trace: conn.dialTrace };
    }, (error) => {
      const { name, message, code, timeout, trace, cause } = error;
      const because = cause && { name: cause.name, notFound: cause.notFound };
      return { name, message, code, timeout, trace, because };
    });
    console.log(JSON.stringify(outcome));
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
  const flags = ["--allow-net=localhost,nosuch.invalid"];
  const native = {
    addr: `localhost:${port}`,
    startMs: 0,
    outcome: "connected",
  };
  for (const attemptDelay of ["undefined", "-1", "0.5", "1e9", "Infinity"]) {
    await t.step(`attemptDelay ${attemptDelay}`, async () => {
      const options = attemptDelay === "undefined"
        ? "{}"
        : `{ attemptDelay: ${attemptDelay} }`;
      const { trace } = await dialled("tcp", `localhost:${port}`, {
        flags,
        options,
      });
      const [{ durationMs, ...attempt }] = trace.attempts;
      assertEquals([trace.mode, trace.resolveMs, attempt], [
        "native",
        0,
        native,
      ]);
      assert(durationMs > 0 && durationMs <= trace.totalMs);
    });
  }
  await t.step("attemptTimeout does not apply", async () => {
    const options = "{ attemptTimeout: 1e-9 }";
    const { trace } = await dialled("tcp", `localhost:${port}`, {
      flags,
      options,
    });
    assertEquals(trace.attempts[0].outcome, "connected");
  });
  await t.step("timeout does", async () => {
    const options = "{ timeout: 0 }";
    const error = await dialled("tcp", `localhost:${port}`, { flags, options });
    assertEquals(
      [error.message, error.timeout],
      ["dial tcp: lookup localhost: i/o timeout", true],
    );
  });
  await t.step("tcp4 and tcp6 are checked afterwards", async () => {
    const { trace } = await dialled("tcp4", `localhost:${port}`, { flags });
    assertEquals(trace.attempts[0].outcome, "connected");
    const error = await dialled("tcp6", `localhost:${port}`, { flags });
    assertEquals(error.name, "DialError");
    assertEquals(
      error.message,
      `dial tcp6 localhost:${port}: address localhost: ` +
        "no suitable address found",
    );
    assertEquals(error.trace.attempts[0].outcome, "failed");
  });
  await t.step("port 0", async () => {
    const error = await dialled("tcp", "localhost:0", { flags });
    assertEquals(error.code, "ECONNREFUSED");
  });
  for (const options of ["{}", "{ timeout: 1e9 }"]) {
    await t.step(`a failed lookup is no attempt, ${options}`, async () => {
      // Whether there is a name server where this runs, nobody knows.
      const error = await dialled("tcp", "nosuch.invalid:80", {
        flags,
        options,
      });
      const { notFound } = error.because;
      assertEquals(error.name, "OpError");
      assertEquals(
        [error.because.name, error.message],
        [
          "DnsError",
          "dial tcp: lookup nosuch.invalid: " +
          (notFound ? "no such host" : "temporary failure in name resolution"),
        ],
      );
    });
  }
  await t.step("a name that no grant can be written for", async () => {
    const error = await dialled("tcp", "ä.invalid:80", { flags });
    assertEquals([error.name, error.because.name], ["OpError", "DnsError"]);
  });
  await listener.close();
  await accepting;
});

Deno.test("a name server out of reach: not found is not certain", {
  ignore: !canUnshare,
}, async () => {
  const wrap = ["unshare", "-rn"];
  const flags = ["--allow-net=nosuch.invalid"];
  const error = await dialled("tcp", "nosuch.invalid:80", { flags, wrap });
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
  const run = ["run", "--quiet", "--no-lock", "--allow-net=[::]", program];
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
  const error = await dialled("tcp", "127.0.0.1:1", { flags: [] });
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
