import type { Conn } from "./conn.ts";
import { Turns } from "./turns.ts";

/** In so many turns of the loop a server reads an end that has arrived. */
const TURNS = 5;

interface Host {
  count: number;
  /** Those who wait for a place, in order; each call gives one. */
  readonly waiting: Set<() => void>;
}

/** How many connections each host has, if that is limited. */
export class HostLimit {
  /** The most that one host may have; `Infinity`: not limited. */
  readonly most: number;
  readonly #hosts = new Map<string, Host>();

  /** Allows each host at most `most` connections. */
  constructor(most: number) {
    this.most = most;
  }

  /** How many hosts have any; those that have gone leave nothing behind. */
  get size(): number {
    return this.#hosts.size;
  }

  /** One more from `name`; `false` if it has as many as it may. */
  enter(name: string): boolean {
    const host = this.#hosts.get(name) ?? { count: 0, waiting: new Set() };
    if (host.count >= this.most) return false;
    host.count++;
    this.#hosts.set(name, host);
    return true;
  }

  /** The host to count, if hosts are limited. */
  nameOf(conn: Conn): string | undefined {
    if (this.most === Infinity) return undefined;
    const { remoteAddr } = conn;
    return remoteAddr.transport === "tcp" ? remoteAddr.hostname : undefined;
  }

  /**
   * Waits for a place of `name`, which has none to spare: `false` if none comes
   * in a few turns of the loop. When a client closes a connection and dials
   * anew, the runtime often reports the new one first. No more may wait than
   * have a place: only those can have ended.
   */
  wait(name: string): Promise<boolean> {
    const { waiting } = this.#hosts.get(name)!;
    if (waiting.size >= this.most) return Promise.resolve(false);
    return new Promise((resolve) => {
      const turns = new Turns(() => {
        waiting.delete(give);
        resolve(false);
      });
      const give = () => {
        waiting.delete(give);
        turns.clear();
        resolve(true);
      };
      waiting.add(give);
      turns.start(TURNS);
    });
  }

  /** One from `name`, which had a place, has gone; who waits is next. */
  leave(name: string): void {
    const host = this.#hosts.get(name)!;
    const [give] = host.waiting;
    if (give) give();
    else if (--host.count === 0) this.#hosts.delete(name);
  }
}
