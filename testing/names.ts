import { toAscii } from "../net/addr.ts";
import type { Clock } from "../net/clock.ts";
import { DnsError, reasonText } from "../net/errors.ts";
import { parseIp } from "../net/ip.ts";
import type { Resolver } from "../net/resolver.ts";
import { Bell, type Open } from "./bell.ts";
import type { Log } from "./log.ts";

/**
 * How a name is answered, step by step. A step is an IP address; or a number of
 * milliseconds to wait, before which the addresses so far are returned as one
 * batch; or an error, which ends the answer. `Infinity` never answers; an empty
 * script has no address.
 *
 * `["::1", 50, "10.0.0.1"]` gives `::1` at once and `10.0.0.1` 50 ms later.
 */
export type HostScript = readonly (string | number | Error)[];

/** Names and their scripts. */
export class Names {
  readonly #log: Log;
  /** Nobody rings it: a lookup waits until its time is up, or aborts. */
  readonly #bell: Bell;
  readonly #scripts = new Map<string, HostScript>();

  /** Knows `localhost` only; lookups that wait are in `open`. */
  constructor(clock: Clock, log: Log, open: Open) {
    this.#log = log;
    this.#bell = new Bell(clock, open);
    this.#scripts.set("localhost", ["::1", "127.0.0.1"]);
  }

  /** Sets a name's script; `null` makes it unknown. */
  set(name: string, script: HostScript | null): void {
    if (script === null) this.#scripts.delete(nameKey(name));
    else this.#scripts.set(nameKey(name), [...script].map(checkStep));
  }

  /** Answers by script. */
  readonly resolve = (
    hostname: string,
    { signal }: Parameters<Resolver>[1],
  ): AsyncIterable<string[]> => this.#answer(hostname, signal);

  async *#answer(
    hostname: string,
    signal: AbortSignal,
  ): AsyncGenerator<string[]> {
    this.#log.note("lookup", hostname);
    let batch: string[] = [];
    try {
      const script = this.#scripts.get(nameKey(hostname));
      if (!script) throw new DnsError({ hostname, notFound: true });
      for (const step of [...script, 0]) {
        if (typeof step === "string") {
          batch.push(step); // a dial drops what is of the other family
          continue;
        }
        if (batch.length > 0) {
          this.#log.note("answer", hostname, batch.join(", "));
          yield batch;
          batch = [];
        }
        if (step instanceof Error) throw step;
        if (step === 0) continue;
        await this.#bell.wait(signal, step, `lookup of ${hostname}`);
      }
    } catch (error) {
      if (signal.aborted) this.#log.note("abort", hostname);
      else this.#log.note("fail", hostname, reasonText(error));
      throw error;
    }
  }
}

/** DNS names ignore case, and a dot at the end; other scripts have a form. */
function nameKey(name: string): string {
  return toAscii(name).toLowerCase().replace(/\.$/, "");
}

function checkStep(step: string | number | Error): string | number | Error {
  const good = typeof step === "string"
    ? parseIp(step) !== null
    : typeof step === "number"
    ? step >= 0
    : step instanceof Error;
  if (good) return step;
  throw new TypeError(`not an IP address, a time or an error: ${step}`);
}
