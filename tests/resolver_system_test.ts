import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { enterNamespace } from "../bench/harness/namespace.ts";
import { systemResolver } from "../mod.ts";
import { countedSignal } from "./support.ts";
import type { Lookup } from "./system_lookups.ts";

/** A network and a name server of one's own: root's privilege, or a user's. */
const canEnter = Deno.build.os === "linux" &&
  await enterNamespace({ temporary: "", files: {}, network: true }, [])
    .then(() => true, () => false);

/** What the child process has found, with a name server that is a script. */
async function lookUpAll(): Promise<
  & Record<
    | "hosts"
    | "both"
    | "four"
    | "six"
    | "nosuch"
    | "empty"
    | "broken"
    | "half"
    | "otherHalf"
    | "lost"
    | "starved",
    Lookup
  >
  & { questions: string[] }
> {
  const child = new URL("system_lookups.ts", import.meta.url).pathname;
  const temporary = await Deno.makeTempDir();
  try {
    const files = {
      "/etc/hosts": "127.0.0.1 localhost hosts.test\n",
      "/etc/resolv.conf": "nameserver 127.0.0.1\n",
    };
    const limited = 'ulimit -n 64 && exec "$@"';
    const [program = "", ...args] = await enterNamespace(
      { temporary, files, network: true },
      [
        ...["sh", "-c", limited, "sh"],
        ...[Deno.execPath(), "run", "-A", "--no-config", child],
      ],
    );
    const { code, stdout, stderr } = await new Deno.Command(program, { args })
      .output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    return JSON.parse(new TextDecoder().decode(stdout));
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

Deno.test({
  name:
    "systemResolver() gives the system's answer, and does not wait for half of it (needs unshare)",
  ignore: !canEnter,
  async fn(t) {
    const found = await lookUpAll();
    await t.step("a name in /etc/hosts", () => {
      assertEquals(found.hosts.addresses, ["127.0.0.1"]);
    });
    await t.step("both families", () => {
      assertEquals(
        found.both.addresses.toSorted(),
        ["192.0.2.1", "2001:db8::1"],
      );
    });
    await t.step("one family", () => {
      assertEquals(found.four.addresses, ["192.0.2.1"]);
      assertEquals(found.six.addresses, ["2001:db8::1"]);
    });
    await t.step("a name that does not exist", () => {
      assertEquals(found.nosuch.error, {
        message: "lookup nosuch.test: no such host",
        notFound: true,
        code: "ENOTFOUND",
      });
    });
    await t.step("a name without addresses", () => {
      assertEquals(found.empty.error, {
        message: "lookup empty.test: no address found",
        notFound: false,
        code: "ENOTFOUND",
      });
    });
    await t.step("a name server that fails", () => {
      assertEquals(found.broken.error, {
        message: "lookup broken.test: temporary failure in name resolution",
        notFound: false,
        code: "EAI_AGAIN",
      });
    });
    // getaddrinfo gives these after 15, 10 and 5 s.
    await t.step("AAAA is never answered", () => {
      assertEquals(found.half.addresses, ["192.0.2.1"]);
      assert(found.half.ms < 5_000, `${found.half.ms}`);
    });
    await t.step("A is never answered", () => {
      assertEquals(found.otherHalf.addresses, ["2001:db8::1"]);
      assert(found.otherHalf.ms < 5_000, `${found.otherHalf.ms}`);
    });
    await t.step("a lost packet", () => {
      assertEquals(
        found.lost.addresses.toSorted(),
        ["192.0.2.1", "2001:db8::1"],
      );
      assert(found.lost.ms < 5_000, `${found.lost.ms}`);
    });
    await t.step("lookups that were given up are shared by the next", () => {
      // Not 20; but each family may have been asked for as well by now, and
      // getaddrinfo repeats what is not answered.
      const { length } = found.questions;
      assert(length < 10, `${found.questions}`);
    });
    await t.step("no file descriptor left, which is not 'no such host'", () => {
      assertEquals(found.starved.error, {
        message: "lookup hosts.test: no address found",
        notFound: false,
        code: "ENOTFOUND",
      });
    });
  },
});

Deno.test("systemResolver() rejects with the signal's reason", async (t) => {
  const reason = new Error("stop");
  const next = (signal: AbortSignal) => {
    const batches = systemResolver("localhost", { signal });
    return (batches as AsyncIterable<string[]>)[Symbol.asyncIterator]().next();
  };
  await t.step("aborted before", async () => {
    const rejected = next(AbortSignal.abort(reason)).catch((error) => error);
    assertStrictEquals(await rejected, reason);
  });
  await t.step("aborted meanwhile", async () => {
    const { controller, signal, listeners } = countedSignal();
    const rejected = next(signal).catch((error) => error);
    controller.abort(reason);
    assertStrictEquals(await rejected, reason);
    assertEquals(listeners(), 0);
    // The lookup goes on, and this one joins it.
    assertEquals((await next(new AbortController().signal)).done, false);
  });
});
