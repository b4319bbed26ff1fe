/**
 * The error of a dial that reached nobody, and how it is made of its attempts.
 *
 * @module
 */

import type { Addr } from "./addr.ts";
import type { DialTrace } from "./dial_trace.ts";
import { OpError, type OpErrorInit, reasonText } from "./errors.ts";
import type { Attempt } from "./race.ts";
import { deniedReason } from "./sandbox.ts";
import { hostPort, type Target } from "./target.ts";

/** A message names so many addresses; `errors` has them all. */
const NAMED = 5;

/** An address that had its turn, and how that ended. */
export type Tried = Omit<Attempt<Target>, "abort">;

/** What a {@linkcode DialError} is made of; everything is optional. */
export interface DialErrorInit extends OpErrorInit {
  /** One error per address, in the order of `trace.attempts`. @default {[]} */
  errors?: OpError[] | undefined;
  /** What was tried. Default: nothing. */
  trace?: DialTrace | undefined;
}

/**
 * No address answered. `errors` has one entry per address, and `trace` tells
 * when each was tried and how it ended. For one address the text is Go's:
 * `dial tcp 127.0.0.1:1: connection refused`; for several it names them, and
 * `cause` and `code` are those of the first.
 *
 * @example Which addresses were tried, and how each failed
 * ```ts
 * import { assertEquals, assertInstanceOf } from "@std/assert";
 * import { dial, DialError } from "@switchboard/tcp";
 *
 * const resolve = () => Promise.resolve(["127.0.0.1", "127.0.0.2"]);
 * const error = await dial("tcp", "db.test:1", { resolve }).catch((e) => e);
 * assertInstanceOf(error, DialError);
 * assertEquals(error.errors.map((e) => [String(e.addr), e.code]), [
 *   ["127.0.0.1:1", "ECONNREFUSED"],
 *   ["127.0.0.2:1", "ECONNREFUSED"],
 * ]);
 * ```
 */
export class DialError extends OpError {
  /** Always `"DialError"`. */
  override name = "DialError";
  /** One error per address, in the order of `trace.attempts`. */
  readonly errors: OpError[];
  /** What was tried, when, and how it ended: plain JSON. */
  readonly trace: DialTrace;

  /**
   * Makes an error that tells about every address.
   *
   * @param init See {@linkcode DialErrorInit}.
   */
  constructor(init: DialErrorInit = {}) {
    const { errors = [], network = "", trace } = init;
    super({ cause: errors[0]?.cause, ...init });
    this.errors = errors;
    this.trace = trace ?? {
      network,
      address: "",
      mode: "race",
      resolveMs: 0,
      totalMs: 0,
      attempts: [],
    };
  }
}

/** What is known of a dial that failed. */
interface Failed {
  /** Those that had their turn; one at least. */
  attempts: readonly Tried[];
  /** Those that had none: time was up. */
  untried: readonly Target[];
  /** What the caller named, if it stands for several addresses. */
  addr: Addr;
  /** The caller's time was up, whatever the first address failed of. */
  timedOut: boolean;
  /** All of it as JSON. */
  trace: DialTrace;
}

/** The error of a dial that reached nobody. */
export function dialError(failed: Failed): DialError {
  const { attempts, trace, untried } = failed;
  const { network } = trace;
  const failures = [
    ...attempts.map(({ candidate, error }) => ({ candidate, cause: error })),
    // Whatever ended the last of the others kept these from their turn.
    ...untried.map((candidate) => ({
      candidate,
      cause: attempts.at(-1)!.error,
    })),
  ].map((failure) => ({ ...failure, reason: reasonOf(failure) }));
  const errors = failures.map(({ candidate: { addr }, cause, reason }) =>
    new OpError({ network, addr, cause, reason })
  );
  const [first] = failures;
  const init = {
    network,
    errors,
    trace,
    cause: first!.cause,
    timeout: failed.timedOut || undefined,
  };
  if (failures.length === 1) {
    return new DialError({
      ...init,
      addr: first!.candidate.addr,
      reason: first!.reason,
    });
  }
  const tried = attempts.length;
  const named = failures.slice(0, Math.min(tried, NAMED))
    .map(({ candidate, reason }) => `${candidate.text} ${reason}`);
  if (tried > NAMED) named.push(`${tried - NAMED} more`);
  const head = untried.length === 0
    ? `all ${tried} addresses failed`
    : `i/o timeout after ${tried} of ${failures.length} addresses`;
  const reason = `${head}: ${named.join("; ")}`;
  return new DialError({ ...init, addr: failed.addr, reason });
}

function reasonOf(
  { candidate, cause }: { candidate: Target; cause: unknown },
): string {
  if (!(cause instanceof Deno.errors.NotCapable)) return reasonText(cause);
  const { addr } = candidate;
  const subject = addr.transport === "unix"
    ? { path: addr.path }
    : hostPort(candidate);
  return deniedReason(subject, cause);
}
