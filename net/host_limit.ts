/** How many connections each host has, where there is a limit to it. */
export class HostLimit {
  /** The most that one host may have; `Infinity` if nobody counts. */
  readonly most: number;
  readonly #counts = new Map<string, number>();

  /** With `most` connections a host at most. */
  constructor(most: number) {
    this.most = most;
  }

  /** How many hosts have one: strangers come and go, and leave nothing. */
  get size(): number {
    return this.#counts.size;
  }

  /** One more of `host`; `false` if it has as many as it may. */
  enter(host: string): boolean {
    const count = this.#counts.get(host) ?? 0;
    if (count >= this.most) return false;
    this.#counts.set(host, count + 1);
    return true;
  }

  /** One of `host` has gone, which had entered. */
  leave(host: string): void {
    const count = this.#counts.get(host)! - 1;
    if (count === 0) this.#counts.delete(host);
    else this.#counts.set(host, count);
  }
}
