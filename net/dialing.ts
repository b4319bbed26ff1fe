/**
 * One dial under way: what an address means, who resolves it, what the sandbox
 * allows, and in the end a connection with its trace, or an error about every
 * address. The race itself is in race.ts, connecting in target.ts.
 *
 * @module
 */

import { type ParsedAddress, TcpAddr, UnixAddr } from "./addr.ts";
import { discard, onAbort } from "./calls.ts";
import { type Clock, MAX_TIMEOUT } from "./clock.ts";
import { Conn } from "./conn.ts";
import { dialError, type Tried } from "./dial_error.ts";
import {
  type DialTrace,
  milliseconds,
  triedEntry,
  untriedEntry,
} from "./dial_trace.ts";
import {
  AddrError,
  DeadlineExceededError,
  DnsError,
  isNamed,
  isTimeout,
  OpError,
} from "./errors.ts";
import { parseIp } from "./ip.ts";
import { Patience } from "./patience.ts";
import { clampDelay, Race } from "./race.ts";
import { type Resolver, systemResolver } from "./resolver.ts";
import { isGranted, netGrant, notCapable } from "./sandbox.ts";
import { countOpen } from "./stall.ts";
import type { SocketOptions } from "./socket_options.ts";
import {
  type Connector,
  hostPort,
  ipTarget,
  literalTargets,
  namedTarget,
  open,
  type OpenOptions,
  type ParsedDial,
  parseDial,
  type Target,
} from "./target.ts";

/** How to dial; checked by the caller. */
export interface DialSettings extends SocketOptions {
  /** Aborts the dial. */
  signal: AbortSignal | undefined;
  /** Milliseconds for the whole dial. */
  timeout: number;
  /** Milliseconds for one address. */
  attemptTimeout: number;
  /** Milliseconds between two starts; `Infinity`: one after another. */
  attemptDelay: number;
  /** Instead of the system's resolver. */
  resolve: Resolver | undefined;
  /** Instead of `Deno.connect`. */
  connect: Connector | undefined;
  /** Time source. */
  clock: Clock;
  /** The address to start with, if it is among those that are found. */
  prefer: string | undefined;
}

/** A TCP address with a name in it. */
type NamedAddress = ParsedAddress & { kind: "tcp" };

/** What was tried in a dial, and what was not: a race that is over. */
type Tries = Pick<Race<Target, Deno.Conn>, "attempts" | "untried">;

/** One dial; `run()` is called once. */
export class Dialing {
  /** What it did, however it ended; `undefined` if there was nothing to try. */
  trace: DialTrace | undefined;
  readonly #network: string;
  readonly #address: string;
  readonly #settings: DialSettings;
  readonly #start: number;
  #mode: DialTrace["mode"] = "race";
  #openOptions: OpenOptions;
  #resolveMs = 0;
  /** Whether the lookup found addresses, even if of the wrong family. */
  #found = false;
  /** Why it found no more. */
  #lookupError: unknown;
  /** Set if the timeout passed before the dial was over. */
  #timeUp: DeadlineExceededError | undefined;

  /** A dial that has not begun. */
  constructor(network: string, address: string, settings: DialSettings) {
    this.#network = network;
    this.#address = address;
    this.#settings = settings;
    this.#openOptions = settings;
    this.#start = settings.clock.monotonic();
  }

  /**
   * Dials.
   *
   * @throws {OpError} With op "dial".
   * @throws {AbortSignal["reason"]} If the caller's signal aborts.
   */
  run(): Promise<Conn> {
    const { attemptTimeout, signal, timeout } = this.#settings;
    let dial: ParsedDial;
    try {
      dial = parseDial(this.#network, this.#address);
    } catch (cause) {
      return Promise.reject(new OpError({ network: this.#network, cause }));
    }
    if (signal?.aborted) return Promise.reject(signal.reason);
    const { parsed } = dial;
    const targets = dial.targets ??
      this.#nativeTarget(parsed as NamedAddress);
    const abortable = signal !== undefined || timeout !== Infinity ||
      attemptTimeout !== Infinity;
    if (!abortable && targets?.length === 1 && targets[0]!.named) {
      return this.#connectOnly(parsed, targets[0]!);
    }
    return this.#raceAll(parsed, targets);
  }

  /**
   * A name goes to the runtime as it is if the sandbox grants only that: then
   * its addresses may not be dialled, nor a resolver be asked.
   */
  #nativeTarget({ family, host, port }: NamedAddress): Target[] | undefined {
    const settings = this.#settings;
    if (settings.resolve) return undefined;
    const addr = new TcpAddr(host, port);
    if (isGranted() && netGrant(String(addr)) !== "denied") return undefined;
    this.#mode = "native";
    const delay = Math.min(clampDelay(settings.attemptDelay), MAX_TIMEOUT);
    this.#openOptions = { ...settings, family, nativeDelay: delay };
    return [namedTarget(addr)];
  }

  /** One address, and nothing that could abort it: no race is needed. */
  async #connectOnly(parsed: ParsedAddress, candidate: Target): Promise<Conn> {
    const { clock } = this.#settings;
    const attempt: Tried = {
      candidate,
      start: this.#start,
      end: 0,
      state: "connected",
    };
    const tries = { attempts: [attempt], untried: [] };
    try {
      const inner = await open(candidate, this.#openOptions, undefined);
      attempt.end = clock.monotonic();
      return this.#conn(inner, tries, attempt.end);
    } catch (error) {
      attempt.end = clock.monotonic();
      attempt.state = "failed";
      attempt.error = error;
      throw this.#failure(parsed, tries, attempt.end);
    }
  }

  /** `targets` is `undefined` for a name that has to be resolved. */
  async #raceAll(
    parsed: ParsedAddress,
    targets: readonly Target[] | undefined,
  ): Promise<Conn> {
    const { clock, signal, timeout } = this.#settings;
    const deadline = this.#start + timeout;
    const race = this.#newRace(deadline);
    let lookup: AbortController | undefined;
    countOpen(1);
    let patience: Patience | undefined;
    const unfollow = signal && onAbort(signal, () => race.stop(signal.reason));
    try {
      if (timeout <= 0) this.#expire(race);
      let prompted = 0;
      if (targets) {
        const before = clock.monotonic();
        race.add(targets);
        race.seal();
        // If the runtime had to ask the user, everything stood still meanwhile.
        prompted = clock.monotonic() - before;
      } else if (!race.over) {
        lookup = new AbortController();
        this.#feed(race, parsed as NamedAddress, lookup.signal);
      }
      // Only now: a process's first timer takes Deno 20 ms.
      if (!race.over && timeout !== Infinity) {
        const left = deadline + prompted - clock.monotonic();
        const expire = () => this.#expire(race);
        patience = new Patience(clock, left, expire, true);
      }
      const inner = await race.done;
      const end = clock.monotonic();
      // It may have won, and only have waited for the losers.
      if (signal?.aborted) {
        if (inner) discard(inner);
        this.#trace(race, end);
        throw signal.reason;
      }
      if (inner) return this.#conn(inner, race, end);
      throw this.#failure(parsed, race, end);
    } finally {
      countOpen(-1);
      patience?.clear();
      unfollow?.();
      lookup?.abort();
    }
  }

  #newRace(deadline: number): Race<Target, Deno.Conn> {
    const { attemptDelay, attemptTimeout, clock, connect, prefer } =
      this.#settings;
    return new Race<Target, Deno.Conn>({
      clock,
      attemptDelay,
      attemptTimeout: this.#mode === "native" ? Infinity : attemptTimeout,
      deadline,
      prefer,
      // The runtime's attempts end when aborted; a connector's may not.
      settleLosers: connect === undefined,
      refuse: connect === undefined ? refuse : undefined,
      connect: (target, signal) => open(target, this.#openOptions, signal),
      close: discard,
    });
  }

  #expire(race: Race<Target, Deno.Conn>): void {
    if (race.over) return;
    this.#timeUp = new DeadlineExceededError();
    race.stop(this.#timeUp);
  }

  /**
   * Hands what the resolver finds to the race. Never rejects, and nobody waits
   * for it: a resolver may ignore its signal.
   */
  async #feed(
    race: Race<Target, Deno.Conn>,
    { family, host, port }: NamedAddress,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, resolve = systemResolver } = this.#settings;
    try {
      const answer = resolve(host, family ? { family, signal } : { signal });
      for await (const batch of isBatches(answer) ? answer : [answer]) {
        if (race.over) return;
        const targets = this.#targetsOf(batch, host, port);
        if (!this.#found) this.#resolveMs = clock.monotonic() - this.#start;
        this.#found ||= targets.length > 0;
        race.add(
          targets.filter((target) => !family || target.family === family),
        );
      }
    } catch (error) {
      this.#lookupError = error ?? new Error(`the resolver threw ${error}`);
    } finally {
      race.seal();
    }
  }

  /** The targets of a batch; whatever else is in it counts as a failure. */
  #targetsOf(batch: unknown, hostname: string, port: number): Target[] {
    const targets: Target[] = [];
    for (const text of Array.isArray(batch) ? batch : [batch]) {
      const ip = typeof text === "string" ? parseIp(text) : null;
      if (ip !== null) targets.push(ipTarget(ip, port, false));
      else {
        const reason = `the resolver gave ${Deno.inspect(text)}, not an IP`;
        this.#lookupError = new DnsError({ hostname, reason });
      }
    }
    return targets;
  }

  #conn(inner: Deno.Conn, tries: Tries, end: number): Conn {
    const { clock, connect } = this.#settings;
    const dialTrace = this.#trace(tries, end);
    const options = { clock, dialTrace, plain: connect === undefined };
    return new Conn(inner, options);
  }

  #trace({ attempts, untried }: Tries, end: number): DialTrace {
    const start = this.#start;
    return this.trace = {
      network: this.#network,
      address: this.#address,
      mode: this.#mode,
      resolveMs: milliseconds(this.#resolveMs),
      totalMs: milliseconds(end - start),
      attempts: [
        ...attempts.map((attempt) => triedEntry(attempt, start)),
        ...untried.map(({ text }) => untriedEntry(text)),
      ],
    };
  }

  #failure(parsed: ParsedAddress, tries: Tries, end: number): OpError {
    const network = this.#network;
    const { attempts, untried } = tries;
    if (attempts.length === 0) return this.#noAttempt(parsed);
    const { error } = attempts[0]!;
    if (this.#mode === "native" && error instanceof DnsError) {
      return new OpError({ network, cause: error }); // as if we had asked
    }
    return dialError({
      attempts,
      untried,
      own: this.#settings.connect !== undefined,
      addr: parsed.kind === "tcp"
        ? new TcpAddr(parsed.host, parsed.port)
        : new UnixAddr(parsed.path),
      lookup: parsed.kind === "tcp" && this.#lookupError !== undefined
        ? lookupError(parsed.host, this.#lookupError)
        : undefined,
      timeUp: this.#timeUp,
      trace: this.#trace(tries, end),
    });
  }

  /** The error of a dial in which nothing was tried. */
  #noAttempt(parsed: ParsedAddress): OpError {
    const network = this.#network;
    const [target] = literalTargets(parsed) ?? [];
    const failure = this.#timeUp ?? this.#lookupError;
    if (target) {
      return new OpError({ network, addr: target.addr, cause: failure });
    }
    const { host: hostname } = parsed as NamedAddress;
    const cause = failure !== undefined
      ? lookupError(hostname, failure)
      : this.#found
      ? new AddrError("no suitable address found", hostname)
      : new DnsError({ hostname, notFound: true });
    return new OpError({ network, cause });
  }
}

/** Why a lookup failed, as an error that names the host. */
function lookupError(hostname: string, cause: unknown): Error {
  if (isNamed(cause, "DnsError", "hostname")) return cause as DnsError;
  if (isNamed(cause, "AddrError", "addr")) return cause as AddrError;
  return new DnsError({ hostname, timeout: isTimeout(cause), cause });
}

/** A reason not to connect: no prompt for what the caller did not name. */
function refuse(target: Target): Error | undefined {
  if (target.named) return undefined;
  const host = hostPort(target);
  return isGranted(host) ? undefined : notCapable(host);
}

function isBatches(
  answer: ReturnType<Resolver>,
): answer is AsyncIterable<string[]> {
  return typeof answer === "object" && answer !== null &&
    Symbol.asyncIterator in answer;
}
