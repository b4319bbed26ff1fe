// The same work with Bun.listen. `bun.js MODE [SIZE]` prints its port and
// answers SIGHUP as announce.ts says.

const [mode = "echo", size = "65536"] = process.argv.slice(2);
const request = 64;

// Bun's write() writes what the kernel takes; the rest is up to the caller.
function write(socket, chunk) {
  if (socket.data.rest) {
    socket.data.rest.push(chunk.slice());
    return;
  }
  const n = socket.write(chunk);
  if (n >= chunk.length || n < 0) return;
  socket.data.rest = [chunk.slice(n)];
  socket.pause();
}

function drain(socket) {
  const { rest } = socket.data;
  while (rest?.length) {
    const n = socket.write(rest[0]);
    if (n < rest[0].length) {
      if (n > 0) rest[0] = rest[0].slice(n);
      return;
    }
    rest.shift();
  }
  socket.data.rest = null;
  socket.resume();
  modes[mode].more?.(socket);
}

const page = new Uint8Array(Number(size));
const piece = new Uint8Array(request);

function fill(socket) {
  while (!socket.data.rest && socket.readyState === 1) write(socket, page);
}

const modes = {
  echo: { data: write },
  copy: { data: write },
  send: { open: fill, more: fill },
  "ten-writes": {
    data(socket, chunk) {
      for (let i = chunk.length / request * 10; i >= 1; i--) {
        write(socket, piece);
      }
    },
  },
};

const { open, data } = modes[mode];
const server = Bun.listen({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    open(socket) {
      socket.data = { rest: null };
      open?.(socket);
    },
    data: data ?? (() => {}),
    drain,
    error() {},
  },
});
process.on("SIGHUP", () => {
  Bun.gc(true);
  console.log(process.memoryUsage().heapUsed);
});

console.log(server.port);
