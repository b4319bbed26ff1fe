// The whole story on real sockets: listen, accept, dial, talk, close. It needs
// no second terminal, prints each step with its time, and exits 0.
//
//   deno run "--allow-net=127.0.0.1,[::1],localhost" examples/conversation.ts

import { type Conn, dial, handle, listen, lookupPort } from "@switchboard/tcp";

const start = performance.now();
function step(who: string, what: string): void {
  const ms = (performance.now() - start).toFixed(1).padStart(7);
  console.log(`${ms} ms  ${who}  ${what}`);
}

async function echo(conn: Conn): Promise<void> {
  const p = new Uint8Array(1024);
  for (let n; (n = await conn.read(p)) !== null;) {
    await conn.write(p.subarray(0, n));
  }
  step("server", `${conn.remoteAddr}: read null, which is EOF`);
}

const listener = await listen("tcp", "127.0.0.1:0");
step("server", `listens on ${listener.addr}`);
const tasks: Promise<void>[] = [];
const loop = (async () => {
  for await (const conn of listener) {
    step("server", `${conn.remoteAddr}: accepted`);
    tasks.push(
      handle(conn, echo).then(() => {
        step("server", `${conn.remoteAddr}: handler ended, connection closed`);
      }),
    );
  }
  step("server", "accept loop ended: we closed the listener, all is well");
})();

async function converse(conn: Conn): Promise<void> {
  const { address, attempts } = conn.dialTrace!;
  step("client", `dialled ${address}: ${conn.localAddr}->${conn.remoteAddr}`);
  for (const { addr, outcome, durationMs } of attempts) {
    step("client", `  tried ${addr}: ${outcome}, ${durationMs.toFixed(1)} ms`);
  }
  await conn.write(new TextEncoder().encode("hello"));
  const p = new Uint8Array(64);
  const echoed = p.subarray(0, (await conn.read(p))!);
  step("client", `echo: ${new TextDecoder().decode(echoed)}; closes`);
  conn.close();
  await Promise.all(tasks);
}

const { port } = listener.addr as Deno.NetAddr;
const resolve = () => Promise.resolve(["::1", "127.0.0.1"]); // ::1 refuses
step("client", `":http" is port ${lookupPort("tcp", "http")}, ours is ${port}`);
await converse(await dial("tcp", `127.0.0.1:${port}`));
await converse(await dial("tcp", `localhost:${port}`));
await converse(await dial("tcp", `db.example:${port}`, { resolve }));
step("client", "closes the listener, whose loop waits in accept()");
await listener.close();
await loop;
