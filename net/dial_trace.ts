/**
 * What a dial did, as plain JSON. Both connections (`conn.dialTrace`) and
 * `DialError` (`error.trace`) have one, so this file is below both.
 *
 * @module
 */

import { errorCode } from "./errno.ts";
import { isTimeout } from "./errors.ts";
import type { Attempt, Candidate } from "./race.ts";

/** What became of one address. */
export interface DialAttempt {
  /**
   * What was dialled: `[::1]:5432`, or a unix socket's path. In mode "native",
   * the host and port as the caller gave them.
   */
  addr: string;
  /** Milliseconds from the dial's start to its own; 0 for "not-started". */
  startMs: number;
  /** How long it took, in milliseconds; 0 for "not-started". */
  durationMs: number;
  /**
   * How it ended. "canceled": another address was faster. "timeout": no answer
   * within `attemptTimeout`, `timeout` or, in a serial dial, its share of that;
   * or the system gave up (ETIMEDOUT).
   * "denied": the sandbox, a rule of this system or, over IPv6, a firewall
   * anywhere on the way does not allow it (EACCES, EPERM).
   * "unreachable": no route, or none that works. "failed": anything else; see
   * `code`.
   */
  outcome:
    | "connected"
    | "refused"
    | "unreachable"
    | "timeout"
    | "denied"
    | "canceled"
    | "failed"
    | "not-started";
  /** The errno's name, if it failed and has one: `"ECONNREFUSED"`. */
  code?: string;
}

/** What a dial did and how long it took: plain JSON, in milliseconds. */
export interface DialTrace {
  /** The network, as the caller named it. */
  network: string;
  /** The address, as the caller named it. */
  address: string;
  /**
   * "race": the library tried the addresses itself, and lists them all.
   * "native": the sandbox left the choice to the runtime, which does not say
   * what it tried; one entry stands for the whole dial.
   */
  mode: "race" | "native";
  /** How long the lookup's first addresses took; 0 if nothing was looked up. */
  resolveMs: number;
  /** From the call to its outcome. */
  totalMs: number;
  /**
   * One entry per address: first those that were tried, in the order of their
   * start, then the others, in the order in which they would have been tried.
   */
  attempts: DialAttempt[];
}

/** The entry of an address that was tried, in a dial that began at `start`. */
export function triedEntry(
  attempt: Attempt<Candidate>,
  start: number,
): DialAttempt {
  const { candidate, end, error, state } = attempt;
  const code = errorCode(error);
  const entry: DialAttempt = {
    addr: candidate.text,
    startMs: milliseconds(attempt.start - start),
    durationMs: milliseconds(end - attempt.start),
    outcome: state === "failed"
      ? failureOutcome(error, code)
      : state === "connected"
      ? "connected"
      : "canceled",
  };
  if (code !== undefined) entry.code = code;
  return entry;
}

/** The entry of an address that was not tried. */
export function untriedEntry(addr: string): DialAttempt {
  return { addr, startMs: 0, durationMs: 0, outcome: "not-started" };
}

function failureOutcome(
  error: unknown,
  code: string | undefined,
): DialAttempt["outcome"] {
  if (error instanceof Deno.errors.NotCapable) return "denied";
  switch (code) {
    case "ECONNREFUSED":
      return "refused";
    case "EHOSTDOWN":
    case "EHOSTUNREACH":
    case "ENETDOWN":
    case "ENETUNREACH":
    case "ENONET":
      return "unreachable";
    case "EACCES":
    case "EPERM":
      return "denied";
    default:
      return isTimeout(error) ? "timeout" : "failed";
  }
}

/** Rounds to the microsecond: a clock's further digits are noise. */
export function milliseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
