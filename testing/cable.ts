import type { Clock } from "../net/clock.ts";
import type { Fault } from "./faults.ts";
import type { LogEvent } from "./log.ts";
import { MemoryConn, MemoryTcpConn } from "./memory_conn.ts";

/** What the two ends of a connection in memory have in common. */
export interface CableInit {
  /** Time source. */
  clock: Clock;
  /** How many bytes may be unread in each direction. */
  bufferSize: number;
  /** What is wrong with the connection now. */
  fault(): Fault;
  /** Called with what happens; `conn` is the end that does it. */
  note?(conn: MemoryConn, event: LogEvent, detail: string): void;
  /** Called when an end is over. */
  closed?(conn: MemoryConn): void;
}

/** One connection, both ends of it. */
export class Cable {
  /** Time source. */
  readonly clock: Clock;
  /** How many bytes may be unread in each direction. */
  readonly bufferSize: number;
  /** The end that opened it. */
  readonly near: MemoryConn;
  /** The end that accepts it. */
  readonly far: MemoryConn;
  readonly #init: CableInit;
  /** Whether something on it will never arrive, as things are. */
  stalled = false;
  /** Bytes that have passed, both directions together. */
  #passed = 0;

  /** Two ends that are connected; each has its own view of both addresses. */
  constructor(
    init: CableInit,
    near: { local: Deno.Addr; remote: Deno.Addr },
    far: { local: Deno.Addr; remote: Deno.Addr },
  ) {
    this.#init = init;
    this.clock = init.clock;
    this.bufferSize = init.bufferSize;
    const End = near.local.transport === "tcp" ? MemoryTcpConn : MemoryConn;
    this.near = new End(this, near.local, near.remote);
    this.far = new End(this, far.local, far.remote);
    MemoryConn.join(this.near, this.far);
  }

  /** What is wrong with the connection now. */
  fault(): Fault {
    return this.#init.fault();
  }

  /** How many milliseconds bytes and FIN take to arrive. */
  get latency(): number {
    return this.fault().latency ?? 0;
  }

  /** Lets `n` bytes pass; returns how many of them did. */
  pass(n: number): number {
    const { resetAfter = Infinity } = this.fault();
    const passing = Math.min(n, Math.max(0, resetAfter - this.#passed));
    this.#passed += n;
    return passing;
  }

  /** Resets the connection if as much has passed as may pass. */
  cutIfDue(): void {
    const { resetAfter = Infinity } = this.fault();
    if (this.#passed >= resetAfter) this.reset();
  }

  /** Resets both ends, as a firewall does. */
  reset(): void {
    if (this.near.wasReset && this.far.wasReset) return;
    this.note(this.near, "reset");
    this.near.receiveReset();
    this.far.receiveReset();
  }

  /** What is wrong with the connection has changed. */
  faultChanged(): void {
    this.stalled = false;
    this.near.faultChanged();
    this.far.faultChanged();
  }

  /** Checks whether a fault was lifted behind our back. */
  refresh(): void {
    if (this.stalled && this.latency !== Infinity) this.faultChanged();
  }

  /** Notes what an end does. */
  note(conn: MemoryConn, event: LogEvent, detail = ""): void {
    this.#init.note?.(conn, event, detail);
  }

  /** An end is over; `event` is what the log calls it. */
  closed(conn: MemoryConn, event: LogEvent): void {
    this.note(conn, event);
    this.#init.closed?.(conn);
  }
}
