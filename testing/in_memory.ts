import { FakeClock } from "./fake_clock.ts";
import { MemoryNetwork, type MemoryNetworkOptions } from "./memory_network.ts";
import { settle } from "./turn.ts";

/** What a test in memory is given. */
export interface InMemory {
  /** A network of its own. */
  net: MemoryNetwork;
  /** The clock of that network, and of all that is opened on it. */
  clock: FakeClock;
}

/**
 * Turns a body that is given a network and a clock into a test. When the body
 * has ended well, and the event loop has turned once, the test fails if
 * anything is left open; see {@linkcode MemoryNetwork.check}. If the body
 * fails, the test fails with its error, whatever it leaves open, unless an
 * `await using` server in it waits for a client that is open.
 *
 * A body that waits for what never comes fails, too: Deno says that a "promise
 * resolution is still pending".
 *
 * @param body The test.
 * @param options Of the network, but for its clock.
 * @returns What `Deno.test()` takes.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { inMemory } from "@switchboard/tcp/testing";
 *
 * Deno.test("the dialer waits 250 ms for a black hole", inMemory(
 *   async ({ clock, net }) => {
 *     net.host("db.test", ["::1", "10.0.0.1"]);
 *     net.fault("::1", { connect: "drop" });
 *     await using _listener = await net.listen("tcp", "10.0.0.1:5432");
 *     const dialling = net.dial("tcp", "db.test:5432");
 *     await clock.advance(250);
 *     await using conn = await dialling;
 *     assertEquals(conn.dialTrace?.totalMs, 250);
 *   },
 * ));
 * ```
 */
export function inMemory(
  body: (world: InMemory, t: Deno.TestContext) => void | Promise<void>,
  options: Omit<MemoryNetworkOptions, "clock"> = {},
): (t: Deno.TestContext) => Promise<void> {
  return async (t) => {
    const clock = new FakeClock();
    const net = new MemoryNetwork({ ...options, clock });
    await body({ net, clock }, t);
    await settle();
    net.check();
  };
}
