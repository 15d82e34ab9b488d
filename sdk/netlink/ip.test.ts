import * as fc from "fast-check";
import { expect, test } from "vitest";
import { contains, formatPrefix, ipBytes, ipText, networkOf, parseIp, parseMac, parsePrefix } from "./ip.ts";

test.each([
  ["10.0.0.1/32", "10.0.0.1/32"],
  ["0.0.0.0/0", "0.0.0.0/0"],
  ["FD00:0:0::1/128", "fd00::1/128"],
  ["::/0", "::/0"],
])("prefix %s is %s", (text, canonical) => {
  const prefix = parsePrefix(text);
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
  "10.0.0.1/8 ",
  "10.0.0/8",
  "010.0.0.1/8",
  "0x0a.0.0.1/8",
  "10.1/16",
  "fd00::1/129",
  "fe80::1%eth0/64",
  "::ffff:10.0.0.1/128",
  "10.0.0.1/8/8",
  "$(id)/8",
])("%j is no prefix", (text) => {
  expect(parsePrefix(text)).toBeUndefined();
});

test.each([
  ["10.1.2.3/8", "10.0.0.0/8"],
  ["10.1.2.3/32", "10.1.2.3/32"],
  ["10.1.2.255/25", "10.1.2.128/25"],
  ["10.1.2.3/0", "0.0.0.0/0"],
  ["fd00::ffff/120", "fd00::ff00/120"],
])("the network of %s is %s", (text, network) => {
  const prefix = parsePrefix(text);
  expect(prefix && formatPrefix(networkOf(prefix))).toBe(network);
});

test("a prefix contains addresses of its own family only", () => {
  const prefix = { family: 4, address: "10.0.0.1", length: 24 } as const;
  expect([contains(prefix, "10.0.0.9"), contains(prefix, "10.0.1.9"), contains(prefix, "::")]).toEqual([
    true,
    false,
    false,
  ]);
});

test("bytes and text of an address are two forms of one thing", () => {
  const address = fc.oneof(fc.ipV4(), fc.ipV6()).map(parseIp);
  fc.assert(
    fc.property(address, (ip) => {
      expect(ip && ipText(ipBytes(ip))).toBe(ip);
    }),
  );
});

test("a MAC is one of a single device", () => {
  expect(parseMac("02-00-00-00-00-0A")).toBe("02:00:00:00:00:0a");
  for (const bad of ["", "02:00:00:00:00", "01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:0g"])
    expect(parseMac(bad)).toBeUndefined();
});
