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
export async function binding(
  network: string,
  address: string,
  resolve: Resolver,
  signal: AbortSignal,
): Promise<Addr> {
  try {
    const parsed = parseAddress(network, address);
    if (parsed.kind === "unix") return new UnixAddr(parsed.path);
    const hostname = await hostnameOf(parsed, resolve, signal);
    return new TcpAddr(hostname, parsed.port);
  } catch (cause) {
    signal.throwIfAborted();
    throw new OpError({ op: "listen", network, cause });
  }
}

async function hostnameOf(
  { family, host, ip }: ParsedAddress & { kind: "tcp" },
  resolve: Resolver,
  signal: AbortSignal,
): Promise<string> {
  if (host === "" || (ip !== null && isWildcard(ip))) {
    return family === 4 ? "0.0.0.0" : "::";
  }
  if (ip !== null) return ip.zone === "" ? ip.text : `${ip.text}%${ip.zone}`;
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
