import { isIPv4, isIPv6 } from "node:net";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bitsOf,
  contains,
  formatAddress,
  formatPrefix,
  parseIp,
  parsePrefix,
  prefixesOf,
  rangeOf,
} from "./prefix.ts";
import type { Prefix } from "./prefix.ts";

const prefix: fc.Arbitrary<Prefix> = fc.constantFrom(4 as const, 6 as const).chain((family) =>
  fc.record({
    family: fc.constant(family),
    // IPv4-mapped addresses are IPv4 and never come out as IPv6.
    address: fc
      .bigInt(0n, (1n << BigInt(bitsOf(family))) - 1n)
      .filter((address) => family === 4 || address >> 32n !== 0xffffn),
    length: fc.integer({ min: 0, max: bitsOf(family) }),
  }),
);

describe("addresses", () => {
  it("read back as they were written", () => {
    fc.assert(
      fc.property(prefix, (value) => {
        expect(parsePrefix(formatPrefix(value))).toEqual(value);
        expect(parseIp(formatAddress(value))).toEqual({ family: value.family, address: value.address });
      }),
    );
  });

  it("are read exactly where Node reads them, zones apart", () => {
    const part = fc.constantFrom(
      "0",
      "1",
      "255",
      "256",
      "01",
      "ffff",
      "abcde",
      "",
      ":",
      "::",
      ".",
      "1.2.3.4",
      "%e",
      "/8",
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 9 }), fc.constantFrom("", ":", "."), (parts, separator) => {
        const text = parts.join(separator);
        expect(parseIp(text) !== undefined).toBe(isIPv4(text) || (isIPv6(text) && !text.includes("%")));
      }),
      { numRuns: 20_000 },
    );
  });

  it.each([
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["2001:DB8::0:1", "2001:db8::1"],
    ["1:0:2:0:3:0:4:0", "1:0:2:0:3:0:4:0"],
    ["::ffff:10.0.0.1", "10.0.0.1"],
    ["0:0:0:0:0:0:0:0", "::"],
  ])("%s is written %s (RFC 5952)", (text, shortest) => {
    const address = parseIp(text);
    expect(address && formatAddress(address)).toBe(shortest);
  });
});

describe("prefixesOf", () => {
  it("covers a range exactly, without two prefixes that are one", () => {
    const bounds = fc.tuple(fc.bigInt(0n, 600n), fc.bigInt(0n, 600n));
    fc.assert(
      fc.property(bounds, ([a, b]) => {
        const range = { family: 4 as const, first: a < b ? a : b, last: a < b ? b : a };
        const parts = prefixesOf(range).map(rangeOf);
        expect(parts[0]?.first).toBe(range.first);
        expect(parts.at(-1)?.last).toBe(range.last);
        expect(parts.slice(1).map(({ first }) => first)).toEqual(
          parts.slice(0, -1).map(({ last }) => last + 1n),
        );
        expect(parts.every((part) => contains(range, { family: 4, address: part.last }))).toBe(true);
        expect(parts.length).toBeLessThanOrEqual(20);
      }),
    );
  });
});
