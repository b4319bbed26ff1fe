import { settle } from "./event_loop.ts";
import { FakeClock } from "./fake_clock.ts";
import { MemoryNetwork, type MemoryNetworkOptions } from "./memory_network.ts";

/** What a test in memory gets. */
export interface InMemory {
  /** A network of its own. */
  net: MemoryNetwork;
  /** The clock of that network, and of everything opened on it. */
  clock: FakeClock;
}

/** How much of the log is printed of a test that has not ended. */
const LAST_ENTRIES = 20;

/**
 * Turns `body`, which gets a network and a clock, into a test. If it succeeds,
 * the event loop turns once, and the test fails if anything is still open; see
 * {@linkcode MemoryNetwork.prototype.check | MemoryNetwork.check}. If it fails,
 * the test fails with its error, whatever is left open, unless an `await using`
 * server in it waits for a client that is open.
 *
 * A body that waits for something that never comes fails, too: Deno says that a
 * "promise resolution is still pending". What was open then, and the end of the
 * log, are printed after the file's last test.
 *
 * @param body The test.
 * @param options Options of the network, except for its clock.
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
    const tell = () => console.error(unfinished(t.name, net));
    addEventListener("unload", tell);
    try {
      await body({ net, clock }, t);
    } finally {
      removeEventListener("unload", tell);
    }
    await settle();
    net.check();
  };
}

/** What there is to know about a test that will never end. */
function unfinished(name: string, net: MemoryNetwork): string {
  const parts = [`"${name}" has not ended.`];
  try {
    net.check();
  } catch (error) {
    parts.push((error as Error).message);
  }
  const entries = net.log.slice(-LAST_ENTRIES).map(({ text }) => text);
  return [...parts, "the log:", ...entries].join("\n");
}
