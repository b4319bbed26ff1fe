import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { once } from "node:events";
import { connect as nodeConnect, type Socket } from "node:net";
import { type Handler, serve } from "../handler.ts";
import { listen } from "../listener.ts";
import { copy } from "../net/copy.ts";
import { OpError } from "../net/errors.ts";
import { bytes, connect, STUCK_MS, turn } from "./support.ts";

/** Pseudo-random numbers below `n`, the same in every run. */
function dice(seed: number): (n: number) => number {
  return (n) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31; // as C's rand() does
    return seed % n;
  };
}

/** What a client does between connecting and its end. */
const stories: ((socket: Socket, roll: (n: number) => number) => unknown)[] = [
  () => {},
  (socket) => socket.write(new Uint8Array(64)),
  async (socket) => {
    socket.write(new Uint8Array(64));
    await once(socket, "data");
  },
  async (socket, roll) => {
    socket.write(new Uint8Array(1 + roll(300_000)));
    await once(socket, "data");
  },
  async (socket, roll) => {
    socket.write(new Uint8Array(1 + roll(300_000)));
    for (let turns = roll(4); turns > 0; turns--) await turn();
  },
  (socket) => socket.end(new Uint8Array(100_000)), // reads no reply: EPIPE
];

/** One client: a story, then a reset, however the server reacts. */
async function client(port: number, roll: (n: number) => number) {
  const socket = nodeConnect({ port, host: "127.0.0.1" });
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.on("error", () => {});
  try {
    await once(socket, "connect");
    const story = stories[roll(stories.length)]!;
    await Promise.race([story(socket, roll), closed]);
  } catch {
    // The server was faster, or it has died.
  }
  socket.resetAndDestroy();
  await closed;
}

/** `count` clients, 50 at a time. */
async function storm(port: number, count: number): Promise<void> {
  const roll = dice(count);
  await Promise.all(Array.from({ length: 50 }, async () => {
    while (count-- > 0) await client(port, roll);
  }));
}

Deno.test("a storm of resets ends a plain server", async () => {
  const source = `
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    console.log(listener.addr.port);
    for await (const conn of listener) conn.readable.pipeTo(conn.writable);
  `;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", "--no-config", source],
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const port = Number((await output.read()).value);
  let dead = false;
  const ended = child.status.then((status) => {
    dead = true;
    return status;
  });
  // Its end may be noticed late, and a round that is refused takes no time.
  for (let rounds = 0; !dead && rounds < 500; rounds++) await storm(port, 50);
  if (!dead) child.kill();
  assert(dead, "it is still alive");
  assertEquals((await ended).code, 1);
  await output.cancel();
});

Deno.test("serve() survives a storm of resets and broken pipes", {
  timeout: STUCK_MS,
}, async () => {
  const handlers: Handler[] = [
    async (conn) => {
      for await (const chunk of conn) await conn.write(chunk);
    },
    async (conn) => void await copy(conn, conn),
    (conn) => conn.readable.pipeTo(conn.writable),
    async (conn) => {
      const p = new Uint8Array(1024);
      while (await conn.read(p) !== null) {
        for (let i = 0; i < 10; i++) conn.write(p); // nobody awaits it
      }
    },
    async (conn) => {
      for (;;) await conn.write(new Uint8Array(100_000)); // until it fails
    },
    async (conn) => {
      await conn.read(new Uint8Array(1)); // leaves the rest unread
      await conn.write(new Uint8Array(100_000));
    },
  ];
  let unhandled = 0;
  const count = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    unhandled++;
  };
  addEventListener("unhandledrejection", count);
  const failures: unknown[] = [];
  const roll = dice(7);
  const server = serve(
    await listen("tcp", "127.0.0.1:0"),
    (conn, context) => handlers[roll(handlers.length)]!(conn, context),
    { maxConnections: 40, onError: (error) => void failures.push(error) },
  );
  try {
    await storm((server.addr as Deno.NetAddr).port, 300);
    while (server.connections.size > 0) await turn();
    // Whichever handler serves the next client: each sends something.
    for (let i = 0; i < 10; i++) {
      using good = await connect(server);
      await good.write(bytes("x"));
      assertEquals(await good.read(new Uint8Array(1)), 1);
    }
  } finally {
    await server.shutdown({ timeout: 1_000 });
    removeEventListener("unhandledrejection", count);
  }
  assertEquals(unhandled, 0);
  assert(failures.length > 0, "no handler met a reset");
  for (const error of failures) assertInstanceOf(error, OpError);
});
