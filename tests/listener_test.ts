import { listen } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { listenerSuite, type ListenerWorld } from "./suites/listener_suite.ts";
import { connect, reset } from "./support.ts";

function tcp(network: "tcp4" | "tcp6", host: string): ListenerWorld {
  return {
    listen: (options, address = `${host}:0`) =>
      listen(network, address, options),
    connect,
    reset,
  };
}

listenerSuite("tcp4", tcp("tcp4", "127.0.0.1"));
listenerSuite("tcp6", tcp("tcp6", "[::1]"));

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
