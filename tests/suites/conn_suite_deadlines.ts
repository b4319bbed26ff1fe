import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Conn } from "../../net/conn.ts";
import { isClosed, isTimeout, OpError } from "../../net/errors.ts";
import {
  assertClosed,
  assertTimedOut,
  bytes,
  drain,
  failure,
  ones,
  PIECE,
  readRuns,
  readText,
  settlesAtOnce,
  type Suite,
  turn,
  zeros,
} from "./conn_suite_kit.ts";

/** Long enough to see a call wait, short enough for a test. */
const SOON = 10;
/** Not over before the next line runs, even on a busy machine. */
const BRIEF = 100;
/** Never, as far as a test is concerned. */
const LATE = 3_600_000;

/** `ms` from now, as deadlines are given. */
function after(ms: number): number {
  return Date.now() + ms;
}

/** Waits, and keeps the process alive meanwhile. */
function holding<T>(promise: Promise<T>): Promise<T> {
  const timer = setInterval(() => {}, LATE);
  return promise.finally(() => clearInterval(timer));
}

/** Proves that both directions work: a word goes there, another one back. */
async function assertUsable(a: Conn, b: Conn): Promise<void> {
  await a.write(bytes("there"));
  assertEquals(await readText(b), "there");
  await b.write(bytes("back"));
  assertEquals(await readText(a), "back");
}

/**
 * Starts a write that cannot end, since nobody reads more than its first byte;
 * a deadline may abandon it. The promise of its failure is in an array, or the
 * caller's `await` would wait for it.
 */
async function stuckWrite(
  a: Conn,
  b: Conn,
  p: Uint8Array,
): Promise<[Promise<unknown>]> {
  a.setWriteDeadline(after(LATE));
  const writing = failure(a.write(p));
  assertEquals(await b.read(new Uint8Array(1)), 1);
  return [writing];
}

/** Deadlines: Go's `SetDeadline`, sentence by sentence. */
export function deadlineTests({ test, flood, slowFin }: Suite): void {
  test(
    "ReadTimeout: a read fails at its deadline, not before, and so do later ones",
    async (a, b) => {
      for (const ms of [1, 5, SOON]) {
        const at = after(ms);
        a.setReadDeadline(at);
        assertTimedOut(await failure(a.read(new Uint8Array(1))), "read", a);
        assert(Date.now() >= at, `${at - Date.now()} ms early`);
        assertTimedOut(await failure(a.read(new Uint8Array(1))), "read", a);
      }
      a.setReadDeadline(null);
      await assertUsable(a, b);
    },
  );

  test(
    "WriteTimeout: a write fails at its deadline, and says how much is out",
    async (a, b) => {
      const [writing] = await stuckWrite(a, b, ones(flood));
      const at = after(SOON);
      a.setWriteDeadline(at);
      const error = await writing;
      assertTimedOut(error, "write", a);
      assert(Date.now() >= at, `${at - Date.now()} ms early`);
      const least = (error as OpError).bytesWritten!;
      assertTimedOut(await failure(a.write(bytes("x"))), "write", a);
      a.setWriteDeadline(null);
      const runs = readRuns(b);
      assertEquals(await a.write(Uint8Array.of(2, 2, 2)), 3);
      await a.closeWrite();
      const [[value, length], second] = await runs as [
        [number, number],
        unknown,
      ];
      assertEquals(value, 1);
      assert(length + 1 >= least && length + 1 <= least + PIECE);
      assertEquals(second, [2, 3]);
    },
  );

  test(
    "a write that has timed out sends nothing more from its array",
    async (a, b) => {
      const p = ones(flood);
      const [writing] = await stuckWrite(a, b, p);
      a.setWriteDeadline(after(SOON));
      assertTimedOut(await writing, "write", a);
      p.fill(2);
      a.setWriteDeadline(null);
      const runs = readRuns(b);
      await a.closeWrite();
      assertEquals((await runs).map(([value]) => value), [1]);
    },
  );

  test(
    "writes that wait behind a stuck one time out with it, unsent",
    async (a, b) => {
      const [stuck] = await stuckWrite(a, b, ones(flood));
      const small = failure(a.write(Uint8Array.of(2)));
      const large = failure(a.write(zeros(flood)));
      a.setWriteDeadline(after(SOON));
      assertTimedOut(await stuck, "write", a);
      for (const error of [await small, await large]) {
        assertTimedOut(error, "write", a);
        assertEquals((error as OpError).bytesWritten, 0);
      }
      a.setWriteDeadline(null);
      const runs = readRuns(b);
      await a.closeWrite();
      assertEquals((await runs).map(([value]) => value), [1]);
    },
  );

  test("PastTimeout: calls fail before any data is looked at", async (a, b) => {
    await b.write(bytes("data"));
    for (const past of [0, 1, after(-LATE), -1, -Infinity, new Date(0)]) {
      a.setDeadline(past);
      const p = new Uint8Array(8);
      const reading = failure(a.read(p)), writing = failure(a.write(p));
      assert(await settlesAtOnce(Promise.all([reading, writing])));
      assertTimedOut(await reading, "read", a);
      assertTimedOut(await writing, "write", a);
      assertEquals(((await writing) as OpError).bytesWritten, 0);
      assertEquals(p, new Uint8Array(8));
    }
    a.setDeadline(null);
    assertEquals(await readText(a), "data", "it is still there");
    await assertUsable(a, b);
  });

  test(
    "a past deadline comes before unread bytes and before EOF",
    async (a, b) => {
      await b.write(bytes("data"));
      await b.closeWrite();
      assertEquals(await a.read(new Uint8Array(2)), 2);
      a.setReadDeadline(0);
      assertTimedOut(await failure(a.read(new Uint8Array(8))), "read", a);
      a.setReadDeadline(null);
      assertEquals(await readText(a), "ta");
      assertEquals(await readText(a), null);
      a.setReadDeadline(0);
      assertTimedOut(await failure(a.read(new Uint8Array(8))), "read", a);
      a.setReadDeadline(null);
      assertEquals(await readText(a), null);
    },
  );

  test("PresentTimeout: a deadline of now fails pending calls", async (a) => {
    const reading = failure(a.read(new Uint8Array(1)));
    a.setWriteDeadline(after(LATE));
    const writing = failure(a.write(zeros(flood)));
    await turn();
    a.setDeadline(Date.now());
    assert(await settlesAtOnce(Promise.all([reading, writing])));
    assertTimedOut(await reading, "read", a);
    assertTimedOut(await writing, "write", a);
  });

  test(
    "FutureTimeout: later calls fail, too, until the deadline is moved",
    async (a, b) => {
      a.setDeadline(after(SOON));
      const reading = failure(a.read(new Uint8Array(1)));
      const writing = failure((async () => {
        for (;;) await a.write(new Uint8Array(PIECE));
      })());
      assertTimedOut(await reading, "read", a);
      assertTimedOut(await writing, "write", a);
      assertTimedOut(await failure(a.read(new Uint8Array(1))), "read", a);
      assertTimedOut(await failure(a.write(new Uint8Array(1))), "write", a);
      a.setDeadline(after(LATE));
      // What was under way still goes out, so read to its end.
      const tail = drain(b);
      await a.closeWrite();
      await tail;
      await b.write(bytes("still here"));
      assertEquals(await readText(a), "still here");
    },
  );

  test("a pending write keeps the process alive after unref()", async (a) => {
    a.unref();
    a.setReadDeadline(after(1));
    assertTimedOut(
      await failure(holding(a.read(new Uint8Array(1)))),
      "read",
      a,
    );
    // Its deadline's timer does not; without the write this would never end.
    a.setWriteDeadline(after(SOON));
    assertTimedOut(await failure(a.write(zeros(flood))), "write", a);
  });

  test("all pending reads time out together, in order", async (a) => {
    const order: number[] = [];
    const reads = Array.from({ length: 8 }, async (_, i) => {
      assertTimedOut(await failure(a.read(new Uint8Array(1))), "read", a);
      order.push(i);
    });
    a.setReadDeadline(after(SOON));
    await Promise.all(reads);
    assertEquals(order, [0, 1, 2, 3, 4, 5, 6, 7]);
  });

  test("a deadline set while a call waits applies to it", async (a) => {
    const reading = failure(a.read(new Uint8Array(1)));
    await turn();
    const at = after(SOON);
    a.setReadDeadline(at);
    assertTimedOut(await reading, "read", a);
    assert(Date.now() >= at);
  });

  test(
    "a deadline that is moved later does not fail a pending call",
    async (a, b) => {
      const reading = a.read(new Uint8Array(8));
      const first = after(BRIEF);
      a.setReadDeadline(first);
      a.setReadDeadline(after(LATE));
      while (Date.now() <= first + 2) await turn();
      assert(!await settlesAtOnce(reading));
      await b.write(bytes("in time"));
      assertEquals(await reading, 7);
    },
  );

  test("a deadline that is moved earlier fails a pending call", async (a) => {
    a.setReadDeadline(after(LATE));
    const reading = failure(a.read(new Uint8Array(8)));
    await turn();
    a.setReadDeadline(after(SOON));
    assertTimedOut(await reading, "read", a);
  });

  test(
    "a deadline that is cleared does not fail a pending call",
    async (a, b) => {
      const reading = a.read(new Uint8Array(8));
      const first = after(BRIEF);
      a.setDeadline(first);
      a.setDeadline(null);
      while (Date.now() <= first + 2) await turn();
      assert(!await settlesAtOnce(reading));
      await b.write(bytes("in time"));
      assertEquals(await reading, 7);
      await assertUsable(a, b);
    },
  );

  for (const [change, later] of [["moved", LATE], ["cleared", null]] as const) {
    test(
      `a write deadline that is ${change} does not fail a pending write`,
      async (a, b) => {
        a.setWriteDeadline(after(LATE));
        const writing = a.write(zeros(flood));
        assertEquals(await b.read(new Uint8Array(1)), 1); // it is under way
        const first = after(BRIEF);
        a.setWriteDeadline(first);
        a.setWriteDeadline(later && after(later));
        while (Date.now() <= first + 2) await turn();
        assert(!await settlesAtOnce(writing));
        assertEquals(await drain(b, flood - 1), flood - 1);
        assertEquals(await writing, flood);
      },
    );
  }

  test("reads and writes have separate deadlines", async (a, b) => {
    a.setReadDeadline(0);
    await a.write(bytes("out"));
    assertEquals(await readText(b), "out");
    assertTimedOut(await failure(a.read(new Uint8Array(1))), "read", a);
    a.setReadDeadline(null);
    a.setWriteDeadline(0);
    await b.write(bytes("in"));
    assertEquals(await readText(a), "in");
    assertTimedOut(await failure(a.write(bytes("x"))), "write", a);
    a.setDeadline(null);
    await assertUsable(a, b);
  });

  test(
    "bytes that come after a read has timed out go to the next read",
    async (a, b) => {
      const gone = new Uint8Array(8);
      for (const word of ["one", "two", "three"]) {
        a.setReadDeadline(after(5));
        assertTimedOut(await failure(a.read(gone)), "read", a);
        await b.write(bytes(word));
        a.setReadDeadline(null);
        assertEquals(await readText(a), word);
      }
      assertEquals(
        gone,
        new Uint8Array(8),
        "not touched after the timeout",
      );
    },
  );

  test(
    "EOF that comes after a read has timed out goes to the next read",
    async (a, b) => {
      a.setReadDeadline(after(5));
      assertTimedOut(await failure(a.read(new Uint8Array(8))), "read", a);
      a.setReadDeadline(null);
      await b.closeWrite();
      assertEquals(await readText(a), null);
    },
  );

  test("a deadline may be years away: more than 2^31 ms", async (a, b) => {
    for (const ms of [2 ** 31, 2 ** 40, Number.MAX_VALUE, Infinity]) {
      a.setDeadline(after(ms));
      const reading = a.read(new Uint8Array(8));
      assert(!await settlesAtOnce(reading));
      await b.write(bytes("now"));
      assertEquals(await reading, 3);
      await a.write(bytes("and back"));
      assertEquals(await readText(b), "and back");
    }
  });

  test(
    "an invalid deadline is refused, and changes nothing",
    async (a, b) => {
      a.setDeadline(after(LATE));
      for (
        const set of [
          "setDeadline",
          "setReadDeadline",
          "setWriteDeadline",
        ] as const
      ) {
        for (const t of [undefined, "0", {}, 1n, true]) {
          assertThrows(() => a[set](t as unknown as null), TypeError);
        }
        for (const t of [NaN, new Date(NaN)]) {
          assertThrows(() => a[set](t), RangeError);
        }
      }
      await assertUsable(a, b);
    },
  );

  test("a deadline cannot be set after close()", (a) => {
    a.close();
    for (
      const set of [
        "setDeadline",
        "setReadDeadline",
        "setWriteDeadline",
      ] as const
    ) {
      const error = assertThrows(() => a[set](0), OpError);
      // As in Go, only our address: the peer has no part in a deadline.
      const { op, network, source, addr } = error;
      assertEquals([op, network, source], ["set", a.network, undefined]);
      assertEquals(String(addr), String(a.localAddr));
      assert(isClosed(error));
      assertEquals(
        error.message,
        `set ${network} ${addr}`.trimEnd() +
          ": use of closed network connection",
      );
    }
    return Promise.resolve();
  });

  test("CloseTimeout: close() beats a deadline", async (a) => {
    a.setDeadline(after(LATE));
    const reading = failure(a.read(new Uint8Array(1)));
    const writing = failure(a.write(zeros(flood)));
    await turn();
    a.close();
    assertClosed(await reading, "read", a);
    assertClosed(await writing, "write", a);
  });

  test(
    "FIN waits behind a stuck write, and times out with it",
    async (a, b) => {
      const [stuck] = await stuckWrite(a, b, zeros(flood));
      const fin = failure(a.closeWrite());
      a.setWriteDeadline(after(SOON));
      assertTimedOut(await stuck, "write", a);
      assertTimedOut(await fin, "close", a);
      a.setWriteDeadline(null);
      // It was not sent, so writing goes on.
      const count = drain(b);
      assertEquals(await a.write(bytes("more")), 4);
      await a.closeWrite();
      assert(await count < flood);
    },
  );

  test("FIN is sent even past the deadline if no write waits", async (a, b) => {
    a.setDeadline(0);
    const fin = a.closeWrite();
    await (slowFin ? fin.catch((error) => assert(isTimeout(error))) : fin);
    assertEquals(await readText(b), null);
    assert(isTimeout(await failure(a.read(new Uint8Array(1)))));
  });
}
