import { type Addr, TcpAddr } from "../net/addr.ts";
import { platformError } from "./errno.ts";
import type { MemoryListener } from "./memory_listener.ts";

/** The ports that are handed out (RFC 6335: the dynamic ones). */
const FIRST_PORT = 49_152;
const LAST_PORT = 65_535;

/** A listener and what it has bound. */
interface Entry {
  readonly hostname: string;
  readonly listener: MemoryListener;
  readonly reusePort: boolean;
}

/** Who listens where, with a kernel's rules about who may. */
export class Ports {
  /** By port; unix sockets have a path instead, and a hostname of "". */
  readonly #bound = new Map<number | string, Entry[]>();
  #nextPort = FIRST_PORT;
  #nextPath = 1;

  /**
   * A port on which nobody listens; the next one each time.
   *
   * @param none The errno if there is none: bind(2) and connect(2) differ.
   */
  freePort(none: "EADDRINUSE" | "EADDRNOTAVAIL"): number {
    for (let left = LAST_PORT - FIRST_PORT; left >= 0; left--) {
      const port = this.#nextPort;
      this.#nextPort = port === LAST_PORT ? FIRST_PORT : port + 1;
      if (!this.#bound.has(port)) return port;
    }
    throw platformError(none);
  }

  /** A name in the abstract namespace that nobody has (Linux: autobind). */
  freePath(): string {
    return `@${(this.#nextPath++).toString(16).padStart(5, "0")}`;
  }

  /** Fails unless an address can be bound. */
  check(addr: Addr, reusePort: boolean): void {
    checkPath(addr);
    const taken = this.#bound.get(placeOf(addr))?.some((entry) =>
      overlap(entry.hostname, hostOf(addr)) && !(entry.reusePort && reusePort)
    );
    if (taken) throw platformError("EADDRINUSE");
  }

  /** Binds an address that was checked; the result frees it. */
  add(addr: Addr, listener: MemoryListener, reusePort: boolean): () => void {
    const place = placeOf(addr);
    const entry = { hostname: hostOf(addr), listener, reusePort };
    this.#bound.set(place, [...this.#bound.get(place) ?? [], entry]);
    return () => {
      const left = this.#bound.get(place)!.filter((other) => other !== entry);
      if (left.length > 0) this.#bound.set(place, left);
      else this.#bound.delete(place);
    };
  }

  /** The listener for a connection; several, by SO_REUSEPORT, take turns. */
  find(addr: Addr): MemoryListener | undefined {
    const listener = this.at(addr);
    const entries = this.#bound.get(placeOf(addr)) ?? [];
    const at = entries.findIndex((entry) => entry.listener === listener);
    if (at >= 0) entries.push(...entries.splice(at, 1)); // it comes last now
    return listener;
  }

  /** Who is next at an address; one on a wildcard only if there is no other. */
  at(addr: Addr): MemoryListener | undefined {
    const entries = this.#bound.get(placeOf(addr)) ?? [];
    const host = hostOf(addr);
    const wildcards = host.includes(":") ? ["::"] : ["0.0.0.0", "::"];
    for (const hostname of [host, ...wildcards]) {
      const entry = entries.find((entry) => entry.hostname === hostname);
      if (entry) return entry.listener;
    }
    return undefined;
  }
}

/** Refuses a unix path that the kernel's `sockaddr_un` cannot hold (Linux). */
export function checkPath(addr: Addr): void {
  if (addr.transport !== "unix") return;
  const abstract = addr.path.startsWith("@");
  const { length } = new TextEncoder().encode(addr.path);
  const wrong = length > (abstract ? 108 : 107)
    ? `${
      abstract ? "abstract socket name" : "path"
    } must be shorter than SUN_LEN`
    : !abstract && addr.path.includes("\0")
    ? "paths must not contain interior null bytes"
    : null;
  if (wrong) throw Object.assign(new TypeError(wrong), { code: "EINVAL" });
}

function placeOf(addr: Addr): number | string {
  return addr instanceof TcpAddr ? addr.port : addr.path;
}

function hostOf(addr: Addr): string {
  return addr instanceof TcpAddr ? addr.hostname : "";
}

/** Whether two hosts on a port conflict; `::` is dual stack. */
function overlap(a: string, b: string): boolean {
  return a === b || a === "::" || b === "::" ||
    (a === "0.0.0.0" && !b.includes(":")) ||
    (b === "0.0.0.0" && !a.includes(":"));
}
