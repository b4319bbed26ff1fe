/**
 * The network in memory passes the same suites as real sockets, with no
 * permission at all.
 *
 * @module
 */

import type { Conn } from "../net/conn.ts";
import { MemoryNetwork, pipe } from "../testing/mod.ts";
import { connSuite } from "./suites/conn_suite.ts";
import { listenerSuite } from "./suites/listener_suite.ts";

/** More than a connection holds: 64 KiB, and as much in one end's copies. */
const flood = 1024 * 1024;

connSuite("pipe()", () => {
  const [a, b] = pipe();
  return Promise.resolve({ a, b });
}, { flood });

const WORLDS = [
  ["memory tcp4", "tcp4", "10.0.0.1:0"],
  ["memory tcp6", "tcp6", "[2001:db8::1]:0"],
  ["memory unix", "unix", "/run/suite.sock"],
] as const;

for (const [name, network, address] of WORLDS) {
  connSuite(name, async () => {
    const net = new MemoryNetwork();
    const listener = await net.listen(network, address);
    const { addr } = listener;
    const [a, b] = await Promise.all([
      net.dial(network, String(addr)),
      listener.accept(),
    ]);
    await listener.close();
    return { a, b, stop: () => net.check() };
  }, { flood });

  const net = new MemoryNetwork();
  listenerSuite(name, {
    listen: (options, at = address) => net.listen(network, at, options),
    connect: ({ addr }) => net.dial(network, String(addr)),
    ...network !== "unix" && {
      async reset({ addr }) {
        const conn: Conn = await net.dial(network, String(addr));
        net.reset(conn.localAddr);
        conn.close();
      },
    },
  });
}
