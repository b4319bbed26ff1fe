/** Mistakes that the compiler finds; in plain JavaScript they must throw. */
import { assertEquals } from "@std/assert";
import {
  type Conn,
  copy,
  copyBidirectional,
  dial,
  Dialer,
  dnsResolver,
  handle,
  listen,
  Listener,
  serve,
} from "../mod.ts";
import { MemoryNetwork } from "../testing/mod.ts";
import { FakeListener } from "./fake_listener.ts";
import { bytes, pair, textOf } from "./support.ts";

/** A controller in place of its signal; the compiler would find it. */
const slip = { signal: new AbortController() } as unknown as {
  signal: AbortSignal;
};

type Call = (a: Conn, b: Conn, listener: Listener) => unknown;

const calls: Record<string, Call> = {
  "dial()": (_a, _b, { addr }) => dial("tcp", String(addr), slip),
  "listen()": () => listen("tcp", "127.0.0.1:0", slip),
  "accept()": (_a, _b, listener) => listener.accept(slip),
  "read()": (a) => a.read(new Uint8Array(8), slip),
  "read() of what has arrived": async (a, b) => {
    await b.write(bytes("xy"));
    await a.read(new Uint8Array(1));
    return a.read(new Uint8Array(1), slip)
      .finally(() => a.read(new Uint8Array(1)));
  },
  "write()": (a) => a.write(bytes("no"), slip),
  "copy()": (a, b) => copy(a, b, slip),
  "copyBidirectional()": (a, b) => copyBidirectional(a, b, slip),
  "handle()": (a) => handle(a, () => {}, slip),
  "serve()": (_a, _b, listener) => serve(listener, () => {}, slip),
};

Deno.test("a controller instead of a signal is refused, and nothing is lost", async (t) => {
  for (const [name, call] of Object.entries(calls)) {
    await t.step(name, async () => {
      await using listener = await listen("tcp", "127.0.0.1:0");
      const [client, server] = await pair();
      const error = await new Promise((resolve) =>
        resolve(call(server, client, listener))
      ).catch((error) => error);
      assertEquals(String(error), "TypeError: signal is not an AbortSignal");
      // The listener and the connection go on; no call is left in a queue.
      const [next, conn] = await Promise.all([
        dial("tcp", String(listener.addr)),
        listener.accept(),
      ]);
      await client.write(bytes("still there"));
      await client.closeWrite();
      assertEquals(await textOf(server), "still there");
      for (const each of [next, conn, client, server]) each.close();
    });
  }
});

Deno.test("a number or a signal instead of options is refused, and nothing is opened or closed", async (t) => {
  let slip: Record<string, never>;
  await using listener = await listen("tcp", "127.0.0.1:0");
  const address = String(listener.addr);
  const network = new MemoryNetwork();
  const [client, conn] = await pair();
  const [gone, peer] = await pair();
  const closed = await listen("tcp", "127.0.0.1:0");
  for (const each of [gone, peer]) each.close();
  await closed.close();
  await using server = serve(await listen("tcp", "127.0.0.1:0"), () => {});
  const calls: Record<string, () => unknown> = {
    "dial()": () => dial("tcp", address, slip),
    "new Dialer()": () => new Dialer(slip),
    "Dialer.dial()": () => new Dialer().dial("tcp", address, slip),
    "dnsResolver()": () => dnsResolver(slip),
    "listen()": () => listen("tcp", address, slip), // in use
    "new Listener()": () => new Listener(new FakeListener().inner, slip),
    "handle()": () => handle(conn, () => {}, slip),
    "serve()": () => serve(listener, () => {}, slip),
    "shutdown()": () => server.shutdown(slip),
    "write()": () => conn.write(bytes("no"), slip),
    // On what is closed: the mistake comes first, and nothing could wait.
    "read()": () => gone.read(new Uint8Array(8), slip),
    "copy()": () => copy(gone, conn, slip),
    "copyBidirectional()": () => copyBidirectional(gone, gone, slip),
    "accept()": () => closed.accept(slip),
    "MemoryNetwork.listen()": () => network.listen("tcp", "a:1", slip),
    "MemoryNetwork.dial()": () => network.dial("tcp", "a:1", slip),
  };
  // Most likely a timeout: if ignored, there would be none, or the default.
  const odds = new Map<unknown, string>([
    [5_000, "options are not an object: 5000"],
    [null, "options are not an object: null"],
    [AbortSignal.abort(), "a signal in place of options: pass { signal }"],
  ]);
  for (const [odd, message] of odds) {
    slip = odd as unknown as typeof slip;
    for (const [name, call] of Object.entries(calls)) {
      await t.step(`${name}, ${odd}`, async () => {
        const error = await new Promise((resolve) => resolve(call()))
          .catch((error) => error);
        assertEquals(String(error), `TypeError: ${message}`);
      });
    }
  }
  await client.write(bytes("still there"));
  await client.closeWrite();
  assertEquals(await textOf(conn), "still there");
  (await dial("tcp", String(server.addr))).close();
  for (const each of [client, conn]) each.close();
});
