/**
 * What tests of servers and clients need, with no socket, no permission and no
 * real time. Nothing here is a second implementation: listeners, connections,
 * dialers and servers are the library's own, over fakes of what Deno and the
 * kernel do.
 *
 * | name | what it is |
 * | --- | --- |
 * | {@linkcode pipe} | two connections that are connected to each other |
 * | {@linkcode MemoryNetwork} | `listen` and `dial`, names, faults, a log |
 * | {@linkcode FakeClock} | time that stands still until it is moved |
 * | {@linkcode inMemory} | a test with both, which may leave nothing open |
 *
 * @example A server whose peer resets
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { serve } from "@switchboard/tcp";
 * import { FakeClock, MemoryNetwork } from "@switchboard/tcp/testing";
 *
 * const net = new MemoryNetwork({ clock: new FakeClock() });
 * const failures: unknown[] = [];
 * await using server = serve(await net.listen("tcp", ":80"), async (conn) => {
 *   for await (const chunk of conn) await conn.write(chunk);
 * }, { onError: (error) => void failures.push(`${error}`) });
 *
 * await using client = await net.dial("tcp", "10.0.0.1:80");
 * await client.write(new TextEncoder().encode("hello"));
 * await client.read(new Uint8Array(5));
 * net.reset(client.localAddr);
 * await server.shutdown();
 * assertEquals(failures, [
 *   `OpError: read tcp 10.0.0.1:80->${client.localAddr}: ` +
 *   "connection reset by peer",
 * ]);
 * ```
 *
 * @module
 */

export { FakeClock } from "./fake_clock.ts";
export { type InMemory, inMemory } from "./in_memory.ts";
export { MemoryNetwork, type MemoryNetworkOptions } from "./memory_network.ts";
export { pipe, type PipeOptions } from "./pipe.ts";
export type { Fault } from "./faults.ts";
export type { HostScript } from "./names.ts";
export type { LogEntry, LogEvent } from "./log.ts";
export type { Clock } from "../net/clock.ts";
