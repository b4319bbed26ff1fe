/**
 * Ours, in every way that the rows ask for. `switchboard.ts MODE [SIZE]` prints
 * its port; accept errors go to stderr, one line of JSON each.
 *
 * @module
 */

import { type Conn, copy, listen, serve } from "../../mod.ts";
import { announce } from "./announce.ts";

const [mode = "echo", size = "65536"] = Deno.args;
const request = 64;

/** As the baseline does it, line by line. */
async function echo(conn: Conn): Promise<void> {
  const p = new Uint8Array(64 * 1024);
  for (let n; (n = await conn.read(p)) !== null;) {
    await conn.write(p.subarray(0, n));
  }
}

async function echoWithDeadline(conn: Conn): Promise<void> {
  const p = new Uint8Array(64 * 1024);
  for (;;) {
    conn.setReadDeadline(Date.now() + 30_000);
    const n = await conn.read(p);
    if (n === null) return;
    await conn.write(p.subarray(0, n));
  }
}

async function echoByCopy(conn: Conn): Promise<void> {
  await copy(conn, conn);
}

async function echoByIteration(conn: Conn): Promise<void> {
  for await (const chunk of conn) await conn.write(chunk);
}

async function send(conn: Conn): Promise<void> {
  const p = new Uint8Array(Number(size));
  for (;;) await conn.write(p);
}

async function tenWrites(conn: Conn): Promise<void> {
  const piece = new Uint8Array(request);
  for await (const chunk of conn) {
    for (let asked = chunk.length / request; asked >= 1; asked--) {
      const writes: Promise<number>[] = [];
      for (let i = 0; i < 10; i++) writes.push(conn.write(piece));
      await Promise.all(writes);
    }
  }
}

async function tenWritesOneByOne(conn: Conn): Promise<void> {
  const piece = new Uint8Array(request);
  for await (const chunk of conn) {
    for (let asked = chunk.length / request; asked >= 1; asked--) {
      for (let i = 0; i < 10; i++) await conn.write(piece);
    }
  }
}

const handlers: Record<string, (conn: Conn) => Promise<void>> = {
  echo,
  deadline: echoWithDeadline,
  copy: echoByCopy,
  iterate: echoByIteration,
  send,
  "ten-writes": tenWrites,
  "ten-writes-awaited": tenWritesOneByOne,
  close: () => Promise.resolve(),
};

/** The loop that one would write without `serve()`. */
async function run(conn: Conn): Promise<void> {
  try {
    await handler(conn);
  } catch {
    // The load generator always disconnects in the middle of something.
  } finally {
    conn.close();
  }
}

const handler = handlers[mode.replace("serve-", "")]!;
const listener = await listen("tcp", "127.0.0.1:0", {
  onAcceptError: ({ kind, retryMs }) =>
    console.error(JSON.stringify({ kind, retryMs })),
});
announce((listener.addr as Deno.NetAddr).port);
if (mode.startsWith("serve-")) {
  await serve(listener, handler, { onError: () => {} }).finished;
} else {
  for await (const conn of listener) void run(conn);
}
