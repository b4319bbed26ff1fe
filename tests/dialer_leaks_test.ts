import { assert, assertEquals } from "@std/assert";
import { runChild } from "./support.ts";

/** What became of the dials with one cut. */
interface Report {
  ended: number;
  connected: number;
  left: number;
  odd: string[];
}

/**
 * Dials in a process of its own, which may count its sockets: 300 times with
 * each of `cuts`, 50 at a time, cut short by it at a random moment; and again,
 * until a socket is left.
 */
async function dials(cuts: string[], { rounds = 1 } = {}): Promise<Report[]> {
  const { stdout, stderr } = await runChild(
    `
    import { dial, isTimeout, listen } from "./mod.ts";

    // TCP sockets: the runtime makes others for itself, when it is half a
    // second old. The table has thousands of others' lines: it is read for
    // sockets only that have not been seen yet.
    const kinds = new Map();
    function sockets(): number {
      const inodes = [];
      for (const { name } of Deno.readDirSync("/proc/self/fd")) {
        try {
          const target = Deno.readLinkSync("/proc/self/fd/" + name);
          const inode = /^socket:.(\\d+)/.exec(target)?.[1];
          if (inode !== undefined) inodes.push(inode);
        } catch {
          // The descriptor of this very listing.
        }
      }
      if (inodes.some((inode) => !kinds.has(inode))) {
        const table = Deno.readTextFileSync("/proc/self/net/tcp").split("\\n");
        const tcp = new Set(table.map((line) => line.trim().split(/ +/)[9]));
        for (const inode of inodes) kinds.set(inode, tcp.has(inode));
      }
      return inodes.filter((inode) => kinds.get(inode)).length;
    }

    // However busy this machine is: now too soon for one connection, now late
    // enough for two.
    let usual;
    const soon = () => Math.random() * 3 * usual;

    async function run(cut) {
      usual = 1e6; // never
      const before = sockets();
      const listener = await listen("tcp", "127.0.0.1:0");
      const accepting = (async () => {
        for await (const conn of listener) conn.close();
      })();
      let calmMs;
      for (const _ of ["warming up", "measured"]) {
        const start = performance.now();
        const { signal } = new AbortController();
        const calm = Array.from({ length: 50 }, () =>
          cut(listener.addr, signal, () => {}));
        for (const conn of await Promise.all(calm)) conn.close();
        calmMs = performance.now() - start;
      }
      usual = calmMs;
      let connected = 0, ended = 0, left = 0;
      const odd = new Set();
      const worker = async () => {
        while (left-- > 0) {
          const controller = new AbortController();
          const { signal } = controller;
          let timer;
          const abortSoon = () =>
            timer = setTimeout(() => controller.abort("enough"), soon());
          try {
            const conn = await cut(listener.addr, signal, abortSoon);
            connected++;
            conn.close();
          } catch (error) {
            if (error !== "enough" && !isTimeout(error)) odd.add(String(error));
          }
          clearTimeout(timer);
          ended++;
        }
      };
      // The listener is one, and may have one in hand.
      const tight = () => sockets() < before + 4;
      for (let round = 0; round < ${rounds} && tight(); round++) {
        left = 300;
        await Promise.all(Array.from({ length: 50 }, worker));
      }
      await listener.close();
      await accepting;
      return { ended, connected, left: sockets() - before, odd: [...odd] };
    }

    const reports = [];
    for (const cut of [${cuts.join(", ")}]) reports.push(await run(cut));
    console.log(JSON.stringify(reports));
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
    const [raw] = await dials([
      `({ hostname, port }, signal, abortSoon) => {
        abortSoon();
        return Deno.connect({ hostname, port, signal });
      }`,
    ], { rounds: 40 });
    assert(raw!.left > 0, "this is no test any more: Deno leaks nothing");
  });
  const cuts: Record<string, string> = {
    "a signal": `(addr, signal, abortSoon) => {
      abortSoon();
      return dial("tcp", String(addr), { signal });
    }`,
    "timeout": `(addr) => dial("tcp", String(addr), { timeout: soon() })`,
    "attemptTimeout": `(addr) =>
      dial("tcp", String(addr), { attemptTimeout: soon() + 0.1 })`,
    "a signal and a timeout, and a race": `({ port }, signal, abortSoon) => {
      abortSoon();
      return dial("tcp", "db.test:" + port, {
        signal,
        timeout: soon(),
        attemptDelay: 10,
        resolve: async function* () {
          yield ["127.0.0.2"]; // refuses
          yield ["127.0.0.1"];
        },
      });
    }`,
  };
  const reports = await dials(Object.values(cuts));
  for (const [i, name] of Object.keys(cuts).entries()) {
    await t.step(name, () => {
      const { connected, ended, left, odd } = reports[i]!;
      assertEquals([ended, left, odd], [300, 0, []]);
      assert(connected > 0 && connected < 300, `${connected} connected`);
    });
  }
});
