/**
 * The error of a dial that failed, and how it is made from the attempts.
 *
 * @module
 */

import type { Addr } from "./addr.ts";
import type { DialTrace } from "./dial_trace.ts";
import { OpError, type OpErrorInit, reasonText } from "./errors.ts";
import type { Attempt } from "./race.ts";
import { deniedReason } from "./sandbox.ts";
import { hostPort, type Target } from "./target.ts";

/** How many addresses a message names; `errors` has them all. */
const NAMED = 5;

/** An address that was tried, and how that ended. */
export type Tried = Attempt<Target>;

/** What a {@linkcode DialError} is made of; everything is optional. */
export interface DialErrorInit extends OpErrorInit {
  /** One error per address, in the order of `trace.attempts`. @default {[]} */
  errors?: OpError[] | undefined;
  /** What was tried. Default: nothing. */
  trace?: DialTrace | undefined;
}

/**
 * Every address failed, or time ran out first. `errors` has one entry per
 * address, and `trace` says when each was tried and how that ended. For one
 * address the message is Go's: `dial tcp 127.0.0.1:1: connection refused`; for
 * several it names them, and `cause` and `code` are those of the first. If the
 * resolver failed after it had returned some addresses, the message says that,
 * too.
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
   * Makes an error about every address.
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

/** What is known about a dial that failed. */
interface Failed {
  /** The addresses that were tried; at least one. */
  attempts: readonly Tried[];
  /** Those that were not, because time was up. */
  untried: readonly Target[];
  /** Whether the connector is the caller's: its grants are its own business. */
  own: boolean;
  /** What the caller named, if it stands for several addresses. */
  addr: Addr;
  /** Why the lookup failed after these addresses, if it did. */
  lookup: Error | undefined;
  /** Set if the timeout passed, whatever the reason of the first failure. */
  timeUp: Error | undefined;
  /** All of it as JSON. */
  trace: DialTrace;
}

/** Makes the error of a dial in which every attempt failed. */
export function dialError(failed: Failed): DialError {
  const { attempts, lookup, own, timeUp, trace, untried } = failed;
  const { network } = trace;
  const failures = [
    ...attempts.map(({ candidate, error }) => failure(candidate, error, own)),
    ...untried.map((candidate) => failure(candidate, timeUp, own)),
  ];
  const errors = failures.map(({ addr, cause, reason }) =>
    new OpError({ network, addr, cause, reason })
  );
  const { addr, cause, reason } = failures[0]!;
  const timeout = timeUp !== undefined || undefined;
  const init = { network, errors, trace, cause, timeout };
  const tried = attempts.length;
  // If all were tried and none was cut short, time ran out in the lookup.
  const inLookup = timeUp !== undefined && untried.length === 0 &&
    attempts.every(({ error }) => error !== timeUp);
  if (failures.length === 1 && !inLookup && !lookup) {
    return new DialError({ ...init, addr, reason });
  }
  const named = failures.slice(0, Math.min(tried, NAMED))
    .map(({ addr, reason }) => `${addr} ${reason}`);
  if (tried > NAMED) named.push(`${tried - NAMED} more`);
  if (lookup) named.push(lookup.message);
  const head = inLookup
    ? `i/o timeout in lookup after ${tried} failed`
    : untried.length > 0
    ? `i/o timeout after ${tried} of ${failures.length} addresses`
    : lookup
    ? `lookup broke off after ${tried} failed`
    : `all ${tried} addresses failed`;
  return new DialError({
    ...init,
    addr: failed.addr,
    reason: `${head}: ${named.join("; ")}`,
  });
}

function failure(
  candidate: Target,
  cause: unknown,
  own: boolean,
): { addr: Addr; cause: unknown; reason: string } {
  const { addr } = candidate;
  const subject = addr.transport === "unix" && !own
    ? { path: addr.path }
    : hostPort(candidate);
  // A connector may lack a grant for something else: its message says so.
  const words = cause instanceof Deno.errors.NotCapable ? cause.message : "";
  const foreign = own && !words.includes(" net access to ");
  const denied = foreign ? undefined : deniedReason(subject, cause);
  return { addr, cause, reason: denied ?? reasonText(cause) };
}
