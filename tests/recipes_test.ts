/**
 * What the pages give to copy, where their snippets do not go: peers that
 * reset, hang up or say nothing, time limits, and what is left open.
 */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import { once } from "node:events";
import {
  Agent,
  createServer as createWeb,
  type IncomingMessage,
  request,
} from "node:http";
import {
  connect as connectWeb2,
  createServer as createWeb2,
  type Http2Session,
} from "node:http2";
import { connect as nodeConnect, createServer, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { connect as connectTls, TLSSocket } from "node:tls";
import { type Connector, dial } from "../dialer.ts";
import { serve } from "../handler.ts";
import { listen } from "../listener.ts";
import type { Conn } from "../net/conn.ts";
import {
  ClosedError,
  DeadlineExceededError,
  DnsError,
  type DnsErrorInit,
  isTimeout,
  OpError,
} from "../net/errors.ts";
import { pipe } from "../testing/mod.ts";
import { recipe } from "./recipes.ts";
import { connSuite } from "./suites/conn_suite.ts";
import { zeros } from "./suites/conn_suite_kit.ts";
import { bytes, ownAddr, STUCK_MS, turn } from "./support.ts";

const hostname = "127.0.0.1";
const soon = () => ({ signal: AbortSignal.timeout(1) });

/** A peer that does this with each client; Node's sockets can reset. */
async function peer(
  meet: (socket: Socket) => void,
): Promise<AsyncDisposable & { address: string; port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket.on("error", () => {}));
    meet(socket);
  });
  server.listen(0, hostname);
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  return {
    address: `${hostname}:${port}`,
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** Waits until whoever has the connection has closed it. */
async function closed(conn: Conn): Promise<void> {
  for (let turns = 0; turns < 1_000; turns++) {
    try {
      conn.setReadDeadline(null);
    } catch {
      return;
    }
    await turn();
  }
  throw new Error("nobody has closed it");
}

/** Dials over a server that ends like this; the socket to it must close. */
async function failsClean(
  name: string,
  end: (socket: Socket) => void,
  why: string,
  connectBy: (address: string) => Connector,
): Promise<void> {
  const left = Promise.withResolvers<void>();
  await using server = await peer((socket) => {
    socket.once("data", () => end(socket));
    socket.on("close", () => left.resolve());
    socket.on("end", () => left.resolve());
  });
  const connect = connectBy(server.address);
  const timeout = name === "silence" ? 50 : STUCK_MS;
  const dialing = dial("tcp", server.address, { connect, timeout });
  await assertRejects(() => dialing, OpError, why);
  await left.promise;
}

Deno.test("Reader: a line has at most so many bytes, its end included", async () => {
  const Reader = await recipe("protocols", "Reader");
  const [ours, theirs] = pipe();
  const reader = new Reader(ours, 8);
  await theirs.write(bytes("1234567\n12345\r\n12345678"));
  assertEquals(await reader.line(), "1234567");
  assertEquals(await reader.line(), "12345");
  await assertRejects(
    () => reader.line(),
    Deno.errors.InvalidData,
    "a long line",
  );
  for (const conn of [ours, theirs]) conn.close();
});

Deno.test("Reader: what had arrived before a timeout is still there", async () => {
  const Reader = await recipe("protocols", "Reader");
  const [ours, theirs] = pipe();
  const reader = new Reader(ours, 8);
  await theirs.write(bytes("one\nt"));
  assertEquals(await reader.line(), "one");
  assert(isTimeout(await reader.line(soon()).catch((e: unknown) => e)));
  await theirs.write(bytes("wo\n1234"));
  assertEquals(await reader.line(), "two");
  const p = new Uint8Array(8);
  assert(isTimeout(await reader.full(p, soon()).catch((e: unknown) => e)));
  await theirs.write(bytes("5678"));
  await reader.full(p);
  assertEquals(p, bytes("12345678"));
  for (const conn of [ours, theirs]) conn.close();
});

Deno.test("Reader: after an abort the lines that were read come first", async () => {
  const Reader = await recipe("protocols", "Reader");
  const [ours, theirs] = pipe();
  const reader = new Reader(ours);
  await theirs.write(bytes("one\ntwo\n"));
  assertEquals(await reader.line(), "one");
  const signal = AbortSignal.abort(new Error("stop"));
  assertEquals(await reader.line({ signal }), "two");
  await assertRejects(() => reader.line({ signal }), Error, "stop");
  await theirs.write(bytes("three\n"));
  assertEquals(await reader.line(), "three");
  for (const conn of [ours, theirs]) conn.close();
});

Deno.test("Reader: more() takes nothing, and is false at EOF only", async () => {
  const Reader = await recipe("protocols", "Reader");
  const [ours, theirs] = pipe();
  const reader = new Reader(ours);
  await theirs.write(bytes("one\nhalf"));
  assertEquals([await reader.more(), await reader.more()], [true, true]);
  assertEquals(await reader.line(), "one");
  await theirs.closeWrite();
  assertEquals(await reader.more(), true);
  await assertRejects(
    () => reader.line(),
    Deno.errors.UnexpectedEof,
    "EOF in a line",
  );
  await assertRejects(
    () => reader.full(new Uint8Array(5)),
    Deno.errors.UnexpectedEof,
    "EOF in a message",
  );
  await reader.full(new Uint8Array(4));
  assertEquals(await reader.more(), false);
  for (const conn of [ours, theirs]) conn.close();
});

Deno.test("Client: every call hears why the connection is gone", async (t) => {
  const Client = await recipe("protocols", "Client");
  const ends: [string, (socket: Socket) => void, string][] = [
    ["a hang-up", (socket) => socket.end(), "the server has hung up"],
    ["a reset", (s) => s.resetAndDestroy(), "connection reset by peer"],
    [
      "too long an answer",
      (s) => s.write(new Uint8Array(8).fill(255)),
      "too long an answer",
    ],
  ];
  for (const [name, end, why] of ends) {
    await t.step(name, async () => {
      await using server = await peer((s) => s.once("data", () => end(s)));
      const client = new Client(await dial("tcp", server.address));
      const calls = [client.call(bytes("1")), client.call(bytes("2"))];
      for (const call of calls) await assertRejects(() => call, Error, why);
      await client.gone;
      await assertRejects(() => client.call(bytes("3")), Error, "closed");
    });
  }
});

Deno.test("redial() waits for its server, and gives up where that is no use", {
  timeout: STUCK_MS,
}, async (t) => {
  const redial = await recipe("protocols", "redial");
  const { hostname: own, port } = ownAddr(20_005);
  const address = `${own}:${port}`;
  await t.step("a server that comes later", async () => {
    const refused = await assertRejects(() => dial("tcp", address), OpError);
    assertEquals(refused.code, "ECONNREFUSED");
    const { signal } = new AbortController();
    const dialling = redial(address, signal);
    for (let left = 3; left > 0; left--) await turn(); // refused, and waits
    await using listener = await listen("tcp", address);
    const [conn, accepted] = await Promise.all([dialling, listener.accept()]);
    for (const each of [conn, accepted]) each.close();
  });
  await t.step("its signal", async () => {
    const controller = new AbortController();
    const dialling = redial(address, controller.signal);
    await turn();
    controller.abort("enough");
    assertEquals(await dialling.catch((error: unknown) => error), "enough");
  });
  await t.step("a mistake in the address", async () => {
    const { signal } = new AbortController();
    await assertRejects(() => redial("127.0.0.1", signal), OpError, "port");
  });
});

Deno.test("redial() gives up without a permission", {
  permissions: { read: true },
  timeout: STUCK_MS,
}, async () => {
  const redial = await recipe("protocols", "redial");
  const { signal } = new AbortController();
  for (const host of ["127.0.0.1", "localhost", "0.0.0.0"]) {
    const dialling = redial(`${host}:80`, signal);
    await assertRejects(() => dialling, OpError, "--allow-net");
  }
});

Deno.test("Subscriber: a burst beyond the limit ends the connection", async () => {
  const Subscriber = await recipe("protocols", "Subscriber");
  const [ours, theirs] = pipe();
  const subscriber = new Subscriber(ours);
  const reading = theirs.read(new Uint8Array(65_536));
  // They would read it, but it is sent in one go.
  for (let i = 0; i < 17; i++) subscriber.send(new Uint8Array(65_536));
  await closed(ours);
  await reading;
  theirs.close();
});

Deno.test("proxied() takes no wrong header for a client", async (t) => {
  const proxied = await recipe("protocols", "proxied");
  const clients: Record<string, string | undefined> = {
    "PROXY TCP4 203.0.113.7 192.0.2.1 1 80\r\n": "203.0.113.7:1",
    "PROXY TCP6 2001:db8::1 2001:db8::2 1 80\r\n": "[2001:db8::1]:1",
    "PROXY TCP6 203.0.113.7 192.0.2.1 1 80\r\n": undefined,
    "PROXY TCP4 203.0.113.256 192.0.2.1 1 80\r\n": undefined,
    "PROXY TCP4 203.0.113.7 192.0.2.1 65536 80\r\n": undefined,
    "GET / HTTP/1.1\r\n": undefined,
    "PROXY": undefined,
    [`PROXY ${"x".repeat(200)}`]: undefined,
  };
  for (const [header, client] of Object.entries(clients)) {
    await t.step(header, async () => {
      const [ours, theirs] = pipe();
      await theirs.write(bytes(header));
      await theirs.closeWrite();
      const found = proxied(ours);
      if (client) assertEquals(String((await found).remoteAddr), client);
      else await assertRejects(() => found, Error, "no PROXY header");
      for (const conn of [ours, theirs]) conn.close();
    });
  }
  await t.step("without a client it is the balancer's own", async () => {
    const [ours, theirs] = pipe();
    await theirs.write(bytes("PROXY UNKNOWN\r\n"));
    assertStrictEquals(await proxied(ours), ours);
    for (const conn of [ours, theirs]) conn.close();
  });
});

Deno.test("through() leaves nothing open at a proxy that fails", {
  timeout: STUCK_MS,
}, async (t) => {
  const through = await recipe("protocols", "through");
  const refusal = "HTTP/1.1 407 Who are you?\r\n\r\n";
  const ends: [string, (socket: Socket) => void, string][] = [
    ["a refusal", (s) => s.write(refusal), '"HTTP/1.1 407 Who are you?"'],
    ["EOF", (s) => s.end(), "no proxy"],
    ["an endless head", (s) => s.write("x".repeat(10_000)), "no proxy"],
    ["silence", () => {}, "i/o timeout"],
  ];
  for (const [name, end, why] of ends) {
    await t.step(name, () => failsClean(name, end, why, through));
  }
});

Deno.test("bodyOf() closes the connection, however the body ends", async (t) => {
  const bodyOf = await recipe("streams", "bodyOf");
  let conn!: Conn;
  await using upstream = await peer((socket) => {
    socket.write("part");
    socket.on("data", () => socket.resetAndDestroy());
  });
  await using web = Deno.serve(
    { hostname, port: 0, onListen: () => {}, onError: () => Response.error() },
    async () => {
      conn = await dial("tcp", upstream.address);
      return new Response(bodyOf(conn));
    },
  );
  const url = `http://${hostname}:${web.addr.port}`;
  await t.step("a client that goes away", async () => {
    const gone = new AbortController();
    const { body } = await fetch(url, { signal: gone.signal });
    await body!.getReader().read();
    gone.abort();
    await closed(conn);
  });
  await t.step("HEAD", async () => {
    await (await fetch(url, { method: "HEAD" })).text();
    await closed(conn);
  });
  await t.step("a reset, which fails the body", async () => {
    const conn = await dial("tcp", upstream.address);
    const reader = bodyOf(conn).getReader();
    await reader.read();
    await conn.write(bytes("x"));
    await assertRejects(() => reader.read(), OpError, "reset by peer");
    await closed(conn);
  });
});

Deno.test("NodeSocket closes the connection, and a failure ends one request", async (t) => {
  const NodeSocket = await recipe("node", "NodeSocket");
  const head = (length: number) =>
    `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\nhello`;
  const ends: Record<string, (socket: Socket) => void> = {
    "a reset before the answer": (socket) => socket.resetAndDestroy(),
    "FIN before the answer": (socket) => socket.end(),
    "a reset in its middle": (socket) =>
      socket.write(head(9), () => setTimeout(() => socket.resetAndDestroy())),
    "FIN in its middle": (socket) => socket.end(head(9)),
    "a reset after it": (socket) =>
      socket.write(head(5), () => setTimeout(() => socket.resetAndDestroy())),
    "FIN after it": (socket) => socket.end(head(5)),
  };
  for (const [name, end] of Object.entries(ends)) {
    await t.step(name, async () => {
      await using server = await peer((s) => s.once("data", () => end(s)));
      const conn = await dial("tcp", server.address);
      const asked = request({ createConnection: () => new NodeSocket(conn) })
        .end();
      asked.on("error", () => {}); // as the page has it
      const answered = (async () => {
        const [answer]: IncomingMessage[] = await once(asked, "response");
        let text = "";
        for await (const chunk of answer!.setEncoding("utf8")) text += chunk;
        return text;
      })();
      if (name.endsWith("after it")) assertEquals(await answered, "hello");
      else await assertRejects(() => answered);
      await closed(conn);
    });
  }
});

Deno.test("NodeSocket: what clients ask of a socket", {
  timeout: STUCK_MS,
}, async (t) => {
  const NodeSocket = await recipe("node", "NodeSocket");
  const failure = async (socket: Duplex) => (await once(socket, "error"))[0];
  await t.step("it may be used while it is dialled", async () => {
    await using server = await peer((socket) => socket.pipe(socket));
    const dialing = Promise.withResolvers<Conn>();
    const socket = new NodeSocket(dialing.promise);
    socket.write("hel");
    socket.end("lo");
    assertEquals([socket.readyState, socket.connecting], ["opening", true]);
    dialing.resolve(dial("tcp", server.address));
    await once(socket, "connect");
    assertEquals([socket.readyState, socket.connecting], ["readOnly", false]);
    const { localAddress, localPort, remoteAddress, remotePort } = socket;
    assertEquals(`${remoteAddress}:${remotePort}`, server.address);
    const { localAddr } = await dialing.promise;
    assertEquals(`${localAddress}:${localPort}`, String(localAddr));
    let text = "";
    for await (const chunk of socket) text += chunk;
    assertEquals(text, "hello");
    await closed(await dialing.promise);
    assertEquals(socket.readyState, "closed");
  });
  await t.step("a dial that fails is its error", async () => {
    const error = new Error("no way");
    const socket = new NodeSocket(Promise.reject(error));
    assertStrictEquals(await failure(socket), error);
    assertEquals(socket.readyState, "closed");
  });
  await t.step("a failed dial has a code", async () => {
    const failing = (init: DnsErrorInit) =>
      dial("tcp", "a.test:1", {
        resolve: () => Promise.reject(new DnsError(init)),
      });
    const dials = {
      ENOTFOUND: failing({ notFound: true }),
      EAI_AGAIN: failing({ temporary: true }),
      ETIMEDOUT: dial("tcp", "127.0.0.1:1", { timeout: 0 }),
      ECONNREFUSED: dial("tcp", "127.0.0.1:1"),
    };
    for (const [code, dialling] of Object.entries(dials)) {
      assertEquals((await failure(new NodeSocket(dialling))).code, code);
    }
    const { code } = await failure(new NodeSocket(failing({})));
    assertEquals(code, undefined);
  });
  await t.step("destroyed, it closes what is dialled later", async () => {
    const dialing = Promise.withResolvers<Conn>();
    const socket = new NodeSocket(dialing.promise).unref();
    await once(socket.destroy(), "close");
    const [ours, theirs] = pipe();
    let connected = false;
    socket.once("connect", () => connected = true);
    dialing.resolve(ours);
    await closed(ours);
    assertEquals([connected, socket.readyState], [false, "closed"]);
    theirs.close();
  });
  await t.step("destroyed while it is dialled, it sends nothing", async () => {
    for (const length of [1, 100_000]) {
      const dialing = Promise.withResolvers<Conn>();
      const socket = new NodeSocket(dialing.promise);
      const written = Promise.withResolvers<Error | null>();
      socket.write(new Uint8Array(length), written.resolve);
      socket.end("bye");
      await once(socket.destroy(), "close");
      const [ours, theirs] = pipe();
      dialing.resolve(ours);
      assertEquals(await new Response(theirs.readable).text(), "");
      assert(await written.promise instanceof Error);
      theirs.close();
    }
  });
  await t.step("paused while it is dialled, it emits no data", async () => {
    await using server = await peer((socket) => socket.end("hello"));
    const conn = await dial("tcp", server.address);
    const dialing = Promise.withResolvers<Conn>();
    const socket = new NodeSocket(dialing.promise);
    let text = "";
    socket.on("data", (data: Uint8Array) => text += data).pause();
    dialing.resolve(conn);
    await once(socket, "connect");
    while (socket.readableLength === 0) await turn();
    assertEquals(text, "");
    await once(socket.resume(), "close");
    assertEquals(text, "hello");
  });
  await t.step("connect() on a connection says so, later", async () => {
    const [ours, theirs] = pipe();
    const socket = new NodeSocket(ours);
    assertEquals(socket.readyState, "open");
    await once(socket.connect(), "connect");
    socket.destroy();
    await closed(ours);
    theirs.close();
  });
  await t.step("what is written before destroy() leaves", async () => {
    const said = Promise.withResolvers<string>();
    await using server = await peer((socket) =>
      socket.on("data", (data) => said.resolve(String(data)))
    );
    const conn = await dial("tcp", server.address);
    const socket = new NodeSocket(conn);
    socket.write("last words");
    socket.destroy();
    assertEquals(await said.promise, "last words");
    await closed(conn);
  });
  await t.step(
    "paused, with nothing unread, it ends all the same",
    async () => {
      await using server = await peer((socket) => socket.end("hello"));
      const conn = await dial("tcp", server.address);
      const socket = new NodeSocket(conn);
      await once(socket, "data");
      socket.pause();
      await once(socket, "close");
      await closed(conn);
    },
  );
  await t.step("one that only writes learns of the end", async () => {
    for (const dialled of [false, true]) {
      const [ours, theirs] = pipe();
      const socket = new NodeSocket(dialled ? Promise.resolve(ours) : ours);
      socket.write("hello");
      await theirs.closeWrite();
      await once(socket, "close");
      await closed(ours);
      theirs.close();
    }
  });
  await t.step("a timeout", async () => {
    await using server = await peer(() => {}); // holds the process
    const conn = await dial("tcp", server.address);
    const socket = new NodeSocket(conn);
    const never = () => assert(false);
    socket.setTimeout(1, never).setTimeout(0, never).setTimeout(1);
    await once(socket, "timeout");
    assertEquals(socket.readyState, "open");
    socket.write("x");
    await once(socket, "timeout"); // silent again
    socket.setTimeout(Infinity, never); // longer than a timer can be
    for (let n = 0; n < 3; n++) await turn();
    socket.setTimeout(STUCK_MS, never).destroy(); // leaves no timer
    await closed(conn);
  });
  await t.step("the timeout of a request", async () => {
    await using server = await peer(() => {});
    const conn = await dial("tcp", server.address);
    const asked = request({
      timeout: 1,
      createConnection: ({ timeout = 0 }) =>
        new NodeSocket(conn).setTimeout(timeout),
    }).end();
    await once(asked, "timeout");
    asked.on("error", () => {}).destroy();
    await closed(conn);
  });
});

Deno.test(
  "NodeSocket: an agent of node:http uses it again, until the server hangs up",
  {
    timeout: STUCK_MS,
  },
  async () => {
    const NodeSocket = await recipe("node", "NodeSocket");
    let answers = 0;
    await using server = await peer((socket) =>
      socket.on("data", () => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        if (++answers % 2 === 0) setTimeout(() => socket.end()); // later
      })
    );
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const conns: Conn[] = [];
    const sockets: Duplex[] = [];
    Object.assign(agent, {
      createConnection: () => {
        const dialing = dial("tcp", server.address);
        dialing.then((conn) => conns.push(conn));
        const socket = new NodeSocket(dialing);
        sockets.push(socket);
        return socket;
      },
    });
    for (let i = 1; i <= 6; i++) {
      const asked = request({ agent, host: hostname, port: server.port }).end();
      const [answer]: IncomingMessage[] = await once(asked, "response");
      let text = "";
      for await (const chunk of answer!.setEncoding("utf8")) text += chunk;
      assertEquals([text, sockets.length], ["hello", Math.ceil(i / 2)]);
      const socket = sockets.at(-1)!;
      if (i % 2 === 0 && !socket.destroyed) await once(socket, "close");
      else await turn(); // the agent takes it back
    }
    agent.destroy();
    for (const conn of conns) await closed(conn);
  },
);

Deno.test("Duplex.fromWeb(conn) tells of its end, and closes nothing", {
  timeout: STUCK_MS,
}, async (t) => {
  const ends: Record<string, (conn: Conn, socket: Socket) => void> = {
    "the end": (_, socket) => socket.end(),
    "a reset": (_, socket) => socket.resetAndDestroy(),
    "a deadline": (conn) => conn.setReadDeadline(0),
  };
  for (const [name, end] of Object.entries(ends)) {
    await t.step(name, async () => {
      const accepted = Promise.withResolvers<Socket>();
      await using server = await peer(accepted.resolve);
      const conn = await dial("tcp", server.address);
      const stream = Duplex.fromWeb(conn).on("error", () => {}).resume();
      const socket = await accepted.promise;
      end(conn, socket);
      await new Promise((resolve) => stream.once("close", resolve));
      conn.setReadDeadline(null); // throws if it is closed
      conn.close();
    });
  }
});

Deno.test("NodeSocket: what a server of node:http needs to be served", {
  timeout: STUCK_MS,
}, async (t) => {
  const NodeSocket = await recipe("node", "NodeSocket");
  /** One that has answered once, and its client. */
  async function answered(listening: () => boolean) {
    const web = createWeb((_, answer) => answer.end("hello"));
    Object.defineProperty(web, "listening", { get: listening });
    const server = serve(await listen("tcp", `${hostname}:0`), async (conn) => {
      const socket = new NodeSocket(conn);
      web.emit("connection", socket);
      await once(socket, "close");
    });
    const client = await dial("tcp", String(server.addr));
    await client.write(bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let text = "";
    while (!text.includes("hello")) {
      const p = new Uint8Array(1024);
      const n = await client.read(p);
      assert(n !== null, text);
      text += new TextDecoder().decode(p.subarray(0, n));
    }
    const rest = client.read(new Uint8Array(1)).catch((error) => error);
    return { web, server, client, rest };
  }
  await t.step("if it does not listen, an answer is the last one", async () => {
    const { server, client, rest } = await answered(() => false);
    assertEquals(await rest, null);
    client.close();
    assertEquals((await server.shutdown()).forced, 0);
  });
  await t.step("a connection that is kept alive holds a shutdown", async () => {
    const { server, client, rest } = await answered(() => true);
    assertEquals((await server.shutdown({ timeout: 50 })).forced, 1);
    await rest;
    client.close();
    await server.finished;
  });
  await t.step("a client that stays after its last answer", async (t) => {
    for (const talks of [false, true]) {
      await t.step(talks ? "and talks" : "and is silent", async () => {
        const web = createWeb((_, answer) => answer.end("bye"));
        let timeouts = 0;
        web.on("timeout", () => timeouts++);
        const server = serve(
          await listen("tcp", `${hostname}:0`),
          async (conn) => {
            const socket = new NodeSocket(conn);
            socket.lingerMs = 5;
            web.emit("connection", socket);
            await once(socket, "close");
          },
        );
        const client = await dial("tcp", String(server.addr));
        await client.write(bytes(
          "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" +
            "Content-Length: 1000000000\r\n\r\n",
        ));
        await new Response(client.readable).text(); // and sends no FIN
        while (talks && server.connections.size > 0) {
          await client.write(bytes("x")).catch(() => {});
          await turn();
        }
        assertEquals((await server.shutdown({ timeout: 1_000 })).forced, 0);
        assertEquals(timeouts, 0);
        client.close();
      });
    }
  });
  await t.step("closeIdleConnections() ends it", async () => {
    const { web, server, client, rest } = await answered(() => true);
    web.closeIdleConnections();
    assertEquals(await rest, null);
    client.close();
    assertEquals((await server.shutdown()).forced, 0);
  });
});

Deno.test(
  "NodeSocket: a session of HTTP/2 holds a shutdown until it is closed",
  {
    timeout: STUCK_MS,
  },
  async (t) => {
    const NodeSocket = await recipe("node", "NodeSocket");
    for (const told of [false, true]) {
      await t.step(told ? "closed" : "left open", async () => {
        const web = createWeb2((_, answer) => void answer.end("hello"));
        const session: Promise<Http2Session[]> = once(web, "session");
        const server = serve(
          await listen("tcp", `${hostname}:0`),
          async (conn) => {
            const socket = new NodeSocket(conn);
            web.emit("connection", socket);
            await once(socket, "close").catch(() => {});
          },
        );
        const client = connectWeb2(`http://${server.addr}`);
        const asked = client.request({ ":path": "/" }).setEncoding("utf8");
        let text = "";
        for await (const chunk of asked) text += chunk;
        assertEquals(text, "hello");
        if (told) (await session)[0]!.close();
        const { forced } = await server.shutdown({
          timeout: told ? 5_000 : 50,
        });
        assertEquals(forced, told ? 0 : 1);
        client.destroy();
      });
    }
  },
);

Deno.test("connOf() reports a reset as a connection does", async (t) => {
  const connOf = await recipe("node", "connOf");
  const addr = { transport: "tcp", hostname, port: 1 } as const;
  const open = async (port: number): Promise<Conn> => {
    const stream = nodeConnect({ host: hostname, port, allowHalfOpen: true });
    await once(stream, "connect");
    return connOf(stream, addr, addr);
  };
  await t.step("a read: what came before it, then the reset", async () => {
    await using server = await peer((socket) =>
      socket.write("hello", () => setTimeout(() => socket.resetAndDestroy()))
    );
    using conn = await open(server.port);
    const p = new Uint8Array(9);
    assertEquals(await conn.read(p), 5);
    const error = await conn.read(p).catch((error) => error);
    assertEquals(error.code, "ECONNRESET");
  });
  await t.step("more than one read gets all of it, too", async () => {
    await using server = await peer((socket) =>
      socket.write(
        zeros(20_000),
        () => setTimeout(() => socket.resetAndDestroy()),
      )
    );
    const stream = nodeConnect({ host: hostname, port: server.port });
    await once(stream, "connect");
    using conn: Conn = connOf(stream, addr, addr);
    let got = (await conn.read(new Uint8Array(1)))!;
    if (!stream.destroyed) await once(stream, "close").catch(() => {});
    const error = await (async () => {
      for await (const chunk of conn) got += chunk.length;
    })().catch((error) => error);
    assertEquals([got, error.code], [20_000, "ECONNRESET"]);
  });
  await t.step("a write, and the read after it", async () => {
    await using server = await peer((socket) =>
      socket.once("data", () => socket.resetAndDestroy())
    );
    using conn = await open(server.port);
    let code: string | undefined;
    while (!code) {
      await conn.write(bytes("x")).catch((error) =>
        code = error.code ?? "none"
      );
      await turn();
    }
    const lost = ["ECONNRESET", "EPIPE"]; // EPIPE if a write comes too late
    assert(lost.includes(code), code);
    const read = await conn.read(new Uint8Array(1)).catch((error) => error);
    assert(lost.includes(read.code), read.code);
  });
  await t.step("FIN leaves the other half open", async () => {
    const said = Promise.withResolvers<string>();
    await using server = await peer((socket) => {
      socket.end();
      socket.on("data", (data) => said.resolve(String(data)));
    });
    using conn = await open(server.port);
    assertEquals(await conn.read(new Uint8Array(1)), null);
    await conn.write(bytes("late"));
    assertEquals(await said.promise, "late");
  });
});

Deno.test("startTls() leaves nothing open at a server that does not start", {
  timeout: STUCK_MS,
}, async (t) => {
  const startTls = await recipe("tls", "startTls");
  const ends: [string, (socket: Socket) => void, string][] = [
    ["a refusal", (socket) => socket.write("500 no\r\n"), '"500 no"'],
    ["EOF", (socket) => socket.end(), "no answer to STARTTLS"],
    ["an endless line", (s) => s.write("x".repeat(600)), "no answer"],
    ["silence", () => {}, "i/o timeout"],
  ];
  for (const [name, end, why] of ends) {
    await t.step(
      name,
      () => failsClean(name, end, why, () => startTls("localhost")),
    );
  }
});

Deno.test("paced(): TLS that nobody reads from holds its peer back", {
  timeout: STUCK_MS,
}, async () => {
  const paced = await recipe("tls", "paced");
  const cert = await Deno.readTextFile("tests/assets/cert.pem");
  const key = await Deno.readTextFile("tests/assets/key.pem");
  const [ours, theirs] = pipe();
  const stream = Duplex.fromWeb(theirs, { allowHalfOpen: true });
  const secure = new TLSSocket(stream, { isServer: true, cert, key });
  const server: TLSSocket = paced(secure, stream);
  const client = connectTls({
    socket: Duplex.fromWeb(ours),
    servername: "localhost",
    ca: cert,
  });
  const length = 4 * 1024 * 1024;
  client.end(new Uint8Array(length));
  while (!stream.isPaused()) await turn();
  for (let turns = 0; turns < 100; turns++) await turn();
  assert(server.readableLength < length / 8);
  assert(client.writableLength > length / 2); // the client waits
  let got = 0;
  for await (const chunk of server) got += chunk.length; // to its end
  assertEquals(got, length);
  client.destroy();
  for (const conn of [ours, theirs]) conn.close();
});

Deno.test("paced(): TLS learns why its connection failed", {
  timeout: STUCK_MS,
}, async (t) => {
  const paced = await recipe("tls", "paced");
  const cert = await Deno.readTextFile("tests/assets/cert.pem");
  const key = await Deno.readTextFile("tests/assets/key.pem");
  for (const writes of [false, true]) {
    await t.step(writes ? "by a write" : "by a read", async () => {
      await using listener = await listen("tcp", "127.0.0.1:0");
      const { port } = listener.addr as Deno.NetAddr;
      const socket = nodeConnect({ host: "127.0.0.1", port });
      const client = connectTls({
        socket,
        servername: "localhost",
        ca: cert,
      });
      client.on("error", () => {}); // it may hear of its own reset
      using conn = await listener.accept();
      const stream = Duplex.fromWeb(conn, { allowHalfOpen: true });
      const secure = new TLSSocket(stream, { isServer: true, cert, key });
      const server: TLSSocket = paced(secure, stream);
      await once(client, "secureConnect");
      const failed = once(server, "error");
      if (!writes) server.resume();
      socket.resetAndDestroy();
      const piece = new Uint8Array(64 * 1024);
      while (writes && !server.destroyed) {
        await new Promise((resolve) => server.write(piece, resolve));
        await turn();
      }
      const [error] = await failed;
      assert(error instanceof OpError);
      assert(["ECONNRESET", "EPIPE"].includes(error.code!), error.message);
      client.destroy();
    });
  }
});

Deno.test("the page's onError reports what is unusual, and no more", async (t) => {
  const { onError } = await recipe("operating", "options");
  const printed: unknown[] = [];
  const { error: print } = console;
  const says = (error: unknown, conn?: Conn) => {
    console.error = (...args: unknown[]) => printed.push(args.at(-1));
    try {
      onError(error, conn);
    } finally {
      console.error = print;
    }
    return printed.splice(0).length > 0;
  };
  const errno = (code: string) => Object.assign(new Error(code), { code });
  const failed = (op: OpError["op"], cause: unknown) =>
    new OpError({ op, network: "tcp", cause });
  await t.step("not what peers do", () => {
    for (const op of ["read", "write", "close"] as const) {
      for (const code of ["ECONNRESET", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH"]) {
        assertEquals(says(failed(op, errno(code))), false);
      }
      assertEquals(says(failed(op, new ClosedError())), false);
      assertEquals(says(failed(op, new DeadlineExceededError())), false);
    }
    const tooMany = new OpError({ op: "accept", reason: "too many" });
    assertEquals(says(tooMany, {} as Conn), false);
  });
  await t.step("but a backend or a listener that is down, a bug", async () => {
    const refused = await dial("tcp", "127.0.0.1:1").catch((error) => error);
    const late = await dial("tcp", "127.0.0.1:1", { timeout: 0 })
      .catch((error) => error);
    for (const error of [refused, late]) assert(says(error));
    assert(says(failed("dial", errno("ECONNRESET"))));
    assert(says(failed("accept", errno("EMFILE"))));
    assert(says(new TypeError("a bug")));
  });
});

const connOf = await recipe("node", "connOf");

connSuite("conn of a Node stream", async () => {
  await using listener = await listen("tcp", `${hostname}:0`);
  const { port } = listener.addr as Deno.NetAddr;
  const stream = nodeConnect({ host: hostname, port, allowHalfOpen: true });
  const [b] = await Promise.all([listener.accept(), once(stream, "connect")]);
  return {
    a: connOf(stream, b.remoteAddr, b.localAddr),
    b,
    stop: async () => {
      if (!stream.closed) await once(stream, "close");
    },
  };
}, { flood: 16 * 1024 * 1024, slowFin: true });
