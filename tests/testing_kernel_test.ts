/**
 * The fakes below the library, compared with Deno itself: the same steps on a
 * real socket and in memory, with the same outcome, down to the errors' texts.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { once } from "node:events";
import { connect as nodeConnect } from "node:net";
import { systemClock } from "../net/clock.ts";
import { TcpAddr, toAddr, UnixAddr } from "../net/addr.ts";
import { Cable } from "../testing/cable.ts";
import { Fabric } from "../testing/fabric.ts";
import { hasIpv6, reset, resetSocket } from "./support.ts";

/** What both can do. */
interface World {
  listen(kind: "tcp" | "unix", at?: Deno.Addr): Deno.Listener;
  connect(addr: Deno.Addr): Promise<Deno.Conn>;
  /** Leaves a client in the queue that has reset already. */
  resetInQueue(listener: Deno.Listener): Promise<void>;
  /** One end of a connection, and a peer that can reset it. */
  resettable(): Promise<{ end: Deno.Conn; peer: ResettablePeer }>;
}

interface ResettablePeer {
  write(n: number): Promise<void>;
  fin(): Promise<void>;
  reset(): Promise<void>;
}

const folder = Deno.makeTempDirSync({ prefix: "kernel" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
let sockets = 0;

/** An address that is no host's (RFC 5737). */
const FOREIGN = "192.0.2.1";

const kernel: World = {
  listen(kind, at) {
    if (kind === "tcp") {
      const { hostname, port } = at as Deno.NetAddr ??
        { hostname: "127.0.0.1", port: 0 };
      return Deno.listen({ hostname, port });
    }
    const path = (at as Deno.UnixAddr)?.path ?? `${folder}/${sockets++}`;
    return Deno.listen({ transport: "unix", path }) as Deno.Listener;
  },
  connect(addr) {
    return addr.transport === "tcp"
      ? Deno.connect({ hostname: addr.hostname, port: addr.port })
      : Deno.connect({ transport: "unix", path: (addr as Deno.UnixAddr).path });
  },
  resetInQueue: reset,
  async resettable() {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const socket = nodeConnect({
      host: "127.0.0.1",
      port: listener.addr.port,
      allowHalfOpen: true,
    });
    socket.on("error", () => {});
    const [end] = await Promise.all([
      listener.accept(),
      once(socket, "connect"),
    ]);
    socket.pause();
    listener.close();
    return {
      end,
      peer: {
        async write(n) {
          await new Promise((resolve) =>
            socket.write(new Uint8Array(n), resolve)
          );
        },
        async fin() {
          await new Promise<void>((resolve) => socket.end(resolve));
        },
        reset: () => resetSocket(socket),
      },
    };
  },
};

function memory(): World {
  const fabric = new Fabric(systemClock, 64 * 1024);
  fabric.fault(FOREIGN, { listen: "unavailable" });
  const { signal } = new AbortController();
  return {
    listen(kind, at) {
      const addr = kind === "unix"
        ? new UnixAddr((at as Deno.UnixAddr)?.path ?? "/a/file")
        : new TcpAddr(
          (at as Deno.NetAddr)?.hostname ?? "127.0.0.1",
          (at as Deno.NetAddr)?.port ?? 0,
        );
      return fabric.bind(addr, 511, false);
    },
    connect(addr) {
      return fabric.connect(
        addr.transport === "tcp"
          ? new TcpAddr(addr.hostname, addr.port)
          : new UnixAddr((addr as Deno.UnixAddr).path),
        undefined,
        signal,
      );
    },
    async resetInQueue({ addr }) {
      const { hostname, port } = addr as Deno.NetAddr;
      const to = new TcpAddr(hostname, port);
      using client = await fabric.connect(to, undefined, signal);
      fabric.reset(String(toAddr(client.localAddr)));
    },
    resettable() {
      const local = { transport: "tcp", hostname: "::1", port: 1 } as const;
      const cable = new Cable(
        { clock: systemClock, bufferSize: 64 * 1024, fault: () => ({}) },
        { local, remote: local },
        { local, remote: local },
      );
      const { far: end, near } = cable;
      return Promise.resolve({
        end,
        peer: {
          async write(n) {
            await near.write(new Uint8Array(n));
          },
          fin: () => near.closeWrite(),
          reset() {
            cable.reset();
            near.close();
            return Promise.resolve();
          },
        },
      });
    },
  };
}

/** What came of a call, as text. */
async function outcome(call: () => unknown): Promise<string> {
  try {
    const value = await call() ?? null; // Deno's void is null
    if (typeof value !== "object" || value === null) return `${value}`;
    (value as Disposable)[Symbol.dispose]();
    return "opened";
  } catch (error) {
    const { constructor, message } = error as Error;
    const { code } = error as { code?: unknown };
    return `${constructor.name} ${code ?? "-"} ${message}`;
  }
}

type Outcomes = { [step: string]: string };

/** Does steps one after the other; what is undefined in the end was pending. */
class Steps {
  readonly outcomes: Outcomes = {};
  readonly #pending: Promise<void>[] = [];

  async do(step: string, call: () => unknown): Promise<void> {
    this.start(step, call);
    await this.settled();
  }
  start(step: string, call: () => unknown): void {
    this.#pending.push(
      outcome(call).then((text) => {
        this.outcomes[step] = text;
      }),
    );
  }
  async settled(): Promise<void> {
    await Promise.all(this.#pending);
  }
}

const buffer = new Uint8Array(64);
const nothing = new Uint8Array(0);
/** More than any kernel's two buffers hold. */
const flood = new Uint8Array(32 * 1024 * 1024);

/**
 * Lets what a peer has sent arrive. On loopback it is there when the system
 * call returns, unless a busy kernel thread has it; there is no event for it.
 */
async function arrive(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 10));
}

async function pair(
  world: World,
  kind: "tcp" | "unix",
): Promise<[Deno.Conn, Deno.Conn]> {
  using listener = world.listen(kind);
  return await Promise.all([world.connect(listener.addr), listener.accept()]);
}

/** Writes until a write waits. */
function fill(conn: Deno.Conn): Promise<{ write: Promise<number> }> {
  return new Promise((resolve) => {
    (async () => {
      for (;;) {
        const write = conn.write(flood);
        const timer = setTimeout(() => resolve({ write }), 100);
        const n = await write.catch(() => null);
        clearTimeout(timer);
        if (n === null) return;
      }
    })();
  });
}

const KINDS = ["tcp", "unix"] as const;

/** Scripts by name; each returns the outcome of every step. */
const SCRIPTS: Record<string, (world: World) => Promise<Outcomes>> = {};

for (const kind of KINDS) {
  SCRIPTS[`${kind}: calls after close()`] = async (world) => {
    const [a, b] = await pair(world, kind);
    const steps = new Steps();
    b.close();
    a.close();
    await steps.do("read", () => a.read(buffer));
    await steps.do("read nothing", () => a.read(nothing));
    await steps.do("write", () => a.write(buffer));
    await steps.do("write nothing", () => a.write(nothing));
    await steps.do("closeWrite", () => a.closeWrite());
    await steps.do("close", () => a.close());
    if ("setNoDelay" in a) {
      await steps.do("set", () => (a as Deno.TcpConn).setNoDelay(true));
    }
    return steps.outcomes;
  };

  SCRIPTS[`${kind}: close() ends calls that wait`] = async (world) => {
    const [a, b] = await pair(world, kind);
    const steps = new Steps();
    steps.start("read", () => a.read(buffer));
    const { write } = await fill(a);
    steps.start("write", () => write);
    a.close();
    await steps.settled();
    b.close();
    return steps.outcomes;
  };

  SCRIPTS[`${kind}: FIN, and calls after it`] = async (world) => {
    const [a, b] = await pair(world, kind);
    const steps = new Steps();
    await steps.do("write nothing before", () => a.write(nothing));
    await steps.do("closeWrite", () => a.closeWrite());
    await steps.do("closeWrite again", () => a.closeWrite());
    await steps.do("write", () => a.write(buffer));
    await steps.do("write nothing", () => a.write(nothing));
    await steps.do("peer reads", () => b.read(buffer));
    await steps.do("peer reads again", () => b.read(buffer));
    await steps.do("peer writes", () => b.write(buffer));
    await steps.do("read", () => a.read(buffer));
    a.close();
    await arrive();
    await steps.do("peer writes to nobody", () => b.write(buffer));
    await arrive();
    await steps.do("peer writes again", () => b.write(buffer));
    await steps.do("peer reads at last", () => b.read(buffer));
    await steps.do("peer's closeWrite", () => b.closeWrite());
    b.close();
    return steps.outcomes;
  };

  SCRIPTS[`${kind}: close() with bytes unread`] = async (world) => {
    const [a, b] = await pair(world, kind);
    const steps = new Steps();
    await b.write(new Uint8Array(10));
    await a.write(new Uint8Array(5));
    await arrive();
    a.close();
    await arrive();
    await steps.do("peer reads what came", () => b.read(buffer));
    await steps.do("peer reads", () => b.read(buffer));
    await steps.do("peer reads again", () => b.read(buffer));
    await steps.do("peer writes", () => b.write(buffer));
    await steps.do("peer's closeWrite", () => b.closeWrite());
    b.close();
    return steps.outcomes;
  };

  SCRIPTS[`${kind}: FIN, then close() with bytes unread`] = async (world) => {
    const [a, b] = await pair(world, kind);
    const steps = new Steps();
    await b.write(new Uint8Array(10));
    await a.closeWrite();
    await arrive();
    a.close();
    await arrive();
    await steps.do("peer reads", () => b.read(buffer));
    await steps.do("peer reads again", () => b.read(buffer));
    await steps.do("peer writes", () => b.write(buffer));
    b.close();
    return steps.outcomes;
  };

  SCRIPTS[`${kind}: close() with bytes unread, and a peer that writes first`] =
    async (world) => {
      const [a, b] = await pair(world, kind);
      const steps = new Steps();
      await b.write(new Uint8Array(10));
      await arrive();
      a.close();
      await arrive();
      await steps.do("peer writes", () => b.write(buffer));
      await steps.do("peer writes again", () => b.write(buffer));
      await steps.do("peer reads", () => b.read(buffer));
      await steps.do("peer reads again", () => b.read(buffer));
      b.close();
      return steps.outcomes;
    };

  SCRIPTS[`${kind}: close() with bytes unread while the peer's read waits`] =
    async (world) => {
      const [a, b] = await pair(world, kind);
      const steps = new Steps();
      await b.write(new Uint8Array(10));
      steps.start("peer reads", () => b.read(buffer));
      await arrive();
      a.close();
      await steps.settled();
      await steps.do("peer reads again", () => b.read(buffer));
      b.close();
      return steps.outcomes;
    };

  SCRIPTS[`${kind}: close() while the peer's write waits`] = async (world) => {
    const [a, b] = await pair(world, kind);
    const steps = new Steps();
    const { write } = await fill(b);
    steps.start("peer's write", () => write);
    a.close();
    await steps.settled();
    await steps.do("peer writes", () => b.write(buffer));
    b.close();
    return steps.outcomes;
  };

  SCRIPTS[`${kind}: an address in use, and free again`] = async (world) => {
    const listener = world.listen(kind);
    const { addr } = listener;
    const steps = new Steps();
    await steps.do("listen", () => world.listen(kind, addr));
    steps.start("accept", () => listener.accept());
    steps.start("accept beside it", () => listener.accept());
    listener.close();
    await steps.settled();
    await steps.do("accept after close", () => listener.accept());
    await steps.do("close again", () => listener.close());
    await steps.do("connect to nobody", () => world.connect(addr));
    await steps.do("listen again", () => world.listen(kind, addr));
    return steps.outcomes;
  };

  SCRIPTS[`${kind}: a client that nobody has accepted`] = async (world) => {
    const listener = world.listen(kind);
    const client = await world.connect(listener.addr);
    listener.close();
    await arrive();
    const steps = new Steps();
    await steps.do("read", () => client.read(buffer));
    await steps.do("read again", () => client.read(buffer));
    await steps.do("write", () => client.write(buffer));
    client.close();
    return steps.outcomes;
  };

  SCRIPTS[`${kind}: a client that is gone before accept()`] = async (world) => {
    using listener = world.listen(kind);
    const client = await world.connect(listener.addr);
    await client.write(new Uint8Array(3));
    client.close();
    await arrive();
    using server = await listener.accept();
    const steps = new Steps();
    await steps.do("read", () => server.read(buffer));
    await steps.do("read again", () => server.read(buffer));
    return steps.outcomes;
  };
}

SCRIPTS["tcp: a reset comes after the data, and is reported once"] = async (
  world,
) => {
  const { end, peer } = await world.resettable();
  await peer.write(7);
  await arrive();
  await peer.reset();
  await arrive();
  const steps = new Steps();
  await steps.do("read what came", () => end.read(buffer));
  await steps.do("read", () => end.read(buffer));
  await steps.do("read again", () => end.read(buffer));
  await steps.do("write", () => end.write(buffer));
  await steps.do("closeWrite", () => end.closeWrite());
  await steps.do("set", () => (end as Deno.TcpConn).setNoDelay(true));
  end.close();
  return steps.outcomes;
};

SCRIPTS["tcp: a reset that a write meets first"] = async (world) => {
  const { end, peer } = await world.resettable();
  await peer.reset();
  await arrive();
  const steps = new Steps();
  await steps.do("write", () => end.write(buffer));
  await steps.do("write again", () => end.write(buffer));
  await steps.do("read", () => end.read(buffer));
  end.close();
  return steps.outcomes;
};

SCRIPTS["tcp: a reset while calls wait"] = async (world) => {
  const { end, peer } = await world.resettable();
  const steps = new Steps();
  steps.start("read", () => end.read(buffer));
  const { write } = await fill(end);
  steps.start("write", () => write);
  await peer.reset();
  await steps.settled();
  await steps.do("read again", () => end.read(buffer));
  end.close();
  return steps.outcomes;
};

SCRIPTS["tcp: options while a write waits"] = async (world) => {
  const [a, b] = await pair(world, "tcp");
  const steps = new Steps();
  const { write } = await fill(a);
  const set = a as Deno.TcpConn;
  await steps.do("setNoDelay", () => set.setNoDelay(true));
  await steps.do("setKeepAlive", () => set.setKeepAlive(true));
  a.close();
  await outcome(() => write);
  b.close();
  return steps.outcomes;
};

SCRIPTS["tcp: a reset after the peer's FIN"] = async (world) => {
  const { end, peer } = await world.resettable();
  await peer.fin();
  const steps = new Steps();
  await steps.do("read", () => end.read(buffer));
  await peer.reset();
  await arrive();
  await steps.do("read again", () => end.read(buffer));
  await steps.do("write", () => end.write(buffer));
  await steps.do("write again", () => end.write(buffer));
  end.close();
  return steps.outcomes;
};

SCRIPTS["tcp: a reset after our FIN"] = async (world) => {
  const { end, peer } = await world.resettable();
  const steps = new Steps();
  await end.closeWrite();
  await arrive();
  await peer.reset();
  await arrive();
  await steps.do("write", () => end.write(buffer));
  await steps.do("read", () => end.read(buffer));
  end.close();
  return steps.outcomes;
};

SCRIPTS["tcp: a client that has reset before accept() ends a raw loop"] =
  async (
    world,
  ) => {
    using listener = world.listen("tcp");
    await world.resetInQueue(listener);
    const loop = async () => {
      for await (const conn of listener) conn.close();
    };
    return { loop: await outcome(loop) };
  };

SCRIPTS["tcp: a raw loop ends with close()"] = async (world) => {
  const listener = world.listen("tcp");
  const { addr } = listener;
  const outcomes: Outcomes = {};
  let clients = 0;
  const loop = (async () => {
    for await (const conn of listener) {
      conn.close();
      if (++clients === 2) listener.close();
    }
  })();
  for (let i = 0; i < 2; i++) (await world.connect(addr)).close();
  outcomes.loop = await outcome(() => loop);
  outcomes.clients = `${clients}`;
  listener[Symbol.dispose]();
  return outcomes;
};

SCRIPTS["tcp: close() with a pending accept frees the address a turn later"] =
  async (world) => {
    const listener = world.listen("tcp");
    const steps = new Steps();
    const accepted = outcome(() => listener.accept());
    listener.close();
    const dialled = outcome(() => world.connect(listener.addr));
    for (let n = 0; n < 10; n++) await Promise.resolve();
    await steps.do("at once", () => world.listen("tcp", listener.addr));
    steps.outcomes.accept = await accepted;
    steps.outcomes.dial = await dialled;
    await steps.do("afterwards", () => world.listen("tcp", listener.addr));
    return steps.outcomes;
  };

SCRIPTS["tcp: a connect to all addresses goes to this host"] = async (
  world,
) => {
  const outcomes: Outcomes = {};
  for (const [bound, to] of [["127.0.0.1", "0.0.0.0"], ["::", "::"]] as const) {
    const at = { transport: "tcp", hostname: bound, port: 0 } as const;
    using listener = world.listen("tcp", at);
    const addr = { ...listener.addr as Deno.NetAddr, hostname: to };
    using client = await world.connect(addr);
    (await listener.accept()).close();
    const ends = [client.localAddr, client.remoteAddr] as Deno.NetAddr[];
    outcomes[to] = ends.map(({ hostname }) => hostname).join();
  }
  return outcomes;
};

SCRIPTS["tcp: web streams of the platform's own"] = async (world) => {
  const [a, b] = await pair(world, "tcp");
  const writer = a.writable.getWriter();
  await writer.write(new Uint8Array(5));
  const reader = b.readable.getReader();
  const outcomes = { read: `${(await reader.read()).value?.length}` };
  (a as Deno.TcpConn).setKeepAlive(true);
  a.close();
  b.close();
  return outcomes;
};

SCRIPTS["tcp: listen() on an address of another host"] = async (world) => {
  const at = { transport: "tcp", hostname: FOREIGN, port: 0 } as const;
  return { listen: await outcome(() => world.listen("tcp", at)) };
};

SCRIPTS["tcp: which addresses conflict"] = async (world) => {
  using listener = world.listen("tcp");
  const { port } = listener.addr as Deno.NetAddr;
  const steps = new Steps();
  for (const hostname of ["0.0.0.0", "::", "127.0.0.2", "::1"]) {
    await steps.do(
      hostname,
      () => world.listen("tcp", { transport: "tcp", hostname, port }),
    );
  }
  const ipv4 = { transport: "tcp", hostname: "0.0.0.0", port: 0 } as const;
  using all = world.listen("tcp", ipv4);
  await steps.do(
    "::1 beside 0.0.0.0",
    () => world.listen("tcp", { ...all.addr as Deno.NetAddr, hostname: "::1" }),
  );
  return steps.outcomes;
};

SCRIPTS["tcp: addresses of a dual-stack socket"] = async (world) => {
  const any = { transport: "tcp", hostname: "::", port: 0 } as const;
  using listener = world.listen("tcp", any);
  const { port } = listener.addr as Deno.NetAddr;
  const outcomes: Outcomes = {};
  for (const hostname of ["127.0.0.1", "::1"]) {
    const [client, server] = await Promise.all([
      world.connect({ transport: "tcp", hostname, port }),
      listener.accept(),
    ]);
    outcomes[hostname] = [client, server]
      .flatMap(({ localAddr, remoteAddr }) => [localAddr, remoteAddr])
      .map((addr) => (addr as Deno.NetAddr).hostname).join();
    client.close();
    server.close();
  }
  return outcomes;
};

SCRIPTS["unix: a socket without a name has no path"] = async (world) => {
  const [a, b] = await pair(world, "unix");
  const path = (addr: Deno.Addr) => (addr as Deno.UnixAddr).path;
  const outcomes = {
    client: `${path(a.localAddr)}`,
    peer: `${path(b.remoteAddr)}`,
    same: `${path(a.remoteAddr) === path(b.localAddr)}`,
  };
  a.close();
  b.close();
  return outcomes;
};

SCRIPTS["unix: paths that are too long, or hold a NUL"] = async (world) => {
  const steps = new Steps();
  // The longest of each kind: nobody is there.
  for (
    const [kind, path] of [
      ["file", `/nowhere/${"y".repeat(98)}`],
      ["bytes count", `/nowhere/${"é".repeat(49)}`],
      ["abstract", `\0${"y".repeat(107)}`],
      ["abstract with a NUL", `\0nobody\0`],
    ] as const
  ) {
    for (const [length, end] of [["longest", ""], ["too long", "y"]] as const) {
      const addr = { transport: "unix", path: path + end } as const;
      await steps.do(`${kind}, ${length}`, () => world.connect(addr));
      if (end === "" || kind === "abstract with a NUL") continue;
      await steps.do(`${kind}, listen`, () => world.listen("unix", addr));
    }
  }
  const addr = { transport: "unix", path: "/nowhere/\0" } as const;
  await steps.do("a NUL", () => world.connect(addr));
  await steps.do("a NUL, listen", () => world.listen("unix", addr));
  return steps.outcomes;
};

function equal(a: Outcomes, b: Outcomes): boolean {
  const text = (outcomes: Outcomes) =>
    JSON.stringify(Object.entries(outcomes).sort());
  return text(a) === text(b);
}

const NEED_IPV6 = new Set([
  "tcp: a connect to all addresses goes to this host",
  "tcp: addresses of a dual-stack socket",
  "tcp: which addresses conflict",
]);

for (const [name, script] of Object.entries(SCRIPTS)) {
  Deno.test({
    name: `memory does what the kernel does: ${name}`,
    ignore: Deno.build.os !== "linux" || NEED_IPV6.has(name) && !hasIpv6,
    async fn() {
      const inMemory = await script(memory());
      // While another test starts a child, the child has a copy of all
      // descriptors until its exec: what was closed stays open for a while.
      let real = await script(kernel);
      for (let left = 5; left > 0 && !equal(inMemory, real); left--) {
        real = await script(kernel);
      }
      assertEquals(inMemory, real);
    },
  });
}
