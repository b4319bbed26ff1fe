import { listen } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { connSuite } from "./suites/conn_suite.ts";
import { connect, pair } from "./support.ts";

connSuite("conn over IPv4", async () => {
  const [a, b] = await pair();
  return { a, b };
});

const hasIpv6 = (() => {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    console.warn("no ::1 here: the suite over IPv6 is skipped");
    return false;
  }
})();

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
