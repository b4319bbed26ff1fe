// The same work with node:net and its defaults. `node.mjs MODE [SIZE]` prints
// its port; run with --expose-gc it answers SIGHUP as announce.ts says.

import { Buffer } from "node:buffer";
import net from "node:net";
import process from "node:process";

const [mode = "echo", size = "65536"] = process.argv.slice(2);
const request = 64;

const handlers = {
  echo: (socket) => socket.on("data", (chunk) => socket.write(chunk)),
  copy: (socket) => socket.pipe(socket),
  send: (socket) => {
    const p = Buffer.alloc(Number(size));
    const next = (error) => error || socket.write(p, next);
    next();
  },
  "ten-writes": (socket) => {
    const piece = Buffer.alloc(request);
    socket.on("data", (chunk) => {
      for (let i = chunk.length / request * 10; i >= 1; i--) {
        socket.write(piece);
      }
    });
  },
};

const server = net.createServer((socket) => {
  // The load generator always disconnects in the middle of something.
  socket.on("error", () => socket.destroy());
  handlers[mode](socket);
});
if (globalThis.gc) {
  process.on("SIGHUP", () => {
    globalThis.gc();
    console.log(process.memoryUsage().heapUsed);
  });
}

server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  console.log(server.address().port);
});
