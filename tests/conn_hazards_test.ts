/**
 * What the platform's connections do, and what ours do instead. Where ours
 * differ, the hazard is shown on a raw connection first: once Deno has mended
 * it, that fails, and our precaution may go.
 */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertThrows,
} from "@std/assert";
import { Socket } from "node:net";
import {
  canEnterNamespace,
  enterNamespace,
} from "../bench/harness/namespace.ts";
import { dial } from "../dialer.ts";
import { listen } from "../listener.ts";
import { Conn } from "../net/conn.ts";
import { OpError } from "../net/errors.ts";
import {
  bytes,
  pair,
  resetSocket,
  runChild,
  textOf,
  turn,
  unhandledIn,
} from "./support.ts";
import {
  assertClosed,
  failure,
  ones,
  text,
  zeros,
} from "./suites/conn_suite_kit.ts";

async function rawPair(): Promise<[Deno.TcpConn, Deno.TcpConn]> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  try {
    return await Promise.all([
      Deno.connect({ hostname: "127.0.0.1", port }),
      listener.accept(),
    ]);
  } finally {
    listener.close();
  }
}

/** Races a call against a timer, as one does without deadlines. */
async function raced<T>(promise: Promise<T>, ms: number): Promise<T | "late"> {
  let timer;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(resolve, ms, "late");
  });
  const result = await Promise.race([promise, late]);
  clearTimeout(timer);
  return result;
}

Deno.test("a read that times out loses no bytes", async (t) => {
  await t.step("raw: nobody gets them", async () => {
    const [a, b] = await rawPair();
    const gone = new Uint8Array(8);
    const eaten = b.read(gone);
    assertEquals(await raced(eaten, 5), "late");
    await a.write(bytes("lost"));
    a.closeWrite();
    const p = new Uint8Array(8);
    assertEquals(await b.read(p), null, "EOF, and no sign of the bytes");
    assertEquals(text(gone), "lost\0\0\0\0", "they are in the abandoned array");
    await eaten;
    a.close();
    b.close();
  });

  await t.step("ours: the next reader gets them", async () => {
    const [a, b] = await pair();
    const gone = new Uint8Array(8);
    b.setReadDeadline(Date.now() + 5);
    assert(((await failure(b.read(gone))) as OpError).timeout);
    b.setReadDeadline(null);
    await a.write(bytes("kept"));
    a.close();
    assertEquals(await textOf(b), "kept");
    assertEquals(gone, new Uint8Array(8));
    b.close();
  });
});

Deno.test("a write that times out sends nothing that its array holds later", async (t) => {
  const size = 8 * 1024 * 1024; // twice what the kernel buffers

  await t.step("raw: it does", async () => {
    const [a, b] = await rawPair();
    // Fill the kernel's buffers, until a write gets stuck.
    const fill = ones(size);
    let sent = 0, n: number | "late";
    while ((n = await raced(a.write(fill), 20)) !== "late") sent += n;
    // This last write was given up. It goes on, from the array:
    fill.fill(2);
    const p = new Uint8Array(64 * 1024);
    let twos = 0;
    for (let count = 0; twos === 0;) {
      const got = (await b.read(p))!;
      count += got;
      if (p.subarray(0, got).includes(2)) twos++;
      assert(count <= sent + size);
    }
    a.close();
    b.close();
  });

  await t.step("ours: it does not", async () => {
    const [a, b] = await pair();
    const p = ones(size);
    a.setWriteDeadline(Date.now() + 20);
    assert(((await failure(a.write(p))) as OpError).timeout);
    p.fill(2);
    a.setWriteDeadline(null);
    a.closeWrite();
    let count = 0;
    for await (const chunk of b) {
      assert(!chunk.includes(2));
      count += chunk.length;
    }
    assert(count < size);
    a.close();
    b.close();
  });
});

Deno.test("write() is never short", async (t) => {
  const size = 8 * 1024 * 1024;

  await t.step("raw: it is", async () => {
    const [a, b] = await rawPair();
    const n = await a.write(zeros(size));
    assert(n < size, `${n} of ${size}`);
    a.close();
    b.close();
  });

  await t.step("ours: it writes everything", async () => {
    const [a, b] = await pair();
    const writing = a.write(zeros(size)).then(() => a.close());
    assertEquals((await new Response(b.readable).bytes()).length, size);
    await writing;
    b.close();
  });
});

Deno.test("concurrent writes never interleave", async (t) => {
  const size = 4 * 1024 * 1024;
  const switches = async (chunks: AsyncIterable<Uint8Array>) => {
    let count = 0, last = -1;
    for await (const chunk of chunks) {
      for (let i = 0; i < chunk.length; i++) {
        if (chunk[i] === last) continue;
        last = chunk[i]!;
        count++;
      }
    }
    return count;
  };

  await t.step("raw: with a loop that writes all, they do", async () => {
    const [a, b] = await rawPair();
    const writeAll = async (p: Uint8Array) => {
      for (let n = 0; n < p.length;) n += await a.write(p.subarray(n));
    };
    const writing = Promise.all([
      writeAll(zeros(size)),
      writeAll(ones(size)),
    ]).then(() => a.close());
    assert(await switches(b.readable) > 2);
    await writing;
  });

  await t.step("ours: one after the other", async () => {
    const [a, b] = await pair();
    const writing = Promise.all([
      a.write(zeros(size)),
      a.write(ones(size)),
    ]).then(() => a.close());
    assertEquals(await switches(b), 2);
    await writing;
    b.close();
  });
});

Deno.test("close() can be called twice", async (t) => {
  await t.step("raw: the second call throws", async () => {
    const [a, b] = await rawPair();
    a.close();
    assertThrows(() => a.close(), Deno.errors.BadResource);
    b.close();
  });

  await t.step(
    "ours: it can, even if the platform's connection was closed first",
    async () => {
      const [a, b] = await rawPair();
      const [ours, theirs] = [new Conn(a), new Conn(b)];
      ours.close();
      ours.close();
      b.close();
      theirs.close();
    },
  );
});

Deno.test("a read of zero bytes fails after close(), like any other", async (t) => {
  await t.step("raw: it succeeds", async () => {
    const [a, b] = await rawPair();
    a.close();
    assertEquals(await a.read(new Uint8Array(0)), 0);
    b.close();
  });

  await t.step("ours: it fails as closed", async () => {
    const [a, b] = await pair();
    a.close();
    assertClosed(await failure(a.read(new Uint8Array(0))), "read", a);
    b.close();
  });
});

Deno.test("EOF on readable, and closing writable, end only their own half", async (t) => {
  await t.step("raw: EOF closes both", async () => {
    const [a, b] = await rawPair();
    await a.closeWrite();
    assertEquals(await new Response(b.readable).text(), "");
    await failure(b.write(bytes("answer")));
    a.close();
  });

  await t.step("raw: closing writable closes both", async () => {
    const [a, b] = await rawPair();
    await a.writable.close();
    assert(await failure(a.read(new Uint8Array(1))) instanceof Error);
    b.close();
  });

  await t.step("ours: the other half goes on", async () => {
    const [a, b] = await pair();
    await a.writable.close();
    assertEquals(await textOf(b), "");
    await b.write(bytes("answer"));
    await b.closeWrite();
    assertEquals(await textOf(a), "answer");
    a.close();
    b.close();
  });
});

Deno.test("close() with unread bytes: the peer reads EOF, and its writes fail", async () => {
  const [a, b] = await pair();
  await a.write(new Uint8Array(1000));
  await b.write(bytes("last words"));
  const p = new Uint8Array(1);
  await b.read(p); // what is left of the 1000 is in our memory
  await a.write(new Uint8Array(1000)); // and this is in the kernel's
  b.close();
  // Deno sends FIN before the kernel sends RST: no ECONNRESET, unlike Go.
  assertEquals(await textOf(a), "last words");
  const error = await failure((async () => {
    for (;;) {
      await a.write(bytes("x"));
      await turn();
    }
  })()) as OpError;
  assert(["EPIPE", "ECONNRESET"].includes(error.code!), error.message);
  assertEquals(error.bytesWritten, 0);
  a.close();
});

Deno.test("read() after a reset gives the data first, then ECONNRESET, then EOF", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const socket = new Socket();
  const connected = new Promise<void>((resolve) => {
    socket.connect(listener.addr.port, "127.0.0.1", resolve);
  });
  const conn = new Conn(await listener.accept());
  await connected;
  listener.close();
  await new Promise((resolve) => socket.write("data before", resolve));
  const p = new Uint8Array(4);
  assertEquals(await conn.read(p), 4); // all has arrived; 7 are unread
  await resetSocket(socket);
  let got = text(p);
  let error: unknown;
  while (error === undefined) {
    try {
      const n = await conn.read(p);
      assert(n !== null, "EOF instead of the reset");
      got += text(p.subarray(0, n));
    } catch (e) {
      error = e;
    }
  }
  assertEquals(got, "data before");
  assert(error instanceof OpError);
  assertEquals([error.op, error.code, error.temporary], [
    "read",
    "ECONNRESET",
    false,
  ]);
  assertEquals(
    error.message,
    `read tcp ${conn.localAddr}->${conn.remoteAddr}: connection reset by peer`,
  );
  assertEquals(await conn.read(p), null, "EOF, as from the kernel, and in Go");
  const write = await failure(conn.write(bytes("x"))) as OpError;
  assertEquals(write.code, "EPIPE");
  conn.close();
});

Deno.test("a reset that only a write has seen is not a clean EOF", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const hazard = async () => {
    const socket = new Socket();
    const connected = new Promise<void>((resolve) => {
      socket.connect(listener.addr.port, "127.0.0.1", resolve);
    });
    const conn = await listener.accept();
    await connected;
    socket.resetAndDestroy();
    return conn;
  };
  const p = new Uint8Array(8);
  const raw = await hazard();
  await failure((async () => {
    for (;;) await raw.write(p);
  })());
  assertEquals(await raw.read(p), null, "the hazard: it looks like a FIN");
  await raw.closeWrite(); // succeeds, as if the peer had got everything
  raw.close();

  const conn = new Conn(await hazard());
  let told = false;
  while (!told) {
    conn.write(p).catch(() => told = true);
    await turn();
  }
  const error = await failure((async () => {
    for await (const _ of conn);
  })()) as OpError;
  assertEquals([error.op, error.code], ["read", "ECONNRESET"]);
  const fin = await failure(conn.closeWrite()) as OpError;
  assertEquals([fin.op, fin.code], ["close", "ECONNRESET"]);
  assertEquals(await conn.read(p), null);
  conn.close();
  listener.close();
});

Deno.test("a pipe that nobody awaits survives a reset", async (t) => {
  /** The unhandled rejections when a pipe's connection is reset. */
  async function unhandledOf(
    take: (conn: Deno.Conn) => Deno.Conn,
  ): Promise<unknown[]> {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const socket = new Socket();
    socket.connect(listener.addr.port, "127.0.0.1");
    const { readable, writable } = take(await listener.accept());
    listener.close();
    return await unhandledIn(async () => {
      readable.pipeTo(writable);
      await new Promise((resolve) => {
        socket.once("data", resolve);
        socket.write("hello");
      });
      socket.resetAndDestroy();
      while (readable.locked) await turn();
    });
  }

  await t.step("raw: the rejection ends the process", async () => {
    const [reset, ...others] = await unhandledOf((conn) => conn);
    assertInstanceOf(reset, Deno.errors.ConnectionReset);
    assertEquals(others, []);
  });

  await t.step(
    "ours: a failure that leaves the connection open is still unhandled",
    async () => {
      const [a, b] = await pair();
      const writer = a.writable.getWriter();
      const full = new WritableStream({
        write() {
          throw new Error("disk full");
        },
      });
      const unhandled = await unhandledIn(async () => {
        a.readable.pipeTo(a.writable); // which is locked
        a.readable.pipeTo(full, { preventCancel: true });
        await b.write(bytes("x"));
        while (a.readable.locked) await turn();
      });
      assertEquals(unhandled.length, 2);
      assertEquals((unhandled[1] as Error).message, "disk full");
      await writer.write(bytes("open"));
      a.close();
      b.close();
    },
  );

  await t.step("ours: only the connection is closed", async () => {
    let ours: Conn | undefined;
    assertEquals(await unhandledOf((conn) => ours = new Conn(conn)), []);
    assertClosed(await failure(ours!.read(new Uint8Array(1))), "read", ours!);
  });
});

Deno.test("a small write does not wait for an acknowledgement", {
  ignore: Deno.build.os !== "linux", // which delays it by at least 40 ms
}, async (t) => {
  /** Milliseconds for ten questions, each answered by two writes. */
  async function tenAnswers(asks: Deno.Conn, answers: Deno.Conn) {
    const p = new Uint8Array(2);
    const answering = (async () => {
      const p = new Uint8Array(1);
      while (await answers.read(p)) {
        await answers.write(bytes("a"));
        await answers.write(bytes("b"));
      }
      answers.close();
    })();
    const start = performance.now();
    for (let i = 0; i < 10; i++) {
      await asks.write(bytes("?"));
      for (let n = 0; n < 2;) n += (await asks.read(p))!;
    }
    const ms = performance.now() - start;
    asks.close();
    await answering;
    return ms;
  }

  async function dialled(): Promise<[client: Conn, server: Conn]> {
    await using listener = await listen("tcp", "127.0.0.1:0");
    return await Promise.all([
      dial("tcp", String(listener.addr)),
      listener.accept(),
    ]);
  }

  let raw = 0;
  await t.step("raw: it does (Nagle's algorithm)", async () => {
    raw = await tenAnswers(...await rawPair());
    assert(raw > 200, `${raw} ms`);
  });

  for (const side of ["accepted", "dialled"]) {
    await t.step(`ours, ${side}: it does not`, async () => {
      const times: number[] = [];
      // The machine may be busy, but not every time.
      for (let i = 0; i < 3; i++) {
        const [client, server] = await dialled();
        times.push(
          await (side === "accepted"
            ? tenAnswers(client, server)
            : tenAnswers(server, client)),
        );
      }
      assert(Math.min(...times) < raw / 4, `${times}, raw: ${raw} ms`);
    });
  }
});

Deno.test("a pending read holds 1 KiB of memory, not 64 KiB", async (t) => {
  await t.step("raw: a stream's read holds 64 KiB", async () => {
    const [a, b] = await rawPair();
    const reader = b.readable.getReader();
    const reading = reader.read();
    await a.write(bytes("x"));
    assertEquals((await reading).value!.buffer.byteLength, 64 * 1024);
    a.close();
    await reader.cancel();
  });

  await t.step("ours: 1 KiB, however large the caller's array is", async () => {
    const [a, b] = await rawPair();
    const sizes: number[] = [];
    const read = b.read.bind(b);
    b.read = (p) => {
      sizes.push(p.buffer.byteLength);
      return read(p);
    };
    const conn = new Conn(b);
    const reading = conn.readable.getReader().read();
    await a.write(bytes("x"));
    assertEquals((await reading).value, bytes("x"));
    const again = conn.read(new Uint8Array(64 * 1024));
    await a.write(bytes("y"));
    assertEquals(await again, 1);
    assertEquals(sizes, [1024, 1024]);
    a.close();
    conn.close();
  });
});

/** Whether a child may have an /etc/hosts and a network of its own. */
const canEnter = await canEnterNamespace();

Deno.test("a dial that fails reports every address (needs unshare)", {
  ignore: !canEnter,
}, async (t) => {
  const temporary = await Deno.makeTempDir();
  // Nobody listens on the first, and there is no route to the second.
  const files = { "/etc/hosts": "127.0.0.1 db.test\n192.0.2.1 db.test\n" };
  const { stdout, stderr } = await runChild(
    `
    import { dial } from "./mod.ts";
    const messageOf = (call) => call.catch(({ message }) => message);
    console.log(JSON.stringify([
      await messageOf(Deno.connect({ hostname: "db.test", port: 5432 })),
      await messageOf(dial("tcp", "db.test:5432")),
    ]));
    `,
    {
      flags: ["--allow-net"],
      wrap: await enterNamespace({ temporary, files, network: true }, []),
    },
  ).finally(() => Deno.remove(temporary, { recursive: true }));
  assertEquals(stderr, "");
  const [raw, ours] = JSON.parse(stdout);
  await t.step("raw: it reports the last failure, without an address", () => {
    assertEquals(raw, "Network is unreachable (os error 101)");
  });
  await t.step("ours: it reports each address and its failure", () => {
    assertEquals(
      ours,
      "dial tcp db.test:5432: all 2 addresses failed: 127.0.0.1:5432 " +
        "connection refused; 192.0.2.1:5432 network is unreachable",
    );
  });
});

Deno.test("a unix peer without a name has an empty address", {
  ignore: Deno.build.os === "windows",
}, async () => {
  const path = await Deno.makeTempFile({ suffix: ".sock" });
  await Deno.remove(path);
  const listener = Deno.listen({ transport: "unix", path });
  const [client, server] = await Promise.all([
    Deno.connect({ transport: "unix", path }),
    listener.accept(),
  ]);
  listener.close();
  assertEquals((server.remoteAddr as { path: unknown }).path, null);
  const conn = new Conn(server);
  assertEquals(String(conn.remoteAddr), "");
  assertEquals(String(conn.localAddr), path);
  assertEquals(conn.network, "unix");
  conn.close();
  client.close();
});
