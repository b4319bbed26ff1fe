/**
 * Where the addresses of a name come from: the system, as for every other
 * program, or DNS and nothing else. Neither falls back to the other, because
 * they can disagree: the system looks into /etc/hosts, a search list, mDNS and
 * whatever else it is set up to use.
 *
 * @module
 */

import { isHostName, joinHostPort } from "./addr.ts";
import { checkOptions } from "./check.ts";
import { systemClock } from "./clock.ts";
import { errorCode, lowerFirst } from "./errno.ts";
import { AddrError, DnsError, reasonText } from "./errors.ts";
import { parseIp } from "./ip.ts";
import {
  atOnce,
  type Family,
  hedged,
  paired,
  SharedLookups,
} from "./lookup.ts";
import {
  canPrompt,
  deniedReason,
  isGranted,
  mayAsk,
  notCapable,
} from "./sandbox.ts";

/**
 * Finds the IP addresses of a name for {@linkcode dial}, best first: all at
 * once as a promise, or in batches as they arrive. A late batch joins the race
 * for the connection.
 *
 * @param hostname A name, in ASCII (`xn--bcher-kva.test`); IP addresses are
 * never resolved.
 * @param options `family`: only addresses of this family are wanted. `signal`:
 * aborts when the dial is over, successful or not. The resolver should stop
 * then, but the dial does not wait for it. A cache that shares lookups gives
 * each its own signal, so that one dial's end does not end it for others.
 */
export type Resolver = (
  hostname: string,
  options: { family?: 4 | 6; signal: AbortSignal },
) => Promise<string[]> | AsyncIterable<string[]>;

/**
 * Asks the system: getaddrinfo, by way of `node:dns`, which is imported on
 * first use. The answer is what every other program gets, and what
 * `Deno.connect` would use.
 *
 * getaddrinfo asks the name server for both families, and waits for both. If
 * there is no answer after 250 ms, each family is asked for separately as well,
 * and what is answered is returned: a name server that never answers one of
 * them costs 260 ms instead of 15 s, a lost packet 250 ms instead of 5 s. If
 * the other family comes within 2 s, it is a second batch. What getaddrinfo
 * itself says in the end is final. (With 23 lookups under way there are no
 * second questions before some have ended: each takes one of the runtime's 32
 * threads.) A name that needs the search list of `/etc/resolv.conf` has to wait
 * for getaddrinfo, which may go on to another host if asked for one family. So
 * has one whose name server gives another address each time.
 *
 * Cancellation: after an abort it rejects with the signal's reason, at once.
 * But getaddrinfo cannot be cancelled: an abandoned lookup goes on, and keeps
 * the process alive, until it has its answer, 10 to 15 s if a name server is
 * silent. So callers that ask the same within 5 s share a lookup.
 *
 * If the sandbox does not grant the name, nothing is looked up, and the user is
 * not prompted. Names in `.onion` are not looked up either (RFC 7686).
 *
 * @param hostname A name.
 * @param options As for any {@linkcode Resolver}.
 * @returns IP addresses, best first, in one batch or two.
 * @throws {DnsError} If there is no address; `notFound` if the system is sure
 * of that. A name server that fails or is silent is a "temporary failure in
 * name resolution"; getaddrinfo does not say which.
 * @throws {AddrError} If all its addresses are of the other family, and the
 * system says so within 250 ms.
 * @throws {AbortSignal["reason"]} If `signal` aborts first.
 *
 * @example A table of your own, and the system for the rest
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, listen, type Resolver, systemResolver } from "@switchboard/tcp";
 *
 * const table = new Map([["db.test", ["127.0.0.1"]]]);
 * const resolve: Resolver = (hostname, options) => {
 *   const known = table.get(hostname);
 *   return known ? Promise.resolve(known) : systemResolver(hostname, options);
 * };
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * const { port } = listener.addr as Deno.NetAddr;
 * await using conn = await dial("tcp", `db.test:${port}`, { resolve });
 * assertEquals(String(conn.remoteAddr), String(listener.addr));
 * ```
 */
export function systemResolver(
  hostname: string,
  options: { family?: 4 | 6; signal: AbortSignal },
): AsyncIterable<string[]> {
  return systemAddresses(hostname, options.family ?? 0, options.signal);
}

/**
 * As {@linkcode systemResolver}, which a caller may want to hedge later.
 *
 * @param hedgeMs See {@linkcode hedged}.
 */
export async function* systemAddresses(
  hostname: string,
  family: Family,
  signal: AbortSignal,
  hedgeMs?: number,
): AsyncGenerator<string[]> {
  // getaddrinfo would take `127.1` for an address, whoever asks.
  if (parseIp(hostname) === null && !isHostName(hostname)) {
    throw new DnsError({ hostname, notFound: true });
  }
  refuseOnion(hostname);
  const ask = (part: Family, signal: AbortSignal) =>
    family === 0 && part !== 0
      ? sureAddresses(hostname, part, signal)
      : lookups.find(hostname, part);
  const init = { ask, clock: systemClock, signal, spare: () => lookups.spare };
  // Loading it, in a busy start, is not time spent without an answer.
  await import("node:dns/promises");
  try {
    yield* hedged(init, family, hedgeMs);
  } catch (error) {
    if (family === 0 || !(error instanceof DnsError) || error.temporary) {
      throw error;
    }
    // getaddrinfo does not say whether there are addresses of the other family.
    // If there are some of this one, getaddrinfo had run out of something.
    const found = await atOnce(init, 0);
    const wanted = (text: string) => parseIp(text)?.family === family;
    if (found.length === 0 || found.some(wanted)) throw error;
    throw new AddrError("no suitable address found", hostname);
  }
}

/**
 * One part of a question. If the host has no address of this family, getaddrinfo
 * goes on through the search list, and finds another host: before the name as
 * it stands or after it. So only what it says with and without the list counts.
 */
async function sureAddresses(
  hostname: string,
  family: Family,
  signal: AbortSignal,
): Promise<string[]> {
  const found = await lookups.find(hostname, family);
  if (hostname.endsWith(".")) return found;
  signal.throwIfAborted();
  const absolute = await lookups.find(`${hostname}.`, family);
  const sure = found.filter((address) => absolute.includes(address));
  if (sure.length > 0) return sure;
  throw new DnsError({ hostname, reason: NO_ADDRESS });
}

/**
 * No name server must see where a user of Tor goes (RFC 7686, section 2).
 *
 * @throws {DnsError} If it is a name of Tor's.
 */
export function refuseOnion(hostname: string): void {
  if (!/\.onion\.?$/i.test(hostname)) return;
  throw new DnsError({ hostname, notFound: true });
}

const lookups = new SharedLookups(systemClock, getaddrinfo);

async function getaddrinfo(
  hostname: string,
  family: Family,
): Promise<string[]> {
  const { lookup } = await import("node:dns/promises");
  // Only now: a grant may be revoked at any time, and Deno would prompt.
  if (!mayAsk(hostname)) throw denied(hostname);
  try {
    const found = await lookup(hostname, { all: true, family, verbatim: true });
    if (found.length > 0) return found.map(({ address }) => address);
  } catch (cause) {
    throw systemError(hostname, cause);
  }
  throw new DnsError({ hostname, reason: NO_ADDRESS });
}

/**
 * The only failure by which getaddrinfo says that there is no such name:
 * libuv's EAI_NONAME. Its errno is what counts: Deno's `code` is ENOTFOUND for
 * all that it has no other name for, even for running out of file descriptors.
 */
const UV_EAI_NONAME = -3008;

/** There may be one: the answer does not say. */
const NO_ADDRESS = "no address found";

function systemError(hostname: string, cause: unknown): DnsError {
  const { code, errno } = cause as { code?: unknown; errno?: unknown };
  if (code === "EAI_AGAIN") {
    const reason = "temporary failure in name resolution";
    return new DnsError({ hostname, temporary: true, reason, cause });
  }
  if (code !== "ENOTFOUND") return new DnsError({ hostname, cause });
  if (errno === UV_EAI_NONAME) {
    return new DnsError({ hostname, notFound: true, cause });
  }
  const shortage = descriptorShortage();
  return shortage
    ? new DnsError({ hostname, temporary: true, cause: shortage })
    : new DnsError({ hostname, reason: NO_ADDRESS, cause });
}

/** Why no descriptor can be opened, if none can: getaddrinfo does not say. */
function descriptorShortage(): Error | undefined {
  if (!isGranted("127.0.0.1:0")) return undefined; // Deno would prompt
  try {
    Deno.listen({ hostname: "127.0.0.1", port: 0 }).close();
  } catch (error) {
    const code = errorCode(error);
    if (code === "EMFILE" || code === "ENFILE") return error as Error;
  }
  return undefined;
}

/**
 * What the runtime says when getaddrinfo fails; there is no code. Windows gives
 * WSAHOST_NOT_FOUND or one of the next three, like any other error.
 */
const LOOKUP_FAILED =
  /^failed to lookup address information: (.*)|^(.*) \(os error 1100[1-4]\)$/;

/**
 * The failed lookup behind an error of `Deno.connect` or `Deno.listen`, if
 * there is one: a {@linkcode DnsError}, or EINVAL for a literal, where only the
 * zone can be looked up.
 */
export function lookupFailure(
  hostname: string,
  cause: unknown,
): Error | undefined {
  const match = LOOKUP_FAILED.exec((cause as Error).message);
  if (match === null) return undefined;
  const text = (match[1] ?? match[2])!;
  if (parseIp(hostname) !== null) {
    const error = new Error("no such zone", { cause });
    return Object.assign(error, { code: "EINVAL" });
  }
  // EAI_NONAME, in the words of glibc, macOS and Windows: the only one that
  // is sure.
  const notFound = /not known$|^No such host/.test(text);
  const temporary = /temporary/i.test(text); // EAI_AGAIN
  const reason = notFound ? undefined : lowerFirst(text);
  return new DnsError({ hostname, notFound, temporary, reason, cause });
}

/** The sandbox does not allow the question, to `server` if there is one. */
function denied(
  hostname: string,
  server?: string,
  cause: Error = notCapable(server ?? hostname),
): DnsError {
  const reason = deniedReason(server ?? hostname, cause);
  return new DnsError({ hostname, server, cause, reason });
}

/** Options of {@linkcode dnsResolver}. */
export interface DnsResolverOptions {
  /** The name server. Default: the system's (`/etc/resolv.conf`). */
  nameServer?: {
    /** An IP address. */
    ipAddr: string;
    /** 1 to 65535. @default {53} */
    port?: number;
  };
}

/**
 * Makes a resolver that asks DNS: `Deno.resolveDns`, for AAAA and A at once.
 * Names are absolute (no search list is tried).
 *
 * IPv6 addresses are returned as they come; IPv4 addresses wait up to 50 ms for
 * them (RFC 8305, section 3, Resolution Delay) and are a batch of their own if
 * there are none by then. A family that fails does not matter if the other has
 * addresses. A question without an answer is asked again after 1 s, and given
 * up after 2; a name server that refuses by ICMP is not heard, and takes as
 * long. Deno itself answers for `localhost` and for names in /etc/hosts.
 * It refuses `-db`, and `my_db`: an underscore may only come first.
 *
 * Cancellation: after an abort it rejects with the signal's reason, at once,
 * and the questions are cancelled; nothing is left behind.
 *
 * The sandbox must grant the name server (`--allow-net=192.0.2.53:53`), and
 * nobody is prompted for it. On a terminal, without `nameServer`, all of net
 * has to be granted: Deno would prompt for a server that this module does not
 * know.
 *
 * @param options See {@linkcode DnsResolverOptions}.
 * @returns For the `resolve` option of {@linkcode dial}. It fails with a
 * {@linkcode DnsError}, whose `server` is the one that was named. Deno does not
 * tell a name that does not exist from a server that fails: both are "no
 * address found", and `notFound` is never set.
 * @throws {TypeError} If `ipAddr` is not an IP address.
 * @throws {RangeError} If `port` is not a port.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, dnsResolver, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * const { port } = listener.addr as Deno.NetAddr;
 * await using conn = await dial("tcp4", `localhost:${port}`, {
 *   resolve: dnsResolver({ nameServer: { ipAddr: "127.0.0.1" } }),
 * });
 * assertEquals(String(conn.remoteAddr), String(listener.addr));
 * ```
 */
export function dnsResolver(options: DnsResolverOptions = {}): Resolver {
  checkOptions(options);
  const nameServer = checkNameServer(options.nameServer);
  const server = nameServer &&
    joinHostPort(nameServer.ipAddr, nameServer.port);
  return async function* (hostname, { family, signal }) {
    checkGrant(hostname, server);
    const name = hostname.endsWith(".") ? hostname : `${hostname}.`;
    // At least one address, or NotFound. Without a signal Deno waits 5 s for an
    // answer instead of 1, and asks three times instead of twice.
    const ask = (family: Family, signal: AbortSignal) =>
      Deno.resolveDns(name, family === 6 ? "AAAA" : "A", {
        signal,
        ...nameServer && { nameServer },
      });
    const families = family ? [family] : [6, 4] as const;
    try {
      yield* paired({ ask, clock: systemClock, signal }, families);
    } catch (cause) {
      signal.throwIfAborted();
      throw dnsError(hostname, server, cause);
    }
  };
}

function checkNameServer(
  nameServer: DnsResolverOptions["nameServer"],
): { ipAddr: string; port: number } | undefined {
  if (nameServer === undefined) return undefined;
  const { ipAddr, port = 53 } = nameServer;
  const ip = typeof ipAddr === "string" ? parseIp(ipAddr) : null;
  if (ip === null || ip.zone !== "") {
    throw new TypeError(`nameServer.ipAddr is not an IP address: ${ipAddr}`);
  }
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new RangeError(`nameServer.port is not a port: ${port}`);
  }
  return { ipAddr: ip.text, port };
}

/** Deno would prompt for a name server that the caller has not named. */
function checkGrant(hostname: string, server: string | undefined): void {
  if (server !== undefined) {
    if (!mayAsk(server)) throw denied(hostname, server);
    return;
  }
  // If this is "denied" after a "no" at a prompt, Deno would still ask.
  if (isGranted()) return;
  // With nobody to ask, Deno decides by itself, by what is granted.
  if (!canPrompt()) return;
  const reason = "run again with --allow-net without a list, or set " +
    "nameServer and allow it";
  const cause = new Deno.errors.NotCapable(reason);
  throw new DnsError({ hostname, cause, reason });
}

/** How Deno begins (2.9.6) if a socket failed; to Go that is temporary. */
const SOCKET_FAILED = "proto error: io error: ";

function dnsError(
  hostname: string,
  server: string | undefined,
  cause: unknown,
): DnsError {
  const init = { hostname, server, cause };
  if (cause instanceof Deno.errors.NotFound) {
    return new DnsError({ ...init, reason: NO_ADDRESS });
  }
  if (cause instanceof Deno.errors.NotCapable) {
    return denied(hostname, server, cause);
  }
  const reason = reasonText(cause);
  if (reason.startsWith(SOCKET_FAILED)) {
    const words = lowerFirst(reason.slice(SOCKET_FAILED.length));
    return new DnsError({ ...init, reason: words, temporary: true });
  }
  return new DnsError({ ...init, timeout: errorCode(cause) === "ETIMEDOUT" });
}
