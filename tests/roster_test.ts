import { assertEquals } from "@std/assert";
import { type Entry, Roster } from "../net/roster.ts";

Deno.test("Roster holds what was added and not let go", () => {
  const roster = new Roster<Entry & { name: string }>();
  const [a, b, c] = ["a", "b", "c"].map((name) => ({ name, index: -1 }));
  const names = () => roster.list().map(({ name }) => name).toSorted().join("");
  for (const entry of [a!, b!, c!]) roster.add(entry);
  assertEquals([roster.size, names()], [3, "abc"]);
  assertEquals(roster.delete(a!), true);
  assertEquals(roster.delete(a!), false); // it is not there any more
  assertEquals([roster.size, names()], [2, "bc"]);
  roster.add(a!);
  assertEquals(roster.delete(c!), true);
  assertEquals(roster.delete(a!), true); // the last of the list
  assertEquals([roster.size, names()], [1, "b"]);
  assertEquals(roster.delete(b!), true);
  assertEquals([roster.size, names()], [0, ""]);
});
