import { assertEquals } from "@std/assert";
import {
  type Conn,
  copy,
  copyBidirectional,
  dial,
  handle,
  listen,
  type Listener,
  serve,
} from "../mod.ts";
import { bytes, pair, textOf } from "./support.ts";

/** What a slip makes of `{ signal }`, and the compiler would have seen. */
const slip = { signal: new AbortController() } as unknown as {
  signal: AbortSignal;
};

type Call = (a: Conn, b: Conn, listener: Listener) => unknown;

const calls: Record<string, Call> = {
  "dial()": (_a, _b, { addr }) => dial("tcp", String(addr), slip),
  "listen()": () => listen("tcp", "127.0.0.1:0", slip),
  "accept()": (_a, _b, listener) => listener.accept(slip),
  "read()": (a) => a.read(new Uint8Array(8), slip),
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
      // The listener and the connection go on; nobody stands in their lines.
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
