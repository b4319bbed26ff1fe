import { assert, assertEquals, assertMatch } from "@std/assert";
import { listen } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { serve } from "../handler.ts";
import { copy } from "../net/copy.ts";
import { type End, Program, run } from "./example.ts";
import { bytes, installed, textOf } from "./support.ts";

const LOCAL = ["--listen", "127.0.0.1:0"];

/** A test that sends SIGINT, which Windows does not have. */
function test(
  name: string,
  fn: (t: Deno.TestContext) => Promise<void>,
  ...needs: string[]
): void {
  const ignore = Deno.build.os === "windows" || !needs.every(installed);
  Deno.test({ name, ignore, fn });
}

async function connectTo(port: number): Promise<Conn> {
  return new Conn(await Deno.connect({ hostname: "127.0.0.1", port }));
}

/** What a connection receives, line by line. */
async function* linesOf(conn: Conn): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of conn) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

/** The next line; `undefined` at EOF. */
async function next(lines: AsyncGenerator<string>): Promise<unknown> {
  return (await lines.next()).value;
}

test("echo_server echoes, counts, and ends on SIGINT", async (t) => {
  await using server = await Program.example("echo_server", ...LOCAL);
  const port = await server.port();
  await t.step("a client that half-closes", async () => {
    const client = await connectTo(port);
    const peer = String(client.localAddr);
    assertEquals((await server.line(/(.*) connected/))[1], peer);
    await client.write(bytes("hello"));
    await client.closeWrite();
    assertEquals(await textOf(client), "hello");
    client.close();
    assertEquals((await server.line(/(.*) sent 5 bytes/))[1], peer);
  });
  await t.step({
    name: "nc (needs nc)",
    ignore: !installed("nc"),
    fn: async () => {
      await using nc = new Program("nc", ["-N", "127.0.0.1", `${port}`]);
      await nc.type("one\n");
      await nc.line(/^one$/);
      await nc.type("two\n");
      await nc.line(/^two$/);
      await nc.endInput(); // -N: FIN
      assertEquals((await nc.ended()).code, 0);
      await server.line(/ sent 8 bytes/);
    },
  });
  server.interrupt();
  assertEquals(await server.ended(), { code: 0, stdout: "", stderr: "" });
});

test("chat_server passes lines on to all other guests", async () => {
  await using server = await Program.example("chat_server", ...LOCAL);
  const port = await server.port();
  const ann = await connectTo(port);
  const toAnn = linesOf(ann);
  assertEquals(await next(toAnn), "you are guest1");
  const bob = await connectTo(port);
  const toBob = linesOf(bob);
  assertEquals(await next(toBob), "you are guest2");
  assertEquals(await next(toAnn), "* guest2 has joined");
  await ann.write(bytes("hel"));
  await ann.write(bytes("lo\nbob\n")); // lines, not packets
  assertEquals(await next(toBob), "guest1: hello");
  assertEquals(await next(toBob), "guest1: bob");
  await ann.write(bytes("\x1b[2Jwipe\r\n")); // to clear bob's screen
  assertEquals(await next(toBob), "guest1: [2Jwipe");
  await ann.write(new Uint8Array(5_000)); // a line without end
  await server.line(/^guest1 never ends a line$/);
  assertEquals(await next(toBob), "* guest1 has left");
  ann.close();
  server.interrupt();
  assertEquals(await next(toBob), undefined);
  bob.close();
  assertEquals((await server.ended()).code, 0);
});

test("chat_server drops a guest who reads nothing; the others chat on", async () => {
  await using server = await Program.example(
    "chat_server",
    ...LOCAL,
    "--patience",
    "2000",
  );
  const port = await server.port();
  const slow = await connectTo(port); // reads nothing
  const bob = await connectTo(port);
  const toBob = linesOf(bob);
  const ann = await connectTo(port);
  const toAnn = linesOf(ann);
  assertEquals(await next(toAnn), "you are guest3");
  let over = false;
  const dropped = server.line(/^guest1 reads too slowly$/)
    .then(() => over = true);
  const flood = bytes(`${"x".repeat(999)}\n`.repeat(100));
  const talking = (async () => {
    while (!over) await ann.write(flood);
    await ann.write(bytes("that was all\n"));
  })();
  let lines = 0;
  for await (const line of toBob) {
    if (line === "guest3: that was all") break;
    if (line.startsWith("guest3: x")) lines++;
  }
  await Promise.all([dropped, talking]);
  assert(lines > 1_000, `${lines} lines`); // bob got them all, meanwhile
  assertEquals(await next(toAnn), "* guest1 has left");
  for (const conn of [slow, bob, ann]) conn.close();
  server.interrupt();
  assertEquals((await server.ended()).code, 0);
});

test("tcp_proxy passes bytes and half-closes on, and counts the bytes", async () => {
  // On every address of localhost: another test may have the port on [::1].
  const upstream = serve(await listen("tcp", ":0"), async (conn) => {
    await copy(conn, conn);
    await conn.write(bytes(" and goodbye"));
  });
  const { port } = upstream.addr as Deno.NetAddr;
  await using proxy = await Program.example(
    "tcp_proxy",
    ...LOCAL,
    "--to",
    `localhost:${port}`,
  );
  const own = await proxy.port();
  const client = await connectTo(own);
  const peer = String(client.localAddr);
  assertEquals(
    (await proxy.line(/(.*) -> (?:127\.0\.0\.1|\[::1\]):(\d+)/)).slice(1),
    [peer, `${port}`],
  );
  await client.write(bytes("hello"));
  await client.closeWrite();
  assertEquals(await textOf(client), "hello and goodbye");
  client.close();
  const [, who, up, down] = await proxy.line(
    /(.*) done: (\d+) bytes up, (\d+) bytes down/,
  );
  assertEquals([who, up, down], [peer, "5", "17"]);

  await upstream.shutdown();
  const late = await connectTo(own);
  assertEquals(await textOf(late), "");
  late.close();
  await proxy.line(/ failed: dial tcp .*connection refused/);
  proxy.interrupt();
  assertEquals(await proxy.ended(), { code: 0, stdout: "", stderr: "" });
});

test(
  "tcp_proxy works between nc and socat (needs both)",
  async () => {
    const listening = "TCP-LISTEN:0,bind=127.0.0.1,fork";
    await using socat = new Program("socat", ["-dd", listening, "EXEC:cat"]);
    const [, port] = await socat.errorLine(/listening on .*:(\d+)/);
    await using proxy = await Program.example(
      "tcp_proxy",
      ...LOCAL,
      "--to",
      `127.0.0.1:${port}`,
    );
    const own = await proxy.port();
    await using nc = new Program("nc", ["-N", "127.0.0.1", `${own}`]);
    await nc.type("through the proxy\n");
    await nc.line(/^through the proxy$/);
    await nc.endInput(); // -N: FIN
    assertEquals((await nc.ended()).code, 0);
    await proxy.line(/done: 18 bytes up, 18 bytes down/);
    proxy.interrupt();
    assertEquals((await proxy.ended()).code, 0);
  },
  "nc",
  "socat",
);

test("heartbeat pings silent clients, and drops one that never answers", async () => {
  await using server = await Program.example(
    "heartbeat",
    ...LOCAL,
    "--interval",
    "25",
    "--misses",
    "80", // two seconds in all: the machine may be busy
  );
  const port = await server.port();
  const silent = await connectTo(port);
  const answering = await connectTo(port);
  const pings = linesOf(answering);
  for (let i = 0; i < 4; i++) {
    assertMatch(String(await next(pings)), /^ping \d+$/);
    await answering.write(bytes("pong"));
  }
  const told = Array.from({ length: 80 }, (_, i) => `ping ${i + 1}\n`);
  assertEquals(await textOf(silent), `${told.join("")}gone\n`);
  await server.line(/missed 80 pings/);
  silent.close();
  answering.close();
  server.interrupt();
  assertEquals((await server.ended()).code, 0);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`graceful_shutdown on ${signal} answers open requests, and prints a report`, async () => {
    await using server = await Program.example(
      "graceful_shutdown",
      ...LOCAL,
      "--work",
      "300",
    );
    const port = await server.port();
    const silent = await connectTo(port);
    const client = await connectTo(port);
    await client.write(bytes("question\n"));
    await server.line(/sent a request/);
    server.interrupt(signal);
    await server.line(/^draining 2 connections$/);
    const refused = (error: unknown) =>
      error instanceof Deno.errors.ConnectionRefused;
    while (!await connectTo(port).then((c) => c.close(), refused));
    assertEquals(await textOf(silent), "bye\n");
    assertEquals(await textOf(client), "question\nbye\n");
    silent.close();
    client.close();
    const { code, stdout } = await server.ended();
    assertMatch(stdout, /drained: 2, forced: 0, failed: 0, durationMs: \d+/);
    assertEquals(code, 0);
  });
}

test("graceful_shutdown answers requests that have arrived but were not read yet", async () => {
  await using server = await Program.example(
    "graceful_shutdown",
    ...LOCAL,
    "--work",
    "1",
  );
  const port = await server.port();
  const clients: Conn[] = [];
  for (let i = 0; i < 20; i++) clients.push(await connectTo(port));
  const last = clients.at(-1)!;
  await last.write(bytes("first\n"));
  await last.read(new Uint8Array(8)); // so all of them have been accepted
  await Promise.all(clients.map((client) => client.write(bytes("question\n"))));
  server.interrupt();
  const answers = await Promise.all(clients.map(textOf));
  assertEquals(new Set(answers), new Set(["question\nbye\n"]));
  for (const client of clients) client.close();
  assertEquals((await server.ended()).code, 0);
});

test("graceful_shutdown answers a request that arrived while it worked on another", async () => {
  await using server = await Program.example(
    "graceful_shutdown",
    ...LOCAL,
    "--work",
    "300",
  );
  const client = await connectTo(await server.port());
  await client.write(bytes("first\n"));
  await server.line(/sent a request/);
  await client.write(bytes("second\n"));
  server.interrupt();
  await server.line(/^draining 1 connections$/);
  assertEquals(await textOf(client), "first\nsecond\nbye\n");
  client.close();
  assertEquals((await server.ended()).code, 0);
});

test("graceful_shutdown does not wait after a second SIGINT", async () => {
  await using server = await Program.example(
    "graceful_shutdown",
    ...LOCAL,
    "--work",
    "600000",
  );
  const client = await connectTo(await server.port());
  await client.write(bytes("question\n"));
  await server.line(/sent a request/);
  server.interrupt();
  await server.line(/^draining 1 connections$/);
  server.interrupt();
  const { code, stdout } = await server.ended();
  assertMatch(stdout, /drained: 0, forced: 1, failed: 0, durationMs: \d+/);
  assertEquals(code, 1);
  assertEquals(await textOf(client), "");
  client.close();
});

/** Each server's options, then one of them that takes a number. */
const SERVERS = {
  chat_server: ["[--listen host:port] [--patience ms]", "--patience"],
  echo_server: ["[--listen host:port]"],
  graceful_shutdown: [
    "[--listen host:port] [--work ms] [--timeout ms]",
    "--work",
  ],
  heartbeat: ["[--listen host:port] [--interval ms] [--misses n]", "--misses"],
  tcp_proxy: ["[--listen host:port] [--to host:port]"],
} as const;

test("a server says in one line why it does not start", async (t) => {
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = `127.0.0.1:${taken.addr.port}`;
  for (const [name, [options, number]] of Object.entries(SERVERS)) {
    const usage = `usage: ${name}.ts ${options}\n`;
    const wrong = { code: 2, stdout: "", stderr: usage };
    const cases: [string[], End][] = [
      [["--help"], { code: 0, stdout: usage, stderr: "" }],
      [["--listne", "127.0.0.1:0"], wrong],
      [["--listen"], wrong],
      [["--listen", address], {
        code: 1,
        stdout: "",
        stderr: `${name}: listen tcp ${address}: address already in use\n`,
      }],
    ];
    if (number) cases.push([[...LOCAL, number, "x"], wrong]);
    if (name === "tcp_proxy") {
      const why = "--to: address nonsense: missing port in address";
      const stderr = `tcp_proxy: ${why}\n`;
      cases.push([[...LOCAL, "--to", "nonsense"], { ...wrong, stderr }]);
    }
    await t.step(name, async () => {
      await Promise.all(cases.map(async ([args, end]) => {
        assertEquals(await run(name, ...args), end, args.join(" "));
      }));
    });
  }
  const far = "127.0.0.2:0"; // its header does not grant it
  const failures = {
    nonsense: ": address nonsense: missing port in address",
    [far]: ` ${far}: run again with --allow-net=${far}`,
  };
  await t.step(
    "echo_server: a bad address, a missing permission",
    async () => {
      for (const [address, why] of Object.entries(failures)) {
        const { code, stderr } = await run("echo_server", "--listen", address);
        assertEquals([code, stderr], [1, `echo_server: listen tcp${why}\n`]);
      }
    },
  );
  taken.close();
});
