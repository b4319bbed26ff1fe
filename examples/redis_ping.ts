// Talks RESP, the protocol of Redis, to a real server: PING, SET, GET.
//
//   deno run --allow-net=127.0.0.1 examples/redis_ping.ts 127.0.0.1:6379
//
// In another terminal, before:
//
//   redis-server --port 6379

import { parseArgs } from "@std/cli/parse-args";
import { type Conn, dial } from "@switchboard/tcp";

const args = parseArgs(Deno.args, { string: ["_"] });
const address = args._[0] ?? "127.0.0.1:6379";

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
    for (
      let end;
      (end = text.indexOf("\r\n")) >= 0;
      text = text.slice(end + 2)
    ) {
      yield text.slice(0, end);
    }
  }
}

try {
  await using conn = await dial("tcp", address, { timeout: 2_000 });
  conn.setDeadline(Date.now() + 5_000);
  const lines = linesOf(conn);
  for (
    const command of [
      ["PING"],
      ["SET", "switchboard", "hello"],
      ["GET", "switchboard"],
    ]
  ) {
    await send(conn, ...command);
    let answer = (await lines.next()).value ?? "(closed)";
    if (answer.startsWith("$")) {
      answer = (await lines.next()).value ?? "(closed)";
    } else if (answer.startsWith("+")) answer = answer.slice(1);
    console.log(`${command.join(" ")} -> ${answer}`);
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  Deno.exitCode = 1;
}
