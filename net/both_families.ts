import { discard } from "./wire.ts";

/**
 * Two listeners as one: `[::]` and `0.0.0.0` on the same port. Windows gives
 * each family a socket of its own unless IPV6_V6ONLY is cleared, which Deno
 * cannot (denoland/deno#36168).
 *
 * One accept at a time, as the platform's own have it. It asks both; what the
 * slower one brings is for the next.
 *
 * @param ipv6 Whose address is shown.
 * @param ipv4 The other one.
 * @returns What a listener can be made of. Closing it closes both.
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
  /** Those with no accept under way. */
  readonly #idle: Set<Deno.Listener>;
  /** Accepts that settled when nobody waited. */
  readonly #settled: Promise<Deno.Conn>[] = [];
  #caller: PromiseWithResolvers<Deno.Conn> | null = null;
  #closed = false;

  constructor(sides: [Deno.Listener, Deno.Listener]) {
    this.addr = sides[0].addr;
    this.#sides = sides;
    this.#idle = new Set(sides);
  }

  accept(): Promise<Deno.Conn> {
    const settled = this.#settled.shift();
    if (settled) return settled;
    if (this.#closed) return Promise.reject(closed());
    this.#caller = Promise.withResolvers();
    const { promise } = this.#caller;
    for (const side of this.#idle) {
      const accepting = side.accept();
      const end = () => this.#end(side, accepting);
      accepting.then(end, end);
    }
    this.#idle.clear();
    return promise;
  }

  close(): void {
    this.#closed = true;
    for (const side of this.#sides) side.close();
    for (const settled of this.#settled.splice(0)) drop(settled);
  }

  ref(): void {
    for (const side of this.#sides) side.ref();
  }

  unref(): void {
    for (const side of this.#sides) side.unref();
  }

  #end(side: Deno.Listener, accepting: Promise<Deno.Conn>): void {
    this.#idle.add(side);
    const caller = this.#caller;
    if (this.#closed) {
      drop(accepting);
      // Until both have settled the port is not free.
      if (this.#idle.size === this.#sides.length) caller?.reject(closed());
    } else if (caller) {
      this.#caller = null;
      caller.resolve(accepting);
    } else this.#settled.push(accepting);
  }
}

/** Closes what comes too late; a failure is nobody's business any more. */
function drop(accepting: Promise<Deno.Conn>): void {
  accepting.then(discard, () => {});
}

function closed(): Error {
  return new Deno.errors.BadResource("Listener has been closed");
}
