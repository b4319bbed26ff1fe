/**
 * What has ended must not be kept in memory by what goes on: a peer that reads
 * nothing, a server that waits or has been shut down, a silent name server. In
 * a child process, which can call its garbage collector.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { runChild, STUCK_MS } from "./support.ts";

/** Each returns what must be collected, and what must not keep it. */
const CASES: Record<string, string> = {
  "the buffer of a write that was aborted": `
    const [client, peer] = await pair(); // who reads nothing
    const buffer = new Uint8Array(64 << 20);
    const signal = AbortSignal.timeout(50);
    await client.write(buffer, { signal }).catch(() => {});
    return [buffer, [client, peer]];`,
  "the buffer of a write that timed out": `
    const [client, peer] = await pair();
    const buffer = new Uint8Array(64 << 20);
    client.setWriteDeadline(Date.now() + 50);
    await client.write(buffer).catch(() => {});
    return [buffer, [client, peer]];`,
  "the last connection of a server that waits": `
    const conns = [];
    const server = serve(
      await listen("tcp", "127.0.0.1:0"),
      (conn) => void conns.push(conn),
    );
    const client = await dial("tcp", String(server.addr));
    await client.closeWrite();
    await client.read(new Uint8Array(1)); // EOF
    while (server.connections.size > 0) await turn();
    return [conns.pop(), server];`,
  "a connection of a server that was shut down": `
    const [conns, server] = await serveOne(await listen("tcp", "127.0.0.1:0"));
    await server.shutdown();
    return [conns.pop(), server];`,
  "a connection of a server whose listener could not be closed": `
    const inner = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const close = inner.close.bind(inner);
    inner.close = () => {
      close();
      throw new Error("will not close");
    };
    const [conns, server] = await serveOne(new Listener(inner));
    await server.shutdown().catch(() => {});
    return [conns.pop(), server];`,
  "a copy that was aborted": `
    const [client, from] = await pair();
    const [to, upstream] = await pair();
    const copied = copy(from, to, { signal: AbortSignal.timeout(50) });
    await copied.catch(() => {});
    return [copied, [client, from, to, upstream]];`,
  "a copy from what was closed": `
    const [client, from] = await pair();
    const [to, upstream] = await pair();
    from.close();
    const copied = copy(from, to);
    await copied.catch(() => {});
    return [copied, [client, from, to, upstream]];`,
  "a Conn around one, when another has taken its place": `
    const [client, conn] = await pair();
    const before = wireOf(new Conn(conn));
    return [before, [client, conn, new Conn(conn)]];`,
  "the reason of a lookup's abort": `
    const controller = new AbortController();
    const { signal } = controller;
    const silence = new Promise(() => {});
    const ask = () => silence;
    const asked = hedged({ ask, clock: systemClock, signal }, 0).next();
    const reason = new Error("enough");
    controller.abort(reason);
    await asked.catch(() => {});
    return [reason, silence];`,
  "memory that nobody takes again": `
    const memory = takeMemory(1024);
    giveMemory(memory);
    return [memory, null];`,
};

const PROGRAM = `
  import { Conn, copy, dial, listen, Listener, serve } from "./mod.ts";
  import { systemClock } from "./net/clock.ts";
  import { wireOf } from "./net/conn.ts";
  import { hedged } from "./net/lookup.ts";
  import { giveMemory, takeMemory } from "./net/pool.ts";

  const turn = () => new Promise((resolve) => setTimeout(resolve, 1));

  async function pair() {
    await using listener = await listen("tcp", "127.0.0.1:0");
    const client = dial("tcp", String(listener.addr));
    return [await client, await listener.accept()];
  }

  async function serveOne(listener) {
    const conns = [];
    const server = serve(listener, (conn, { signal }) => {
      conns.push(conn);
      return new Promise((end) => signal.addEventListener("abort", end));
    });
    const client = await dial("tcp", String(server.addr));
    while (conns.length === 0) await turn();
    await client.closeWrite();
    return [conns, server];
  }

  const cases = {
    ${
  Object.entries(CASES)
    .map(([name, body]) => `${JSON.stringify(name)}: async () => {${body}},`)
    .join("\n")
}
  };

  const holders = [];
  const refs = new Map();
  async function add(name) {
    const [thing, holder] = await cases[name]();
    refs.set(name, new WeakRef(thing));
    holders.push(holder);
  }
  for (const name in cases) await add(name);
  for (let i = 0; i < 10; i++) {
    await turn();
    gc();
  }
  const held = [...refs.keys()].filter((name) => refs.get(name).deref());
  console.log(JSON.stringify({ held, holders: holders.length }));
  Deno.exit();
`;

Deno.test("what has ended is garbage collected", {
  timeout: STUCK_MS,
}, async (t) => {
  const flags = ["--allow-net", "--v8-flags=--expose-gc"];
  const { stdout, stderr } = await runChild(PROGRAM, { flags });
  assert(stdout !== "", stderr);
  const { held, holders } = JSON.parse(stdout);
  assertEquals(holders, Object.keys(CASES).length);
  for (const name of Object.keys(CASES)) {
    await t.step(name, () => assert(!held.includes(name)));
  }
});
