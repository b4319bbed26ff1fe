/**
 * What a dial did, as plain JSON. It sits on a connection
 * (`conn.dialTrace`) and on a `DialError` (`error.trace`), so it lives below
 * both.
 *
 * @module
 */

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
   * "unreachable": no route. "failed": anything else; see `code`.
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
