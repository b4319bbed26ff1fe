import { checkCount } from "../net/check.ts";
import { type Clock, systemClock } from "../net/clock.ts";
import { Conn } from "../net/conn.ts";
import { Cable } from "./cable.ts";
import { checkFault, type Fault } from "./faults.ts";

/** Default of `bufferSize`: what a kernel gives a socket, roughly. */
export const DEFAULT_BUFFER_SIZE = 64 * 1024;

/** Options of {@linkcode pipe}. */
export interface PipeOptions {
  /** Time source. Default: the system's. */
  clock?: Clock;
  /**
   * How many bytes each direction holds while nobody reads; a write beyond
   * that waits.
   *
   * @default {65536}
   */
  bufferSize?: number;
  /**
   * What is wrong with the connection: `resetAfter`, `latency`, `maxRead` and
   * `maxWrite` apply. You may change the object while the connection is in use:
   * the next call on either end takes note. (A read that waits is not a new
   * call: what `latency` held back reaches it with the other end's next call.)
   */
  fault?: Fault;
}

/** The addresses that the ends of a pipe show. */
const CLIENT = {
  transport: "tcp",
  hostname: "127.0.0.1",
  port: 49_152,
} as const;
const SERVER = { transport: "tcp", hostname: "127.0.0.1", port: 80 } as const;

/**
 * Makes two connections, connected to each other in memory: what one writes the
 * other reads. For code that takes a `Conn`.
 *
 * @param options See {@linkcode PipeOptions}.
 * @returns Both ends. The caller closes them.
 * @throws {RangeError} If `bufferSize` is not a positive integer.
 * @throws {TypeError} If it is not a number, or there is no such fault.
 *
 * @example A handler, without a server
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { copy, handle } from "@switchboard/tcp";
 * import { pipe } from "@switchboard/tcp/testing";
 *
 * const [client, server] = pipe();
 * const handled = handle(server, (conn) => copy(conn, conn));
 * await client.write(new TextEncoder().encode("hello"));
 * await client.closeWrite();
 * assertEquals(await new Response(client.readable).text(), "hello");
 * await handled;
 * client.close();
 * ```
 */
export function pipe(options: PipeOptions = {}): [Conn, Conn] {
  const { bufferSize = DEFAULT_BUFFER_SIZE, clock = systemClock } = options;
  const { fault = {} } = options;
  checkCount("bufferSize", bufferSize);
  checkFault(fault);
  const { near, far } = new Cable(
    { clock, bufferSize, fault: () => fault },
    { local: CLIENT, remote: SERVER },
    { local: SERVER, remote: CLIENT },
  );
  return [new Conn(near, { clock }), new Conn(far, { clock })];
}
