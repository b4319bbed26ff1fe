/**
 * A connection made of two buffers. It behaves like a `Deno.Conn` over a Linux
 * socket, error for error (each was measured): what is written can be read at
 * once, a full buffer makes writes short and then wait, FIN comes after the
 * data, a reset is reported once, after the data that came before it.
 *
 * One buffer stands for the kernel's two, the sender's and the receiver's: what
 * write() has taken has arrived, and no reset destroys it on its way.
 *
 * @module
 */

import { Alarm } from "../net/clock.ts";
import { Conn } from "../net/conn.ts";
import { Hold } from "../net/hold.ts";
import type { Cable } from "./cable.ts";
import { badResource, interrupted, platformError } from "./errno.ts";
import { Pace } from "./event_loop.ts";
import type { LogEvent } from "./log.ts";

/** One operation that waits; `p` is null for a FIN. */
interface Operation {
  readonly p: Uint8Array | null;
  readonly resolve: (n: number | null) => void;
  readonly reject: (error: unknown) => void;
}

/** One end of a connection in memory. */
export class MemoryConn implements Deno.Conn {
  /** Our address. */
  readonly localAddr: Deno.Addr;
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** No operation starts any more. */
  closed = false;
  /** There was a reset: nothing comes or goes any more. */
  wasReset = false;
  readonly #cable: Cable;
  readonly #pace = new Pace();
  readonly #hold: Hold;
  #refd = true;
  readonly #unix: boolean;
  #peer: MemoryConn | null = null;
  #reads: Operation[] = [];
  /** {@linkcode #serveWrites} is under way; what it starts may call it. */
  #serving = false;
  #writes: Operation[] = [];
  /** What came from the peer and is unread, with its time of arrival. */
  #inbox: { bytes: Uint8Array; at: number }[] = [];
  #unread = 0;
  /** When the peer's FIN arrives, after all of its bytes. */
  #finAt = Infinity;
  #finSent = false;
  /** When a reset that is on its way arrives; `null` if there is none. */
  #resetAt: number | null = null;
  /** Whether the next call gets the reset's error (the kernel's `sk_err`). */
  #resetUntold = false;
  /** Looks again when bytes that are on their way arrive. */
  readonly #arrival: Alarm;
  readonly #resetArrival: Alarm;
  #streams: Conn | null = null;

  /** One end, not joined to the other yet. */
  constructor(cable: Cable, localAddr: Deno.Addr, remoteAddr: Deno.Addr) {
    this.#cable = cable;
    this.localAddr = localAddr;
    this.remoteAddr = remoteAddr;
    this.#unix = localAddr.transport === "unix";
    this.#hold = new Hold(cable.clock);
    this.#arrival = new Alarm(cable.clock, () => this.#serveReads(), false);
    this.#resetArrival = new Alarm(
      cable.clock,
      () => this.receiveReset(),
      false,
    );
  }

  /** Joins two ends. */
  static join(a: MemoryConn, b: MemoryConn): void {
    a.#peer = b;
    b.#peer = a;
  }

  /** The web streams of this end; here they are the library's own. */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return (this.#streams ??= new Conn(this)).readable;
  }

  /** See {@linkcode readable}. */
  get writable(): WritableStream<Uint8Array<ArrayBufferLike>> {
    return (this.#streams ??= new Conn(this)).writable;
  }

  /** Whether a write waits. */
  get writing(): boolean {
    return this.#writes.length > 0;
  }

  /** Reads what there is; waits if there is nothing. */
  read(p: Uint8Array): Promise<number | null> {
    // Deno answers a read of nothing even after close.
    if (p.length === 0) return Promise.resolve(0);
    if (this.closed) return Promise.reject(badResource());
    this.#cable.refresh();
    return new Promise((resolve, reject) => {
      this.#reads.push({ p, resolve, reject });
      this.#serveReads();
    });
  }

  /** Writes as much as there is room for; waits if there is none. */
  write(p: Uint8Array): Promise<number> {
    return this.#queueWrite(p);
  }

  /** Sends FIN. */
  async closeWrite(): Promise<void> {
    await this.#queueWrite(null);
  }

  /** Ends everything that waits, then sends FIN; with bytes unread, a reset. */
  close(): void {
    if (this.closed) throw badResource();
    const peer = this.#peer!;
    const unread = this.#unread > 0;
    this.#shut("close");
    // Deno shuts TCP down before it closes, so that FIN comes before the reset.
    if (!unread || !this.#unix) this.sendFin();
    if (unread) peer.#resetComes(peer.#arrivalTime());
    else peer.#serveWrites();
  }

  /** The end of a connection that nobody has accepted. */
  abandon(): void {
    this.#shut("reset");
    this.#peer!.receiveReset();
  }

  /** Sends FIN after what was sent; once. */
  sendFin(): void {
    if (this.#finSent || this.wasReset) return;
    this.#finSent = true;
    if (!this.closed) this.#cable.note(this, "fin");
    this.#peer!.#finAt = this.#peer!.#arrivalTime();
    this.#peer!.#serveReads();
  }

  /** The peer has sent a reset. */
  #resetComes(at: number): void {
    if (this.wasReset || this.closed) return;
    if (at <= this.#cable.clock.monotonic()) return this.receiveReset();
    this.#resetAt = at;
    this.#resetArrival.set(at);
  }

  /** A reset arrives: from the peer, or from something in between. */
  receiveReset(): void {
    if (this.wasReset || this.closed) return;
    this.wasReset = true;
    this.#resetArrival.clear();
    // After TCP's FIN a read gets no error (Linux: SOCK_DONE, and EPIPE instead
    // of ECONNRESET in CLOSE_WAIT).
    this.#resetUntold = this.#unix ||
      this.#finAt > this.#cable.clock.monotonic();
    this.#inbox = this.#inbox.filter(({ at }) => at !== Infinity);
    this.#serveReads();
    this.#serveWrites();
  }

  /** Faults have changed: what was never to arrive may be on its way now. */
  faultChanged(): void {
    const { clock, latency } = this.#cable;
    for (const chunk of this.#inbox) {
      if (chunk.at === Infinity) chunk.at = clock.monotonic() + latency;
    }
    if (this.#peer!.#finSent && this.#finAt === Infinity) {
      this.#finAt = this.#arrivalTime();
    }
    if (this.#resetAt === Infinity) this.#resetComes(this.#arrivalTime());
    this.#serveReads();
  }

  /** A waiting read keeps the process alive: the default. Writes always do. */
  ref(): void {
    this.#refd = true;
    this.#updateHold();
  }

  /** The process may end even while a read waits. */
  unref(): void {
    this.#refd = false;
    this.#updateHold();
  }

  /** Closes; more than once is no error. */
  [Symbol.dispose](): void {
    if (!this.closed) this.close();
  }

  #queueWrite(p: Uint8Array | null): Promise<number> {
    if (this.closed) return Promise.reject(badResource());
    this.#cable.refresh();
    return new Promise((resolve, reject) => {
      const done = (n: number | null) => resolve(n!);
      this.#writes.push({ p, resolve: done, reject });
      this.#serveWrites();
    });
  }

  #serveReads(): void {
    while (this.#reads.length > 0) {
      const { p, resolve, reject } = this.#reads[0]!;
      const now = this.#cable.clock.monotonic();
      const next = this.#inbox[0]?.at ?? (this.wasReset ? now : this.#finAt);
      if (next > now) {
        this.#arrival.set(next);
        break;
      }
      this.#reads.shift();
      const empty = this.#inbox.length === 0;
      if (empty && this.#resetUntold) {
        this.#resetUntold = false;
        reject(platformError("ECONNRESET"));
        continue;
      }
      const n = empty ? null : this.#take(p!, now);
      this.#pace.run(() => resolve(n));
      if (n !== null) this.#peer!.#serveWrites();
    }
    if (this.#reads.length === 0) this.#arrival.clear();
    this.#updateHold();
  }

  /** Moves bytes that have arrived to `p`; returns how many. */
  #take(p: Uint8Array, now: number): number {
    const { maxRead = Infinity } = this.#cable.fault();
    const limit = Math.min(p.length, maxRead);
    let n = 0;
    let emptied = 0;
    while (n < limit) {
      const chunk = this.#inbox[emptied];
      if (chunk === undefined || chunk.at > now) break;
      const part = chunk.bytes.subarray(0, limit - n);
      p.set(part, n);
      n += part.length;
      chunk.bytes = chunk.bytes.subarray(part.length);
      if (chunk.bytes.length === 0) emptied++;
    }
    this.#inbox.splice(0, emptied); // at once: a shift() moves all the others
    this.#unread -= n;
    return n;
  }

  #serveWrites(): void {
    if (this.#serving) return;
    this.#serving = true;
    while (this.#writes.length > 0) {
      const { p, resolve, reject } = this.#writes[0]!;
      let n = 0;
      if (p === null) this.sendFin();
      else {
        const error = this.#writeError();
        if (error !== null) {
          this.#writes.shift();
          reject(error);
          continue;
        }
        n = this.#send(p);
        if (n === 0 && p.length > 0) break; // no room
      }
      this.#writes.shift();
      this.#pace.run(() => resolve(n));
    }
    this.#serving = false;
    this.#updateHold();
  }

  #writeError(): Error | null {
    if (this.#unix && this.#peer!.closed) return platformError("EPIPE");
    if (this.#resetUntold) {
      this.#resetUntold = false;
      return platformError("ECONNRESET");
    }
    return this.wasReset || this.#finSent ? platformError("EPIPE") : null;
  }

  /** Hands bytes to the peer; returns how many. */
  #send(p: Uint8Array): number {
    const peer = this.#peer!;
    if (peer.closed) {
      // TCP learns only from the answer that nobody is there.
      if (this.#resetAt === null) {
        this.#resetComes(this.#arrivalTime() + this.#cable.latency);
      }
      return p.length;
    }
    const { maxWrite = Infinity } = this.#cable.fault();
    const room = this.#cable.bufferSize - peer.#unread;
    const n = Math.min(p.length, maxWrite, room);
    if (n <= 0) return 0;
    const passing = this.#cable.pass(n);
    if (passing > 0) {
      this.#cable.note(this, "write", `${passing} bytes`);
      peer.#unread += passing;
      // Not p.slice(): it calls a constructor, which may be a caller's own.
      const bytes = new Uint8Array(p.buffer, p.byteOffset, passing).slice();
      peer.#inbox.push({ bytes, at: peer.#arrivalTime() });
      peer.#serveReads();
    }
    this.#cable.cutIfDue();
    return n;
  }

  /** When what is sent to us now arrives: never before what was sent before. */
  #arrivalTime(): number {
    const { clock, latency } = this.#cable;
    this.#cable.stalled ||= latency === Infinity;
    return Math.max(clock.monotonic() + latency, this.#inbox.at(-1)?.at ?? 0);
  }

  /** Our own side is over. */
  #shut(event: LogEvent): void {
    this.closed = true;
    this.#arrival.clear();
    this.#resetArrival.clear();
    this.#inbox = [];
    for (const { reject } of [...this.#reads, ...this.#writes]) {
      reject(interrupted());
    }
    this.#reads = [];
    this.#writes = [];
    this.#updateHold();
    this.#cable.closed(this, event);
  }

  #updateHold(): void {
    const reads = this.#refd && this.#reads.length > 0;
    this.#hold.waiting = reads || this.writing;
  }
}

/** An end of a TCP connection: options can be set, without effect. */
export class MemoryTcpConn extends MemoryConn {
  /** Checks that it can be set. */
  setNoDelay(_on?: boolean): void {
    this.#check();
  }

  /** Checks that it can be set. */
  setKeepAlive(_on?: boolean): void {
    this.#check();
  }

  #check(): void {
    if (this.closed) throw badResource();
    // As in Deno: a pending write has the socket for itself.
    if (this.writing) throw new Error("Unable to get resources");
  }
}
