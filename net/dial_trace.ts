/**
 * What a dial did, as plain JSON. It sits on a connection
 * (`conn.dialTrace`) and on a `DialError` (`error.trace`), so it lives below
 * both.
 *
 * @module
 */

import { errorCode } from "./errno.ts";
import { isTimeout } from "./errors.ts";
import type { Attempt, Candidate } from "./race.ts";

/** What became of one address. */
export interface DialAttempt {
  /**
   * Whom the attempt went to: `[::1]:5432`, or a unix socket's path. In mode
   * "native" the host and port as the caller named them.
   */
  addr: string;
  /** When it started, in milliseconds after the dial; 0 for "not-started". */
  startMs: number;
  /** How long it took to end, in milliseconds; 0 for "not-started". */
  durationMs: number;
  /**
   * How it ended. "canceled": another address was faster. "timeout": no answer
   * within `attemptTimeout` or `timeout`, or the system gave up (ETIMEDOUT).
   * "denied": the sandbox, or a firewall on this side, does not allow it.
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
   * "race": the library tried the addresses itself, all of them are listed.
   * "native": the sandbox left the choice to the runtime, which does not tell
   * what it tried; the one entry is the whole of it.
   */
  mode: "race" | "native";
  /** How long the first addresses took to come; 0 if nothing was looked up. */
  resolveMs: number;
  /** From the call to its outcome. */
  totalMs: number;
  /**
   * One entry per address: the tried ones in the order of their start, then
   * the others in the order in which they would have been tried.
   */
  attempts: DialAttempt[];
}

/** The entry of an address that had its turn, in a dial begun at `start`. */
export function triedEntry(
  attempt: Attempt<Candidate>,
  start: number,
): DialAttempt {
  const { candidate, end, error, state } = attempt;
  const code = state === "failed" ? errorCode(error) : undefined;
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

/** The entry of an address that had no turn. */
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

/** To the microsecond: clocks' own digits beyond that are noise. */
export function milliseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
