import { discard } from "./calls.ts";

/**
 * Two listeners as one: `[::]` and `0.0.0.0` on the same port. Windows gives
 * each family a socket of its own unless IPV6_V6ONLY is cleared, which Deno
 * cannot do (denoland/deno#36168).
 *
 * One accept at a time, as with the platform's own. It asks both; what the
 * slower one brings is for the next accept.
 *
 * @param ipv6 The one whose address is shown.
 * @param ipv4 The other one.
 * @returns For `new Listener()`. Closing it closes both.
 */
export function bothFamilies(
  ipv6: Deno.Listener,
  ipv4: Deno.Listener,
): Deno.Listener {
  return new BothFamilies([ipv6, ipv4]) as unknown as Deno.Listener;
}

class BothFamilies {
  readonly addr: Deno.Addr;
  readonly #sides: readonly Deno.Listener[];
  /** Those with an accept under way. */
  readonly #busy = new Set<Deno.Listener>();
  /** Accepts that settled when nobody waited; after close(), the last ones. */
  readonly #settled: Promise<Deno.Conn>[] = [];
  #caller: PromiseWithResolvers<Deno.Conn> | null = null;
  #refd = true;
  #closed = false;
  readonly #freed = Promise.withResolvers<void>();

  constructor(sides: [Deno.Listener, Deno.Listener]) {
    this.addr = sides[0].addr;
    this.#sides = sides;
  }

  accept(): Promise<Deno.Conn> {
    if (this.#closed) return Promise.reject(closed());
    const settled = this.#settled.shift();
    if (settled) return settled;
    this.#caller = Promise.withResolvers();
    const { promise } = this.#caller;
    for (const side of this.#sides) {
      if (this.#busy.has(side)) continue;
      this.#busy.add(side);
      const accepting = side.accept();
      const end = () => this.#end(side, accepting);
      accepting.then(end, end);
    }
    this.#updateRefs();
    return promise;
  }

  /** Settles when both ports are free. */
  close(): Promise<void> {
    this.#closed = true;
    for (const side of this.#sides) {
      if (this.#busy.has(side)) side.ref(); // close() waits for it
      side.close();
    }
    if (this.#busy.size === 0) this.#finish();
    return this.#freed.promise;
  }

  ref(): void {
    this.#refd = true;
    this.#updateRefs();
  }

  unref(): void {
    this.#refd = false;
    this.#updateRefs();
  }

  #end(side: Deno.Listener, accepting: Promise<Deno.Conn>): void {
    this.#busy.delete(side);
    if (this.#closed || this.#caller === null) {
      this.#settled.push(accepting);
      if (this.#closed && this.#busy.size === 0) this.#finish();
    } else {
      this.#caller.resolve(accepting);
      this.#caller = null;
      this.#updateRefs();
    }
  }

  /** With nobody waiting, an accept under way must not hold the process. */
  #updateRefs(): void {
    for (const side of this.#sides) {
      const idle = this.#caller === null && this.#busy.has(side);
      if (this.#refd && !idle) side.ref();
      else side.unref();
    }
  }

  /** Both are closed, no accept is under way: what came last is handed out. */
  async #finish(): Promise<void> {
    for (const settled of this.#settled) {
      const conn = await settled.catch(() => null);
      if (conn === null) continue;
      if (this.#caller) this.#caller.resolve(conn);
      else discard(conn);
      this.#caller = null;
    }
    this.#caller?.reject(closed());
    this.#freed.resolve();
  }
}

function closed(): Error {
  return new Deno.errors.BadResource("Listener has been closed");
}
