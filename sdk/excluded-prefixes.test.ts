import { expect, test } from "vitest";
import { mergePrefixes } from "./excluded-prefixes.ts";

test("merging leaves out what is no prefix", () => {
  expect(mergePrefixes(["10.0.0.1", "10.0.0.1/32", "10.0.0.0/32", "x"])).toEqual(["10.0.0.0/31"]);
});
