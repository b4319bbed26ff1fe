import { Alarm, type Clock, systemClock } from "./clock.ts";

/**
 * Keeps the process alive while somebody waits, where no operation of the
 * platform does it: a paused server, a network in memory. On any clock but the
 * system's nobody waits for real time, and a test that waits for something that
 * never comes should end with Deno's own complaint rather than hang.
 */
export class Hold {
  readonly #real: boolean;
  readonly #alarm = new Alarm(systemClock, () => {}, true);
  #waiting = false;
  #refd = true;

  /** Nobody waits. */
  constructor(clock: Clock) {
    this.#real = clock === systemClock;
  }

  /** Whether somebody waits. */
  set waiting(waiting: boolean) {
    this.#waiting = waiting;
    this.#update();
  }

  /** Whether that keeps the process alive. */
  set refd(refd: boolean) {
    this.#refd = refd;
    this.#update();
  }

  #update(): void {
    const holds = this.#real && this.#waiting && this.#refd;
    if (holds) this.#alarm.set(Number.MAX_VALUE);
    else this.#alarm.clear();
  }
}
