/**
 * The baseline: what one writes with `Deno.listen` alone, moving the same bytes
 * as the others. `raw_deno.ts MODE [SIZE]` prints its port.
 *
 * @module
 */

import { announce } from "./announce.ts";

const [mode = "echo", size = "65536"] = Deno.args;
const request = 64;

// The loops around write() are inline: as a function that is awaited they would
// cost the baseline 4 %.

async function echo(conn: Deno.Conn): Promise<void> {
  const p = new Uint8Array(64 * 1024);
  for (let n; (n = await conn.read(p)) !== null;) {
    let done = await conn.write(p.subarray(0, n));
    while (done < n) done += await conn.write(p.subarray(done, n));
  }
}

async function send(conn: Deno.Conn): Promise<void> {
  const p = new Uint8Array(Number(size));
  for (;;) {
    let done = await conn.write(p);
    while (done < p.length) done += await conn.write(p.subarray(done));
  }
}

async function tenWrites(conn: Deno.Conn): Promise<void> {
  const p = new Uint8Array(64 * 1024);
  const piece = new Uint8Array(request);
  for (let n; (n = await conn.read(p)) !== null;) {
    for (let asked = n / request; asked >= 1; asked--) {
      for (let i = 0; i < 10; i++) await conn.write(piece);
    }
  }
}

const handlers: Record<string, (conn: Deno.Conn) => Promise<void>> = {
  echo,
  send,
  "ten-writes": tenWrites,
  "ten-writes-nodelay": (conn) => {
    (conn as Deno.TcpConn).setNoDelay(true);
    return tenWrites(conn);
  },
  close: () => Promise.resolve(),
  // What ours sets by default: two calls of the kernel.
  "close-options": (conn) => {
    (conn as Deno.TcpConn).setNoDelay(true);
    (conn as Deno.TcpConn).setKeepAlive(true);
    return Promise.resolve();
  },
};

async function run(conn: Deno.Conn): Promise<void> {
  try {
    await handler(conn);
  } catch {
    // The load generator always disconnects in the middle of something.
  } finally {
    conn.close();
  }
}

const handler = handlers[mode.replace("retry-", "")]!;
const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
announce(listener.addr.port);
if (mode.startsWith("retry-")) {
  // The obvious cure for a dead accept loop.
  for (;;) {
    await listener.accept().then((conn) => void run(conn), () => {});
  }
}
for await (const conn of listener) void run(conn);
