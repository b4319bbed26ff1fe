import {
  type Addr,
  platformPath,
  TcpAddr,
  toAddr,
  UnixAddr,
} from "../net/addr.ts";
import type { Clock } from "../net/clock.ts";
import { reasonText } from "../net/errors.ts";
import { isWildcard, parseIp, platformHost } from "../net/ip.ts";
import { notCapable } from "../net/sandbox.ts";
import { Bell, type Open } from "./bell.ts";
import { Cable } from "./cable.ts";
import { platformError } from "./errno.ts";
import { type Fault, faultKey, faultKeys, Faults } from "./faults.ts";
import { Log } from "./log.ts";
import { MemoryListener } from "./memory_listener.ts";
import { checkPath, Ports } from "./ports.ts";

/**
 * What lies below `Deno.listen` and `Deno.connect`: who is bound where, what is
 * connected to what, and what is wrong with it. It fails with the platform's
 * errors.
 */
export class Fabric {
  /** What has happened. */
  readonly log: Log;
  /** Connections, listeners, and connects and lookups that wait. */
  readonly open: Open = new Map();
  readonly #clock: Clock;
  readonly #bufferSize: number;
  readonly #faults = new Faults();
  readonly #ports = new Ports();
  /** Each connection, with what its faults are looked up under. */
  readonly #cables = new Map<Cable, readonly string[]>();
  /** Rung when a connect that waits has to look again. */
  readonly #changed: Bell;

  /** Nobody listens, nothing is connected, nothing is wrong. */
  constructor(clock: Clock, bufferSize: number) {
    this.#clock = clock;
    this.#bufferSize = bufferSize;
    this.#changed = new Bell(clock, this.open);
    this.log = new Log(clock);
  }

  /** Sets or lifts a fault. */
  fault(address: string | Addr, fault: Fault | null): void {
    const key = this.#faults.set(address, fault);
    const detail = Object.entries(fault ?? {}).map((pair) => pair.join(" "));
    this.log.note("fault", key, detail.join(", ") || "none");
    this.#changed.ring();
    for (const cable of this.#cables.keys()) cable.faultChanged();
  }

  /** Resets the connections of an address; returns how many. */
  reset(address: string | Addr): number {
    const key = faultKey(address);
    const hit = [...this.#cables].filter(([, keys]) =>
      key === "*" || keys.includes(key)
    );
    for (const [cable] of hit) cable.reset();
    return hit.length;
  }

  /** All addresses: IPv4's alone if those of IPv6 are missing or denied. */
  wildcard(port: number): TcpAddr {
    const ipv6 = new TcpAddr("::", port);
    const ipv4 = new TcpAddr("0.0.0.0", port);
    const [six, four] = [ipv6, ipv4].map((addr) =>
      this.#faults.of(faultKeys(addr)).listen
    );
    const only4 = six === "unavailable" || (six === "deny" && four !== "deny");
    return only4 ? ipv4 : ipv6;
  }

  /** Listens; port 0 and the empty path stand for a free one. */
  bind(addr: Addr, backlog: number, reusePort: boolean): MemoryListener {
    const bound = addr.transport === "unix"
      ? new UnixAddr(addr.path || this.#ports.freePath())
      : new TcpAddr(
        addr.hostname,
        addr.port || this.#ports.freePort("EADDRINUSE"),
      );
    const name = String(bound);
    try {
      const { listen } = this.#faults.of(faultKeys(bound));
      if (listen === "unavailable") throw platformError("EADDRNOTAVAIL");
      if (listen === "deny") throw notCapable(name);
      this.#ports.check(bound, reusePort);
    } catch (error) {
      this.log.note("fail", name, `listen: ${reasonText(error)}`);
      throw error;
    }
    const listener = new MemoryListener(this.#clock, raw(bound), backlog, {
      accepted: (conn) => {
        this.open.set(conn, `accepted connection ${connName(conn)}`);
        this.log.note("accept", connName(conn));
      },
      failed: (code) => this.log.note("fail", name, `accept: ${code}`),
      room: () => this.#changed.ring(),
      closed: () => {
        this.log.note("close", name);
        this.open.delete(listener);
        this.#changed.ring();
      },
      released: () => release(),
    });
    const release = this.#ports.add(bound, listener, reusePort);
    this.open.set(listener, `listener ${name}`);
    this.log.note("listen", name);
    return listener;
  }

  /** Connects; `from` is the client's host, if it is not the server's. */
  async connect(
    addr: Addr,
    from: string | undefined,
    signal: AbortSignal,
  ): Promise<Deno.Conn> {
    const name = String(addr);
    this.log.note("connect", name);
    addr = destination(addr);
    try {
      signal.throwIfAborted();
      checkPath(addr);
      const bound = this.#ports.at(addr)?.addr;
      const keys = [
        ...faultKeys(addr),
        ...(from === undefined ? [] : [from]),
        ...(bound === undefined ? [] : faultKeys(toAddr(bound))),
      ];
      const start = this.#clock.monotonic();
      for (;;) {
        const { connect, delay = 0 } = this.#faults.of(keys);
        const left = start + delay - this.#clock.monotonic();
        if (left <= 0) {
          const listener = this.#reach(addr, connect);
          if (listener) return this.#establish(addr, listener, from);
        }
        const most = left > 0 ? left : Infinity;
        await this.#changed.wait(signal, most, `connect to ${name}`);
      }
    } catch (error) {
      if (signal.aborted) this.log.note("abort", name);
      else this.log.note("fail", name, `connect: ${reasonText(error)}`);
      throw error;
    }
  }

  /** The listener for a connection; `null` if there is no answer for now. */
  #reach(addr: Addr, fault: Fault["connect"]): MemoryListener | null {
    const name = String(addr);
    if (fault === "drop") return null;
    if (fault === "deny") throw notCapable(name);
    if (fault === "unreachable") throw platformError("EHOSTUNREACH");
    const listener = this.#ports.find(addr);
    const unix = addr.transport === "unix";
    // An abstract name has no file that could be missing.
    if (!listener && unix && !addr.path.startsWith("@")) {
      throw platformError("ENOENT");
    }
    if (!listener || fault === "refuse") throw platformError("ECONNREFUSED");
    // The kernel still takes it, and then resets it with the whole queue.
    if (listener.closed) throw platformError("ECONNRESET");
    if (!listener.full) return listener;
    // A full queue: unix says so, TCP drops the SYN.
    if (unix) throw platformError("EAGAIN");
    return null;
  }

  #establish(
    addr: Addr,
    listener: MemoryListener,
    from: string | undefined,
  ): Deno.Conn {
    const unnamed = { transport: "unix", path: null } as unknown as Deno.Addr;
    const remote = raw(addr);
    const local: Deno.Addr = remote.transport === "tcp"
      ? {
        ...remote,
        hostname: from ?? remote.hostname,
        port: this.#ports.freePort("EADDRNOTAVAIL"),
      }
      : unnamed;
    const asSeen = (addr: Deno.Addr) => seenBy(listener, addr);
    const keys = [
      ...faultKeys(addr),
      ...faultKeys(toAddr(local)),
      ...faultKeys(toAddr(listener.addr)),
    ];
    const cable = new Cable(
      {
        clock: this.#clock,
        bufferSize: this.#bufferSize,
        fault: () => this.#faults.of(keys),
        note: (conn, event, detail) =>
          this.log.note(event, connName(conn), detail),
        closed: (conn) => {
          this.open.delete(conn);
          if (cable.near.closed && cable.far.closed) this.#cables.delete(cable);
        },
      },
      { local, remote },
      { local: asSeen(remote), remote: asSeen(local) },
    );
    const { near } = cable;
    this.#cables.set(cable, keys);
    this.open.set(near, `dialled connection ${connName(near)}`);
    cable.note(near, "connected");
    const { accept } = cable.fault();
    if (accept === "reset") cable.reset();
    if (accept === "half-close") near.sendFin();
    listener.push(cable);
    return near;
  }
}

/** Where a connect goes: a wildcard is this host, and most zones are nothing. */
function destination(addr: Addr): Addr {
  if (addr.transport === "unix") return addr;
  const ip = parseIp(addr.hostname)!;
  const loopback = ip.family === 4 ? "127.0.0.1" : "::1";
  return new TcpAddr(isWildcard(ip) ? loopback : platformHost(ip), addr.port);
}

/** `local->remote`. */
function connName({ localAddr, remoteAddr }: Deno.Conn): string {
  return `${toAddr(localAddr)}->${toAddr(remoteAddr)}`;
}

/** An address as the platform has it. */
function raw(addr: Addr): Deno.Addr {
  if (addr.transport === "unix") {
    return { transport: "unix", path: platformPath(addr.path) };
  }
  const { hostname, port } = addr;
  return { transport: "tcp", hostname, port };
}

/** A dual-stack socket shows IPv4 addresses as IPv4-mapped ones. */
function seenBy(listener: MemoryListener, addr: Deno.Addr): Deno.Addr {
  const { addr: bound } = listener;
  const mapped = bound.transport === "tcp" && bound.hostname === "::" &&
    addr.transport === "tcp" && !addr.hostname.includes(":");
  return mapped ? { ...addr, hostname: `::ffff:${addr.hostname}` } : addr;
}
