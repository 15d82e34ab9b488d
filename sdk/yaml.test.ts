import { expect, test } from "vitest";
import * as z from "zod";
import { parseYamlAs, readYaml } from "./yaml.ts";

const parseYaml = (text: string) => parseYamlAs(text, z.unknown());

test("documents are read with the places of their parts", () => {
  const [first, second] = readYaml("a: [1, { b: text }]\n---\n- true\n- null\n");
  expect(first?.value).toEqual({ a: [1, { b: "text" }] });
  expect(first?.placeOf(["a", 1, "b"])).toBe("line 1, column 13");
  expect(first?.placeOf(["a", 1, "absent"])).toBe("line 1, column 8");
  expect(second?.value).toEqual([true, null]);
});

test("an empty text has no document, and its value is null", () => {
  expect(readYaml("")).toEqual([]);
  expect(parseYaml("")).toBeNull();
  expect(parseYaml("# nothing\n")).toBeNull();
});

test("JSON is YAML", () => {
  const value = { list: [1, 2.5, "x"], empty: {}, nothing: null, yes: true };
  expect(parseYaml(JSON.stringify(value, undefined, 2))).toEqual(value);
});

test.for([
  ["an open bracket", "a: [1", /line 1, column \d+: .*flow/i],
  ["a repeated key", "a: 1\nb: 2\na: 3", /line 3, column 1: keys must be unique, "a" is repeated/],
  ["a repeated key below", "a:\n  - { x: 1, x: 2 }", /line 2, column \d+: keys must be unique, "x"/],
  ["a key that is a list", "? [a, b]\n: 1", /a key must be a plain text/],
  ["two documents", "a: 1\n---\nb: 2", /more than one YAML document/],
  ["a tag that nobody knows", "a: !!js/function 'x'", /tag/i],
  ["a size beyond the limit", `#${"x".repeat(256 * 1024)}`, /larger than/],
] as const)("%s is a fault with its place", ([, text, expected]) => {
  expect(() => parseYaml(text)).toThrow(expected);
});

test("a hundred levels are too deep, thirty are not, however they are written", () => {
  const nested = (levels: number) => [
    "[".repeat(levels) + "]".repeat(levels),
    '{"a":'.repeat(levels) + "1" + "}".repeat(levels),
    `${"- ".repeat(levels)}x`,
    Array.from({ length: levels }, (_, i) => `${"   ".repeat(i)}a:`).join("\n"),
  ];
  for (const text of nested(30)) expect(readYaml(text)[0]?.faults, text.slice(0, 40)).toEqual([]);
  for (const text of nested(100)) expect(() => parseYaml(text), text.slice(0, 40)).toThrow(/deeper than/);
});

test("brackets in texts and comments are no levels", () => {
  const text = `a: "${"[".repeat(200)}" # ${"{".repeat(200)}\nb: don't [[[\n`;
  expect(parseYaml(text)).toEqual({ a: "[".repeat(200), b: "don't [[[" });
});
