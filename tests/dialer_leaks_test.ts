import { assert, assertEquals } from "@std/assert";
import { runChild } from "./support.ts";

/**
 * Dials in a process of its own, which may count its sockets: 1,000 times, 50
 * at a time, each cut short at a random moment by `cut`.
 */
async function dials(
  cut: string,
): Promise<{ ended: number; connected: number; left: number; odd: string[] }> {
  const { stdout, stderr } = await runChild(
    `
    import { dial, isTimeout, listen } from "./mod.ts";

    function sockets(): number {
      let count = 0;
      for (const { name } of Deno.readDirSync("/proc/self/fd")) {
        try {
          const target = Deno.readLinkSync("/proc/self/fd/" + name);
          if (target.startsWith("socket:")) count++;
        } catch {
          // The descriptor of this very listing.
        }
      }
      return count;
    }

    const listener = await listen("tcp", "127.0.0.1:0");
    const { hostname, port } = listener.addr;
    const address = String(listener.addr);
    const accepting = (async () => {
      for await (const conn of listener) conn.close();
    })();
    const before = sockets();
    let connected = 0, ended = 0, left = 1_000;
    const odd = new Set();
    // Often too soon, and sometimes late enough on a busy machine.
    const soon = () => Math.random() ** 3 * 30;
    const worker = async () => {
      while (left-- > 0) {
        const controller = new AbortController();
        const { signal } = controller;
        let timer;
        const abortSoon = () =>
          timer = setTimeout(() => controller.abort("enough"), soon());
        try {
          const conn = await (${cut});
          connected++;
          conn.close();
        } catch (error) {
          if (error !== "enough" && !isTimeout(error)) odd.add(String(error));
        }
        clearTimeout(timer);
        ended++;
      }
    };
    await Promise.all(Array.from({ length: 50 }, worker));
    await listener.close();
    await accepting;
    // The listener's own has gone.
    const report = { ended, connected, left: sockets() - before + 1, odd: [...odd] };
    console.log(JSON.stringify(report));
    Deno.exit();
    `,
    { flags: ["-A"] },
  );
  assertEquals(stderr, "");
  return JSON.parse(stdout);
}

Deno.test("dials cut short at random moments leave no socket", {
  ignore: Deno.build.os !== "linux",
}, async (t) => {
  await t.step("Deno.connect() does leave some", async () => {
    const { left } = await dials(
      "abortSoon(), Deno.connect({ hostname, port, signal })",
    );
    assert(left > 0, "this is no test any more: Deno leaks nothing");
  });
  const cuts: Record<string, string> = {
    "a signal": 'abortSoon(), dial("tcp", address, { signal })',
    "timeout": 'dial("tcp", address, { timeout: soon() })',
    "attemptTimeout": 'dial("tcp", address, { attemptTimeout: soon() + 0.1 })',
    "a signal and a timeout, and a race":
      `abortSoon(), dial("tcp", "db.test:" + port, {
        signal,
        timeout: soon(),
        attemptDelay: 10,
        resolve: async function* () {
          yield ["127.0.0.2"]; // refuses
          yield ["127.0.0.1"];
        },
      })`,
  };
  for (const [name, cut] of Object.entries(cuts)) {
    await t.step(name, async () => {
      const { connected, ended, left, odd } = await dials(cut);
      assertEquals([ended, left, odd], [1_000, 0, []]);
      assert(connected > 0 && connected < 1_000, `${connected} connected`);
    });
  }
});
