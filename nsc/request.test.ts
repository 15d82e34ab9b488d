import { expect, test } from "vitest";
import { connectionId } from "./request.ts";

test("an id is the client's name and the position of the wire", () => {
  expect(connectionId("nsc-1", 3)).toBe("nsc-1-3");
  expect(connectionId("n".repeat(62), 9)).toBe(`${"n".repeat(62)}-9`);
});

test("a name that is too long for an id ends with a hash of it, and the ids still differ", () => {
  const long = `nsc-${"very-".repeat(20)}long`;
  const ids = [connectionId(long, 0), connectionId(long, 15), connectionId(`${long}er`, 0)];
  for (const id of ids) expect(id).toMatch(/^nsc-(very-)+.*-[0-9a-f]{16}-\d+$/);
  expect(new Set(ids).size).toBe(3);
  expect(connectionId(long, 0)).toBe(ids[0]); // a restarted client knows its wires by it
});

test("no name makes an id of more than 64 bytes, or cuts a character", () => {
  for (let length = 1; length <= 260; length++)
    for (const name of ["x".repeat(length), "é".repeat(length), "😀".repeat(length)]) {
      const id = connectionId(name, 15);
      expect(Buffer.byteLength(id)).toBeLessThanOrEqual(64);
      expect(id).not.toContain("\uFFFD");
    }
});
