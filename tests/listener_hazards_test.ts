/**
 * What ends or blocks a plain accept loop: shown on `Deno.listen` first, then
 * on our listener. After that, what only real sockets and processes can show.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { dial } from "../dialer.ts";
import { listen, Listener } from "../listener.ts";
import { type Clock, systemClock } from "../net/clock.ts";
import { Conn } from "../net/conn.ts";
import { isClosed } from "../net/errors.ts";
import {
  bytes,
  canQueue,
  connect,
  installed,
  listenAnew,
  ownAddr,
  preload,
  reset,
  runChild,
  STUCK_MS,
  textOf,
} from "./support.ts";

const linux = Deno.build.os === "linux";

function rawListen(): Deno.TcpListener {
  return Deno.listen({ hostname: "127.0.0.1", port: 0 });
}

/** Echoes on every connection, until the listener closes. */
async function echoAll(listener: AsyncIterable<Conn>): Promise<void> {
  const handlers: Promise<void>[] = [];
  for await (const conn of listener) handlers.push(echo(conn));
  await Promise.all(handlers);
}

async function echo(conn: Conn): Promise<void> {
  await using _ = conn;
  try {
    for await (const chunk of conn) await conn.write(chunk);
  } catch {
    // The client has reset.
  }
}

/** One message there and back, on a connection of its own. */
async function roundTrip(listener: { addr: Deno.Addr }): Promise<void> {
  await using client = await connect(listener);
  await client.write(bytes("ping"));
  assertEquals(await client.read(new Uint8Array(8)), 4);
}

Deno.test("a client that resets ends a plain loop, not ours", {
  timeout: STUCK_MS,
}, async () => {
  const raw = rawListen();
  await reset(raw);
  await assertRejects(async () => {
    for await (const conn of raw) conn.close();
  }, Deno.errors.NotConnected);
  raw.close();

  const listener = await listen("tcp", "127.0.0.1:0");
  for (let i = 0; i < 50; i++) await reset(listener);
  const served = echoAll(listener);
  await roundTrip(listener);
  await listener.close();
  await served;
});

Deno.test("a second accept() is refused by Deno, and waits in ours", async () => {
  const raw = rawListen();
  const first = raw.accept().catch(() => {});
  await assertRejects(() => raw.accept(), Deno.errors.Busy);
  raw.close();
  await first;

  await using listener = await listen("tcp", "127.0.0.1:0");
  const calls = [listener.accept(), listener.accept()];
  for (const call of calls) {
    await using _client = await connect(listener);
    await using _server = await call;
  }
});

Deno.test("close() twice throws in Deno, and is harmless in ours", async () => {
  const raw = rawListen();
  raw.close();
  assertThrows(() => raw.close(), Deno.errors.BadResource);

  const listener = await listen("tcp", "127.0.0.1:0");
  await listener.close();
  await listener.close();
});

Deno.test("the port is free when close() settles, not when Deno's returns", async () => {
  const { hostname, port } = ownAddr(20_002);
  // In a process that starts no child; see listenAnew().
  const { stdout, stderr } = await runChild(
    `
    import { listen, serve } from "./mod.ts";

    const addr = { hostname: "${hostname}", port: ${port} };
    const raw = Deno.listen(addr);
    const accepted = raw.accept().catch(() => {});
    raw.close();
    try {
      Deno.listen(addr).close();
    } catch (error) {
      console.log(error.code);
    }
    await accepted;

    const ends = [
      (listener) => listener.close(),
      (listener) => serve(listener, () => {}).shutdown(),
      (listener, controller) => {
        controller.abort();
        return listener.close();
      },
      async (listener) => {
        const client = await Deno.connect(addr);
        for await (const conn of listener) {
          conn.close();
          break;
        }
        client.close();
      },
    ];
    for (const end of [...ends, ...ends]) {
      const controller = new AbortController();
      const { signal } = controller;
      const address = addr.hostname + ":" + addr.port;
      const listener = await listen("tcp", address, { signal });
      const accept = ends.indexOf(end) % 2 ? undefined : listener.accept();
      const ended = accept?.catch(() => {});
      await end(listener, controller);
      Deno.listen(addr).close();
      await ended;
    }
    console.log("free");
    `,
    { flags: [`--allow-net=${hostname}`] },
  );
  assertEquals(stdout, "EADDRINUSE\nfree\n", stderr);
});

Deno.test("descriptors are limited by the hard limit", {
  ignore: !linux,
}, async () => {
  const { stdout, stderr } = await runChild(
    `console.log(Deno.readTextFileSync("/proc/self/limits"));`,
    {
      flags: ["-A"],
      wrap: ["sh", "-c", 'ulimit -Sn 100; ulimit -Hn 200; exec "$@"', "sh"],
    },
  );
  assertMatch(stdout, /^Max open files +200 +200 /m, stderr);
});

Deno.test("a plain loop dies of EMFILE; ours waits, and reports it once", {
  ignore: !linux,
  timeout: STUCK_MS,
}, async () => {
  const { stdout, stderr } = await runChild(
    `
    import process from "node:process";
    import { listen } from "./listener.ts";

    const files = [];
    function takeAllButOne() {
      try {
        for (;;) files.push(Deno.openSync("/dev/null"));
      } catch (error) {
        if (error.code !== "EMFILE") throw error;
      }
      files.pop().close();
    }
    function giveBack() {
      for (const file of files.splice(0)) file.close();
    }
    const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const dial = ({ addr }) => Deno.connect({ ...addr });

    // Else the runtime takes descriptors for its signals half a second after
    // its start, and panics if there are none.
    const ignore = () => {};
    Deno.addSignalListener("SIGUSR2", ignore);

    const raw = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    takeAllButOne();
    const stranded = await dial(raw);
    let hazard;
    try {
      for await (const conn of raw) conn.close();
    } catch (error) {
      hazard = error.code;
    }
    giveBack();
    stranded.close();

    const events = [];
    const listener = await listen("tcp", "127.0.0.1:0", {
      onAcceptError: ({ kind, retryMs, error }) => {
        events.push([kind, retryMs, error.code]);
        reported.resolve();
      },
    });
    let reported;
    const loop = (async () => {
      for await (const conn of listener) {
        await conn.write(new Uint8Array(1));
        conn.close();
      }
    })();
    const cpu = [];
    for (let episode = 0; episode < 3; episode++) {
      reported = Promise.withResolvers();
      takeAllButOne();
      const client = await dial(listener);
      await reported.promise;
      const before = process.cpuUsage();
      const start = performance.now();
      await delay(100);
      const { user, system } = process.cpuUsage(before);
      cpu.push((user + system) / 10 / (performance.now() - start));
      giveBack();
      if (await client.read(new Uint8Array(8)) !== 1) throw new Error("EOF");
      client.close();
    }
    await listener.close();
    await loop;
    console.log(JSON.stringify({ hazard, events, cpu }));
    Deno.removeSignalListener("SIGUSR2", ignore);
    `,
    {
      flags: ["--allow-net", "--allow-read=/dev/null"],
      wrap: ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"],
    },
  );
  assert(stdout !== "", stderr);
  const { hazard, events, cpu } = JSON.parse(stdout);
  assertEquals(hazard, "EMFILE");
  assertEquals(events, Array(3).fill(["capacity", 5, "EMFILE"]));
  // A loop that tries again at once takes all of a core.
  for (const percent of cpu) assert(percent < 20, `${cpu} % of a core`);
});

/** Errnos of accept(2): the number on Linux, its name, what we make of it. */
const ERRNOS: [number: number, code: string, kind: "peer" | "capacity"][] = [
  [1, "EPERM", "peer"],
  [12, "ENOMEM", "capacity"],
  [23, "ENFILE", "capacity"],
  [24, "EMFILE", "capacity"],
  [63, "ENOSR", "peer"],
  [64, "ENONET", "peer"],
  [71, "EPROTO", "peer"],
  [92, "ENOPROTOOPT", "peer"],
  [93, "EPROTONOSUPPORT", "peer"],
  [94, "ESOCKTNOSUPPORT", "peer"],
  [95, "ENOTSUP", "peer"],
  [100, "ENETDOWN", "peer"],
  [101, "ENETUNREACH", "peer"],
  [103, "ECONNABORTED", "peer"],
  [104, "ECONNRESET", "peer"],
  [105, "ENOBUFS", "capacity"],
  [107, "ENOTCONN", "peer"],
  [110, "ETIMEDOUT", "peer"],
  [112, "EHOSTDOWN", "peer"],
  [113, "EHOSTUNREACH", "peer"],
];

Deno.test("accept() survives each errno of the kernel, as Deno reports it", {
  ignore: !linux || !installed("cc"),
  timeout: STUCK_MS,
}, async () => {
  // The first accept of each client fails with the next errno of the list.
  await using library = await preload(`
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <errno.h>
    #include <poll.h>
    #include <stdlib.h>
    #include <sys/socket.h>
    int accept4(int fd, struct sockaddr *addr, socklen_t *size, int flags) {
      static char *next;
      static int failed;
      int (*real)(int, struct sockaddr *, socklen_t *, int) =
        dlsym(RTLD_NEXT, "accept4");
      struct pollfd client = {.fd = fd, .events = POLLIN};
      if (!next) next = getenv("ERRNOS");
      if (poll(&client, 1, 0) != 1) return real(fd, addr, size, flags);
      failed = !failed;
      if (!failed) return real(fd, addr, size, flags);
      errno = strtol(next, &next, 10);
      return -1;
    }
  `);
  const { stdout, stderr } = await runChild(
    `
    import { listen } from "./listener.ts";

    const found = [];
    await using listener = await listen("tcp", "127.0.0.1:0", {
      onAcceptError: ({ error, kind }) => found.push([error.code, kind]),
    });
    for (let i = 0; i < ${ERRNOS.length}; i++) {
      using client = await Deno.connect({ ...listener.addr });
      using conn = await listener.accept();
      if (conn.remoteAddr.port !== client.localAddr.port) throw new Error("?");
    }
    console.log(JSON.stringify(found));
    `,
    {
      flags: ["--allow-net"],
      wrap: [
        ...library.wrap,
        `ERRNOS=${ERRNOS.map(([number]) => number).join(" ")}`,
      ],
    },
  );
  assert(stdout !== "", stderr);
  assertEquals(JSON.parse(stdout), ERRNOS.map(([, ...told]) => told));
});

Deno.test("a flood of resets does not slow the loop down", async () => {
  let met = 0;
  const waits: number[] = [];
  const clock: Clock = {
    ...systemClock,
    setTimeout: (callback, ms) => {
      waits.push(ms);
      return systemClock.setTimeout(callback, ms);
    },
  };
  const listener = await listen("tcp", "127.0.0.1:0", {
    clock,
    onAcceptError: () => met++,
  });
  const served = echoAll(listener);
  const { port } = listener.addr as Deno.NetAddr;
  const flood = `
    import { connect } from "node:net";
    let left = 500;
    function next() {
      if (left-- <= 0) return;
      const socket = connect(${port}, "127.0.0.1", () => socket.resetAndDestroy());
      socket.on("close", next);
      socket.on("error", () => {});
    }
    for (let i = 0; i < 20; i++) next();
  `;
  // On a busy machine the clients may reset so late that all of them were
  // accepted before. (How long a round trip takes depends on the machine more
  // than on the loop; bench/claims.ts measures the slowest.)
  for (let i = 0; i < 5 && met === 0; i++) {
    let flooding = true;
    const flooded = runChild(flood, { flags: ["--allow-net=127.0.0.1"] })
      .finally(() => flooding = false);
    while (flooding) await roundTrip(listener);
    const { code, stderr } = await flooded;
    assertEquals(code, 0, stderr);
  }
  assert(met > 0, "no client reset before it was accepted");
  assertEquals(waits.filter((ms) => ms > 0), [], "the loop waits for nothing");
  await listener.close();
  await served;
});

Deno.test("a thousand clients at once: none is refused", {
  ignore: !await canQueue(1_000),
  timeout: STUCK_MS,
}, async () => {
  await using listener = await listen("tcp", "127.0.0.1:0");
  const clients = await Promise.all(
    Array.from({ length: 1000 }, () => connect(listener)),
  );
  const servers = await Promise.all(clients.map(() => listener.accept()));
  const addresses = (conns: Conn[], end: "localAddr" | "remoteAddr") =>
    conns.map((conn) => String(conn[end])).sort();
  assertEquals(
    addresses(servers, "remoteAddr"),
    addresses(clients, "localAddr"),
  );
  for (const conn of [...clients, ...servers]) conn.close();
});

Deno.test("keep-alive is on for accepted connections", {
  ignore: !linux || !installed("ss"),
}, async (t) => {
  /** Whether the kernel has a keep-alive timer for our end. */
  async function hasTimer(conn: Deno.Conn): Promise<boolean> {
    const { port } = conn.localAddr as Deno.NetAddr;
    const { stdout } = await new Deno.Command("ss", {
      args: ["-Htno", "state", "established", `sport = :${port}`],
    }).output();
    return new TextDecoder().decode(stdout).includes("timer:(keepalive");
  }
  await t.step("off with plain Deno", async () => {
    const raw = rawListen();
    await using _client = await connect(raw);
    const conn = await raw.accept();
    raw.close();
    assertEquals(await hasTimer(conn), false);
    conn.close();
  });
  for (const keepAlive of [undefined, true, false]) {
    await t.step(`keepAlive: ${keepAlive}`, async () => {
      await using listener = await listen(
        "tcp",
        "127.0.0.1:0",
        keepAlive === undefined ? {} : { keepAlive },
      );
      await using _client = await connect(listener);
      await using conn = await listener.accept();
      assertEquals(await hasTimer(conn), keepAlive !== false);
    });
  }
});

Deno.test("new Listener() takes a TLS listener", async (t) => {
  const asset = (name: string) =>
    Deno.readTextFileSync(new URL(`assets/${name}`, import.meta.url));
  const cert = asset("cert.pem");
  const addr = ownAddr(20_006);
  const listener = new Listener(
    Deno.listenTls({ ...addr, cert, key: asset("key.pem") }),
  );
  const served = echoAll(listener);
  const connectTls = async () => {
    const options = { hostname: "127.0.0.1", caCerts: [cert] };
    return new Conn(await Deno.startTls(await Deno.connect(addr), options));
  };
  await t.step("speaks TLS", async () => {
    await using client = await connectTls();
    await client.write(bytes("secret"));
    const p = new Uint8Array(16);
    assertEquals(await client.read(p), 6);
    assertEquals(p.subarray(0, 6), bytes("secret"));
  });
  await t.step("survives clients that speak no TLS, or reset", async () => {
    await using stranger = await connect(listener);
    await stranger.write(bytes("GET / HTTP/1.1\r\n\r\n"));
    await reset(listener);
    await using client = await connectTls();
    await client.write(bytes("secret"));
    assertEquals(await client.read(new Uint8Array(16)), 6);
  });
  await t.step("closes like any other listener", async () => {
    await listener.close();
    await served;
    (await listenAnew(() => Deno.listen(addr))).close();
  });
});

Deno.test("a unix listener removes its socket's file", {
  ignore: Deno.build.os === "windows",
}, async (t) => {
  const folder = await Deno.makeTempDir({ prefix: "listener" });
  const path = `${folder}/socket`;
  await t.step("on close()", async () => {
    const listener = await listen("unix", path);
    assert((await Deno.lstat(path)).isSocket);
    assertEquals(String(listener.addr), path);
    await listener.close();
    await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  });
  await t.step("once: what is there at a second close() stays", async () => {
    const listener = await listen("unix", path);
    await listener.close();
    await Deno.writeTextFile(path, "somebody else's");
    await listener.close();
    assertEquals(await Deno.readTextFile(path), "somebody else's");
    await Deno.remove(path);
  });
  await t.step("not when its process is killed", async () => {
    const { code } = await runChild(
      `
      import { listen } from "./listener.ts";
      await listen("unix", ${JSON.stringify(path)});
      Deno.kill(Deno.pid, "SIGKILL");
      await new Promise(() => {});
      `,
      {
        flags: [
          `--allow-read=${path}`,
          `--allow-write=${path}`,
          `--allow-net=unix:${path}`,
          "--allow-run",
        ],
      },
    );
    assertEquals(code, 128 + 9);
    const error = await assertRejects(() => listen("unix", path));
    assertEquals(
      (error as Error).message,
      `listen unix ${path}: address already in use`,
    );
    // As in Go, it is for whoever knows that nobody listens to remove it.
    await Deno.remove(path);
    await using _listener = await listen("unix", path);
  });
  await Deno.remove(folder, { recursive: true });
});

// As operating.md says of restarts. It is the runtime that removes the file, by
// its name.
Deno.test("a unix listener that closes removes its successor's file", {
  ignore: Deno.build.os === "windows",
}, async () => {
  const path = await Deno.makeTempFile();
  await Deno.remove(path);
  const old = await listen("unix", path);
  await Deno.remove(path);
  await using successor = await listen("unix", path);
  await old.close();
  await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  assertEquals(String(successor.addr), path);
});

Deno.test("a unix client with a non-UTF-8 name ends a plain loop, not ours", {
  ignore: !linux || !installed("socat"),
}, async () => {
  const path = await Deno.makeTempFile();
  await Deno.remove(path);
  const hazard = async () => {
    const script = `
      name=$(printf '${path}\\377')
      socat -u OPEN:/dev/null "UNIX-CONNECT:${path},bind=$name"
      failed=$?
      rm "$name"
      exit $failed
    `;
    const { success } = await new Deno.Command("sh", { args: ["-c", script] })
      .output();
    assert(success);
  };
  const raw = Deno.listen({ transport: "unix", path });
  const end = assertRejects(() => raw.accept(), Deno.errors.InvalidData);
  await hazard();
  await end;
  raw.close();

  const events: string[] = [];
  await using listener = await listen("unix", path, {
    onAcceptError: ({ kind, error }) => events.push(`${kind}: ${error}`),
  });
  const accepting = listener.accept();
  await hazard();
  await using client = await dial("unix", path);
  await using server = await accepting;
  await client.write(bytes("next"));
  await client.closeWrite();
  assertEquals(await textOf(server), "next");
  assertEquals(events.length, 1);
  assertStringIncludes(events[0]!, `peer: OpError: accept unix ${path}: `);
});

Deno.test("a unix socket may be abstract: a name without a file", {
  ignore: !linux, // only Linux has these
}, async () => {
  const name = `@switchboard-${crypto.randomUUID()}`;
  const listener = await listen("unix", name);
  assertEquals(String(listener.addr), name);
  const path = name.replace("@", "\0");
  await using client = new Conn(
    await Deno.connect({ transport: "unix", path }),
  );
  await using server = await listener.accept();
  assertEquals(String(client.remoteAddr), name);
  assertEquals(String(server.remoteAddr), "", "an unnamed peer");
  await listener.close();
  await using _again = await listenAnew(() => listen("unix", name));
});

Deno.test("accept() keeps the process alive while somebody waits", async (t) => {
  const rows: Record<string, [change: string, output: string]> = {
    "by default": ["loop();", "closed\nended\n"],
    "unref() before": ["listener.unref(); loop();", ""],
    "unref() after": ["loop(); listener.unref();", ""],
    "ref() again": [
      "listener.unref(); loop(); listener.ref();",
      "closed\nended\n",
    ],
    "nobody waits": ["", ""],
    "the caller has aborted": ["leave();", ""],
    "the caller has aborted, another waits": [
      "leave(); loop();",
      "closed\nended\n",
    ],
  };
  const outputs = Object.values(rows).map(([change, expected]) =>
    runChild(
      `
      import { listen } from "./listener.ts";
      const listener = await listen("tcp", "127.0.0.1:0");
      // It fires only if something else keeps the process alive.
      const timer = setTimeout(() => {
        console.log("closed");
        listener.close();
      }, ${expected === "" ? 60_000 : 100});
      Deno.unrefTimer(timer);
      async function loop() {
        for await (const _ of listener);
        console.log("ended");
      }
      function leave() {
        const controller = new AbortController();
        listener.accept(controller).catch(() => {});
        controller.abort();
      }
      ${change}
      `,
      { flags: ["--allow-net"] },
    )
  );
  for (const [i, [name, [, expected]]] of Object.entries(rows).entries()) {
    await t.step(name, async () => {
      const { code, stdout, stderr } = await outputs[i]!;
      assertEquals([code, stdout], [0, expected], stderr);
    });
  }
});

Deno.test("close() settles although nobody waits for the pending accept", async (t) => {
  // Nothing else is pending, so an accept that did not keep the process alive
  // would end the test in the middle.
  await t.step("the caller has aborted", async () => {
    const listener = await listen("tcp", "127.0.0.1:0");
    const controller = new AbortController();
    const call = listener.accept(controller).catch((reason) => reason);
    controller.abort("gone");
    assertEquals(await call, "gone");
    await listener.close();
  });
  await t.step("unref()", async () => {
    const listener = await listen("tcp", "127.0.0.1:0");
    listener.unref();
    const call = listener.accept().catch(isClosed);
    const closed = listener.close();
    assert(await call);
    await closed;
  });
});
