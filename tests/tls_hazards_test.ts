/**
 * A panic of the runtime's TLS, which ends a process and all its connections,
 * in a process of its own. The raw server shows it first: once Deno has mended
 * it, that fails, and our precaution (write_half.ts) may go.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { bytes } from "./support.ts";

const hostname = "127.0.0.1";
const asset = (name: string) =>
  Deno.readTextFileSync(new URL(`assets/${name}`, import.meta.url));
const cert = asset("cert.pem");

/** Greets whoever connects with the bytes of `write`, and says so. */
function program(listener: string, write: string): string {
  return `
    import { Listener } from "./listener.ts";
    const inner = Deno.listenTls(${
    JSON.stringify({ hostname, port: 0, cert, key: asset("key.pem") })
  });
    console.log(inner.addr.port);
    for await (const conn of ${listener}) {
      Promise.all([${write}]).catch(() => {}).finally(() => conn.close());
      console.log("writes");
    }
  `;
}

class Greeter {
  readonly #child: Deno.ChildProcess;
  readonly #said: ReadableStreamDefaultReader<Uint8Array>;
  readonly #errors: Promise<string>;
  port = 0;

  constructor() {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-config", `--allow-net=${hostname}`, "-"],
      cwd: new URL("../", import.meta.url),
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#said = this.#child.stdout.getReader();
    this.#errors = new Response(this.#child.stderr).text();
  }

  async start(program: string): Promise<void> {
    const stdin = this.#child.stdin.getWriter();
    await stdin.write(bytes(program));
    await stdin.close();
    this.port = Number(await this.says());
  }

  /** The next thing that it says; "" if it has ended. */
  async says(): Promise<string> {
    const { value } = await this.#said.read();
    return new TextDecoder().decode(value);
  }

  /** Sends a signal, if it still lives. */
  kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // it has ended
    }
  }

  /** Ends it; what it printed to stderr. */
  async end(): Promise<string> {
    this.kill("SIGKILL");
    await this.#child.status;
    return await this.#errors;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await this.#said.cancel();
  }
}

/** A relay that resets the server right behind the client's last flight. */
async function relayTo(greeter: Greeter): Promise<Server> {
  const relay = createServer((client) => {
    const server = connect(greeter.port, hostname);
    for (const socket of [client, server]) socket.on("error", () => {});
    server.on("data", (data) => client.write(data));
    server.on("close", () => {
      client.destroy();
      greeter.kill("SIGCONT");
    });
    client.on("data", async (data: Uint8Array) => {
      // The type of a record (RFC 8446, section 5.1): 22 is a ClientHello, 20
      // comes alone, or in front of the last flight, which is 23.
      if (data[0] === 22) await greeter.says();
      const last = data[0] === 23 || (data[0] === 20 && data.length > 6);
      // Stopped, it sees the flight and the reset together.
      if (last) greeter.kill("SIGSTOP");
      server.write(data, () => last && server.resetAndDestroy());
    });
  });
  await new Promise<void>((listening) =>
    relay.listen(0, hostname, () => listening())
  );
  return relay;
}

/** How many bytes a client gets. */
async function greetedBy(port: number): Promise<number> {
  const caCerts = [cert];
  using tls = await Deno.startTls(
    await Deno.connect({ hostname, port }),
    { hostname, caCerts },
  );
  let sum = 0;
  for await (const chunk of tls.readable) sum += chunk.length;
  return sum;
}

/** Meets some clients that reset; then what a good one gets. */
async function survive(listener: string, write: string): Promise<number> {
  await using greeter = new Greeter();
  await greeter.start(program(listener, write));
  const relay = await relayTo(greeter);
  try {
    const { port } = relay.address() as AddressInfo;
    for (let i = 0; i < 3; i++) await assertRejects(() => greetedBy(port));
    return await greetedBy(greeter.port);
  } catch (error) {
    throw new Error(await greeter.end(), { cause: error });
  } finally {
    await new Promise((closed) => relay.close(closed));
  }
}

Deno.test("a reset as the TLS handshake ends does not end the process", {
  ignore: Deno.build.os === "windows",
}, async (t) => {
  const large = "conn.write(new Uint8Array(65_536))";
  const larger = "conn.write(new Uint8Array(100_000))";
  const small = "...Array(100).keys().map(() => " +
    "conn.write(new Uint8Array(1_000)))";
  await t.step("raw: it does", async () => {
    await assertRejects(() => survive("inner", large), Error, "panicked");
  });
  const greetings = { large, larger, small };
  for (const [name, write] of Object.entries(greetings)) {
    await t.step(name, async () => {
      const greeted = await survive("new Listener(inner)", write);
      assertEquals(greeted, write === large ? 65_536 : 100_000);
    });
  }
});
