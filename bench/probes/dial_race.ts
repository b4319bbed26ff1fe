/**
 * One name, three addresses: the first never answers, the second refuses, the
 * third works. `dial_race.ts raw|ours|ours-again` prints the milliseconds. The
 * name must be in /etc/hosts; see rows.ts.
 *
 * @module
 */

import { Dialer } from "../../mod.ts";

const name = "three.test";

/** A listener that never accepts, its queue full: the next connect hangs. */
const hole = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 1 });
const { port } = hole.addr;
const filling = [
  await Deno.connect({ hostname: "127.0.0.1", port }),
  await Deno.connect({ hostname: "127.0.0.1", port }),
];
// Nobody listens at 127.0.0.2.
const good = Deno.listen({ hostname: "127.0.0.3", port });

const dialer = new Dialer();
const dials: Record<string, () => Promise<Disposable>> = {
  raw: () => Deno.connect({ hostname: name, port }),
  ours: () => dialer.dial("tcp", `${name}:${port}`),
};
const who = Deno.args[0] ?? "";
const connect = dials[who.replace("-again", "")]!;
if (who.endsWith("-again")) (await connect())[Symbol.dispose]();
// The race is measured, not the loading of a resolver and of timers, which
// costs a process's first dial 20 to 50 ms.
const warm = who === "raw"
  ? Deno.connect({ hostname: "localhost", port: 1 })
  : dialer.dial("tcp", "localhost:1", { timeout: 1_000 });
await warm.catch(() => "nobody listens there");

const start = performance.now();
const conn = await connect();
const value = performance.now() - start;
console.log(JSON.stringify({ value }));

for (const resource of [conn, ...filling, good, hole]) {
  resource[Symbol.dispose]();
}
