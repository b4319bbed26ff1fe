/**
 * TCP for Deno, as easy to get right as in Go: an accept loop that no client's
 * error can end, a dialer that tries every address and reports what it tried,
 * connections with deadlines and half-close, and servers that drain.
 *
 * | verb | what it does |
 * | --- | --- |
 * | {@linkcode listen} | binds; `for await (const conn of listener)` accepts |
 * | {@linkcode dial} | resolves, races all addresses (RFC 8305), connects |
 * | {@linkcode serve} | one handler task per connection, limits, shutdown |
 *
 * Times are milliseconds, `null` from a read is EOF, whatever listens, accepts,
 * dials, reads, writes or copies takes a `signal` and rejects with its reason,
 * and every failure of the network is an {@linkcode OpError} whose `cause` says
 * why.
 *
 * @example An echo server and its client
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { copy, dial, listen, serve } from "@switchboard/tcp";
 *
 * const listener = await listen("tcp", "127.0.0.1:0");
 * await using server = serve(
 *   listener,
 *   (conn, { signal }) => copy(conn, conn, { signal }),
 * );
 *
 * await using conn = await dial("tcp", String(server.addr));
 * await conn.write(new TextEncoder().encode("hello"));
 * await conn.closeWrite();
 * assertEquals(await new Response(conn.readable).text(), "hello");
 * ```
 *
 * @module
 */

export { listen, Listener } from "./listener.ts";
export type {
  AcceptErrorEvent,
  ListenerOptions,
  ListenOptions,
} from "./listener.ts";

export { dial, Dialer, DialError } from "./dialer.ts";
export type { Connector, DialErrorInit, DialOptions } from "./dialer.ts";
export type { DialAttempt, DialTrace } from "./net/dial_trace.ts";

export { handle, serve, Server } from "./handler.ts";
export type {
  HandleOptions,
  Handler,
  HandlerContext,
  ServeOptions,
  ShutdownOptions,
  ShutdownReport,
} from "./handler.ts";

export { Conn } from "./net/conn.ts";
export type { ConnOptions, IoOptions } from "./net/conn.ts";
export { copy, copyBidirectional } from "./net/copy.ts";

export {
  joinHostPort,
  lookupPort,
  splitHostPort,
  TcpAddr,
  UnixAddr,
} from "./net/addr.ts";
export type { Addr, Network } from "./net/addr.ts";

export { dnsResolver, systemResolver } from "./net/resolver.ts";
export type { DnsResolverOptions, Resolver } from "./net/resolver.ts";

export {
  AddrError,
  ClosedError,
  DeadlineExceededError,
  DnsError,
  isClosed,
  isTimeout,
  OpError,
  UnknownNetworkError,
} from "./net/errors.ts";
export type { DnsErrorInit, OpErrorInit } from "./net/errors.ts";

export type { Clock } from "./net/clock.ts";
