import { Dialer, type DialOptions } from "../dialer.ts";
import type { Listener, ListenOptions } from "../listener.ts";
import { makeListener } from "../net/accept.ts";
import { takeListen } from "../net/accept_options.ts";
import { type Addr, type Network, UnixAddr } from "../net/addr.ts";
import { checkCount } from "../net/check.ts";
import { type Clock, systemClock } from "../net/clock.ts";
import type { Conn } from "../net/conn.ts";
import { OpError } from "../net/errors.ts";
import { parseIp, platformHost } from "../net/ip.ts";
import type { Resolver } from "../net/resolver.ts";
import { deniedReason } from "../net/sandbox.ts";
import type { Connector } from "../net/target.ts";
import { Fabric } from "./fabric.ts";
import { FakeClock } from "./fake_clock.ts";
import type { Fault } from "./faults.ts";
import type { LogEntry } from "./log.ts";
import { binding } from "./memory_bind.ts";
import { type HostScript, Names } from "./names.ts";
import { DEFAULT_BUFFER_SIZE } from "./pipe.ts";

/** Linux's net.core.somaxconn, to which it clamps every backlog. */
const MAX_BACKLOG = 4_096;
/** The runtime's, which nobody can change. */
const UNIX_BACKLOG = 1_024;

/** Options of `new MemoryNetwork()`. */
export interface MemoryNetworkOptions {
  /**
   * Names and how they are answered; see {@linkcode HostScript}. All others are
   * unknown, except `localhost`, which is `::1` and `127.0.0.1`.
   */
  hosts?: { readonly [name: string]: HostScript };
  /**
   * Time source, also for all listeners and connections: a
   * {@linkcode FakeClock} makes it exact. Default: the system's.
   */
  clock?: Clock;
  /**
   * How many bytes one direction of a connection holds while nobody reads; a
   * write beyond that waits.
   *
   * @default {65536}
   */
  bufferSize?: number;
}

/**
 * A network in memory: no socket, no permission and, on a
 * {@linkcode FakeClock}, no real time. `listen` and `dial` are those of the
 * library, with the same classes; only what lies below them is replaced. Every
 * IP address is on this network; a connection comes from the address that it
 * goes to, as on loopback, or from where `connectFrom()` says.
 *
 * {@linkcode inMemory} makes a test of it that fails if anything is left open.
 *
 * @example The second address gets its turn after exactly 250 ms
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { FakeClock, MemoryNetwork } from "@switchboard/tcp/testing";
 *
 * const clock = new FakeClock();
 * const net = new MemoryNetwork({
 *   clock,
 *   hosts: { "db.test": ["::1", "10.0.0.1"] },
 * });
 * await using listener = await net.listen("tcp", "10.0.0.1:5432");
 * net.fault("[::1]:5432", { connect: "drop" });
 *
 * const dialling = net.dial("tcp", "db.test:5432");
 * await clock.advance(250);
 * await using conn = await dialling;
 * assertEquals(String(conn.remoteAddr), String(listener.addr));
 * assertEquals(conn.dialTrace?.totalMs, 250);
 * ```
 */
export class MemoryNetwork {
  /** Time source. */
  readonly clock: Clock;
  readonly #fabric: Fabric;
  readonly #names: Names;

  /**
   * A network on which nobody listens yet.
   *
   * @param options See {@linkcode MemoryNetworkOptions}.
   * @throws {RangeError} If `bufferSize` is not a positive integer.
   * @throws {TypeError} If it is not a number, or a host's script has a wrong
   * step.
   */
  constructor(options: MemoryNetworkOptions = {}) {
    const { bufferSize = DEFAULT_BUFFER_SIZE, clock = systemClock } = options;
    checkCount("bufferSize", bufferSize);
    this.clock = clock;
    this.#fabric = new Fabric(clock, bufferSize);
    this.#names = new Names(clock, this.#fabric.log, this.#fabric.open);
    this.resolve = this.#names.resolve;
    for (const [name, script] of Object.entries(options.hosts ?? {})) {
      this.#names.set(name, script);
    }
  }

  /**
   * Everything that has happened, oldest first: at most 10,000 entries.
   * `String(network)` is all of it as text.
   */
  get log(): readonly LogEntry[] {
    return this.#fabric.log.entries;
  }

  /** The library's `listen()` on this network: same checks, same listeners. */
  readonly listen: (
    network: Network,
    address: string,
    options?: ListenOptions,
  ) => Promise<Listener> = async (network, address, options = {}) => {
    const taken = takeListen(network, address, options);
    const {
      backlog = MAX_BACKLOG,
      clock = this.clock,
      reusePort = false,
      signal = new AbortController().signal,
    } = taken;
    const bound = binding(
      network,
      address,
      this.#names.resolve,
      (port) => this.#fabric.wildcard(port),
      signal,
    );
    // At once, if possible: a dial may come in the same tick.
    const addr = bound instanceof Promise ? await bound : bound;
    const unix = addr.transport === "unix"; // whose options are the runtime's
    const size = unix ? UNIX_BACKLOG : Math.min(backlog, MAX_BACKLOG);
    let inner: Deno.Listener;
    try {
      inner = this.#fabric.bind(addr, size, reusePort && !unix);
    } catch (cause) {
      const subject = addr instanceof UnixAddr ? addr : String(addr);
      const reason = deniedReason(subject, cause);
      throw new OpError({ op: "listen", network, addr, cause, reason });
    }
    return makeListener(inner, { ...taken, clock }, network === "tcp6");
  };

  /** The library's `dial()` on this network. */
  readonly dial: (
    network: Network,
    address: string,
    options?: DialOptions,
  ) => Promise<Conn> = (network, address, options) => {
    const { clock, connect, resolve } = this;
    // A new one each time: a plain dial remembers no address.
    return new Dialer({ clock, connect, resolve })
      .dial(network, address, options);
  };

  /** Answers names by script: the `resolve` option for your own `Dialer`. */
  readonly resolve: Resolver;

  /** Connects on this network: the `connect` option for your own `Dialer`. */
  readonly connect: Connector = (addr, { signal }) =>
    this.#fabric.connect(addr, undefined, signal);

  /**
   * Connects from an address of your choice, for servers that tell clients
   * apart by it.
   *
   * @param hostname An IP address.
   * @returns The `connect` option for a dial.
   * @throws {TypeError} If it is not an IP address.
   */
  connectFrom(hostname: string): Connector {
    const ip = parseIp(hostname);
    if (ip === null) throw new TypeError(`not an IP address: ${hostname}`);
    const from = platformHost(ip);
    return (addr, { signal }) => this.#fabric.connect(addr, from, signal);
  }

  /**
   * Sets how a name is answered from now on; answers under way continue as they
   * began.
   *
   * @param name A host name.
   * @param script See {@linkcode HostScript}; `null` makes it unknown.
   * @throws {TypeError} If a step is not an IP address, a time or an error.
   */
  host(name: string, script: HostScript | null): void {
    this.#names.set(name, script);
    this.#fabric.log.note("host", name, script ? script.join(", ") : "unknown");
  }

  /**
   * Sets what is wrong with an address from now on, in place of what was, also
   * for open connections and pending connects. Only the most specific fault
   * counts: that of the address dialled, then of its host, of the client's
   * address and its host, of the address listened on, then of `*`.
   *
   * @param address `10.0.0.1:5432`, `10.0.0.1` for all its ports, a unix
   * socket's path, or `*` for every address.
   * @param fault See {@linkcode Fault}; `null` lifts it.
   * @throws {AddrError} If the address is none of these.
   * @throws {TypeError} If there is no such fault.
   */
  fault(address: string | Addr, fault: Fault | null): void {
    this.#fabric.fault(address, fault);
  }

  /**
   * Resets every connection of an address, at both ends: what is unread can
   * still be read, then comes ECONNRESET.
   *
   * @param address Of either end: `String(conn.localAddr)`, a listener's, a
   * host for all its ports, or `*`.
   * @returns How many there were.
   * @throws {AddrError} If it is not an address, or a nameless unix client's.
   */
  reset(address: string | Addr): number {
    return this.#fabric.reset(address);
  }

  /**
   * Fails unless everything is over: connections that were dialled or accepted,
   * listeners, dials and lookups that wait, and timers on the network's
   * {@linkcode FakeClock}. {@linkcode inMemory} calls it when a test is over.
   * (The network is not disposable: an error from that would hide that of a
   * test that has already failed.)
   *
   * @throws {Error} Named AssertionError; it lists what is open.
   */
  check(): void {
    const { clock } = this;
    const timers = clock instanceof FakeClock ? clock.timers : [];
    const left = [...this.#fabric.open.values(), ...timers];
    if (left.length === 0) return;
    const error = new Error(`left open:\n  ${left.join("\n  ")}`);
    error.name = "AssertionError";
    throw error;
  }

  /** The log, one line for each entry. */
  toString(): string {
    return this.log.map(({ text }) => text).join("\n");
  }
}
