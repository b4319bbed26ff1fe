/**
 * From an address to a bound `Deno.Listener`: the socket that Go would open
 * (`net.Listen`), as far as Deno can (IPV6_V6ONLY cannot be set).
 *
 * @module
 */

import {
  joinHostPort,
  parseAddress,
  type ParsedAddress,
  platformPath,
  TcpAddr,
  UnixAddr,
} from "./addr.ts";
import { bothFamilies } from "./both_families.ts";
import { errorCode } from "./errno.ts";
import { AddrError, DnsError, OpError } from "./errors.ts";
import { isWildcard, parseIp, platformHost } from "./ip.ts";
import { lookupFailure, refuseOnion, systemAddresses } from "./resolver.ts";
import {
  deniedReason,
  isGranted,
  mayAsk,
  netGrant,
  notCapable,
} from "./sandbox.ts";

/** How to bind; checked by the caller. */
export interface BindOptions {
  /** Ends the lookup of a name. */
  signal: AbortSignal;
  /** The length of the kernel's queue. */
  backlog: number;
  /** SO_REUSEPORT. */
  reusePort: boolean;
}

/** Errors for which a dual-stack wildcard makes do with the other family. */
const NO_FAMILY: ReadonlySet<string | undefined> = new Set([
  "EAFNOSUPPORT",
  "EADDRNOTAVAIL",
]);

/** How often to start over if the port chosen for IPv6 is taken for IPv4. */
const MAX_CLASHES = 8;

/**
 * Binds an address.
 *
 * @param os The operating system.
 * @throws {OpError} With op "listen"; a bad address comes first.
 * @throws {AbortSignal["reason"]} If `signal` aborts during a lookup.
 */
export async function bind(
  network: string,
  address: string,
  options: BindOptions,
  os: typeof Deno.build.os = Deno.build.os,
): Promise<Deno.Listener> {
  let target: ParsedAddress;
  try {
    target = parseAddress(network, address);
  } catch (cause) {
    throw new OpError({ op: "listen", network, cause });
  }
  if (target.kind === "unix") return bindUnix(target.path);
  const { host, ip, port, family } = target;
  if (options.reusePort && !("listenDatagram" in Deno)) {
    // Deno ends the process instead of throwing, so it must not be asked.
    const addr = new TcpAddr(host, port);
    const reason = "reusePort: run again with --unstable-net";
    throw new OpError({ op: "listen", network, addr, reason });
  }
  const open = (hostname: string, at = port) =>
    openTcp(network, hostname, at, options);
  if (host !== "" && ip === null) {
    return await bindName(network, target, options);
  }
  if (ip !== null && !isWildcard(ip)) {
    const hostname = platformHost(ip);
    return zoned(open(hostname), hostname);
  }
  if (family === 6) return open("::");
  if (family === 4 || onlyIpv4Granted(port)) return open("0.0.0.0");
  try {
    return os === "windows" ? openBoth(port, open) : open("::");
  } catch (error) {
    if (!NO_FAMILY.has(errorCode(error))) throw error;
    return open("0.0.0.0");
  }
}

/** All addresses, on systems where each family has its own socket. */
function openBoth(
  port: number,
  open: (hostname: string, port: number) => Deno.Listener,
): Deno.Listener {
  for (let clashes = 0;; clashes++) {
    const ipv6 = open("::", port);
    const { port: chosen } = ipv6.addr as Deno.NetAddr;
    // No prompt for what the caller has not named.
    if (!isGranted(`0.0.0.0:${chosen}`)) return ipv6;
    try {
      return bothFamilies(ipv6, open("0.0.0.0", chosen));
    } catch (error) {
      const code = errorCode(error);
      if (NO_FAMILY.has(code)) return ipv6;
      ipv6.close();
      const clash = port === 0 && code === "EADDRINUSE";
      if (!clash || clashes === MAX_CLASHES) throw error;
    }
  }
}

/** The runtime leaves the zone out; without it nobody can dial the address. */
function zoned(inner: Deno.Listener, hostname: string): Deno.Listener {
  if (!hostname.includes("%")) return inner;
  const value = { ...inner.addr, hostname };
  return Object.defineProperty(inner, "addr", { value });
}

/** If only the IPv4 wildcard is granted, there is no prompt for the other. */
function onlyIpv4Granted(port: number): boolean {
  return !isGranted(`[::]:${port}`) && isGranted(`0.0.0.0:${port}`);
}

/** One listener per name, as in Go. */
async function bindName(
  network: string,
  { host, port, family }: ParsedAddress & { kind: "tcp" },
  options: BindOptions,
): Promise<Deno.Listener> {
  const { signal } = options;
  let inner: Deno.Listener | undefined;
  try {
    refuseOnion(host);
    let chosen: string | undefined;
    if (netGrant(joinHostPort(host, port)) !== "denied" && mayAsk(host)) {
      const batches = systemAddresses(host, 0, signal, HEDGE_MS);
      chosen = await choose(batches, host, family);
      if (isGranted() || isGranted(joinHostPort(chosen, port))) {
        return openTcp(network, chosen, port, options);
      }
    }
    // The name may be granted although its address is not, and no resolver may
    // be asked. The runtime takes getaddrinfo's first address, of either
    // family.
    inner = openTcp(network, host, port, options);
    const { hostname } = inner.addr as Deno.NetAddr;
    if (family === undefined || parseIp(hostname)?.family === family) {
      return inner;
    }
    // There may be an address that fits: what is missing is a grant.
    const wanted = chosen === undefined ? host : joinHostPort(chosen, port);
    const addr = new TcpAddr(chosen ?? host, port);
    const cause = notCapable(wanted);
    const reason = deniedReason(wanted, cause);
    throw new OpError({ op: "listen", network, addr, reason, cause });
  } catch (cause) {
    inner?.close();
    signal.throwIfAborted();
    if (cause instanceof OpError) throw cause;
    throw new OpError({ op: "listen", network, cause });
  }
}

/**
 * A dial asks for each family as well after 250 ms. A bind has more time, and
 * more to lose: asked for IPv4 alone, glibc reads each `::1` in /etc/hosts as
 * 127.0.0.1, before the addresses that are there.
 */
const HEDGE_MS = 2_000;

/** A name's first IPv4 address, else its first (Go); then it asks no more. */
export async function choose(
  batches: AsyncIterable<string[]>,
  host: string,
  family: 4 | 6 | undefined,
): Promise<string> {
  let other: string | undefined;
  for await (const batch of batches) {
    for (const address of batch) {
      if (parseIp(address)?.family === (family ?? 4)) return address;
      other ??= address;
    }
  }
  if (family === undefined && other !== undefined) return other;
  throw new AddrError("no suitable address found", host);
}

function openTcp(
  network: string,
  hostname: string,
  port: number,
  { backlog, reusePort }: BindOptions,
): Deno.Listener {
  try {
    return Deno.listen({
      hostname,
      port,
      tcpBacklog: backlog,
      ...(reusePort && { reusePort }),
    } as Deno.TcpListenOptions);
  } catch (cause) {
    const lookup = lookupFailure(hostname, cause);
    if (lookup instanceof DnsError) {
      throw new OpError({ op: "listen", network, cause: lookup });
    }
    const addr = new TcpAddr(hostname, port);
    const reason = deniedReason(String(addr), cause);
    const why = lookup ?? cause;
    throw new OpError({ op: "listen", network, addr, cause: why, reason });
  }
}

/** The runtime removes the socket's file when the listener closes. */
function bindUnix(given: string): Deno.Listener {
  // The kernel makes up a name for both (unix(7), autobind), but no grant can
  // name an empty path.
  const path = given === "" && Deno.build.os === "linux" ? "@" : given;
  try {
    const inner = Deno.listen({ transport: "unix", path: platformPath(path) });
    return inner as Deno.Listener;
  } catch (cause) {
    const reason = deniedReason({ path }, cause);
    const addr = new UnixAddr(path);
    throw new OpError({ op: "listen", network: "unix", addr, cause, reason });
  }
}
