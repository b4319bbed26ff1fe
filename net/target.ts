/**
 * What a dial connects to, and how it connects to one target.
 *
 * @module
 */

import {
  type Addr,
  joinHostPort,
  parseAddress,
  type ParsedAddress,
  platformPath,
  TcpAddr,
  UnixAddr,
} from "./addr.ts";
import { discard } from "./calls.ts";
import { checkStream } from "./check.ts";
import { systemClock } from "./clock.ts";
import { errorCode } from "./errno.ts";
import { AddrError } from "./errors.ts";
import { type Ip, parseIp, platformHost } from "./ip.ts";
import type { Candidate } from "./race.ts";
import { lookupFailure, refuseOnion } from "./resolver.ts";
import { setSocketOptions, type SocketOptions } from "./socket_options.ts";

/**
 * Opens one connection for {@linkcode dial}: `Deno.connect`, a tunnel, a test.
 *
 * It gets one address at a time: an IP address or a unix socket's path; a name
 * only if at most single hosts are granted and there is no `resolve` option. If
 * it fails, it rejects: the error's `code`, or a class such as
 * `Deno.errors.ConnectionRefused`, decides the outcome in the trace, and its
 * message ends ours (the system's text for an errno in Go's words). It should
 * reject soon after `signal` aborts; a connection that still comes is closed.
 * Do not pass the signal on to `Deno.connect`, which loses a connection that
 * came up just before an abort: let it finish, since what comes late is closed.
 *
 * If a connection's two addresses are the same, port included, it was connected
 * to itself (RFC 9293, section 3.5). It is closed and asked for again, up to
 * twice, and then counts as refused. So addresses that a connector makes up
 * must differ, or have port 0.
 */
export type Connector = (
  addr: Addr,
  options: { signal: AbortSignal },
) => Promise<Deno.Conn>;

/** One address to connect to. */
export interface Target extends Candidate {
  /** What errors and the trace show, and a connector gets. */
  readonly addr: Addr;
  /** What `Deno.connect` gets: `addr`, except for wildcards and idle zones. */
  readonly hostname: string;
  /** Whether the caller wrote it: then the sandbox may prompt for it. */
  readonly named: boolean;
}

/** What the caller of a dial has passed, parsed. */
export interface ParsedDial {
  /** The network, as the caller named it. */
  readonly network: string;
  /** The address, as the caller wrote it. */
  readonly address: string;
  /** Its parts. */
  readonly parsed: ParsedAddress;
  /** What to try; `undefined` for a name, which has to be resolved. */
  readonly targets: readonly Target[] | undefined;
}

/** What opening a {@linkcode Target} takes. */
export interface OpenOptions extends SocketOptions {
  /** Instead of `Deno.connect`. */
  connect?: Connector | undefined;
  /** The family that a name must turn out to have. */
  family?: 4 | 6 | undefined;
  /** For a name: the delay between the runtime's own attempts. */
  nativeDelay?: number | undefined;
}

/**
 * The literal that was dialled last. A proxy or a pool dials the same one over
 * and over, and parsing it takes 7 % of a dial on loopback.
 */
let lastLiteral: ParsedDial | null = null;

/**
 * Parses what the caller of a dial has passed, and asks nobody.
 *
 * @throws {AddrError} As {@linkcode parseAddress}, and if there is no address.
 */
export function parseDial(network: string, address: string): ParsedDial {
  if (lastLiteral?.address === address && lastLiteral.network === network) {
    return lastLiteral;
  }
  // The network is checked first. Unlike listen(), a dial needs an address.
  const parsed = parseAddress(network, address);
  if (address === "") throw new AddrError("missing address");
  const targets = literalTargets(parsed);
  const dial = { network, address, parsed, targets };
  if (targets) lastLiteral = dial;
  return dial;
}

/**
 * One IP address. `named`: the caller wrote it, and sees it again with its
 * zone, even an idle one; addresses from a resolver are compared without.
 */
export function ipTarget(ip: Ip, port: number, named: boolean): Target {
  const { family, text, zone } = ip;
  const hostname = platformHost(ip);
  const addr = new TcpAddr(named && zone ? `${text}%${zone}` : hostname, port);
  return { addr, family, hostname, named, text: addr.toString() };
}

/** Exactly what the caller named: a name for the runtime, or a socket. */
export function namedTarget(addr: Addr): Target {
  const hostname = addr.transport === "tcp" ? addr.hostname : addr.path;
  return { addr, family: 0, hostname, named: true, text: addr.toString() };
}

/**
 * The targets that need no resolver: literals, unix sockets, and the local
 * system, with no host (`:80`) or as a wildcard.
 *
 * @returns `undefined` for a name.
 */
export function literalTargets(parsed: ParsedAddress): Target[] | undefined {
  if (parsed.kind === "unix") return [namedTarget(new UnixAddr(parsed.path))];
  const { family, host, ip, port } = parsed;
  if (ip === null) {
    if (host !== "") return undefined;
    return [localTarget(family ?? 4, null, port)];
  }
  if (ip.text === "0.0.0.0") return [localTarget(4, ip, port)];
  if (ip.text !== "::") return [ipTarget(ip, port, true)];
  // A lone `::` means both families (Go appends 0.0.0.0 to it).
  const families = family === undefined ? [6, 4] as const : [family];
  return families.map((family) => localTarget(family, ip, port));
}

/** This host's addresses, and the wildcards that stand for them. */
const LOCAL = {
  4: { loopback: "127.0.0.1", wildcard: "0.0.0.0" },
  6: { loopback: "::1", wildcard: "::" },
};

/**
 * This host. If the caller wrote a wildcard, the runtime gets just that: the
 * sandbox's grant is for it, and the kernel takes it for loopback. Windows does
 * not, and gets the loopback address.
 */
function localTarget(
  family: 4 | 6,
  written: Ip | null,
  port: number,
): Target {
  const { loopback, wildcard } = LOCAL[family];
  const addr = new TcpAddr(loopback, port);
  const real = written === null || Deno.build.os === "windows";
  return {
    addr,
    family,
    hostname: real ? loopback : wildcard,
    named: written === null || written.text === wildcard,
    text: addr.toString(),
  };
}

/** What the sandbox is asked about a TCP target. */
export function hostPort({ addr, hostname }: Target): string {
  return addr.transport === "tcp" ? joinHostPort(hostname, addr.port) : "";
}

/**
 * How often Go tries again after a kernel's accident: a socket that was
 * connected to itself, or a local port that was taken at the last moment.
 */
const MAX_ACCIDENTS = 2;

/**
 * If all searches for a local port have failed, ports have run out, and for
 * this long, in ms, each dial searches once: a search of the whole range takes
 * some milliseconds, in which the event loop stands still.
 */
const SHORTAGE_MS = 1_000;

/**
 * When ports may be free again, on the scale of `systemClock.monotonic()`. By
 * family: on a host without IPv6, its addresses fail in the same way for ever.
 */
const shortUntil = new Map<number, number>();

/**
 * Connects to one target. A failure leaves nothing open.
 *
 * @param target What to connect to.
 * @param options See {@linkcode OpenOptions}.
 * @param signal Our own, one for each call; `undefined` if nothing can abort.
 * @throws {DnsError} If the runtime could not look a name up.
 */
export async function open(
  target: Target,
  options: OpenOptions,
  signal: AbortSignal | undefined,
): Promise<Deno.Conn> {
  const { connect } = options;
  for (let accidents = 0;; accidents++) {
    let conn: Deno.Conn;
    try {
      conn = await (connect === undefined
        ? platformConnect(target, options, signal)
        : connect(target.addr, {
          signal: signal ?? new AbortController().signal,
        }));
    } catch (error) {
      if (connect !== undefined) throw error;
      const code = errorCode(error);
      // getpeername(2): it was connected, and reset at once. Go says it so.
      if (code === "ENOTCONN") throw resetAtOnce(error);
      if (code === "EADDRNOTAVAIL" && !signal?.aborted) {
        const now = systemClock.monotonic();
        const short = now < (shortUntil.get(target.family) ?? 0);
        if (accidents < MAX_ACCIDENTS && !short) continue;
        shortUntil.set(target.family, now + SHORTAGE_MS);
      }
      throw lookupFailure(target.hostname, error) ?? error;
    }
    try {
      if (connect !== undefined) checkStream(conn);
      if (!isSelfConnected(conn)) return prepared(conn, target, options);
    } catch (error) {
      discard(conn);
      throw error;
    }
    discard(conn);
    // Nobody listens there: two active opens met (RFC 9293, section 3.5,
    // simultaneous open).
    if (accidents === MAX_ACCIDENTS || signal?.aborted) throw refused();
  }
}

/** The kernel's answer where nobody listens. */
function refused(): Error {
  return new Deno.errors.ConnectionRefused("connection refused");
}

/** What a read would have said a moment later. */
function resetAtOnce(cause: unknown): Error {
  const message = "connection reset by peer";
  return new Deno.errors.ConnectionReset(message, { cause });
}

function platformConnect(
  { addr, family, hostname }: Target,
  { nativeDelay }: OpenOptions,
  signal: AbortSignal | undefined,
): Promise<Deno.Conn> {
  if (addr.transport === "unix") {
    const path = platformPath(addr.path);
    return Deno.connect({ transport: "unix", path });
  }
  const { port } = addr;
  // The kernel would refuse it; Deno throws a RangeError instead.
  if (port === 0) throw refused();
  if (family === 0) refuseOnion(hostname); // a name for the runtime
  const options: Deno.ConnectOptions = { hostname, port };
  if (signal !== undefined) {
    // Deno.connect() ends with signal.throwIfAborted(), and leaks a socket that
    // was connected just before the abort (a third of them when aborts come
    // from timers, 50 in flight). Without it we get the socket, and close it.
    signal.throwIfAborted = noThrow;
    options.signal = signal;
  }
  if (nativeDelay !== undefined) {
    options.autoSelectFamilyAttemptDelay = nativeDelay;
  }
  return Deno.connect(options);
}

function noThrow(): void {}

function isSelfConnected({ localAddr, remoteAddr }: Deno.Conn): boolean {
  const local = localAddr as Deno.NetAddr;
  const remote = remoteAddr as Deno.NetAddr;
  // The ports first: they hardly ever are the same, and each look takes time.
  return local.port === remote.port && local.port > 0 &&
    local.hostname === remote.hostname;
}

function prepared(
  conn: Deno.Conn,
  target: Target,
  options: OpenOptions,
): Deno.Conn {
  const { connect, family } = options;
  if (family !== undefined && connect === undefined) {
    const { hostname } = conn.remoteAddr as Deno.NetAddr;
    if (parseIp(hostname)?.family !== family) {
      throw new AddrError("no suitable address found", target.hostname);
    }
  }
  setSocketOptions(conn, options);
  return conn;
}
