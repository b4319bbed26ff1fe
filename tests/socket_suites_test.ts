/**
 * Real sockets pass the suites: TCP over both families, unix sockets, TLS.
 *
 * @module
 */

import { listen } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { connSuite } from "./suites/conn_suite.ts";
import { listenerSuite, type ListenerWorld } from "./suites/listener_suite.ts";
import { connect, hasIpv6, ownAddr, pair, reset } from "./support.ts";

connSuite("conn over IPv4", async () => {
  const [a, b] = await pair();
  return { a, b };
});

connSuite("conn around a conn", async () => {
  const [a, b] = await pair();
  return { a: new Conn(a), b: new Conn(new Conn(b)) };
});

connSuite("conn over IPv6", async () => {
  await using listener = await listen("tcp", "[::1]:0");
  const [a, b] = await Promise.all([connect(listener), listener.accept()]);
  return { a, b };
}, { ignore: !hasIpv6 });

connSuite("conn over a unix socket", async () => {
  const path = await Deno.makeTempFile({ prefix: "conn", suffix: ".sock" });
  await Deno.remove(path);
  await using listener = await listen("unix", path);
  const [a, b] = await Promise.all([
    Deno.connect({ transport: "unix", path }).then((inner) => new Conn(inner)),
    listener.accept(),
  ]);
  return { a, b };
}, { ignore: Deno.build.os === "windows" });

const asset = (name: string) =>
  Deno.readTextFileSync(new URL(`assets/${name}`, import.meta.url));

async function tlsPair(): Promise<[client: Conn, server: Conn]> {
  const [cert, key] = [asset("cert.pem"), asset("key.pem")];
  const hostname = "127.0.0.1";
  const listener = Deno.listenTls({ hostname, port: 0, cert, key });
  try {
    const [tcp, server] = await Promise.all([
      Deno.connect({ hostname, port: listener.addr.port }),
      listener.accept(),
    ]);
    // Without it (as in Deno.connectTls) a handshake takes 47 ms, not 1.
    tcp.setNoDelay(true);
    const client = await Deno.startTls(tcp, { hostname, caCerts: [cert] });
    await Promise.all([client.handshake(), server.handshake()]);
    return [new Conn(client), new Conn(server)];
  } finally {
    listener.close();
  }
}

connSuite("conn over TLS", async () => {
  const [a, b] = await tlsPair();
  return { a, b };
});

function tcp(
  network: "tcp4" | "tcp6",
  host: string,
  own: string,
  ignore = false,
): ListenerWorld {
  return {
    ignore,
    own,
    listen: (options, address = `${host}:0`) =>
      listen(network, address, options),
    connect,
    reset,
  };
}

const { hostname, port } = ownAddr(20_004);
listenerSuite("tcp4", tcp("tcp4", "127.0.0.1", `${hostname}:${port}`));
listenerSuite("tcp6", tcp("tcp6", "[::1]", "[::1]:20005", !hasIpv6));

const folder = Deno.makeTempDirSync({ prefix: "listener" });
let sockets = 0;
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

listenerSuite("unix", {
  listen: (options, address = `${folder}/${sockets++}`) =>
    listen("unix", address, options),
  connect: async ({ addr }) =>
    new Conn(
      await Deno.connect({
        transport: "unix",
        path: (addr as Deno.UnixAddr).path,
      }),
    ),
});
