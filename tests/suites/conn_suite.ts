/**
 * What every connection must do, whatever it runs over. The behaviours are
 * those of `nettest.TestConn` (golang.org/x/net) and of the timeout tests of
 * Go's net package, written for this contract: EOF is `null`, no byte is lost,
 * writes are whole, buffers are the caller's once a call has settled.
 *
 * @module
 */

import { STUCK_MS } from "../support.ts";
import type { ConnSuiteOptions, Pair, Suite } from "./conn_suite_kit.ts";
import { deadlineTests } from "./conn_suite_deadlines.ts";
import { endTests } from "./conn_suite_ends.ts";
import { ioTests } from "./conn_suite_io.ts";
import { streamTests } from "./conn_suite_streams.ts";

export type { ConnSuiteOptions, Pair } from "./conn_suite_kit.ts";

/**
 * Registers the suite.
 *
 * @param name What the tests' names begin with.
 * @param makePair Makes two ends that are connected to each other.
 * @param options See {@linkcode ConnSuiteOptions}.
 */
export function connSuite(
  name: string,
  makePair: () => Promise<Pair>,
  options: ConnSuiteOptions = {},
): void {
  const { ignore = false, flood = 8 * 1024 * 1024, slowFin = false } = options;
  const suite: Suite = {
    flood,
    slowFin,
    test(behaviour, run) {
      Deno.test({
        name: `${name}: ${behaviour}`,
        ignore,
        timeout: STUCK_MS,
        async fn() {
          const { a, b, stop } = await makePair();
          try {
            await run(a, b);
          } finally {
            a.close();
            b.close();
            await stop?.();
          }
        },
      });
    },
  };
  ioTests(suite);
  deadlineTests(suite);
  endTests(suite);
  streamTests(suite);
}
