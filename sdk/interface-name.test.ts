import { expect, test } from "vitest";
import { checkInterfaceName } from "./interface-name.ts";

test.each(["nsm-1", "a", "0a", "A_b.c-d", "abcdefghijklmno", "1.2", "eth1"])("%j is allowed", (name) => {
  expect(checkInterfaceName(name)).toBe(name);
});

test.each([
  "",
  ".",
  "..",
  "-h",
  "--help",
  "_x",
  "$(id)",
  "a;b",
  "a b",
  "a/b",
  "a:b",
  "x%d",
  "é",
  "a\n",
  "\u007f",
  "abcdefghijklmnop",
  "all",
  "default",
  "lo",
  "eth0",
  "0",
  "4711",
])("%j is refused by name and rule", (name) => {
  expect(() => checkInterfaceName(name)).toThrow(
    expect.objectContaining({
      code: "INVALID_ARGUMENT",
      reason: "bad-interface-name",
      message: expect.stringContaining(JSON.stringify(name)),
    }),
  );
});
