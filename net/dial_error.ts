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
 * address, and `trace` tells when each was tried and how it ended. For one
 * address the text is Go's: `dial tcp 127.0.0.1:1: connection refused`; for
 * several it names them, and `cause` and `code` are those of the first. If the
 * resolver failed when it had given some addresses already, the text says that,
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
  /** The caller's own connector has failed: its grants are its business. */
  own: boolean;
  /** What the caller named, if it stands for several addresses. */
  addr: Addr;
  /** Why the lookup gave no more addresses than these, if it failed. */
  lookup: Error | undefined;
  /** The caller's time was up, whatever the first address failed of. */
  timeUp: Error | undefined;
  /** All of it as JSON. */
  trace: DialTrace;
}

/** The error of a dial that reached nobody. */
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
  // Time that left nobody untried and cut nobody short ran out in the lookup.
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
  // A connector may lack a grant for something else: its words tell.
  const words = cause instanceof Deno.errors.NotCapable ? cause.message : "";
  const foreign = own && !words.includes(" net access to ");
  const denied = foreign ? undefined : deniedReason(subject, cause);
  return { addr, cause, reason: denied ?? reasonText(cause) };
}
