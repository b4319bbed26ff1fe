import {
  type Addr,
  parseAddress,
  type ParsedAddress,
  TcpAddr,
  UnixAddr,
} from "../net/addr.ts";
import { AddrError, OpError } from "../net/errors.ts";
import { isWildcard, parseIp } from "../net/ip.ts";
import type { Resolver } from "../net/resolver.ts";

/**
 * What an address means to listen(): the rules of the real one. Port 0 and the
 * empty path are for one that is free.
 *
 * @throws {OpError} With op "listen".
 * @throws {AbortSignal["reason"]} If `signal` aborts during a lookup.
 */
export function binding(
  network: string,
  address: string,
  resolve: Resolver,
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
    return new TcpAddr(family === 4 ? "0.0.0.0" : "::", port);
  }
  if (ip === null) return named(network, parsed, resolve, signal);
  return new TcpAddr(ip.zone === "" ? ip.text : `${ip.text}%${ip.zone}`, port);
}

async function named(
  network: string,
  parsed: ParsedAddress & { kind: "tcp" },
  resolve: Resolver,
  signal: AbortSignal,
): Promise<Addr> {
  try {
    return new TcpAddr(await chosen(parsed, resolve, signal), parsed.port);
  } catch (cause) {
    signal.throwIfAborted();
    throw new OpError({ op: "listen", network, cause });
  }
}

/** A name's first IPv4 address, else its first. */
async function chosen(
  { family, host }: ParsedAddress & { kind: "tcp" },
  resolve: Resolver,
  signal: AbortSignal,
): Promise<string> {
  const addresses: string[] = [];
  const answer = resolve(host, family ? { family, signal } : { signal });
  const batches = Symbol.asyncIterator in answer ? answer : [answer];
  for await (const batch of batches) addresses.push(...batch);
  signal.throwIfAborted();
  const chosen = addresses.find((text) => parseIp(text)?.family === 4) ??
    addresses[0];
  if (chosen === undefined) {
    throw new AddrError("no suitable address found", host);
  }
  return parseIp(chosen)!.text;
}
