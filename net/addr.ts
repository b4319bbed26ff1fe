/**
 * Addresses as Go writes them: `host:port`, with IPv6 in brackets, names for
 * ports, and for unix sockets a path. {@linkcode parseAddress} is the first
 * step of both listen() and dial(): it checks, in Go's order, all that can be
 * checked without asking anybody.
 *
 * @module
 */

import { AddrError, DnsError, UnknownNetworkError } from "./errors.ts";
import { type Ip, parseIp } from "./ip.ts";
import { SERVICES } from "./services.ts";

/**
 * What {@linkcode listen} and {@linkcode dial} take: TCP over IPv4 and IPv6,
 * over one of them, or a unix socket.
 */
export type Network = "tcp" | "tcp4" | "tcp6" | "unix";

/** An address of either kind; `transport` tells them apart. */
export type Addr = TcpAddr | UnixAddr;

/**
 * The address of a TCP socket. It is a `Deno.NetAddr`, and `String(addr)` is
 * what `dial()` and `listen()` take.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { TcpAddr } from "@switchboard/tcp";
 *
 * assertEquals(String(new TcpAddr("::1", 80)), "[::1]:80");
 * assertEquals(String(new TcpAddr("::ffff:127.0.0.1", 80)), "127.0.0.1:80");
 * ```
 */
export class TcpAddr implements Deno.NetAddr {
  /** Always `"tcp"`. */
  readonly transport: "tcp" = "tcp";
  /**
   * An IP address (RFC 5952 text, IPv4-mapped ones as plain IPv4), or a name.
   */
  readonly hostname: string;
  /** The port, 0 to 65535. */
  readonly port: number;

  /**
   * An address.
   *
   * @param hostname An IP address, including the zone of an IPv6 one; a name is
   * kept as it is.
   * @param port The port.
   */
  constructor(hostname: string, port: number) {
    const ip = hostname.includes(":") ? parseIp(hostname) : null;
    this.hostname = ip === null
      ? hostname
      : ip.zone === ""
      ? ip.text
      : `${ip.text}%${ip.zone}`;
    this.port = port;
    Object.freeze(this); // dials and errors share it
  }

  /** `127.0.0.1:80`, `[::1]:80`. */
  toString(): string {
    return joinHostPort(this.hostname, this.port);
  }
}

/** The address of a unix socket: a `Deno.UnixAddr`. */
export class UnixAddr implements Deno.UnixAddr {
  /** Always `"unix"`. */
  readonly transport: "unix" = "unix";
  /**
   * Where it is; `""` for a peer without a name, `@name` in Linux's abstract
   * namespace.
   */
  readonly path: string;

  /**
   * An address.
   *
   * @param path Where it is. Deno gives `null` for a peer without a name.
   */
  constructor(path: string | null | undefined) {
    this.path = path?.replace(/^\0/, "@") ?? "";
    Object.freeze(this);
  }

  /** The path. */
  toString(): string {
    return this.path;
  }
}

/** A unix path as the platform takes it: abstract `@name` begins with NUL. */
export function platformPath(path: string): string {
  return path.replace(/^@/, "\0");
}

/** Converts an address of the platform. */
export function toAddr(addr: Deno.Addr): Addr {
  switch (addr.transport) {
    case undefined: // `Deno.startTls()` leaves it out (2.9.6)
    case "tcp":
      return new TcpAddr(addr.hostname, addr.port);
    case "unix":
      return new UnixAddr(addr.path);
    default:
      throw new TypeError(`not a stream address: ${addr.transport}`);
  }
}

/**
 * Splits `host:port`, `[host]:port` and `[ipv6%zone]:port`: Go's
 * `net.SplitHostPort`. Neither part is checked or trimmed.
 *
 * @param address The text; the port may be empty, but its colon is needed.
 * @returns Host, without brackets, and port.
 * @throws {AddrError} `missing port in address`, `too many colons in address`
 * and the like.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { splitHostPort } from "@switchboard/tcp";
 *
 * assertEquals(splitHostPort("[::1]:http"), { host: "::1", port: "http" });
 * ```
 */
export function splitHostPort(address: string): { host: string; port: string } {
  const last = address.lastIndexOf(":");
  if (last < 0) throw new AddrError("missing port in address", address);
  let host: string;
  let open = 0; // from here on no bracket may open
  let close = 0;
  if (address.startsWith("[")) {
    const end = address.indexOf("]");
    if (end < 0) throw new AddrError("missing ']' in address", address);
    if (end + 1 !== last) {
      const colon = address[end + 1] === ":";
      const reason = colon ? "too many colons" : "missing port";
      throw new AddrError(`${reason} in address`, address);
    }
    host = address.slice(1, end);
    open = 1;
    close = end + 1;
  } else {
    host = address.slice(0, last);
    if (host.includes(":")) {
      throw new AddrError("too many colons in address", address);
    }
  }
  if (address.includes("[", open)) {
    throw new AddrError("unexpected '[' in address", address);
  }
  if (address.includes("]", close)) {
    throw new AddrError("unexpected ']' in address", address);
  }
  return { host, port: address.slice(last + 1) };
}

/**
 * Joins a host and a port: Go's `net.JoinHostPort`. A host with a colon gets
 * brackets; nothing is checked.
 *
 * @param host A name or an IP address, without brackets.
 * @param port A number or a service name.
 * @returns `host:port`, `[host]:port`.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { joinHostPort } from "@switchboard/tcp";
 *
 * assertEquals(joinHostPort("::1", 80), "[::1]:80");
 * ```
 */
export function joinHostPort(host: string, port: string | number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * The port of a service: Go's `net.LookupPort`, with a table of the commonly
 * used IANA names, so that no file is read and no permission needed.
 *
 * @param network A TCP network, or `"udp"`; anything if `service` is a number.
 * @param service A name, in any case, or a number; `""` is 0.
 * @returns 0 to 65535.
 * @throws {AddrError} `invalid port`, `unknown port` or `unknown network`.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { lookupPort } from "@switchboard/tcp";
 *
 * assertEquals(lookupPort("tcp", "https"), 443);
 * ```
 */
export function lookupPort(network: Network | "udp", service: string): number {
  if (/^[+-]?[0-9]*$/.test(service)) {
    const port = Number(service) || 0;
    if (port < 0 || port > 65535) throw new AddrError("invalid port", service);
    return port;
  }
  const protocol = /^(tcp|udp)[46]?$/.exec(network)?.[1];
  if (protocol === undefined) throw new AddrError("unknown network", network);
  // Only ASCII letters are lowered: "K" (KELVIN SIGN) is not k.
  const name = service.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  const port = SERVICES[protocol as "tcp" | "udp"].get(name);
  if (port === undefined) {
    throw new AddrError("unknown port", `${protocol}/${service}`);
  }
  return port;
}

/** An address in parts. */
export type ParsedAddress =
  | { readonly kind: "unix"; readonly path: string }
  | {
    readonly kind: "tcp";
    /** The family that the network asks for. */
    readonly family: 4 | 6 | undefined;
    /**
     * As it was written, without brackets; may be empty. But a name in another
     * script is in ASCII (`xn--bcher-kva.test`), as grants and resolvers want.
     */
    readonly host: string;
    readonly port: number;
    /** The host, if it is a literal. */
    readonly ip: Ip | null;
  };

/**
 * Checks a network and an address in Go's order: network, host:port, port,
 * host, family. Asks nobody. An empty TCP address means all addresses and any
 * port, as in Go's `net.Listen`; dial() then says that it is missing.
 *
 * @throws {UnknownNetworkError} If there is no such network.
 * @throws {AddrError} If the address cannot be understood or has the wrong
 * family.
 * @throws {DnsError} If the host can never be a name.
 */
export function parseAddress(network: string, address: string): ParsedAddress {
  if (network === "unix") return { kind: "unix", path: address };
  checkNetwork(network, address);
  const family = network === "tcp4" ? 4 : network === "tcp6" ? 6 : undefined;
  const { host, port: service } = splitHostPort(address || ":0");
  const port = lookupPort(network as Network, service);
  const ip = parseIp(host);
  if (ip === null) {
    if (host !== "" && !isHostName(host)) {
      throw new DnsError({ hostname: host, notFound: true });
    }
    return { kind: "tcp", family, host: toAscii(host), port, ip };
  }
  // A lone `::` has an IPv4 side, too (Go appends `0.0.0.0` to it).
  if (family !== undefined && ip.family !== family && ip.text !== "::") {
    throw new AddrError("no suitable address found", host);
  }
  return { kind: "tcp", family, host, port, ip };
}

/** Go's networks without streams are known, but of the wrong kind. */
function checkNetwork(network: string, address: string): void {
  if (network === "tcp" || network === "tcp4" || network === "tcp6") return;
  if (/^(udp[46]?|unixgram)$/.test(network)) {
    throw new AddrError("unexpected address type", address);
  }
  throw new UnknownNetworkError(network);
}

/**
 * Whether a text that is not an IP literal can be looked up. One label at least
 * must not be a number: `127.1`, `010.0.0.1` and `0x7f.1` are addresses to
 * getaddrinfo, and names to nobody (inet_aton(3)). Nor may there be anything
 * that Deno's permission parser or a resolver would choke on.
 * Underscores pass: the system's resolver can deal with them.
 */
export function isHostName(host: string): boolean {
  const ascii = toAscii(host);
  // The form in ASCII, too: `⑴.test` is "(1).test".
  // deno-lint-ignore no-control-regex -- they are what must not pass
  const odd = /[\x00-\x20\x7f%/\\?#@:<>^|[\]"`{}!$&'()*+,;=~]/;
  if (odd.test(host) || odd.test(ascii)) return false;
  const name = ascii.endsWith(".") ? ascii.slice(0, -1) : ascii;
  if (name.length > 253) return false;
  const labels = name.split(".");
  if (labels.some((label) => label === "" || label.length > 63)) return false;
  return labels.some((label) => !/^([0-9]+|0x[0-9a-f]*)$/i.test(label));
}

/**
 * A name in other scripts as DNS has it (UTS #46). `１２７.１`, in fullwidth
 * digits, is 127.1, and so is `127。1`. Empty if there can be no such name.
 */
export function toAscii(host: string): string {
  // deno-lint-ignore no-control-regex -- all of ASCII
  if (/^[\x00-\x7f]*$/.test(host)) return host;
  return URL.parse(`http://${host}`)?.hostname ?? "";
}
