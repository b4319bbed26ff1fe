import { assert, assertEquals, assertMatch } from "@std/assert";
import type { DialTrace } from "../net/dial_trace.ts";
import { Conn } from "../net/conn.ts";
import { Program } from "./example.ts";
import { bytes, installed, textOf } from "./support.ts";

/** Listens, closes what it accepts, and ends. */
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

/** A port that nobody listens on, as far as anybody can know. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

Deno.test("conversation tells the whole story, in order", async () => {
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

Deno.test("echo_client ends when the peer closes, on SIGINT, and on failure", async (t) => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = `127.0.0.1:${listener.addr.port}`;
  await t.step("half-closes, and prints the last word", async () => {
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
  await t.step("when the peer closes, though its input is open", async () => {
    await using client = await Program.example("echo_client", address);
    const conn = new Conn(await listener.accept());
    await conn.write(bytes("bye\n"));
    conn.close();
    await client.line(/^bye$/);
    assertEquals((await client.ended()).code, 0);
  });
  await t.step("on SIGINT", async () => {
    await using client = await Program.example("echo_client", address);
    const conn = new Conn(await listener.accept());
    await client.errorLine(/^connected/);
    client.interrupt();
    assertEquals(await client.ended(), {
      code: 1,
      stdout: "",
      stderr: "interrupted\n",
    });
    conn.close();
  });
  listener.close();
  await t.step("if nobody listens", async () => {
    await using client = await Program.example("echo_client", address);
    assertEquals(await client.ended(), {
      code: 1,
      stdout: "",
      stderr: `dial tcp ${address}: connection refused\n`,
    });
  });
});

Deno.test({
  name: "redis_ping talks to Redis (needs redis-server)",
  ignore: !installed("redis-server"),
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "redis" });
    const port = `${freePort()}`;
    {
      await using redis = new Program("redis-server", [
        ...["--bind", "127.0.0.1", "--port", port, "--dir", folder],
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

Deno.test("redis_ping says in a line that nobody is there", async () => {
  await using client = await Program.example(
    "redis_ping",
    `127.0.0.1:${freePort()}`,
  );
  const { code, stderr, stdout } = await client.ended();
  assertEquals([code, stdout], [1, ""]);
  assertMatch(stderr, /^dial tcp 127\.0\.0\.1:\d+: connection refused\n$/);
});

/** Runs an example to its end. */
async function run(name: string, ...args: string[]) {
  await using program = await Program.example(name, ...args);
  return await program.ended();
}

Deno.test("tcping measures handshakes", async (t) => {
  await using acceptor = new Acceptor();
  const good = `127.0.0.1:${acceptor.port}`;
  const bad = "127.0.0.1:1"; // nobody listens there
  const quick = ["--interval", "1", "--count"];
  await using endless = await Program.example("tcping", "--count", "999", good);
  const [three, none] = await Promise.all([
    run("tcping", ...quick, "3", good),
    run("tcping", ...quick, "2", bad),
  ]);

  await t.step("that succeed", () => {
    assertEquals([three.code, three.stderr], [0, ""]);
    const lines = three.stdout.trimEnd().split("\n");
    assertEquals(lines.length, 4);
    for (const line of lines.slice(0, 3)) {
      assertMatch(line, RegExp(`^${good} +\\d+\\.\\d\\d ms #+$`));
    }
    const [, ...times] = /^3\/3 .* min\/median\/max (.*)\/(.*)\/(.*) ms$/
      .exec(lines[3]!)!;
    const [min, median, max] = times.map(Number);
    assert(min! <= median! && median! <= max!, lines[3]);
  });

  await t.step("that fail", () => {
    const line = `dial tcp ${bad}: connection refused\n`;
    const stdout = `${line}${line}0/2 handshakes, min/median/max -/-/- ms\n`;
    assertEquals(none, { code: 1, stdout, stderr: "" });
  });

  await t.step("until SIGINT", async () => {
    await endless.line(/ ms #/);
    endless.interrupt();
    await endless.line(/^\d+\/999 handshakes/);
    assertEquals((await endless.ended()).code, 0);
  });
});

Deno.test("dial_trace draws the race", async (t) => {
  await using acceptor = new Acceptor();
  const good = `localhost:${acceptor.port}`;
  const bad = "127.0.0.1:1"; // nobody listens there
  const [won, lost, json, none] = await Promise.all([
    run("dial_trace", good),
    run("dial_trace", bad),
    run("dial_trace", "--json", bad),
    run("dial_trace", "[::1:80"),
  ]);

  await t.step("that was won", () => {
    assertEquals([won.code, won.stderr], [0, ""]);
    const [head, resolve, ...attempts] = won.stdout.trimEnd().split("\n");
    assertMatch(head!, RegExp(`^${good} \\(race\\): [\\d.]+ ms$`));
    assertMatch(resolve!, /^resolve +\|=+ found [\d.]+ ms$/);
    assertMatch(attempts.at(-1)!, / \| *=+ connected [\d.]+ ms$/);
  });

  await t.step("that was lost", () => {
    const stderr = `dial tcp ${bad}: connection refused\n`;
    assertEquals([lost.code, lost.stderr], [1, stderr]);
    const [head, ...attempts] = lost.stdout.trimEnd().split("\n");
    assertMatch(head!, RegExp(`^${bad} \\(race\\): [\\d.]+ ms$`));
    assertEquals(attempts.length, 1);
    assertMatch(attempts[0]!, RegExp(`^${bad} \\| *=+ refused [\\d.]+ ms$`));
  });

  await t.step("as JSON", () => {
    const trace: DialTrace = JSON.parse(json.stdout);
    assertEquals(json.code, 1);
    assertEquals([trace.address, trace.mode], [bad, "race"]);
    assertEquals(trace.attempts.map((a) => a.outcome), ["refused"]);
  });

  await t.step("of nothing: an address that is none", () => {
    const stderr = "dial tcp: address [::1:80: missing ']' in address\n";
    assertEquals(none, { code: 1, stdout: "", stderr });
  });
});
