import { isIPv4, isIPv6 } from "node:net";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bitsOf,
  contains,
  formatAddress,
  formatPrefix,
  isInside,
  isSameAddress,
  networkOf,
  parseIp,
  parseIpAsWritten,
  parsePrefix,
  prefixOf,
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

describe("networks", () => {
  it.each([
    ["10.1.2.3/8", "10.0.0.0/8"],
    ["10.1.2.3/32", "10.1.2.3/32"],
    ["10.1.2.255/25", "10.1.2.128/25"],
    ["10.1.2.3/0", "0.0.0.0/0"],
    ["255.255.255.255/1", "128.0.0.0/1"],
    ["fd00::ffff/120", "fd00::ff00/120"],
  ])("the one of %s is %s", (text, network) => {
    expect(formatPrefix(networkOf(prefixOf(text)))).toBe(network);
  });

  it("hold the addresses of their range and no others", () => {
    const near = fc.tuple(prefix, prefix, fc.nat(128)).map(([a, b, shift]): [Prefix, Prefix] => {
      // Addresses that have some bits in common with the prefix, else nearly none would be inside.
      const address = b.family === a.family ? a.address ^ (b.address >> BigInt(shift)) : b.address;
      return [a, { ...b, address }];
    });
    fc.assert(
      fc.property(near, ([network, address]) => {
        expect(isInside(address, network)).toBe(contains(rangeOf(network), address));
        expect(isInside(network, networkOf(network))).toBe(true);
        expect(networkOf(network).address).toBe(rangeOf(network).first);
      }),
    );
  });

  it("are of one family: the same number is another address in the other", () => {
    const [v4, v6] = [prefixOf("0.0.0.1/32"), prefixOf("::1/128")];
    expect([isSameAddress(v4, v6), isSameAddress(v4, v4), isInside(v4, { ...v6, length: 0 })]).toEqual([
      false,
      true,
      false,
    ]);
  });
});

describe("IPv4 addresses in IPv6 clothes", () => {
  it("are IPv4 where an address is meant, and IPv6 where its bytes are", () => {
    const [meant, written] = [parseIp("::ffff:10.0.0.1"), parseIpAsWritten("::ffff:10.0.0.1")];
    expect([meant && formatAddress(meant), written && formatAddress(written)]).toEqual([
      "10.0.0.1",
      "::ffff:a00:1",
    ]);
    expect(formatPrefix(prefixOf("::ffff:10.0.0.1/128"))).toBe("::ffff:a00:1/128");
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
