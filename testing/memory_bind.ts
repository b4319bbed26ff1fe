import {
  type Addr,
  parseAddress,
  type ParsedAddress,
  TcpAddr,
  UnixAddr,
} from "../net/addr.ts";
import { choose } from "../net/bind.ts";
import { OpError } from "../net/errors.ts";
import { isWildcard, platformHost } from "../net/ip.ts";
import type { Names } from "./names.ts";

/**
 * What an address means to listen(), by the rules of the real one. Port 0 and
 * the empty path stand for a free one.
 *
 * @throws {OpError} With op "listen".
 * @throws {AbortSignal["reason"]} If `signal` aborts during a lookup.
 */
export function binding(
  network: string,
  address: string,
  resolve: Names["resolve"],
  wildcard: (port: number) => TcpAddr,
  signal: AbortSignal,
): Addr | Promise<Addr> {
  let parsed: ParsedAddress;
  try {
    parsed = parseAddress(network, address);
  } catch (cause) {
    throw new OpError({ op: "listen", network, cause });
  }
  if (parsed.kind === "unix") {
    return new UnixAddr(parsed.path === "@" ? "" : parsed.path);
  }
  const { family, host, ip, port } = parsed;
  if (host === "" || (ip !== null && isWildcard(ip))) {
    if (family === undefined) return wildcard(port);
    return new TcpAddr(family === 4 ? "0.0.0.0" : "::", port);
  }
  if (ip === null) return named(network, parsed, resolve, signal);
  return new TcpAddr(platformHost(ip), port);
}

async function named(
  network: string,
  parsed: ParsedAddress & { kind: "tcp" },
  resolve: Names["resolve"],
  signal: AbortSignal,
): Promise<Addr> {
  const { family, host, port } = parsed;
  try {
    const batches = resolve(host, { signal });
    const chosen = await choose(batches, host, family);
    signal.throwIfAborted();
    return new TcpAddr(chosen, port);
  } catch (cause) {
    signal.throwIfAborted();
    throw new OpError({ op: "listen", network, cause });
  }
}
