import { assertEquals } from "@std/assert";
import { type Link, Queue } from "../net/queue.ts";

interface Item extends Link<Item> {
  name: string;
}

function setUp(names: string): { queue: Queue<Item>; items: Item[] } {
  const queue = new Queue<Item>();
  const items = [...names].map((name): Item => ({ name, next: null }));
  for (const item of items) queue.push(item);
  return { queue, items };
}

function takeAll(queue: Queue<Item>): string {
  let names = "";
  while (queue.head) names += queue.shift().name;
  return names;
}

Deno.test("Queue is first come first served", () => {
  const { queue, items } = setUp("abc");
  assertEquals(queue.head, items[0]);
  assertEquals(takeAll(queue), "abc");
  assertEquals(queue.head, null);
  queue.push(items[1]!); // who has left may come again
  queue.push(items[0]!);
  assertEquals(takeAll(queue), "ba");
});

Deno.test("Queue.remove() takes out who stands anywhere, and leaves a line", async (t) => {
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
      for (const i of gone) assertEquals(items[i]!.next, null);
      queue.push({ name: "x", next: null });
      assertEquals(takeAll(queue), left);
    });
  }
});

Deno.test("Queue.remove() of somebody who is not there does nothing", () => {
  const { queue } = setUp("ab");
  queue.remove({ name: "c", next: null });
  const other = setUp("de");
  queue.remove(other.items[0]!);
  assertEquals(takeAll(queue), "ab");
  assertEquals(takeAll(other.queue), "de");
});
