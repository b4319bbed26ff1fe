import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { Bench } from "../harness/measure.ts";
import type { ServerProcess } from "../harness/peers.ts";
import { type Finding, type Hazard, roundTrip, serverOf } from "./hazard.ts";

const CONNECTIONS = 10_000;
const AT_ONCE = 50;

/** What a client does before it resets; what each sends is echoed. */
const stories: ((socket: Socket) => unknown)[] = [
  () => {},
  (socket) => socket.write(new Uint8Array(64)),
  async (socket) => {
    socket.write(new Uint8Array(64));
    await once(socket, "data");
  },
  async (socket) => {
    socket.write(new Uint8Array(Math.random() * 300_000));
    await once(socket, "data");
  },
  (socket) => socket.end(new Uint8Array(100_000)), // reads no reply: EPIPE
];

/** One client, from connect to reset; returns whether it got that far. */
async function client(port: number): Promise<boolean> {
  const socket = connect({ port, host: "127.0.0.1" });
  const closed = new Promise<void>((resolve) => socket.once("close", resolve));
  socket.on("error", () => {}); // once() rejects with it
  let connected = false;
  try {
    await once(socket, "connect");
    connected = true;
    const story = stories[Math.floor(Math.random() * stories.length)]!;
    await Promise.race([story(socket), closed]);
  } catch {
    // Refused: nobody listens any more. Or the server has reset this one.
  } finally {
    socket.resetAndDestroy();
    await closed;
  }
  return connected;
}

/** How many connected before the server died. */
async function unleash({ port }: ServerProcess): Promise<number> {
  let left = CONNECTIONS;
  let connected = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (left-- > 0) {
      if (await client(port)) connected++;
      else left = 0;
    }
  }));
  return connected;
}

async function outcome(
  bench: Bench,
  peer: "raw" | "ours",
  mode: string,
): Promise<{ measured: string; met: boolean }> {
  await using server = await serverOf(bench, peer, mode);
  const connected = await unleash(server);
  const alive = await roundTrip(server.port).then(() => true, () => false);
  const unhandled =
    server.child.errors.filter((line) => line.includes("Uncaught")).length;
  return {
    measured: alive
      ? `serves after ${connected}, ${unhandled} unhandled rejections`
      : `dead after ${connected}`,
    met: alive && connected === CONNECTIONS && unhandled === 0,
  };
}

/** Clients that reset in the middle of anything. */
export const storm: Hazard = {
  id: "storm",
  title: "10,000 connections that reset at random moments, 50 at a time",
  promise: "serves on, no unhandled rejection",
  async *run(bench): AsyncIterable<Finding> {
    const raw = await outcome(bench, "raw", "echo");
    yield { who: "raw Deno", measured: raw.measured };
    yield { who: "ours", ...await outcome(bench, "ours", "serve-copy") };
  },
};
