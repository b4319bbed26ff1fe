import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { copy } from "../../net/copy.ts";
import { isTimeout, OpError } from "../../net/errors.ts";
import {
  assertOpError,
  bytes,
  drain,
  echo,
  failure,
  ones,
  pattern,
  PIECE,
  readFull,
  readRuns,
  readText,
  same,
  settlesAtOnce,
  type Suite,
  turn,
  zeros,
} from "./conn_suite_kit.ts";

/** `subarray()` and `slice()` call the constructor with other arguments. */
class Packet extends Uint8Array {
  constructor(size: number) {
    super(size);
  }
}

/** Reads and writes: several at once, and aborted by signals. */
export function ioTests({ test, flood }: Suite): void {
  test("both ends know each other's addresses", (a, b) => {
    assertEquals(String(a.localAddr), String(b.remoteAddr));
    assertEquals(String(a.remoteAddr), String(b.localAddr));
    assertEquals(a.network, b.network);
    assertEquals(a.network, a.localAddr.transport);
    return Promise.resolve();
  });

  /** Many times what a buffer holds, so the platform's writes are short. */
  const much = flood / 2;

  test("BasicIO: several MiB go there and back unchanged", async (a, b) => {
    const sent = pattern(much);
    const echoed = echo(b);
    const got = readFull(a, sent.length);
    assertEquals(await a.write(sent), sent.length);
    await a.closeWrite();
    assert(same(await got, sent));
    assertEquals(await a.read(new Uint8Array(1)), null);
    await echoed;
  });

  test(
    "bytes in a subclass of Uint8Array go out unchanged, however many",
    async (a, b) => {
      const sent = pattern(much);
      const { signal } = new AbortController();
      let at = 0;
      const packet = (size: number) => {
        const p = new Packet(size);
        p.set(sent.subarray(at, at += size));
        return p;
      };
      const echoed = echo(b);
      const got = readFull(a, sent.length);
      const writes = Array.from({ length: 100 }, () => a.write(packet(1_000)));
      writes.push(a.write(packet(200_000), { signal }));
      writes.push(a.write(packet(sent.length - at)));
      await Promise.all(writes);
      await a.closeWrite();
      assert(same(await got, sent));
      await echoed;
    },
  );

  test(
    "PingPong: 200 round trips of 8 bytes, none of them split",
    async (a, b) => {
      const ask = async () => {
        const p = new Uint8Array(8);
        const view = new DataView(p.buffer);
        for (let i = 0; i < 200; i++) {
          view.setFloat64(0, i);
          assertEquals(await a.write(p), 8);
          assertEquals(await a.read(p), 8);
          assertEquals(view.getFloat64(0), -i);
        }
      };
      const answer = async () => {
        const p = new Uint8Array(8);
        const view = new DataView(p.buffer);
        for (let i = 0; i < 200; i++) {
          assertEquals(await b.read(p), 8);
          assertEquals(view.getFloat64(0), i);
          view.setFloat64(0, -i);
          assertEquals(await b.write(p), 8);
        }
      };
      await Promise.all([ask(), answer()]);
    },
  );

  test(
    "read() returns what there is, without waiting for more",
    async (a, b) => {
      await a.write(bytes("abc"));
      assertEquals(await readText(b), "abc");
      await a.write(bytes("defgh"));
      const p = new Uint8Array(3);
      assertEquals(await b.read(p), 3);
      assertEquals(p, bytes("def"));
      assertEquals(await b.read(p), 2);
      assertEquals(p, bytes("ghf"), "bytes beyond the count stay as they were");
    },
  );

  test(
    "read() fills a part of a larger array, and nothing else",
    async (a, b) => {
      await a.write(bytes("xyz"));
      const whole = new Uint8Array(8);
      assertEquals(await b.read(whole.subarray(2, 4)), 2);
      assertEquals([...whole], [0, 0, 120, 121, 0, 0, 0, 0]);
      assertEquals(await readText(b), "z");
    },
  );

  test("concurrent reads are served first come, first served", async (a, b) => {
    const order: string[] = [];
    const reads = ["1", "2", "3", "4"].map(async (name) => {
      const p = new Uint8Array(1);
      await b.read(p);
      order.push(name + String.fromCharCode(p[0]!));
    });
    await a.write(bytes("abcd"));
    await Promise.all(reads);
    assertEquals(order, ["1a", "2b", "3c", "4d"]);
  });

  test(
    "RacyRead: readers with deadlines of 1 ms share a stream and lose nothing",
    async (a, b) => {
      const sent = pattern(256 * 1024);
      const got: Uint8Array[] = [];
      let timeouts = 0;
      const reader = async () => {
        const p = new Uint8Array(1024);
        for (;;) {
          try {
            b.setReadDeadline(Date.now() + 1);
            const n = await b.read(p);
            if (n === null) return;
            got.push(p.slice(0, n));
          } catch (error) {
            if (!isTimeout(error)) throw error;
            timeouts++;
          }
        }
      };
      const readers = Promise.all(Array.from({ length: 10 }, reader));
      for (let i = 0; i < sent.length; i += 32 * 1024) {
        await a.write(sent.subarray(i, i + 32 * 1024));
        const before = timeouts; // let one deadline pass between two pieces
        while (timeouts === before) await turn();
      }
      await a.closeWrite();
      await readers;
      assert(same(await new Blob(got as BlobPart[]).bytes(), sent));
    },
  );

  test(
    "RacyWrite: writers with deadlines of 1 ms never interleave",
    async (a, b) => {
      // One value per write: whatever becomes of it, it is one run.
      let value = 0;
      const fate = new Map<number, { least: number; most: number }>();
      const writer = async (size: number) => {
        const p = new Uint8Array(size);
        for (let i = 0; i < 6; i++) {
          const own = ++value;
          p.fill(own);
          try {
            a.setWriteDeadline(Date.now() + 1);
            const n = await a.write(p);
            assertEquals(n, size);
            fate.set(own, { least: n, most: n });
          } catch (error) {
            if (!(error instanceof OpError) || !error.timeout) throw error;
            const least = error.bytesWritten!;
            fate.set(own, { least, most: Math.min(size, least + PIECE) });
          }
          p.fill(255); // ours again: nobody may see this
        }
      };
      const runs = readRuns(b);
      await Promise.all([1, 100, 1000, 70_000, 300_000, 1_000_000].map(writer));
      a.setWriteDeadline(null);
      await a.closeWrite();
      const got = new Map(await runs);
      assertEquals(
        got.size,
        (await runs).length,
        "each value came in one piece",
      );
      for (const [own, { least, most }] of fate) {
        const length = got.get(own) ?? 0;
        assert(length >= least && length <= most, `${least} ${length} ${most}`);
        got.delete(own);
      }
      assertEquals([...got.keys()], []);
    },
  );

  test(
    "write() writes everything; concurrent writes follow each other",
    async (a, b) => {
      const sizes = [3, much, 10, 70_000, 1, PIECE, PIECE + 1];
      const runs = readRuns(b);
      const counts = await Promise.all(
        sizes.map((size, i) => a.write(new Uint8Array(size).fill(i))),
      );
      assertEquals(counts, sizes);
      await a.closeWrite();
      assertEquals(await runs, sizes.map((size, i) => [i, size]));
    },
  );

  test("writes need not be awaited one by one", async (a, b) => {
    for (let i = 0; i < 26; i++) a.write(Uint8Array.of(97 + i));
    await a.closeWrite();
    const p = await readFull(b, 100);
    assertEquals(p, bytes("abcdefghijklmnopqrstuvwxyz"));
  });

  test(
    "the caller may change its array once write() has settled",
    async (a, b) => {
      const runs = readRuns(b);
      for (const size of [10, PIECE, 1024 * 1024]) {
        const p = new Uint8Array(size).fill(1);
        await a.write(p);
        p.fill(2);
      }
      await a.closeWrite();
      assertEquals(await runs, [[1, 10 + PIECE + 1024 * 1024]]);
    },
  );

  test(
    "reads and writes of zero bytes settle at once, without effect",
    async (a, b) => {
      const none = new Uint8Array(0);
      assert(await settlesAtOnce(b.read(none)));
      assertEquals(await b.read(none), 0);
      assertEquals(await a.write(none), 0);
      b.setDeadline(0);
      assertEquals(await b.read(none), 0, "even past the deadline");
      const late = await failure(b.write(none));
      assert(isTimeout(late), "but a write fails then");
      b.setDeadline(null);
      const reading = b.read(new Uint8Array(1));
      assertEquals(await b.read(none), 0, "even while another read waits");
      await a.closeWrite();
      assertEquals(await reading, null);
      assertEquals(await b.read(none), 0, "even at EOF");
      assertOpError(await failure(a.write(none)), "write", a);
    },
  );

  test("what is not a Uint8Array is refused", async (a) => {
    for (const p of [undefined, null, "text", [1], new ArrayBuffer(1)]) {
      for (const call of ["read", "write"] as const) {
        const error = await failure(a[call](p as unknown as Uint8Array));
        assert(error instanceof TypeError, `${call} ${p}`);
      }
    }
  });

  test("an aborted signal fails calls before they begin", async (a, b) => {
    const reason = { why: "mine" };
    const signal = AbortSignal.abort(reason);
    await a.write(bytes("x"));
    const p = new Uint8Array(4);
    assertStrictEquals(await failure(b.read(p, { signal })), reason);
    assertStrictEquals(await failure(b.write(p, { signal })), reason);
    assertEquals(p, new Uint8Array(4));
    assertEquals(await readText(b), "x");
    await b.closeWrite();
    assertEquals(await a.read(p), null, "nothing was written");
  });

  test(
    "an aborted read loses no byte; the next reads get them in order",
    async (a, b) => {
      const reason = new Error("mine");
      const controller = new AbortController();
      const { signal } = controller;
      const first = new Uint8Array(4);
      const aborted = failure(b.read(first, { signal }));
      const second = new Uint8Array(2);
      const waiting = b.read(second);
      controller.abort(reason);
      assertStrictEquals(await aborted, reason);
      await a.write(bytes("abcd"));
      assertEquals(await waiting, 2);
      assertEquals(second, bytes("ab"));
      assertEquals(await readText(b), "cd");
      assertEquals(
        first,
        new Uint8Array(4),
        "its array is never touched again",
      );
    },
  );

  test("an aborted read that was alone loses no byte", async (a, b) => {
    for (const word of ["one", "two", "three"]) {
      const controller = new AbortController();
      const p = new Uint8Array(8);
      const aborted = failure(b.read(p, { signal: controller.signal }));
      await turn();
      controller.abort();
      assertStrictEquals(await aborted, controller.signal.reason);
      await a.write(bytes(word));
      assertEquals(await readText(b), word);
      assertEquals(p, new Uint8Array(8));
    }
  });

  test(
    "a signal that aborts later does not affect a finished call",
    async (a, b) => {
      const controller = new AbortController();
      const { signal } = controller;
      const p = new Uint8Array(8);
      const reading = b.read(p, { signal });
      assertEquals(await a.write(bytes("x"), { signal }), 1);
      assertEquals(await reading, 1);
      controller.abort();
      await a.write(bytes("y"));
      assertEquals(await readText(b), "y");
      assertEquals(p[0], 120);
    },
  );

  test(
    "an aborted write sends a prefix, and its array is the caller's",
    async (a, b) => {
      const controller = new AbortController();
      const { signal } = controller;
      const p = ones(flood);
      const written = failure(a.write(p, { signal }));
      const least = (await b.read(new Uint8Array(10)))!; // it is under way
      controller.abort();
      assertStrictEquals(await written, signal.reason);
      p.fill(2);
      const next = a.write(Uint8Array.of(3));
      const closing = a.closeWrite();
      const runs = await readRuns(b);
      assertEquals(await next, 1);
      await closing;
      assertEquals(runs.map(([value]) => value), [1, 3]);
      assert(runs[0]![1] + least < flood);
    },
  );

  test(
    "a write that is aborted before its turn sends nothing",
    async (a, b) => {
      const controller = new AbortController();
      const { signal } = controller;
      const before = a.write(zeros(flood));
      const aborted = failure(a.write(bytes("never"), { signal }));
      controller.abort();
      assertStrictEquals(await aborted, signal.reason);
      const count = drain(b);
      assertEquals(await before, flood);
      assertEquals(await a.write(bytes("next")), 4);
      await a.closeWrite();
      assertEquals(await count, flood + 4);
    },
  );

  test(
    "RacyCopy: an echo with deadlines of 1 ms loses nothing",
    async (a, b) => {
      const sent = pattern(much);
      const got = readFull(a, sent.length);
      const writing = a.write(sent).then(() => a.closeWrite());
      for (let copied: number | null = null; copied === null;) {
        b.setDeadline(Date.now() + 1);
        copied = await copy(b, b).catch((error) => {
          assert(isTimeout(error), `${error}`);
          return null;
        });
      }
      assert(same(await got, sent));
      await writing;
    },
  );

  test(
    "writes end in the order of their calls, and none after a failed one is out",
    async (a, b) => {
      const fates: [call: number, out: boolean][] = [];
      const writes = Array.from(
        { length: 40 },
        (_, i) =>
          a.write(zeros(i % 4 === 0 ? flood / 4 : i + 1)).then(
            () => fates.push([i, true]),
            () => fates.push([i, false]),
          ),
      );
      await drain(b, flood / 4);
      b.close();
      await Promise.all(writes);
      assertEquals(fates.map(([call]) => call), writes.map((_, i) => i));
      const first = fates.findIndex(([, out]) => !out);
      assert(first > 0 && fates.slice(first).every(([, out]) => !out));
    },
  );

  test(
    "ConcurrentMethods: all at once leave the connection intact",
    async (a, b) => {
      const echoed = echo(b);
      const calls: Promise<unknown>[] = [];
      for (let i = 0; i < 100; i++) {
        calls.push(
          a.read(new Uint8Array(1024)),
          a.write(new Uint8Array(1024)),
        );
        a.setDeadline(Date.now() + 60_000);
        a.setReadDeadline(Date.now() + 60_000);
        a.setWriteDeadline(new Date(Date.now() + 60_000));
        assertEquals(String(a.localAddr), String(b.remoteAddr));
        assertEquals(String(a.remoteAddr), String(b.localAddr));
      }
      await Promise.all(calls);
      a.setDeadline(null);
      await a.closeWrite();
      await drain(a);
      await echoed;
    },
  );
}
