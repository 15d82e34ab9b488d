import { expect, test } from "vitest";
import { LruMap } from "./lru.ts";

test("forgets the entry that was used least recently", () => {
  const map = new LruMap<string, number>(2);
  map.set("a", 1);
  map.set("b", 2);
  expect(map.get("a")).toBe(1);
  map.set("c", 3);
  expect([map.get("a"), map.get("b"), map.get("c"), map.size]).toEqual([1, undefined, 3, 2]);
});

test("setting again replaces, deleting forgets", () => {
  const map = new LruMap<string, number>(2);
  map.set("a", 1);
  map.set("a", 2);
  expect([map.get("a"), map.size]).toEqual([2, 1]);
  map.delete("a");
  expect([map.get("a"), map.size]).toEqual([undefined, 0]);
});
