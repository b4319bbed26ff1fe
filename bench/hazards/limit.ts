import { copy, listen, serve } from "../../mod.ts";
import { ask } from "../harness/child.ts";
import type { LoadReport } from "../harness/loadgen.ts";
import type { Finding, Hazard } from "./hazard.ts";

const CONNECTIONS = 10_000;
const LIMIT = 50;

/** Four times as many clients at a time as the server lets in. */
export const limit: Hazard = {
  id: "limit",
  title: "10,000 connections, 200 at a time, through maxConnections: 50",
  promise: "never more than 50, all served",
  async *run(bench): AsyncIterable<Finding> {
    let running = 0;
    let most = 0;
    const listener = await listen("tcp", "127.0.0.1:0");
    await using server = serve(listener, async (conn) => {
      most = Math.max(most, ++running);
      try {
        await copy(conn, conn);
      } finally {
        running--;
      }
    }, { maxConnections: LIMIT, onError: () => {} });
    const { port } = server.addr as Deno.NetAddr;
    const report = await ask<LoadReport & { finished: number }>([
      bench.loadgen,
      ...["churn", "-p", `${port}`, "-n", "200", "-c", `${CONNECTIONS}`],
      ...["-d", "60"],
    ]);
    yield {
      who: "ours",
      measured: `${most} at once, ${report.finished} served, ` +
        `${report.errors} refused`,
      met: most <= LIMIT && report.finished >= CONNECTIONS &&
        report.errors === 0,
    };
  },
};
