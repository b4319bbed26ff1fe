import type { Clock } from "../net/clock.ts";
import { Hold } from "../net/hold.ts";
import type { Cable } from "./cable.ts";
import { badResource, platformError } from "./errno.ts";
import { afterTurn, Pace } from "./event_loop.ts";
import type { MemoryConn } from "./memory_conn.ts";

/** What a {@linkcode MemoryListener} calls. */
export interface ListenerHooks {
  /** A connection was handed out. */
  accepted(conn: MemoryConn): void;
  /** An accept failed with this errno. */
  failed(code: string): void;
  /** There is room in the queue. */
  room(): void;
  /** It was closed. */
  closed(): void;
  /** The address can be bound again. */
  released(): void;
}

/** A listening socket in memory, with Deno's errors and a kernel's queue. */
export class MemoryListener implements Deno.Listener {
  /** Where it listens. */
  readonly addr: Deno.Addr;
  /** Closed, while the address is not free yet. */
  closed = false;
  readonly #backlog: number;
  readonly #hooks: ListenerHooks;
  readonly #hold: Hold;
  readonly #pace = new Pace();
  #queue: Cable[] = [];
  #pending: PromiseWithResolvers<Deno.Conn> | null = null;

  /** Listens at `addr`, which is free. */
  constructor(
    clock: Clock,
    addr: Deno.Addr,
    backlog: number,
    hooks: ListenerHooks,
  ) {
    this.addr = addr;
    this.#backlog = backlog;
    this.#hooks = hooks;
    this.#hold = new Hold(clock);
  }

  /** Whether the next client has to wait: Linux lets in one more than told. */
  get full(): boolean {
    return this.#queue.length > this.#backlog;
  }

  /** Puts a connection in the queue. */
  push(cable: Cable): void {
    this.#queue.push(cable);
    this.#serve();
  }

  /** Takes the next connection, or waits for one. */
  accept(): Promise<Deno.Conn> {
    if (this.closed) return Promise.reject(closedError());
    if (this.#pending) {
      const tcp = this.addr.transport === "tcp";
      return Promise.reject(
        new Deno.errors.Busy(
          tcp ? "Another accept task is ongoing" : "Listener already in use",
        ),
      );
    }
    this.#pending = Promise.withResolvers();
    const { promise } = this.#pending;
    this.#hold.waiting = true;
    this.#serve();
    return promise;
  }

  /** Frees the address, once a pending accept has failed. */
  close(): void {
    if (this.closed) throw badResource();
    this.closed = true;
    this.#hooks.closed();
    for (const { far } of this.#queue) far.abandon();
    this.#queue = [];
    const pending = this.#pending;
    this.#pending = null;
    this.#hold.waiting = false;
    if (!pending) return this.#hooks.released();
    // The runtime lets go of the socket when it next looks at its events.
    afterTurn(() => {
      pending.reject(closedError());
      this.#hooks.released();
    });
  }

  /** Accepts until it is closed. */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<Deno.Conn> {
    while (!this.closed) {
      try {
        yield await this.accept();
      } catch (error) {
        if (!(error instanceof Deno.errors.BadResource)) throw error;
      }
    }
  }

  /** A waiting accept keeps the process alive: the default. */
  ref(): void {
    this.#hold.refd = true;
  }

  /** The process may end even while an accept waits. */
  unref(): void {
    this.#hold.refd = false;
  }

  /** Closes; more than once is no error. */
  [Symbol.dispose](): void {
    if (!this.closed) this.close();
  }

  /** Settles the pending accept if there is a connection for it. */
  #serve(): void {
    const [cable] = this.#queue;
    const pending = this.#pending;
    if (!pending || !cable) return;
    this.#pending = null;
    this.#hold.waiting = false;
    const { accept } = cable.fault();
    if (accept?.startsWith("E")) {
      this.#hooks.failed(accept);
      return pending.reject(platformError(accept as "EMFILE"));
    }
    this.#queue.shift();
    this.#hooks.room();
    const { far } = cable;
    if (far.wasReset && this.addr.transport === "tcp") {
      // Deno asks for the peer's address, and the peer has gone.
      this.#hooks.failed("ENOTCONN");
      return pending.reject(platformError("ENOTCONN"));
    }
    this.#hooks.accepted(far);
    this.#pace.run(() => pending.resolve(far));
  }
}

function closedError(): Error {
  return new Deno.errors.BadResource("Listener has been closed");
}
