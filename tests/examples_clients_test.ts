import { assert, assertEquals, assertMatch } from "@std/assert";
import type { DialTrace } from "../net/dial_trace.ts";
import { Conn } from "../net/conn.ts";
import { type End, Program, run } from "./example.ts";
import { bytes, installed, textOf } from "./support.ts";

/** A server that closes every connection that it accepts. */
class Acceptor implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #loop = (async () => {
    for await (const conn of this.#listener) conn.close();
  })();

  get port(): number {
    return this.#listener.addr.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#loop;
  }
}

/** Nobody listens there. */
const DEAF = "127.0.0.1:1";

Deno.test("conversation prints its whole story, in order", async () => {
  await using story = await Program.example("conversation");
  const address = /(\d+\.\d+\.\d+\.\d+:\d+)/.source;
  const [, server] = await story.line(RegExp(`server  listens on ${address}$`));
  const port = server!.split(":")[1];
  await story.line(RegExp(`":http" is port 80, ours is ${port}$`));
  const dials = [
    { to: `127.0.0.1:${port}`, tried: [`127.0.0.1:${port}: connected`] },
    { to: `localhost:${port}`, tried: [`localhost:${port}: connected`] },
    {
      to: `db.example:${port}`,
      // "unreachable" where there is no IPv6 at all
      tried: [
        `\\[::1\\]:${port}: (refused|unreachable|failed)`,
        `127.0.0.1:${port}: connected`,
      ],
    },
  ];
  for (const { to, tried } of dials) {
    const [, client] = await story.line(
      RegExp(`client  dialled ${to}: ${address}->${server}$`),
    );
    for (const attempt of tried) {
      await story.line(RegExp(`client    tried ${attempt}, [\\d.]+ ms$`));
    }
    await story.line(/client {2}echo: hello; closes$/);
    await story.line(RegExp(`server  ${client}: read null, which is EOF$`));
    await story.line(RegExp(`server  ${client}: handler ended, connection`));
  }
  await story.line(/client {2}closes the listener, whose loop waits/);
  await story.line(
    /^ +[\d.]+ ms {2}server {2}accept loop ended: .*all is well$/,
  );
  assertEquals(await story.ended(), { code: 0, stdout: "", stderr: "" });
});

Deno.test({
  name: "echo_client talks to nc (needs nc)",
  ignore: !installed("nc"),
  fn: async () => {
    await using nc = new Program("nc", ["-lv", "127.0.0.1", "0"]);
    const [, port] = await nc.errorLine(/^Listening on .* (\d+)$/);
    const address = `127.0.0.1:${port}`;
    await using client = await Program.example("echo_client", address);
    await client.errorLine(RegExp(`^connected to ${address}$`));
    await client.type("from here\n");
    await nc.line(/^from here$/);
    await nc.type("from there\n");
    await client.line(/^from there$/);
    await client.endInput(); // FIN; nc -l ends with it
    assertEquals(await client.ended(), { code: 0, stdout: "", stderr: "" });
    assertEquals((await nc.ended()).code, 0);
  },
});

Deno.test("echo_client ends when the peer closes, and on SIGINT", async (t) => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = `127.0.0.1:${listener.addr.port}`;
  await t.step("half-closes, and prints the answer", async () => {
    await using client = await Program.example("echo_client", address);
    const conn = new Conn(await listener.accept());
    await client.type("question");
    await client.endInput();
    assertEquals(await textOf(conn), "question"); // FIN
    await conn.write(bytes("answer\n"));
    conn.close();
    await client.line(/^answer$/);
    assertEquals((await client.ended()).code, 0);
  });
  await t.step("ends when the peer closes, with its input open", async () => {
    await using client = await Program.example("echo_client", address);
    const conn = new Conn(await listener.accept());
    await conn.write(bytes("bye\n"));
    conn.close();
    await client.line(/^bye$/);
    assertEquals((await client.ended()).code, 0);
  });
  await t.step("ends on SIGINT", async () => {
    await using client = await Program.example("echo_client", address);
    const conn = new Conn(await listener.accept());
    await client.errorLine(/^connected/);
    client.interrupt();
    assertEquals(await client.ended(), {
      code: 1,
      stdout: "",
      stderr: "echo_client: interrupted\n",
    });
    conn.close();
  });
  listener.close();
});

Deno.test({
  name: "redis_ping talks to Redis (needs redis-server)",
  ignore: !installed("redis-server"),
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "redis" });
    // Below the ephemeral range: no client of another test is given it.
    const port = 20_000 + Deno.pid % 10_000;
    {
      await using redis = new Program("redis-server", [
        ...["--bind", "127.0.0.1", "--port", `${port}`, "--dir", folder],
        ...["--save", "", "--appendonly", "no"],
      ]);
      await redis.line(/Ready to accept connections/);
      const address = `127.0.0.1:${port}`;
      await using client = await Program.example("redis_ping", address);
      assertEquals(await client.ended(), {
        code: 0,
        stdout: "PING -> PONG\nSET switchboard hello -> OK\n" +
          "GET switchboard -> hello\n",
        stderr: "",
      });
    }
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test("redis_ping prints errors and nil, and says when the server has hung up", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = (async () => {
    using conn = await listener.accept();
    for (const answer of ["-NOAUTH no\r\n", "$-1\r\n"]) {
      await conn.read(new Uint8Array(1024));
      await conn.write(bytes(answer));
    }
    await conn.read(new Uint8Array(1024)); // gets no answer
  })();
  const ended = await run("redis_ping", `127.0.0.1:${listener.addr.port}`);
  assertEquals(ended, {
    code: 1,
    stdout: "PING -> -NOAUTH no\nSET switchboard hello -> (nil)\n",
    stderr: "redis_ping: the server has hung up\n",
  });
  await serving;
});

Deno.test("tcping measures handshakes", async (t) => {
  await t.step("that succeed", async () => {
    await using acceptor = new Acceptor();
    const good = `127.0.0.1:${acceptor.port}`;
    const three = ["--interval", "1", "--count", "3"];
    const { code, stdout, stderr } = await run("tcping", ...three, good);
    assertEquals([code, stderr], [0, ""]);
    const lines = stdout.trimEnd().split("\n");
    assertEquals(lines.length, 4);
    for (const line of lines.slice(0, 3)) {
      assertMatch(line, RegExp(`^${good} +\\d+\\.\\d\\d ms #+$`));
    }
    const [, ...times] = /^3\/3 .* min\/median\/max (.*)\/(.*)\/(.*) ms$/
      .exec(lines[3]!)!;
    const [min, median, max] = times.map(Number);
    assert(min! <= median! && median! <= max!, lines[3]);
  });

  await t.step("goes on when one fails, until SIGINT", async () => {
    const acceptor = new Acceptor();
    const good = `127.0.0.1:${acceptor.port}`;
    const many = ["--interval", "1", "--count", "99999"];
    await using tcping = await Program.example("tcping", ...many, good);
    await tcping.line(/ ms #/);
    await acceptor[Symbol.asyncDispose]();
    const line = RegExp(`^tcping: dial tcp ${good}: connection refused$`);
    for (let i = 0; i < 3; i++) await tcping.errorLine(line);
    tcping.interrupt();
    await tcping.line(/^[1-9]\d*\/99999 handshakes/);
    assertEquals((await tcping.ended()).code, 0);
  });
});

Deno.test("dial_trace draws the race", async (t) => {
  await using acceptor = new Acceptor();
  const good = `localhost:${acceptor.port}`;
  const [won, lost, json] = await Promise.all([
    run("dial_trace", good),
    run("dial_trace", DEAF),
    run("dial_trace", "--json", DEAF),
  ]);

  await t.step("that was won", () => {
    assertEquals([won.code, won.stderr], [0, ""]);
    const [head, resolve, ...attempts] = won.stdout.trimEnd().split("\n");
    assertMatch(head!, RegExp(`^${good} \\(race\\): [\\d.]+ ms$`));
    assertMatch(resolve!, /^resolve +\|=+ found [\d.]+ ms$/);
    assertMatch(attempts.at(-1)!, / \| *=+ connected [\d.]+ ms$/);
    // Drawn to scale: 50 columns for the whole dial.
    const took = (line: string) => Number(/([\d.]+) ms$/.exec(line)![1]);
    const [, spaces, bar] = /\|( *)(=+)/.exec(attempts.at(-1)!)!;
    const columns = (line: string) =>
      Math.max(1, took(line) / took(head!) * 50);
    const found = columns(resolve!);
    const near = (a: number, b: number) => Math.abs(a - b) <= 1.5;
    assert(near(/=+/.exec(resolve!)![0].length, found), won.stdout);
    assert(spaces!.length >= found - 1.5, won.stdout);
    assert(near(bar!.length, columns(attempts.at(-1)!)), won.stdout);
    assert(spaces!.length + bar!.length <= 51, won.stdout);
  });

  await t.step("that was lost", () => {
    const stderr = `dial_trace: dial tcp ${DEAF}: connection refused\n`;
    assertEquals([lost.code, lost.stderr], [1, stderr]);
    const [head, ...attempts] = lost.stdout.trimEnd().split("\n");
    assertMatch(head!, RegExp(`^${DEAF} \\(race\\): [\\d.]+ ms$`));
    assertEquals(attempts.length, 1);
    assertMatch(attempts[0]!, RegExp(`^${DEAF} \\| *=+ refused [\\d.]+ ms$`));
  });

  await t.step("as JSON", () => {
    const trace: DialTrace = JSON.parse(json.stdout);
    assertEquals(json.code, 1);
    const { attempts: [attempt], ...all } = trace;
    assertEquals(
      { ...all, totalMs: 0 },
      { network: "tcp", address: DEAF, mode: "race", resolveMs: 0, totalMs: 0 },
    );
    assert(all.totalMs > 0);
    assertEquals(
      { ...attempt!, startMs: 0, durationMs: 0 },
      {
        ...{ addr: DEAF, startMs: 0, durationMs: 0 },
        ...{ outcome: "refused", code: "ECONNREFUSED" },
      },
    );
    assert(attempt!.durationMs > 0);
  });
});

/** Each client's usage, then one of its options that takes a number. */
const CLIENTS = {
  dial_trace: ["[--json] [--delay ms] [--timeout ms] host:port", "--delay"],
  echo_client: ["[--timeout ms] host:port", "--timeout"],
  redis_ping: ["[host:port]"],
  tcping: ["[--count n] [--interval ms] [--timeout ms] host:port", "--count"],
} as const;

Deno.test("a client says in one line why it does not connect", async (t) => {
  for (const [name, [options, number]] of Object.entries(CLIENTS)) {
    const usage = `usage: ${name}.ts ${options}\n`;
    const wrong = { code: 2, stdout: "", stderr: usage };
    const failed = (why: string) => ({
      code: 1,
      stdout: "",
      stderr: `${name}: dial tcp${why}\n`,
    });
    const cases: [string[], End][] = [
      [["--help"], { code: 0, stdout: usage, stderr: "" }],
      [["--cuont", "2", DEAF], wrong],
      [[DEAF, DEAF], wrong],
    ];
    if (number) cases.push([[number, "x", DEAF], wrong]);
    if (name !== "redis_ping") cases.push([[], wrong]); // it has a default
    if (name !== "dial_trace") { // it draws the failure, too: see above
      cases.push([[DEAF], failed(` ${DEAF}: connection refused`)]);
    }
    if (name === "tcping") {
      cases.push([[DEAF, "--count"], wrong]);
      cases.push([[DEAF, "--count", "2.5"], wrong]);
      const why = ": address nonsense: missing port in address";
      cases.push([["nonsense"], failed(why)]);
    }
    await t.step(name, async () => {
      await Promise.all(cases.map(async ([args, end]) => {
        assertEquals(await run(name, ...args), end, args.join(" "));
      }));
    });
  }
});
