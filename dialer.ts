/**
 * The dialer: tries every address of a name, fast, and reports what it tried.
 * {@linkcode dial} makes one connection; a {@linkcode Dialer} has defaults and
 * remembers which address last worked.
 *
 * @example A service with two addresses, one of them dead
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * const { port } = listener.addr as Deno.NetAddr;
 * const resolve = () => Promise.resolve(["127.0.0.2", "127.0.0.1"]);
 * await using conn = await dial("tcp", `db.test:${port}`, { resolve });
 * assertEquals(
 *   conn.dialTrace?.attempts.map(({ addr, outcome }) => [addr, outcome]),
 *   [
 *     [`127.0.0.2:${port}`, "refused"],
 *     [`127.0.0.1:${port}`, "connected"],
 *   ],
 * );
 * ```
 *
 * @module
 */

import type { Network } from "./net/addr.ts";
import {
  checkClock,
  checkOption,
  checkOptions,
  checkSignal,
  checkType,
  takeOptions,
} from "./net/check.ts";
import { type Clock, systemClock } from "./net/clock.ts";
import type { Conn } from "./net/conn.ts";
import type { DialTrace } from "./net/dial_trace.ts";
import { Dialing } from "./net/dialing.ts";
import type { Resolver } from "./net/resolver.ts";
import type { Connector } from "./net/target.ts";

export { DialError } from "./net/dial_error.ts";
export type { DialErrorInit } from "./net/dial_error.ts";
export type { DialAttempt, DialTrace } from "./net/dial_trace.ts";
export type { Connector } from "./net/target.ts";

/** Options of {@linkcode dial} and defaults of a {@linkcode Dialer}. */
export interface DialOptions {
  /**
   * Aborts the dial, which then rejects with `signal.reason`. An abort after
   * success does not affect the connection.
   */
  signal?: AbortSignal;
  /**
   * Milliseconds for the whole dial, resolving included; the clock stops while
   * the runtime asks the user for permission. With 0 or less, time is already
   * up; `Infinity` is no limit.
   *
   * @default {Infinity}
   */
  timeout?: number;
  /**
   * Milliseconds for each address, more than 0. With less than a second and a
   * round trip, one lost packet is enough to give an address up: the kernel
   * asks again after 1 s. It does not apply in trace mode "native", where the
   * sandbox leaves the addresses to the runtime, so set `timeout`, too. With
   * more than 128 dials in flight the runtime keeps some waiting although their
   * answer is there (docs/operating.md).
   *
   * @default {Infinity}
   */
  attemptTimeout?: number;
  /**
   * Milliseconds to wait for an address to answer before the next one is tried,
   * too: RFC 8305's Connection Attempt Delay, kept between 10 and 2000.
   * `Infinity` tries strictly one after another, as Go's serial dial does; with
   * a `timeout`, each address then gets an equal share of the time left, at
   * least 2 s.
   *
   * @default {250}
   */
  attemptDelay?: number;
  /** Finds the addresses of a name. @default {systemResolver} */
  resolve?: Resolver;
  /** Opens one connection; for tests and tunnels. Default: `Deno.connect`. */
  connect?: Connector;
  /** Sets TCP_NODELAY. @default {true} */
  noDelay?: boolean;
  /** Sets SO_KEEPALIVE. @default {true} */
  keepAlive?: boolean;
  /** Time source, for tests. Default: the system's. */
  clock?: Clock;
}

/**
 * Connects to an address.
 *
 * The address is written as in Go: `host:port`, where the host is a name, an
 * IPv4 address or an IPv6 address in brackets, and the port a number or a
 * service name. No host, or a wildcard, means the local system. With "unix" the
 * address is a path. Before a name is looked up or a socket opened, everything
 * is checked, in this order: network, the form `host:port`, port, host, family.
 *
 * All addresses of a name are tried as RFC 8305 (Happy Eyeballs) says: the
 * families alternate, and the next attempt starts after `attemptDelay`, or as
 * soon as any attempt fails. The first connection wins; the other attempts are
 * aborted, and closed if they connect all the same.
 *
 * If the sandbox grants only the name (`--allow-net=example.com:443`), the
 * runtime does the whole dial itself (trace mode "native"), so that nobody is
 * prompted for a name server or another address.
 *
 * Cancellation: after an abort before or during the dial, it rejects with
 * `signal.reason` and leaves no socket open; later aborts have no effect.
 *
 * @param network `"tcp"`, `"tcp4"`, `"tcp6"` or `"unix"`.
 * @param address Where to connect to.
 * @param options See {@linkcode DialOptions}.
 * @returns An open connection; `dialTrace` says how it came about. The caller
 * closes it.
 * @throws {DialError} If every address failed; `errors` has one entry for
 * each, in the order in which they were tried.
 * @throws {OpError} With op "dial", if no address was tried: its cause is an
 * {@linkcode AddrError}, {@linkcode DnsError}, {@linkcode UnknownNetworkError}
 * or {@linkcode DeadlineExceededError}.
 * @throws {TypeError} If an option has the wrong type.
 * @throws {RangeError} If a time is NaN, or `attemptTimeout` is not positive.
 * @throws {AbortSignal["reason"]} If `options.signal` aborts first.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * await using conn = await dial("tcp", String(listener.addr), {
 *   timeout: 5_000,
 * });
 * assertEquals(String(conn.remoteAddr), String(listener.addr));
 * ```
 */
export async function dial(
  network: Network,
  address: string,
  options: DialOptions = {},
): Promise<Conn> {
  check(network, address, options);
  return await prepare(network, address, options).run();
}

/** RFC 8305, section 8: the recommended Connection Attempt Delay, in ms. */
const DEFAULT_DELAY = 250;

/** How many hosts and ports a dialer remembers. */
const REMEMBERED = 256;
/** How long their text may be: a port may begin with any number of zeros. */
const LONGEST = 512;
/** For how long: a path that worked ten minutes ago says little about now. */
const MEMORY_MS = 10 * 60_000;

/** An address that works. Times are on the scale of `clock.monotonic()`. */
interface Remembered {
  addr: string;
  /** When it first worked: it is forgotten {@linkcode MEMORY_MS} later. */
  since: number;
  /** When it last worked. */
  at: number;
}

/**
 * Dials with defaults, and starts each dial of a host and port with the address
 * that last worked there, if the resolver still returns it: a dead address
 * costs `attemptDelay` once, not each time. If the resolver returns it late, it
 * is tried at once. An address is forgotten if it fails, if another one is
 * faster in spite of its head start, or if it has not answered when the dial is
 * aborted or times out. (A serial dial, with `attemptDelay: Infinity`, waits
 * for it: set a timeout.) At most 256 hosts and ports are remembered, with one
 * address of each family. After 10 minutes, however often it was used, the
 * resolver's order counts again.
 *
 * So all connections go to one address, and it only has to accept them. To
 * spread them over several, or to get away from a server that accepts and hangs
 * up, use {@linkcode dial}: it begins with the resolver's first address each
 * time. (If that is always the same, shuffle them in a `resolve` of your own.)
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { Dialer, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * const { port } = listener.addr as Deno.NetAddr;
 * const dialer = new Dialer({
 *   timeout: 5_000,
 *   resolve: () => Promise.resolve(["127.0.0.2", "127.0.0.1"]),
 * });
 * (await dialer.dial("tcp", `db.test:${port}`)).close(); // .2 refuses
 * await using conn = await dialer.dial("tcp", `db.test:${port}`);
 * assertEquals(conn.dialTrace?.attempts[0]?.outcome, "connected");
 * ```
 */
export class Dialer {
  readonly #defaults: DialOptions;
  /**
   * By host and port, as they were given; the least recently used come first.
   * At most one address of each family, the most recent one first.
   */
  readonly #memory = new Map<string, Remembered[]>();

  /**
   * A dialer that remembers nothing yet.
   *
   * @param defaults For every dial; see {@linkcode DialOptions}.
   * @throws {TypeError} If an option has the wrong type.
   * @throws {RangeError} If a time is NaN, or `attemptTimeout` is not positive.
   */
  constructor(defaults: DialOptions = {}) {
    this.#defaults = takeOptions(defaults, NAMES);
    checkDialOptions(this.#defaults);
  }

  /**
   * Connects to an address; see {@linkcode dial}.
   *
   * @param network `"tcp"`, `"tcp4"`, `"tcp6"` or `"unix"`.
   * @param address Where to connect to.
   * @param options These override the dialer's defaults; an option that is
   * `undefined` counts as absent.
   * @returns An open connection. The caller closes it.
   * @throws As {@linkcode dial}.
   */
  async dial(
    network: Network,
    address: string,
    options: DialOptions = {},
  ): Promise<Conn> {
    const merged = { ...this.#defaults, ...takeOptions(options, NAMES) };
    check(network, address, merged);
    const { clock = systemClock } = merged;
    const begun = clock.monotonic();
    const prefer = this.#recall(network, address, begun);
    const dialing = prepare(network, address, merged, prefer);
    try {
      return await dialing.run();
    } finally {
      const { trace } = dialing;
      if (trace) this.#learn(address, trace, prefer, begun);
    }
  }

  #recall(network: Network, address: string, now: number): string | undefined {
    return this.#memory.get(address)?.find(({ addr, since }) =>
      since + MEMORY_MS > now &&
      (network === "tcp" || isIpv6(addr) === (network === "tcp6"))
    )?.addr;
  }

  /** Learns from a dial that began at `begun`. */
  #learn(
    address: string,
    { attempts, mode, totalMs }: DialTrace,
    prefer: string | undefined,
    begun: number,
  ): void {
    if (mode === "native") return; // the runtime's choice is not known
    if (address.length > LONGEST) return;
    const known = this.#memory.get(address) ?? [];
    const winner = attempts.find(({ outcome }) => outcome === "connected")
      ?.addr;
    const failed = ({ addr, at }: Remembered) =>
      attempts.some((attempt) =>
        attempt.addr === addr &&
        // Canceled: if it was preferred, it had a head start, and lost.
        (attempt.outcome === "canceled"
          ? addr === prefer
          : attempt.outcome !== "not-started") &&
        // What began before it last worked, in another dial, is old news.
        begun + attempt.startMs >= at
      );
    const left = known.filter((remembered) =>
      !failed(remembered) &&
      (winner === undefined || isIpv6(remembered.addr) !== isIpv6(winner))
    );
    // A literal leaves nothing to choose; a name may have more next time.
    if (winner !== undefined && winner !== address) {
      const at = begun + totalMs;
      const before = known.find(({ addr }) => addr === winner);
      const kept = before && before.since + MEMORY_MS > begun;
      left.unshift({ addr: winner, since: kept ? before.since : at, at });
    }
    this.#memory.delete(address);
    if (left.length === 0) return;
    this.#memory.set(address, left);
    if (this.#memory.size <= REMEMBERED) return;
    const [oldest] = this.#memory.keys();
    this.#memory.delete(oldest!);
  }
}

/** Tells `[::1]:80` from `127.0.0.1:80`. */
function isIpv6(addr: string): boolean {
  return addr.startsWith("[");
}

const NAMES: Record<keyof DialOptions, true> = {
  signal: true,
  timeout: true,
  attemptTimeout: true,
  attemptDelay: true,
  resolve: true,
  connect: true,
  noDelay: true,
  keepAlive: true,
  clock: true,
};

/** Checks all that can be checked without parsing the address. */
function check(network: Network, address: string, options: DialOptions): void {
  checkType("network", network, "string");
  checkType("address", address, "string");
  checkDialOptions(options);
}

/** Makes a dial that has not begun; everything has been checked. */
function prepare(
  network: Network,
  address: string,
  options: DialOptions,
  prefer?: string,
): Dialing {
  return new Dialing(network, address, {
    signal: options.signal,
    timeout: options.timeout ?? Infinity,
    attemptTimeout: options.attemptTimeout ?? Infinity,
    attemptDelay: options.attemptDelay ?? DEFAULT_DELAY,
    resolve: options.resolve,
    connect: options.connect,
    noDelay: options.noDelay,
    keepAlive: options.keepAlive,
    clock: options.clock ?? systemClock,
    prefer,
  });
}

function checkDialOptions(options: DialOptions): void {
  checkOptions(options);
  const { attemptTimeout } = options;
  for (const name of ["timeout", "attemptTimeout", "attemptDelay"] as const) {
    checkOption(name, options[name], "number");
    if (Number.isNaN(options[name])) throw new RangeError(`${name} is NaN`);
  }
  if (attemptTimeout !== undefined && attemptTimeout <= 0) {
    throw new RangeError(`attemptTimeout is not positive: ${attemptTimeout}`);
  }
  for (const name of ["resolve", "connect"] as const) {
    checkOption(name, options[name], "function");
  }
  for (const name of ["noDelay", "keepAlive"] as const) {
    checkOption(name, options[name], "boolean");
  }
  checkSignal(options.signal);
  checkClock(options.clock);
}
