import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { giveMemory, MAX_SIZE, MIN_SIZE, takeMemory } from "../net/pool.ts";

const KiB = 1024;

Deno.test("takeMemory() lends the smallest of five sizes that is enough", () => {
  const cases = [
    [257, 1],
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
    assertEquals(takeMemory(size).length, KiBs * KiB, `for ${size}`);
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

Deno.test("giveMemory() keeps what it gets for the next, each size for itself", () => {
  for (const size of [1, 4, 16, 64, 256].map((n) => n * KiB)) {
    const memory = takeMemory(size);
    giveMemory(memory);
    assertStrictEquals(takeMemory(size), memory);
  }
});

Deno.test("giveMemory() keeps 1 MiB of each size at most", () => {
  const lent = Array.from({ length: 10 }, () => takeMemory(MAX_SIZE));
  for (const memory of lent) giveMemory(memory);
  const again = Array.from({ length: 10 }, () => takeMemory(MAX_SIZE));
  const kept = again.filter((memory) => lent.includes(memory));
  assertEquals(kept.length, 4);
  assert(kept.every((memory) => memory.length === MAX_SIZE));
});

Deno.test("takeMemory() lends small memory in just the size, 1,024 in all", () => {
  const sizes = [0, 1, 64, 255, 256];
  const lent = Array.from(
    { length: 2_000 },
    (_, i) => takeMemory(sizes[i % sizes.length]!),
  );
  assertEquals(new Set(lent.map(({ buffer }) => buffer)).size, 2_000);
  const exact = lent.filter(({ length }) => sizes.includes(length));
  assertEquals(exact.length, 1_024);
  assert(lent.every(({ length }) => length === MIN_SIZE || length <= 256));
  for (const memory of lent) giveMemory(memory);
  assertEquals(takeMemory(64).length, 64);
});
