import * as fc from "fast-check";
import { expect, test } from "vitest";
import { isJsonObject, parseJson, tryParseJson } from "./json.ts";
import type { JsonValue } from "./json.ts";

function plain(value: JsonValue): unknown {
  if (isJsonObject(value)) return Object.fromEntries([...value].map(([name, inner]) => [name, plain(inner)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

test("reads what JSON.parse reads", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), fc.constantFrom(undefined, 1, "\t"), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      expect(plain(parseJson(text))).toEqual(JSON.parse(text));
    }),
  );
});

test("agrees with JSON.parse on what is no JSON", () => {
  const scraps = fc.constantFrom(
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    '"a"',
    '"b":',
    "1",
    "-",
    "0",
    ".5",
    "e3",
    "true",
    "null",
    " ",
    "\\",
  );
  fc.assert(
    fc.property(fc.array(scraps, { maxLength: 8 }), (parts) => {
      const text = parts.join("");
      let expected: unknown = "no JSON";
      try {
        expected = JSON.parse(text);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
      }
      const ours = tryParseJson(text);
      expect(ours === undefined ? "no JSON" : plain(ours)).toEqual(expected);
    }),
    { numRuns: 5000 },
  );
});

test.each([
  ["a repeated member", '{"a":1,"b":2,"a":1}'],
  ["a member repeated in escapes", String.raw`{"a":1,"\u0061":2}`],
  ["a repeated member further inside", '[{"x":{"a":1,"a":2}}]'],
  ["a control character in a text", '"\u0001"'],
  ["something behind the value", "{} {}"],
  ["nothing", ""],
  ["a byte order mark", "\ufeff{}"],
])("refuses %s", (_, text) => {
  expect(() => parseJson(text)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "bad-json" }),
  );
});

test("members named like parts of a prototype are only members", () => {
  const value = parseJson('{"__proto__":{"x":1},"constructor":2}');
  expect(isJsonObject(value) && [...value.keys()]).toEqual(["__proto__", "constructor"]);
});

test("half a surrogate pair is replaced", () => {
  expect(parseJson(String.raw`"a\ud800b"`)).toBe("a\ufffdb");
  expect(parseJson(String.raw`"\ud83d\ude00"`)).toBe("😀");
});

test("refuses depth before it can hurt", () => {
  expect(tryParseJson("[".repeat(32) + "]".repeat(32))).toBeDefined();
  expect(tryParseJson("[".repeat(34) + "]".repeat(34))).toBeUndefined();
  expect(tryParseJson("[".repeat(1_000_000))).toBeUndefined();
});

test("numbers keep their text for who asks", () => {
  const texts: string[] = [];
  parseJson('{"a":1e0,"b":[-0,1E400]}', { number: (text) => texts.push(text) });
  expect(texts).toEqual(["1e0", "-0", "1E400"]);
  expect(parseJson("1e400")).toBe(Infinity);
});
