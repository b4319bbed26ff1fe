/**
 * The small structures below connections, listeners and servers: a queue, a
 * list, a pool, counts, patience with silent peers, and what follows a signal.
 */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { onAbort } from "../net/calls.ts";
import { type Clock, systemClock } from "../net/clock.ts";
import { Deadline } from "../net/deadline.ts";
import { HostLimit } from "../net/host_limit.ts";
import { Patience } from "../net/patience.ts";
import {
  giveMemory,
  MAX_SIZE,
  MIN_SIZE,
  takeCopyMemory,
  takeMemory,
} from "../net/pool.ts";
import { type Link, Queue } from "../net/queue.ts";
import { type Entry, Roster } from "../net/roster.ts";
import { countEnded, countOpen } from "../net/stall.ts";
import { Turns, turnsUnderWay } from "../net/turns.ts";
import { countedSignal, turn } from "./support.ts";

interface Item extends Link<Item> {
  name: string;
}

function setUp(names: string): { queue: Queue<Item>; items: Item[] } {
  const queue = new Queue<Item>();
  const items = [...names].map((name): Item => ({
    name,
    next: null,
    before: null,
  }));
  for (const item of items) queue.push(item);
  return { queue, items };
}

function takeAll(queue: Queue<Item>): string {
  let names = "";
  while (queue.head) names += queue.shift().name;
  return names;
}

Deno.test("Queue is first come, first served", () => {
  const { queue, items } = setUp("abc");
  assertEquals(queue.head, items[0]);
  assertEquals(takeAll(queue), "abc");
  assertEquals(queue.head, null);
  queue.push(items[1]!); // an item that has left may come again
  queue.push(items[0]!);
  assertEquals(takeAll(queue), "ba");
});

Deno.test("Queue.isLongerThan() counts no further than it has to", () => {
  const { queue } = setUp("abc");
  const counts = [0, 1, 2, 3, 4].map((n) => queue.isLongerThan(n));
  assertEquals(counts, [true, true, true, false, false]);
  assertEquals(new Queue<Item>().isLongerThan(0), false);
});

Deno.test("Queue.remove() takes out an item from anywhere, and keeps the order", async (t) => {
  const cases = [
    { name: "the first", gone: [0], left: "bcdx" },
    { name: "one in the middle", gone: [1], left: "acdx" },
    { name: "the last", gone: [3], left: "abcx" },
    { name: "the first twice", gone: [0, 0], left: "bcdx" },
    { name: "the last two", gone: [2, 3], left: "abx" },
    { name: "the last two, backwards", gone: [3, 2], left: "abx" },
    { name: "all", gone: [1, 0, 3, 2], left: "x" },
  ];
  for (const { name, gone, left } of cases) {
    await t.step(name, () => {
      const { queue, items } = setUp("abcd");
      for (const i of gone) queue.remove(items[i]!);
      for (const i of gone) {
        assertEquals([items[i]!.next, items[i]!.before], [null, null]);
      }
      queue.push({ name: "x", next: null, before: null });
      assertEquals(takeAll(queue), left);
    });
  }
});

Deno.test("Queue.remove() of an item that has become the first keeps the order", () => {
  const { queue, items } = setUp("abc");
  queue.shift();
  queue.remove(items[1]!);
  queue.push({ name: "x", next: null, before: null });
  assertEquals(takeAll(queue), "cx");
});

Deno.test("Queue.remove() takes no longer in a long queue", () => {
  const { queue, items } = setUp("x".repeat(100_000));
  const start = performance.now();
  for (const item of items.toReversed()) queue.remove(item);
  assertEquals(queue.head, null);
  assert(performance.now() - start < 1_000); // else: 6 s
});

Deno.test("Queue.remove() of an item that is in no queue does nothing", () => {
  const { queue } = setUp("ab");
  queue.remove({ name: "c", next: null, before: null });
  const other = setUp("de");
  queue.remove(other.items[0]!);
  assertEquals(takeAll(queue), "ab");
  assertEquals(takeAll(other.queue), "de");
});

Deno.test("Roster holds what was added and not deleted", () => {
  const roster = new Roster<Entry & { name: string }>();
  const [a, b, c] = ["a", "b", "c"].map((name) => ({ name, index: -1 }));
  const names = () => roster.list().map(({ name }) => name).toSorted().join("");
  for (const entry of [a!, b!, c!]) roster.add(entry);
  assertEquals([roster.size, names()], [3, "abc"]);
  assertEquals(roster.delete(a!), true);
  assertEquals(roster.delete(a!), false); // no longer in it
  assertEquals([roster.size, names()], [2, "bc"]);
  roster.add(a!);
  assertEquals(roster.delete(c!), true);
  assertEquals(roster.delete(a!), true); // the last of the list
  assertEquals([roster.size, names()], [1, "b"]);
  assertEquals(roster.delete(b!), true);
  assertEquals([roster.size, names()], [0, ""]);
});

/** Many connections whose timers fire late; the test takes the turns. */
class LatePeers implements Disposable {
  /** How many have been given up. */
  over = 0;
  readonly #real = { ...systemClock };
  readonly #fires: (() => void)[] = [];
  readonly #patient: Patience[];
  #turns: (() => void)[] = [];
  /** That of the turns. */
  #time = 0;
  readonly #late: number;

  constructor(count: number, late = 11) {
    this.#late = late;
    for (let i = 0; i < count; i++) countOpen(1);
    systemClock.monotonic = () => this.#time;
    systemClock.setTimeout = (callback) => {
      this.#turns.push(callback);
      return callback;
    };
    systemClock.clearTimeout = (timer) => {
      this.#turns = this.#turns.filter((turn) => turn !== timer);
    };
    systemClock.unrefTimer = () => {};
    this.#patient = Array.from(
      { length: count },
      (_, i) => new Patience(this.#clock(i), 1_000, () => this.over++),
    );
  }

  /** A clock with one timer, which fires late. */
  #clock(i: number): Clock {
    let time = 0;
    return {
      ...this.#real,
      monotonic: () => time,
      setTimeout: (callback, ms) => {
        this.#fires[i] = () => {
          time += ms + this.#late;
          callback();
        };
      },
      clearTimeout: () => {},
      unrefTimer: () => {},
    };
  }

  /** Fires the timer of a peer, late. */
  fire(i: number): void {
    this.#fires[i]!();
  }

  /** A peer gives a sign of life. */
  renew(i: number): void {
    this.#patient[i]!.renew();
  }

  /** A peer's connection is over. */
  clear(i: number): void {
    this.#patient[i]!.clear();
  }

  /** Takes a turn; `false` if none was due. */
  turn(): boolean {
    const due = this.#turns.splice(0);
    for (const turn of due) turn();
    return due.length > 0;
  }

  /**
   * Takes turns until a peer is given up, and says how many. If `busy`, each
   * brings something for another one.
   */
  turnsToEnd(busy = true): number {
    let turns = 0;
    while (this.over === 0 && this.turn()) {
      turns++;
      if (busy) countEnded();
    }
    return turns;
  }

  /** Drops the turn that is due: its timer was another test's fake. */
  lose(): void {
    this.#turns = [];
    this.#time += 1_001;
  }

  [Symbol.dispose](): void {
    for (const one of this.#patient) {
      one.clear();
      countOpen(-1);
    }
    Object.assign(systemClock, this.#real);
  }
}

Deno.test("Patience waits the same number of turns, however many others were late, too", () => {
  for (const others of [0, 1, 9]) {
    using peers = new LatePeers(320);
    for (let i = 0; i <= others; i++) peers.fire(i);
    for (let i = 1; i <= others; i++) peers.renew(i);
    assertEquals(peers.turnsToEnd(), 12, `${others} others`); // 2 + 320 / 32
  }
});

Deno.test("Patience waits the same number of turns if others were late before", () => {
  using peers = new LatePeers(320);
  for (const i of [1, 2, 3]) {
    peers.fire(i);
    peers.renew(i);
  }
  peers.fire(0);
  assertEquals(peers.turnsToEnd(), 12);
});

Deno.test("Patience waits less if the turns bring nothing", () => {
  // 2 + 6,400 / 32; 20, after one that hears of what came before.
  for (const [busy, turns] of [[true, 202], [false, 21]] as const) {
    using peers = new LatePeers(6_400);
    peers.fire(0);
    assertEquals(peers.turnsToEnd(busy), turns);
  }
});

Deno.test("Patience that ran out after a quiet time waits its own turns", () => {
  using peers = new LatePeers(6_400);
  peers.fire(0);
  for (let i = 0; i < 15; i++) peers.turn();
  peers.fire(1);
  peers.renew(0);
  assertEquals(peers.turnsToEnd(false), 20);
});

Deno.test("Patience ends at once if its timer is no later than timers are", () => {
  using peers = new LatePeers(320, 10);
  peers.fire(0);
  assertEquals([peers.over, peers.turn()], [1, false]);
});

Deno.test("Patience ends although a turn was lost with a test's fake timers", () => {
  using peers = new LatePeers(2);
  peers.fire(0);
  peers.lose();
  peers.fire(1);
  while (peers.turn());
  assertEquals(peers.over, 2);
});

Deno.test("Patience that is cleared after its timer fired late does not end", () => {
  using peers = new LatePeers(2);
  peers.fire(0);
  peers.clear(0);
  while (peers.turn());
  assertEquals(peers.over, 0);
});

Deno.test("Deadline that is late gets no more turns for a read that goes on waiting", () => {
  using turns = new LatePeers(320);
  let time = 0;
  let fire = () => {};
  const clock: Clock = {
    ...systemClock,
    now: () => time,
    setTimeout: (callback) => fire = callback,
    clearTimeout: () => {},
    unrefTimer: () => {},
  };
  let over = false;
  const deadline = new Deadline(clock, () => over = true);
  deadline.set(1_000, true);
  time = 1_011;
  fire();
  let count = 0;
  for (; !over && turns.turn(); count++) deadline.watch(); // bytes came
  assertEquals(count, 12);
  deadline.clear();
});

Deno.test("HostLimit keeps nothing of a host that has left", () => {
  const hosts = new HostLimit(2);
  const entered = ["a", "a", "a", "b"].map((host) => hosts.enter(host));
  assertEquals([entered, hosts.size], [[true, true, false, true], 2]);
  hosts.leave("a");
  assertEquals([hosts.enter("a"), hosts.enter("a")], [true, false]);
  for (const host of ["a", "b", "a"]) hosts.leave(host);
  assertEquals(hosts.size, 0);
});

Deno.test("HostLimit hands a free place to who waits, in order", async () => {
  const hosts = new HostLimit(2);
  hosts.enter("a");
  hosts.enter("a");
  const settled: [name: string, entered: boolean][] = [];
  const waits = ["first", "second", "one more than can end"].map((name) =>
    hosts.wait("a").then((entered) => settled.push([name, entered]))
  );
  assertEquals(turnsUnderWay(), true);
  hosts.leave("a");
  assertEquals(hosts.enter("a"), false);
  await Promise.all(waits);
  assertEquals(settled, [
    ["one more than can end", false],
    ["first", true],
    ["second", false],
  ]);
  assertEquals(turnsUnderWay(), false);
  hosts.leave("a");
  hosts.leave("a");
  assertEquals(hosts.size, 0);
});

Deno.test("Turns that are started again are under way once", async () => {
  let rung = 0;
  const turns = new Turns(() => rung++);
  turns.start(1);
  turns.start(2);
  for (let n = 0; n < 4; n++) await turn();
  assertEquals([rung, turnsUnderWay()], [1, false]);
  turns.start(1);
  turns.clear();
  turns.clear();
  assertEquals(turnsUnderWay(), false);
  turns.start(1);
  assertEquals(turnsUnderWay(), true);
  turns.clear();
});

Deno.test("HostLimit: a place may be free some turns of the loop later", async () => {
  const hosts = new HostLimit(1);
  hosts.enter("a");
  const waits = hosts.wait("a");
  for (let n = 0; n < 4; n++) await turn();
  hosts.leave("a");
  assertEquals(await waits, true);
  hosts.leave("a");
});

Deno.test("HostLimit: who waits is told within a few turns that no place is free", async () => {
  const hosts = new HostLimit(1);
  hosts.enter("a");
  let told: boolean | undefined;
  hosts.wait("a").then((entered) => told = entered);
  for (let n = 0; n < 7; n++) await turn();
  assertEquals(told, false);
  hosts.leave("a");
});

const KiB = 1024;

const takers = { takeMemory, takeCopyMemory };

Deno.test("the pool lends the smallest of five sizes that is large enough", () => {
  const cases = [
    [1 * KiB, 1],
    [1 * KiB + 1, 4],
    [4 * KiB, 4],
    [4 * KiB + 1, 16],
    [16 * KiB, 16],
    [16 * KiB + 1, 64],
    [64 * KiB, 64],
    [64 * KiB + 1, 256],
    [256 * KiB, 256],
  ] as const;
  for (const [size, KiBs] of cases) {
    for (const [name, take] of Object.entries(takers)) {
      assertEquals(take(size).length, KiBs * KiB, `${name}(${size})`);
    }
  }
  assertEquals([MIN_SIZE, MAX_SIZE], [1 * KiB, 256 * KiB]);
});

Deno.test("takeMemory() never lends the same memory twice at once", () => {
  const memories = Array.from({ length: 100 }, () => takeMemory(MIN_SIZE));
  assertEquals(new Set(memories.map(({ buffer }) => buffer)).size, 100);
  for (const memory of memories) giveMemory(memory);
  const again = Array.from({ length: 200 }, () => takeMemory(MIN_SIZE));
  assertEquals(new Set(again.map(({ buffer }) => buffer)).size, 200);
});

Deno.test("giveMemory() keeps memory for the next taker of that size", () => {
  for (const size of [1, 4, 16, 64, 256].map((n) => n * KiB)) {
    for (const take of Object.values(takers)) {
      const memory = take(size);
      giveMemory(memory);
      assertStrictEquals(take(size), memory);
    }
  }
});

Deno.test("takeCopyMemory() keeps a distance from what malloc puts beside it", () => {
  for (const size of [1, 4, 16, 64].map((n) => n * KiB)) {
    const memory = takeCopyMemory(size);
    const { buffer, byteOffset } = memory;
    assertEquals([byteOffset, buffer.byteLength], [512, 512 + size + 512]);
    giveMemory(memory);
    assertEquals(takeMemory(size).buffer.byteLength, size);
  }
});

Deno.test("giveMemory() keeps as much as was lent at once", () => {
  const lent = Array.from({ length: 200 }, () => takeMemory(64 * KiB));
  for (const memory of lent) giveMemory(memory);
  const again = new Set(lent.map(() => takeMemory(64 * KiB)));
  assertEquals(again.intersection(new Set(lent)).size, 200);
});

Deno.test("takeCopyMemory() lends small memory in the exact size, 1,024 pieces in all", () => {
  const sizes = [0, 1, 64, 640, 1023];
  const lent = Array.from(
    { length: 2_000 },
    (_, i) => takeCopyMemory(sizes[i % sizes.length]!),
  );
  assertEquals(new Set(lent.map(({ buffer }) => buffer)).size, 2_000);
  const exact = lent.filter(({ length }) => sizes.includes(length));
  assertEquals(exact.length, 1_024);
  assert(lent.every(({ length }) => length <= MIN_SIZE));
  for (const memory of lent) giveMemory(memory);
  assertEquals(takeCopyMemory(64).length, 64);
});

Deno.test("onAbort() adds one listener to a signal, however many follow it", () => {
  const { signal, listeners } = countedSignal();
  const unfollow = Array.from({ length: 3 }, () => onAbort(signal, () => {}));
  assertEquals(listeners(), 1);
  unfollow[1]!();
  unfollow[0]!();
  assertEquals(listeners(), 1);
  unfollow[2]!();
  assertEquals(listeners(), 0);
  const again = onAbort(signal, () => {});
  assertEquals(listeners(), 1);
  again();
  assertEquals(listeners(), 0);
});

Deno.test("onAbort() calls all who still follow, in order, once", () => {
  const { controller, signal, listeners } = countedSignal();
  const called: string[] = [];
  const a = onAbort(signal, () => {
    called.push("a");
    a();
    c();
  });
  const b = onAbort(signal, () => called.push("b"));
  const c = onAbort(signal, () => called.push("c"));
  const d = onAbort(signal, () => called.push("d"));
  b();
  controller.abort();
  assertEquals(called, ["a", "d"]);
  d();
  assertEquals(listeners(), 0);
});

Deno.test("onAbort() follows a signal whose listeners are called by others", () => {
  const controller = new AbortController();
  const { signal } = controller;
  const add = signal.addEventListener.bind(signal);
  // As instrumentation may do it: without the signal as `this`.
  signal.addEventListener =
    ((type: string, listener: EventListener) =>
      add(type, (event) => listener(event))) as typeof add;
  let called = 0;
  onAbort(signal, () => called++);
  const target = new AbortController();
  const proxy = new Proxy(target.signal, {
    get(signal, name) {
      const value = Reflect.get(signal, name, signal);
      return typeof value === "function" ? value.bind(signal) : value;
    },
  });
  onAbort(proxy, () => called++);
  controller.abort();
  target.abort();
  assertEquals(called, 2);
});

Deno.test("onAbort(): who throws holds up nobody, and is reported", () => {
  const controller = new AbortController();
  const error = new Error("an adapter's own");
  onAbort(controller.signal, () => {
    throw error;
  });
  let called = false;
  onAbort(controller.signal, () => called = true);
  const reported: unknown[] = [];
  const report = (event: ErrorEvent) => {
    event.preventDefault();
    reported.push(event.error);
  };
  addEventListener("error", report);
  controller.abort();
  removeEventListener("error", report);
  assertEquals(called, true);
  assertEquals(reported, [error]);
});
