import { expect, test } from "vitest";
import { formatPrefix } from "../../sdk/prefix.ts";
import { readPrefix } from "./checks.ts";

test.each([
  ["10.0.0.1/32", "10.0.0.1/32"],
  ["0.0.0.0/0", "0.0.0.0/0"],
  ["FD00:0:0::1/128", "fd00::1/128"],
  ["::/0", "::/0"],
])("prefix %s is %s", (text, canonical) => {
  const prefix = readPrefix(text);
  expect(prefix && formatPrefix(prefix)).toBe(canonical);
});

test.each([
  "",
  "10.0.0.1",
  "10.0.0.1/",
  "/8",
  "10.0.0.1/33",
  "10.0.0.1/-1",
  "10.0.0.1/08",
  "10.0.0.1/00",
  "10.0.0.1/8 ",
  "10.0.0/8",
  "010.0.0.1/8",
  "0x0a.0.0.1/8",
  "10.1/16",
  "fd00::1/129",
  "fe80::1%eth0/64",
  "::ffff:10.0.0.1/128",
  "::ffff:a00:1/100",
  "10.0.0.1/8/8",
  "$(id)/8",
])("%j is no prefix", (text) => {
  expect(readPrefix(text)).toBeUndefined();
});
