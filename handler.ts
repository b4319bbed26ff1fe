/**
 * One task per connection: {@linkcode handle} runs a handler for one and closes
 * it; {@linkcode serve} does so for all that a listener accepts, within limits,
 * and reports on its shutdown.
 *
 * @example An echo server that drains on Ctrl-C
 * ```ts
 * import { copy, listen, serve } from "@switchboard/tcp";
 *
 * const listener = await listen("tcp", "127.0.0.1:0");
 * await using server = serve(
 *   listener,
 *   (conn, { signal }) => copy(conn, conn, { signal }),
 * );
 * Deno.addSignalListener("SIGINT", stop);
 * async function stop() {
 *   console.log(await server.shutdown());
 * }
 * Deno.removeSignalListener("SIGINT", stop);
 * ```
 *
 * @module
 */

import type { Listener } from "./net/accept.ts";
import { onAbort, tolerate } from "./net/calls.ts";
import { checkOptions, checkSignal, checkType } from "./net/check.ts";
import { type Conn, wireOf } from "./net/conn.ts";
import { closeForGood } from "./net/linger.ts";
import { Context, type Handler, runHandler } from "./net/run_handler.ts";
import type { ServeOptions } from "./net/serve_options.ts";
import { Server } from "./net/server.ts";

export { Server } from "./net/server.ts";
export type { ServeOptions, ShutdownOptions } from "./net/serve_options.ts";
export type { Handler, HandlerContext } from "./net/run_handler.ts";
export type { ShutdownReport } from "./net/drain.ts";

/** Options of {@linkcode handle}. */
export interface HandleOptions {
  /**
   * Ends the connection: aborts the context's signal, then closes. If the
   * handler has detached the connection and still runs, only its signal aborts.
   */
  signal?: AbortSignal;
}

/**
 * Runs `handler`, then closes the connection, exactly once, whether the handler
 * returned, threw or rejected. The peer sees the same end each time, FIN (Deno
 * has no close that resets), so the protocol has to show where a message ends.
 *
 * What was written arrives, since the close lingers: it sends FIN and then,
 * unless the peer has closed already, reads and drops what the peer still sends
 * until it closes, too, at most 1 MiB and 5 s (RFC 9112, section 9.6). Before
 * the FIN, un-awaited writes go out as long as the kernel takes some bytes
 * every 5 s. Await a large one: with a slow reader the kernel may pause for
 * longer. A handler that owes the peer nothing, say after a timeout, can call
 * `close()` itself, and nobody waits.
 *
 * Cancellation: an abort also aborts the context's signal, and closes the
 * connection at once, so that the handler's calls fail as closed.
 *
 * @param conn Closed by this call, unless the handler detaches it.
 * @param handler What to do with it.
 * @param options See {@linkcode HandleOptions}.
 * @returns Settles when the connection is closed. If you do not await it, add
 * a `.catch()`: otherwise a client's reset ends the process.
 * @throws What the handler threw.
 * @throws {TypeError} If `conn`, `handler` or the signal has the wrong type;
 * the connection is left alone.
 * @throws {AbortSignal["reason"]} If `options.signal` aborts first.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, handle, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * await using client = await dial("tcp", String(listener.addr));
 * await Promise.all([
 *   handle(await listener.accept(), async (conn) => {
 *     await conn.write(new TextEncoder().encode("bye"));
 *   }),
 *   client.closeWrite(),
 * ]);
 * assertEquals(await new Response(client.readable).text(), "bye");
 * ```
 */
export async function handle(
  conn: Conn,
  handler: Handler,
  options: HandleOptions = {},
): Promise<void> {
  wireOf(conn); // throws, before the handler runs, if it is not a Conn
  checkType("handler", handler, "function");
  checkOptions(options);
  const { signal } = options;
  checkSignal(signal);
  const context = new Context(conn);
  if (!signal) return await runHandler(conn, handler, context);
  const aborted = Promise.withResolvers<never>();
  const unfollow = onAbort(signal, () => {
    context.abort(signal.reason);
    if (!context.detached) tolerate(closeForGood(conn));
    aborted.reject(signal.reason);
  });
  try {
    if (signal.aborted) tolerate(closeForGood(conn));
    signal.throwIfAborted();
    await Promise.race([runHandler(conn, handler, context), aborted.promise]);
  } finally {
    unfollow();
  }
}

/**
 * Serves every connection that `listener` accepts, each in a task of its own,
 * until the server is shut down. From now on the server owns the listener.
 *
 * Nothing that a handler throws or rejects with, not even a synchronous throw,
 * reaches the accept loop, another connection or `unhandledrejection`: failures
 * go to `onError`. An un-awaited call on a connection fails silently. What can
 * still end the process: any other promise that the handler makes and neither
 * awaits nor catches (an async function, a `dial()`), a callback that throws (a
 * timer's, an abort listener), a Node stream that fails without an `error`
 * listener, and an un-awaited call with an argument of the wrong type.
 *
 * @param listener From {@linkcode listen}, or any `new Listener(inner)`.
 * @param handler Run for each connection; see {@linkcode handle}.
 * @param options See {@linkcode ServeOptions}.
 * @returns The running server. `await using` shuts it down.
 * @throws {TypeError} If `listener`, `handler` or an option has the wrong type,
 * or `listener` has a server already.
 * @throws {RangeError} If a limit is not a positive integer, or `idleTimeout`
 * is less than 1.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { copy, dial, listen, serve } from "@switchboard/tcp";
 *
 * const listener = await listen("tcp", "127.0.0.1:0");
 * await using server = serve(
 *   listener,
 *   (conn, { signal }) => copy(conn, conn, { signal }),
 *   { maxConnections: 1000, idleTimeout: 60_000 },
 * );
 *
 * await using client = await dial("tcp", String(server.addr));
 * await client.write(new TextEncoder().encode("hello"));
 * await client.closeWrite();
 * assertEquals(await new Response(client.readable).text(), "hello");
 * ```
 */
export function serve(
  listener: Listener,
  handler: Handler,
  options: ServeOptions = {},
): Server {
  return new Server(listener, handler, options);
}
