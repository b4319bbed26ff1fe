/**
 * TLS tells an end from a cut: whoever is on the way must not be able to make a
 * part of a message look like all of it.
 */
import { assertEquals, assertInstanceOf, assertMatch } from "@std/assert";
import { listen, Listener } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { copy, copyBidirectional } from "../net/copy.ts";
import { OpError } from "../net/errors.ts";
import { bytes, connect, pair, STUCK_MS, unhandledIn } from "./support.ts";
import { failure } from "./suites/conn_suite_kit.ts";

const hostname = "127.0.0.1";
const asset = (name: string) =>
  Deno.readTextFileSync(new URL(`assets/${name}`, import.meta.url));
const [cert, key] = [asset("cert.pem"), asset("key.pem")];

/** Two ends of TLS, and the connection in the middle that leads to `us`. */
async function tapped(side: "client" | "server") {
  await using far = new Listener(
    Deno.listenTls({ hostname, port: 0, cert, key }),
  );
  await using near = await listen("tcp", `${hostname}:0`);
  const { port } = near.addr as Deno.NetAddr;
  const [inner, x, y, server] = await Promise.all([
    Deno.connectTls({ hostname, port, caCerts: [cert] }),
    near.accept(),
    connect(far),
    far.accept(),
  ]);
  const client = new Conn(inner);
  const copies = [copy(x, y), copy(y, x)].map((c) => c.catch(() => {}));
  await client.write(bytes("hi"));
  await server.read(new Uint8Array(2));
  const [us, them] = side === "client" ? [client, server] : [server, client];
  const wire = side === "client" ? x : y;
  return {
    us,
    them,
    wire,
    async [Symbol.asyncDispose]() {
      for (const conn of [client, server, x, y]) conn.close();
      await Promise.all(copies);
    },
  };
}

/** Ways to read to the end. */
const readers: Record<string, (conn: Conn) => Promise<unknown>> = {
  "an iteration": async (conn) => {
    for await (const _chunk of conn);
  },
  "readable": (conn) => new Response(conn.readable).bytes(),
  "copy()": async (conn) => {
    const [to, end] = await pair();
    await copy(conn, to).finally(() => [to, end].forEach((c) => c.close()));
  },
  "copyBidirectional()": async (conn) => {
    const [to, end] = await pair();
    await copyBidirectional(conn, to).finally(() => end.close());
  },
};

for (const side of ["client", "server"] as const) {
  Deno.test(`a TLS ${side} takes no cut for an end`, {
    timeout: STUCK_MS,
  }, async (t) => {
    const cuts: [string, (wire: Conn) => unknown, RegExp][] = [
      ["FIN", (wire) => wire.closeWrite(), /close_notify/],
      ["other bytes", (wire) => wire.write(bytes("surprise")), /corrupt/],
    ];
    for (const [name, cut, why] of cuts) {
      for (const [how, read] of Object.entries(readers)) {
        await t.step(`${name}, ${how}`, async () => {
          const unhandled = await unhandledIn(async () => {
            await using ends = await tapped(side);
            await ends.them.write(bytes("a part"));
            const p = new Uint8Array(1);
            assertEquals(await ends.us.read(p), 1); // it has come
            await cut(ends.wire);
            const error = await failure(read(ends.us));
            assertInstanceOf(error, OpError);
            assertEquals(error.op, "read");
            assertMatch(error.message, why);
          });
          assertEquals(unhandled, []);
        });
      }
    }
  });
}
