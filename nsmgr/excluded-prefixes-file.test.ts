import { expect, test } from "vitest";
import { parseExcludedPrefixes } from "./excluded-prefixes-file.ts";

test.each([
  ["", []],
  ["prefixes:", []],
  ["prefixes: []", []],
  ["prefixes:\n- 10.96.0.0/12\n- 10.244.0.0/16\n", ["10.96.0.0/12", "10.244.0.0/16"]],
  ["prefixes: [10.0.0.128/25, 10.0.0.0/25, 10.0.0.7/32]", ["10.0.0.0/24"]],
  ['prefixes: ["2001:db8::/33", "2001:db8:8000::/33", 10.0.0.0/8]', ["10.0.0.0/8", "2001:db8::/32"]],
])("the file %j excludes %j", (text, prefixes) => {
  expect(parseExcludedPrefixes(text)).toEqual(prefixes);
});

test.each([
  ["prefixes: [10.0.0.0]", /line 1, column 12: prefixes\[0\] "10\.0\.0\.0" is no prefix/],
  ["prefixes: 10.0.0.0/8", /prefixes/],
  ["\nprefix: [10.0.0.0/8]", /line 2, column 1: prefix is not known here/],
  ["prefixes: [", /expected/],
  [
    JSON.stringify({ prefixes: Array.from({ length: 129 }, (_, i) => `10.${i}.0.0/24`) }),
    /129 prefixes after merging/,
  ],
])("the file %j is refused", (text, message) => {
  const refused = { code: "INVALID_ARGUMENT", reason: "bad-excluded-prefixes" };
  expect(() => parseExcludedPrefixes(text)).toThrow(
    expect.objectContaining({ ...refused, message: expect.stringMatching(message) }),
  );
});
