/**
 * An accept loop that no client's error can end. {@linkcode listen} binds an
 * address; the {@linkcode Listener} hands out connections, to one caller after
 * another, and deals with what is not the caller's business: clients that reset
 * before they were accepted, and a full table of file descriptors.
 *
 * @example
 * ```ts
 * import { handle, listen } from "@switchboard/tcp";
 *
 * const listener = await listen("tcp", "127.0.0.1:0");
 * const closing = listener.close(); // ends the loop, which goes on otherwise
 * for await (const conn of listener) {
 *   handle(conn, async (conn) => {
 *     for await (const chunk of conn) await conn.write(chunk);
 *   }).catch(console.error);
 * }
 * await closing;
 * ```
 *
 * @module
 */

import { type Listener, makeListener } from "./net/accept.ts";
import { type ListenOptions, takeListen } from "./net/accept_options.ts";
import type { Network } from "./net/addr.ts";
import { bind } from "./net/bind.ts";

export { Listener } from "./net/accept.ts";
export type {
  AcceptErrorEvent,
  ListenerOptions,
  ListenOptions,
} from "./net/accept_options.ts";

/** As large as the kernel allows: listen(2) takes an int, and clamps it. */
const MAX_BACKLOG = 2 ** 31 - 1;

/**
 * Binds an address and listens on it.
 *
 * The address is written as in Go: `host:port` or `[::1]:port`; `:port`, `""`
 * or `0.0.0.0:port` for all addresses of this host (IPv4, and IPv6 if there is
 * any; "tcp4" for IPv4 alone); a service name as the port; port 0 for a free
 * one. A host name is bound to its first IPv4 address, or else to its first; if
 * only the name is granted, the runtime takes whichever comes first.
 *
 * With "unix" the address is a path, and the file is removed when the listener
 * closes. Under `-A` the runtime removes what a relative path names by then, so
 * do not change the working directory; with any other grants it makes the path
 * absolute at once, and the result has to fit in 107 bytes. `@name` is in
 * Linux's abstract namespace, which has no files.
 *
 * "tcp6" on all addresses accepts IPv6 peers only: Deno cannot set IPV6_V6ONLY,
 * so the kernel accepts IPv4 peers, and they are closed unseen.
 *
 * Before a name is looked up or a socket opened, everything is checked, in this
 * order: network, the form `host:port`, port, host, family.
 *
 * @param network `"tcp"`, `"tcp4"`, `"tcp6"` or `"unix"`.
 * @param address Where to listen.
 * @param options See {@linkcode ListenOptions}.
 * @returns The listener. The caller closes it.
 * @throws {OpError} With op "listen": EADDRINUSE, EADDRNOTAVAIL, EACCES, a
 * missing permission (the message names the flag), or a cause of
 * {@linkcode AddrError}, {@linkcode DnsError}, {@linkcode UnknownNetworkError}.
 * @throws {TypeError} If an option has the wrong type.
 * @throws {RangeError} If `backlog` is not a positive integer.
 * @throws {AbortSignal["reason"]} If `options.signal` aborts first.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, listen } from "@switchboard/tcp";
 *
 * await using listener = await listen("tcp", "127.0.0.1:0");
 * await using client = await dial("tcp", String(listener.addr));
 * await using server = await listener.accept();
 * assertEquals(String(server.remoteAddr), String(client.localAddr));
 * ```
 */
export async function listen(
  network: Network,
  address: string,
  options: ListenOptions = {},
): Promise<Listener> {
  const taken = takeListen(network, address, options);
  const { signal, backlog = MAX_BACKLOG, reusePort = false } = taken;
  const inner = await bind(network, address, {
    signal: signal ?? new AbortController().signal,
    backlog: Math.min(backlog, MAX_BACKLOG),
    reusePort,
  });
  return makeListener(inner, taken, network === "tcp6");
}
