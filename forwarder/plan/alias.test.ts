import * as fc from "fast-check";
import { expect, test } from "vitest";
import { formatAlias, isSameMark, parseAlias } from "./alias.ts";

test("an alias names wire, side and binding", () => {
  const mark = { wireId: "5f3c-1", side: "client", binding: "a1" } as const;
  expect(formatAlias(mark)).toBe("nsm:1:5f3c-1:client:a1");
  expect(parseAlias("nsm:1:5f3c-1:client:a1")).toEqual(mark);
});

test("an alias may name the owner, too, and is the same mark without", () => {
  const mark = { wireId: "5f3c-1", side: "client", binding: "a1", owner: "x:1.7" } as const;
  expect(formatAlias(mark)).toBe("nsm:1:5f3c-1:client:a1:x%3A1.7");
  expect(parseAlias("nsm:1:5f3c-1:client:a1:x%3A1.7")).toEqual(mark);
  const other = formatAlias({ ...mark, owner: "x:1.8" });
  const without = "nsm:1:5f3c-1:client:a1";
  expect([other, without].map((alias) => isSameMark(alias, formatAlias(mark)))).toEqual([true, true]);
  const long = { ...mark, wireId: "x".repeat(235) };
  expect(parseAlias(formatAlias(long))).toEqual({ wireId: long.wireId, side: "client", binding: "a1" });
  for (const alias of ["nsm:1:5f3c-1:client:a2:x%3A1.7", "nsm:1:5f3c-1:endpoint:a1", "nsm:1:w:client:a1", ""])
    expect(isSameMark(alias, without)).toBe(false);
});

test("any id survives, or is refused for its length", () => {
  const text = fc.string({ minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(
      text,
      fc.constantFrom("client" as const, "endpoint" as const),
      text,
      (wireId, side, binding) => {
        expect(parseAlias(formatAlias({ wireId, side, binding }))).toEqual({ wireId, side, binding });
      },
    ),
  );
  for (const wireId of ["", "x".repeat(300), ":".repeat(100)])
    expect(() => formatAlias({ wireId, side: "client", binding: "" })).toThrow(
      expect.objectContaining({ reason: "bad-wire-id" }),
    );
});

test.each([
  "",
  "eth0",
  "nsm:1:",
  "nsm:2:a:client:b",
  "nsm:1:a:other:b",
  "nsm:1:%zz:client:b",
  "server-a",
  "nsm:1:a:client:b:c:d",
  "nsm:1:a:client:b:%zz",
])("%j is not ours", (alias) => {
  expect(parseAlias(alias)).toBeUndefined();
});
