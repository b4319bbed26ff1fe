import {
  type Addr,
  lookupPort,
  splitHostPort,
  TcpAddr,
  UnixAddr,
} from "../net/addr.ts";
import { AddrError } from "../net/errors.ts";
import { parseIp } from "../net/ip.ts";

/**
 * What is wrong with an address; see
 * {@linkcode MemoryNetwork.prototype.fault | MemoryNetwork.fault}. What is not
 * named works.
 */
export interface Fault {
  /**
   * What becomes of a connect. "refuse": ECONNREFUSED, as if nobody listened.
   * "drop": a black hole, no answer ever; if the fault is lifted, a connect
   * that still waits gets through. "unreachable": EHOSTUNREACH. "deny": the
   * sandbox forbids it, as if `--allow-net` did not name the address.
   */
  connect?: "refuse" | "drop" | "unreachable" | "deny";
  /** Milliseconds until a connect is answered. @default {0} */
  delay?: number;
  /**
   * What becomes of a listen. "deny": the sandbox forbids it. "unavailable":
   * EADDRNOTAVAIL, as for an address that is not this host's. Of `::`, either
   * leaves `0.0.0.0` to a listener for all addresses.
   */
  listen?: "deny" | "unavailable";
  /**
   * What accept() meets. "reset": both ends are reset as soon as they are
   * connected, and accept() fails with ENOTCONN. "half-close": the client's FIN
   * is there already. Both apply to clients that connect from now on. "EMFILE"
   * and the like: accept() fails with it while a connection waits; the
   * connection goes on waiting.
   */
  accept?: "reset" | "half-close" | "EMFILE" | "ENFILE" | "ENOBUFS" | "ENOMEM";
  /**
   * Both ends are reset when this many bytes have passed since they were
   * connected, counting both directions; 0 lets none pass. That is looked at
   * when bytes are sent: lowered later, it waits for the next write.
   *
   * @default {Infinity}
   */
  resetAfter?: number;
  /**
   * Milliseconds that bytes and FIN take to arrive. `Infinity`: nothing does,
   * as if the peer had lost its power; when that is lifted, all of it arrives.
   * Connects are not held up: see `delay`, and `connect: "drop"`.
   *
   * @default {0}
   */
  latency?: number;
  /** How many bytes one read gets at most. @default {Infinity} */
  maxRead?: number;
  /**
   * How many bytes one write of the platform takes at most: it is then short,
   * but `Conn.write()` still writes all.
   *
   * @default {Infinity}
   */
  maxWrite?: number;
}

/** Nothing is wrong. */
const NONE: Fault = {};

/** What each field may be. */
const WORDS: { readonly [field: string]: readonly string[] } = {
  connect: ["refuse", "drop", "unreachable", "deny"],
  listen: ["deny", "unavailable"],
  accept: ["reset", "half-close", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"],
};
const LEAST: { readonly [field: string]: number } = {
  delay: 0,
  resetAfter: 0,
  latency: 0,
  maxRead: 1,
  maxWrite: 1,
};

/** These may be fractions; the others count bytes. */
const TIMES: readonly string[] = ["delay", "latency"];

/** What is wrong with which address. */
export class Faults {
  readonly #faults = new Map<string, Fault>();

  /** Sets or, with `null`, lifts a fault; returns the canonical address. */
  set(address: string | Addr, fault: Fault | null): string {
    const key = faultKey(address);
    if (fault === null) this.#faults.delete(key);
    else this.#faults.set(key, checkFault({ ...fault }));
    return key;
  }

  /** The fault of the first of `keys` that has one. */
  of(keys: readonly string[]): Fault {
    for (const key of keys) {
      const fault = this.#faults.get(key);
      if (fault !== undefined) return fault;
    }
    return this.#faults.get("*") ?? NONE;
  }
}

/** What an address is looked up under: by itself, then by its host. */
export function faultKeys(addr: Addr): string[] {
  return addr.transport === "unix"
    ? [addr.path]
    : [String(addr), addr.hostname];
}

/** Checks a fault that a test has made. */
export function checkFault(fault: Fault): Fault {
  for (const [field, value] of Object.entries(fault)) {
    const least = LEAST[field];
    const good = least === undefined
      ? WORDS[field]?.includes(value)
      : typeof value === "number" && value >= least &&
        (Number.isInteger(value) || value === Infinity ||
          TIMES.includes(field));
    if (!good) throw new TypeError(`no such fault: { ${field}: ${value} }`);
  }
  return fault;
}

/** The canonical text of an address; what can never match is an error. */
export function faultKey(address: string | Addr): string {
  const text = String(address);
  if (text === "*") return text;
  if (text === "") throw new AddrError("no address");
  if (typeof address === "object" && address.transport === "unix") return text;
  if (parseIp(text) !== null) return new TcpAddr(text, 0).hostname;
  if (text.includes("/") || text.startsWith("@")) {
    return new UnixAddr(text).path;
  }
  const whole = text.includes(":") ? text : `${text}:0`; // a name alone
  const { host, port } = splitHostPort(whole);
  if (parseIp(host) === null) throw new AddrError("not an IP address", text);
  return String(new TcpAddr(host, lookupPort("tcp", port)));
}
