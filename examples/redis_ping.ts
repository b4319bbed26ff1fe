// Talks RESP, the protocol of Redis, to a real server: PING, SET, GET.
//
//   deno run --allow-net=127.0.0.1 examples/redis_ping.ts 127.0.0.1:6379
//
// Before that, in another terminal:
//
//   redis-server --port 6379

import { parseArgs } from "@std/cli/parse-args";
import { type Conn, dial } from "@switchboard/tcp";

const usage = "usage: redis_ping.ts [host:port]";
function exit(code: number, text = usage): never {
  console[code === 0 ? "log" : "error"](text);
  Deno.exit(code);
}

const args = parseArgs(Deno.args, {
  string: ["_"],
  unknown: (arg, flag) => flag && exit(arg === "--help" ? 0 : 2),
});
const [address = "127.0.0.1:6379", extra] = args._;
if (!address || extra) exit(2);

/** Sends a command: an array of bulk strings, written apart, sent together. */
async function send(conn: Conn, ...words: string[]): Promise<void> {
  const encoder = new TextEncoder();
  const bulk = words.map((word) =>
    `$${encoder.encode(word).length}\r\n${word}\r\n`
  );
  const parts = [`*${words.length}\r\n`, ...bulk];
  await Promise.all(parts.map((part) => conn.write(encoder.encode(part))));
}

/** Reads lines; Redis answers simple ones, numbers, or a length and a text. */
async function* linesOf(conn: Conn): AsyncGenerator<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of conn) {
    text += decoder.decode(chunk, { stream: true });
    const lines = text.split("\r\n");
    text = lines.pop()!;
    yield* lines;
  }
}

try {
  await using conn = await dial("tcp", address, { timeout: 2_000 });
  conn.setDeadline(Date.now() + 5_000);
  const lines = linesOf(conn);
  const next = async () => {
    const { done, value } = await lines.next();
    if (done) throw new Error("the server has hung up");
    return value;
  };
  for (const command of ["PING", "SET switchboard hello", "GET switchboard"]) {
    await send(conn, ...command.split(" "));
    let answer = await next();
    if (answer.startsWith("-")) Deno.exitCode = 1; // an error, in Redis's words
    if (answer === "$-1") answer = "(nil)";
    else if (answer.startsWith("$")) answer = await next();
    else if (answer.startsWith("+")) answer = answer.slice(1);
    console.log(`${command} -> ${answer}`);
  }
} catch (error) {
  console.error(`redis_ping: ${(error as Error).message}`);
  Deno.exitCode = 1;
}
