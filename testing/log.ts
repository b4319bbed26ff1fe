import type { Clock } from "../net/clock.ts";
import { milliseconds } from "../net/dial_trace.ts";

/** What can happen on a {@linkcode MemoryNetwork}. */
export type LogEvent =
  | "listen"
  | "lookup"
  | "answer"
  | "connect"
  | "connected"
  | "accept"
  | "write"
  | "fin"
  | "reset"
  | "close"
  | "fail"
  | "abort"
  | "fault"
  | "host";

/** One thing that has happened on a {@linkcode MemoryNetwork}. */
export interface LogEntry {
  /** When: milliseconds since the network was made, on its clock. */
  ms: number;
  /** What has happened. */
  event: LogEvent;
  /**
   * To what: an address, a name, or for a connection `local->remote`, as seen
   * from the end that acted.
   */
  subject: string;
  /** What else there is to say; may be empty. */
  detail: string;
  /** All of it as one line. */
  text: string;
}

/** More than anybody reads; the oldest are dropped first. */
const MAX_ENTRIES = 10_000;

/** What has happened so far. */
export class Log {
  /** Oldest first. */
  readonly entries: LogEntry[] = [];
  readonly #clock: Clock;
  readonly #start: number;

  /** An empty log. */
  constructor(clock: Clock) {
    this.#clock = clock;
    this.#start = clock.monotonic();
  }

  /** Adds an entry. */
  note(event: LogEvent, subject: string, detail = ""): void {
    const ms = milliseconds(this.#clock.monotonic() - this.#start);
    const what = detail === "" ? subject : `${subject}: ${detail}`;
    const text = `${`${ms} ms`.padStart(9)}  ${event.padEnd(9)}  ${what}`;
    this.entries.push({ ms, event, subject, detail, text });
    if (this.entries.length > MAX_ENTRIES) this.entries.shift();
  }
}
