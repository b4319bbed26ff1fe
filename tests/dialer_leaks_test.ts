import { assert, assertEquals } from "@std/assert";
import { runChild } from "./support.ts";

/**
 * Dials in a process of its own, which may count its sockets: 500 times, 50
 * at a time, each cut short at a random moment by `cut`; and again, until a
 * socket is left.
 */
async function dials(
  cut: string,
  { rounds = 1 } = {},
): Promise<{ ended: number; connected: number; left: number; odd: string[] }> {
  const { stdout, stderr } = await runChild(
    `
    import { dial, isTimeout, listen } from "./mod.ts";

    // TCP sockets: the runtime makes others for itself, when it is half a
    // second old.
    function sockets(): number {
      const table = Deno.readTextFileSync("/proc/self/net/tcp").split("\\n");
      const inodes = table.map((line) => line.trim().split(/ +/)[9]);
      let count = 0;
      for (const { name } of Deno.readDirSync("/proc/self/fd")) {
        try {
          const target = Deno.readLinkSync("/proc/self/fd/" + name);
          const inode = /^socket:.(\\d+)/.exec(target)?.[1];
          if (inode !== undefined && inodes.includes(inode)) count++;
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
    let connected = 0, ended = 0, left = 0;
    const odd = new Set();
    // However busy this machine is: now too soon for one connection, now late
    // enough for two.
    let usual;
    for (const _ of ["warming up", "measured"]) {
      const start = performance.now();
      const calm = Array.from({ length: 50 }, () => dial("tcp", address));
      for (const conn of await Promise.all(calm)) conn.close();
      usual = performance.now() - start;
    }
    const soon = () => Math.random() * 4 * usual;
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
    // The listener may have one in hand.
    const tight = () => sockets() < before + 3;
    for (let round = 0; round < ${rounds} && tight(); round++) {
      left = 500;
      await Promise.all(Array.from({ length: 50 }, worker));
    }
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
      { rounds: 40 },
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
      assertEquals([ended, left, odd], [500, 0, []]);
      assert(connected > 0 && connected < 500, `${connected} connected`);
    });
  }
});
