import { Conn } from "../net/conn.ts";
import { connSuite } from "./suites/conn_suite.ts";

const asset = (name: string) =>
  Deno.readTextFileSync(new URL(`assets/${name}`, import.meta.url));

async function tlsPair(): Promise<[client: Conn, server: Conn]> {
  const [cert, key] = [asset("cert.pem"), asset("key.pem")];
  const listener = Deno.listenTls({
    hostname: "127.0.0.1",
    port: 0,
    cert,
    key,
  });
  try {
    const [client, server] = await Promise.all([
      Deno.connectTls({
        hostname: "127.0.0.1",
        port: listener.addr.port,
        caCerts: [cert],
      }),
      listener.accept(),
    ]);
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
