import * as fc from "fast-check";
import { expect, test } from "vitest";
import { formatAddress, parseIpAsWritten } from "../prefix.ts";
import { addressBytes, addressOf, ipBytes, ipText, parseMac } from "./ip.ts";

test("bytes, text and number of an address are three forms of one thing", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
    // IPv4-mapped ones stay what they are: the kernel has both.
    fc
      .uint8Array({ minLength: 4, maxLength: 4 })
      .map((end) => Buffer.concat([Buffer.alloc(10), Buffer.alloc(2, 0xff), end])),
  );
  fc.assert(
    fc.property(bytes, (value) => {
      const given = Buffer.from(value);
      const address = addressOf(given);
      expect(addressBytes(address)).toEqual(given);
      expect(ipText(given)).toBe(formatAddress(address));
      expect(parseIpAsWritten(ipText(given))).toEqual(address);
      expect(ipBytes(ipText(given))).toEqual(given);
    }),
  );
});

test.each([
  ["10.1.2.3", "0a010203"],
  ["fd00::a:1", "fd0000000000000000000000000a0001"],
  ["::ffff:10.0.0.1", "00000000000000000000ffff0a000001"],
])("the bytes of %s", (text, hex) => {
  expect(ipBytes(text).toString("hex")).toBe(hex);
});

test.each(["", "10.0.0", "10.0.0.1/8", "fe80::1%eth0"])("%j has no bytes", (text) => {
  expect(() => ipBytes(text)).toThrow("is no IP address");
});

test("a MAC is one of a single device", () => {
  expect(parseMac("02-00-00-00-00-0A")).toBe("02:00:00:00:00:0a");
  for (const bad of ["", "02:00:00:00:00", "01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:0g"])
    expect(parseMac(bad)).toBeUndefined();
});
