import { listen, serve } from "../../mod.ts";
import type { Finding, Hazard } from "./hazard.ts";

const CLIENTS = 200;
const REQUEST = 64;
const REPLY = 256 * 1024;

/** Reads until EOF; how many bytes came. */
async function readToEnd(conn: Deno.Conn): Promise<number> {
  const p = new Uint8Array(64 * 1024);
  let sum = 0;
  for (let n; (n = await conn.read(p)) !== null;) sum += n;
  return sum;
}

/** A shutdown while everybody is in the middle of a request. */
export const drain: Hazard = {
  id: "drain",
  title: "shutdown() while 200 clients have sent half a request",
  promise: "every reply arrives whole, all drained",
  async *run(): AsyncIterable<Finding> {
    const allBegun = Promise.withResolvers<void>();
    let begun = 0;
    const listener = await listen("tcp", "127.0.0.1:0");
    const server = serve(listener, async (conn) => {
      const p = new Uint8Array(REQUEST);
      for (let got = 0; got < REQUEST;) {
        const n = await conn.read(p.subarray(got));
        if (n === null) return;
        if (got === 0 && ++begun === CLIENTS) allBegun.resolve();
        got += n;
      }
      await conn.write(new Uint8Array(REPLY));
    });
    const { port } = server.addr as Deno.NetAddr;
    const half = new Uint8Array(REQUEST / 2);
    const clients = await Promise.all(
      Array.from({ length: CLIENTS }, async () => {
        const conn = await Deno.connect({ hostname: "127.0.0.1", port });
        await conn.write(half);
        return conn;
      }),
    );
    await allBegun.promise;
    const receipt = server.shutdown({ timeout: 10_000 });
    const replies = await Promise.all(clients.map(async (conn) => {
      await conn.write(half);
      const bytes = await readToEnd(conn);
      conn.close();
      return bytes;
    }));
    const { drained, forced, failed, durationMs } = await receipt;
    const whole = replies.filter((bytes) => bytes === REPLY).length;
    yield {
      who: "ours",
      measured:
        `${whole} whole replies; drained ${drained}, forced ${forced}, ` +
        `failed ${failed}, ${durationMs.toFixed(0)} ms`,
      met: whole === CLIENTS && drained === CLIENTS,
    };
  },
};
