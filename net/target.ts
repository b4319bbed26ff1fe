/**
 * Whom a dial connects to, and the connecting of one of them.
 *
 * @module
 */

import {
  type Addr,
  joinHostPort,
  type ParsedAddress,
  TcpAddr,
  UnixAddr,
} from "./addr.ts";
import { AddrError, errorCode } from "./errors.ts";
import { type Ip, parseIp } from "./ip.ts";
import type { Candidate } from "./race.ts";

/**
 * Opens one connection for {@linkcode dial}: `Deno.connect`, a tunnel, a test.
 *
 * Gets one address at a time: an IP address or a unix socket's path; a name
 * only where the sandbox forbids to resolve it and there is no `resolve`
 * option. Rejects if there is no connection. Should reject soon after `signal`
 * aborts; whatever it still delivers then is closed.
 */
export type Connector = (
  addr: Addr,
  options: { signal: AbortSignal },
) => Promise<Deno.Conn>;

/** One address to connect to. */
export interface Target extends Candidate {
  /** What errors and the trace show, and a connector gets. */
  readonly addr: Addr;
  /** What `Deno.connect` gets; differs from `addr` for a wildcard only. */
  readonly hostname: string;
  /** The caller wrote it: it is his to ask for at the sandbox's prompt. */
  readonly named: boolean;
}

/** What opening a {@linkcode Target} takes. */
export interface OpenOptions {
  /** Instead of `Deno.connect`. */
  connect?: Connector | undefined;
  /** The family that a name must turn out to have. */
  family?: 4 | 6 | undefined;
  /** For a name: the delay between the runtime's own attempts. */
  attemptDelay?: number | undefined;
  /** Whether to set TCP_NODELAY. */
  noDelay: boolean;
  /** Whether to set SO_KEEPALIVE. */
  keepAlive: boolean;
}

/** An address that was resolved. */
export function ipTarget(ip: Ip, port: number): Target {
  const addr = new TcpAddr(ip.zone ? `${ip.text}%${ip.zone}` : ip.text, port);
  const { family } = ip;
  const { hostname } = addr;
  return { addr, family, hostname, named: false, text: String(addr) };
}

/** Exactly what the caller named: a name for the runtime, or a socket. */
export function namedTarget(addr: Addr): Target {
  const hostname = addr.transport === "tcp" ? addr.hostname : addr.path;
  return { addr, family: 0, hostname, named: true, text: String(addr) };
}

/**
 * The targets that need no resolver: literals, unix sockets, and the local
 * system, which has no name (`:80`) or is a wildcard. The kernel takes a
 * wildcard for loopback (and so does the sandbox's grant need to: it is for
 * what the caller wrote). Windows does not, and gets the real address.
 *
 * @returns `undefined` for a name.
 */
export function literalTargets(parsed: ParsedAddress): Target[] | undefined {
  if (parsed.kind === "unix") return [namedTarget(new UnixAddr(parsed.path))];
  const { family, host, ip, port } = parsed;
  const local = (text: string, wildcard: string) => {
    const { addr, ...target } = ipTarget(parseIp(text)!, port);
    const named = ip === null || ip.text === wildcard;
    const hostname = ip === null || Deno.build.os === "windows"
      ? text
      : wildcard;
    return { ...target, addr, hostname, named };
  };
  const local4 = () => local("127.0.0.1", "0.0.0.0");
  const local6 = () => local("::1", "::");
  if (ip === null) {
    if (host !== "") return undefined;
    return [family === 6 ? local6() : local4()];
  }
  if (ip.text === "0.0.0.0") return [local4()];
  if (ip.text !== "::") return [{ ...ipTarget(ip, port), named: true }];
  // A lone `::` means both families (Go appends 0.0.0.0 to it).
  if (family === 4) return [local4()];
  return family === 6 ? [local6()] : [local6(), local4()];
}

/** What the sandbox is asked about a TCP target. */
export function hostPort({ addr, hostname }: Target): string {
  return addr.transport === "tcp" ? joinHostPort(hostname, addr.port) : "";
}

/**
 * How often Go tries again what is a kernel's accident: a socket that was
 * connected to itself, and a local port that was taken at the last moment.
 */
const MAX_ACCIDENTS = 2;

/**
 * Connects to one target. A failure leaves nothing open.
 *
 * @param target Whom to connect to.
 * @param options See {@linkcode OpenOptions}.
 * @param signal Of our own making, one for each call; `undefined` if nobody
 * can cancel it.
 */
export async function open(
  target: Target,
  options: OpenOptions,
  signal: AbortSignal | undefined,
): Promise<Deno.Conn> {
  const { connect } = options;
  for (let accidents = 0;; accidents++) {
    const conn = connect === undefined
      ? await platformConnect(target, options, signal)
      : await connect(target.addr, {
        signal: signal ?? new AbortController().signal,
      });
    if (!isSelfConnected(conn)) return prepare(conn, target, options);
    conn.close();
    // Nobody listens there: two ends met that were both opened actively
    // (RFC 9293, section 3.5, simultaneous open).
    if (accidents === MAX_ACCIDENTS || signal?.aborted) throw refused();
  }
}

/** The kernel's answer where nobody listens. */
function refused(): Error {
  return new Deno.errors.ConnectionRefused("Connection refused");
}

async function platformConnect(
  { addr, hostname }: Target,
  { attemptDelay }: OpenOptions,
  signal: AbortSignal | undefined,
): Promise<Deno.Conn> {
  if (addr.transport === "unix") {
    return await Deno.connect({ transport: "unix", path: addr.path });
  }
  // The kernel would refuse it; Deno throws a RangeError instead.
  if (addr.port === 0) throw refused();
  // Deno.connect() ends with signal.throwIfAborted(), and leaks a socket that
  // was connected just before the abort (a third of them when aborts come from
  // timers, 50 in flight). Without it the socket comes back to be closed.
  if (signal !== undefined) signal.throwIfAborted = () => {};
  const options = {
    hostname,
    port: addr.port,
    ...signal && { signal },
    ...attemptDelay !== undefined &&
      { autoSelectFamilyAttemptDelay: attemptDelay },
  };
  for (let accidents = 0;; accidents++) {
    try {
      return await Deno.connect(options);
    } catch (error) {
      const again = accidents < MAX_ACCIDENTS && !signal?.aborted &&
        errorCode(error) === "EADDRNOTAVAIL";
      if (!again) throw error;
    }
  }
}

function isSelfConnected({ localAddr, remoteAddr }: Deno.Conn): boolean {
  return localAddr.transport === "tcp" && remoteAddr.transport === "tcp" &&
    localAddr.port === remoteAddr.port && localAddr.port !== 0 &&
    localAddr.hostname === remoteAddr.hostname;
}

function prepare(
  conn: Deno.Conn,
  target: Target,
  { connect, family, keepAlive, noDelay }: OpenOptions,
): Deno.Conn {
  try {
    if (family !== undefined && connect === undefined) {
      const { hostname } = conn.remoteAddr as Deno.NetAddr;
      if (parseIp(hostname)?.family !== family) {
        throw new AddrError("no suitable address found", target.hostname);
      }
    }
    const { setNoDelay, setKeepAlive } = conn as Partial<Deno.TcpConn>;
    if (noDelay) setNoDelay?.call(conn, true);
    if (keepAlive) setKeepAlive?.call(conn, true);
    return conn;
  } catch (error) {
    conn.close();
    throw error;
  }
}
