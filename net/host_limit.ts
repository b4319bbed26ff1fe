/** How many connections each host has, if that is limited. */
export class HostLimit {
  /** The most that one host may have; `Infinity`: not limited. */
  readonly most: number;
  readonly #counts = new Map<string, number>();

  /** Allows each host at most `most` connections. */
  constructor(most: number) {
    this.most = most;
  }

  /** How many hosts have any; those that have gone leave nothing behind. */
  get size(): number {
    return this.#counts.size;
  }

  /** One more from `host`; `false` if it has as many as it may. */
  enter(host: string): boolean {
    const count = this.#counts.get(host) ?? 0;
    if (count >= this.most) return false;
    this.#counts.set(host, count + 1);
    return true;
  }

  /** One from `host`, which had entered, has gone. */
  leave(host: string): void {
    const count = this.#counts.get(host)! - 1;
    if (count === 0) this.#counts.delete(host);
    else this.#counts.set(host, count);
  }
}
