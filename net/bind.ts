/**
 * From an address to a bound `Deno.Listener`: which socket Go would open,
 * as far as Deno can (SEMANTICS of `net.Listen`; IPV6_V6ONLY cannot be set).
 *
 * @module
 */

import {
  parseAddress,
  type ParsedAddress,
  platformPath,
  TcpAddr,
  UnixAddr,
} from "./addr.ts";
import { AddrError, errorCode, OpError } from "./errors.ts";
import { isWildcard, parseIp } from "./ip.ts";
import { systemResolver } from "./resolver.ts";
import { deniedReason, netGrant } from "./sandbox.ts";

/** How to bind; checked by the caller. */
export interface BindOptions {
  /** Ends the lookup of a name. */
  signal: AbortSignal;
  /** The length of the kernel's queue. */
  backlog: number;
  /** SO_REUSEPORT. */
  reusePort: boolean;
}

/** What was bound. */
export interface Bound {
  /** The platform's listener. */
  inner: Deno.Listener;
  /** IPv4 peers have to be turned away: the network is tcp6. */
  ipv6Only: boolean;
}

/** Errors for which a dual-stack wildcard falls back to IPv4 alone. */
const NO_IPV6: ReadonlySet<string | undefined> = new Set([
  "EAFNOSUPPORT",
  "EADDRNOTAVAIL",
]);

/**
 * Binds an address.
 *
 * @throws {OpError} With op "listen".
 * @throws {AbortSignal["reason"]} If `signal` aborts during a lookup.
 */
export async function bind(
  network: string,
  address: string,
  options: BindOptions,
): Promise<Bound> {
  let target: ParsedAddress;
  try {
    // To listen(2) no address is any address.
    const given = address === "" && network !== "unix" ? ":0" : address;
    target = parseAddress(network, given);
  } catch (cause) {
    throw new OpError({ op: "listen", network, cause });
  }
  if (target.kind === "unix") return bindUnix(target.path);
  const { host, ip, port, family } = target;
  const open = (hostname: string) => openTcp(network, hostname, port, options);
  if (host !== "" && ip === null) {
    return { inner: await bindName(network, target, options), ipv6Only: false };
  }
  if (ip !== null && !isWildcard(ip)) {
    const hostname = ip.zone === "" ? ip.text : `${ip.text}%${ip.zone}`;
    return { inner: open(hostname), ipv6Only: false };
  }
  if (family === 6) return { inner: open("::"), ipv6Only: true };
  if (family === 4 || onlyIpv4Granted(port)) {
    return { inner: open("0.0.0.0"), ipv6Only: false };
  }
  try {
    return { inner: open("::"), ipv6Only: false };
  } catch (error) {
    if (!NO_IPV6.has(errorCode(error))) throw error;
    return { inner: open("0.0.0.0"), ipv6Only: false };
  }
}

/** Where only the IPv4 wildcard is granted, nobody is asked for the other. */
function onlyIpv4Granted(port: number): boolean {
  const granted = (host: string) =>
    ["granted", "partial"].includes(netGrant(`${host}:${port}`));
  return !granted("[::]") && granted("0.0.0.0");
}

/** One listener per name: its first IPv4 address, else its first (Go). */
async function bindName(
  network: string,
  { host, port, family }: ParsedAddress & { kind: "tcp" },
  options: BindOptions,
): Promise<Deno.Listener> {
  const { signal } = options;
  const addresses: string[] = [];
  try {
    const answer = systemResolver(
      host,
      family ? { family, signal } : { signal },
    );
    if (Symbol.asyncIterator in answer) {
      for await (const batch of answer) addresses.push(...batch);
    } else addresses.push(...await answer);
  } catch (cause) {
    signal.throwIfAborted();
    throw new OpError({ op: "listen", network, cause });
  }
  signal.throwIfAborted();
  const fitting = addresses.filter((address) => {
    const ip = parseIp(address);
    return ip !== null && (family === undefined || ip.family === family);
  });
  const chosen = fitting.find((address) => parseIp(address)?.family === 4) ??
    fitting[0];
  if (chosen === undefined) {
    const cause = new AddrError("no suitable address found", host);
    throw new OpError({ op: "listen", network, cause });
  }
  // The name may be granted where its address is not: then the runtime
  // resolves it again, and takes getaddrinfo's first.
  const granted = (at: string) =>
    ["granted", "partial"].includes(netGrant(String(new TcpAddr(at, port))));
  const native = family === undefined && !granted(chosen) && granted(host);
  return openTcp(network, native ? host : chosen, port, options);
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
    const addr = new TcpAddr(hostname, port);
    const reason = cause instanceof Deno.errors.NotCapable
      ? deniedReason(String(addr), cause)
      : undefined;
    throw new OpError({ op: "listen", network, addr, cause, reason });
  }
}

/** The runtime removes the socket's file when the listener closes. */
function bindUnix(path: string): Bound {
  try {
    const inner = Deno.listen({ transport: "unix", path: platformPath(path) });
    return { inner: inner as Deno.Listener, ipv6Only: false };
  } catch (cause) {
    const reason = cause instanceof Deno.errors.NotCapable
      ? deniedReason({ path }, cause)
      : undefined;
    const addr = new UnixAddr(path);
    throw new OpError({ op: "listen", network: "unix", addr, cause, reason });
  }
}
