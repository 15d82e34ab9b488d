import * as fc from "fast-check";
import ipaddr from "ipaddr.js";
import { expect, test } from "vitest";
import { kindOf } from "./address-kind.ts";
import { formatAddress, prefixOf } from "./prefix.ts";
import type { IpAddress } from "./prefix.ts";

test.each([
  ["0.1.2.3", "unspecified"],
  ["10.0.0.1", "unicast"],
  ["127.9.9.9", "loopback"],
  ["169.254.169.254", "linkLocal"],
  ["224.0.0.251", "multicast"],
  ["255.255.255.255", "broadcast"],
  ["255.255.255.254", "unicast"],
  ["::", "unspecified"],
  ["::1", "loopback"],
  ["::2", "unicast"],
  ["fd00:ec2::254", "uniqueLocal"],
  ["febf::1", "linkLocal"],
  ["fec0::1", "unicast"],
  ["ff02::1", "multicast"],
])("%s is %s", (text, kind) => {
  expect(kindOf(prefixOf(`${text}/${text.includes(":") ? 128 : 32}`))).toBe(kind);
});

test("every address is what the tables of another reader say", () => {
  const ours = ["broadcast", "linkLocal", "loopback", "multicast", "uniqueLocal", "unspecified"];
  const first = fc.constantFrom(0, 10, 127, 169, 224, 239, 240, 255, 0xfc, 0xfd, 0xfe);
  const second = fc.constantFrom(0, 0x7f, 0x80, 0xbf, 0xc0, 254, 255);
  const rest = fc.bigInt(0n, (1n << 112n) - 1n);
  const v6 = fc
    .tuple(
      fc.oneof(first, fc.nat(255)),
      fc.oneof(second, fc.nat(255)),
      fc.oneof(fc.constantFrom(0n, 1n), rest),
    )
    .map(([a, b, c]): IpAddress => ({ family: 6, address: (BigInt(a * 256 + b) << 112n) | c }));
  const v4 = v6.map(({ address }): IpAddress => ({ family: 4, address: address >> 96n }));
  fc.assert(
    fc.property(fc.oneof(v4, v6), (address) => {
      const kind = ipaddr.parse(formatAddress(address)).range();
      expect(kindOf(address)).toBe(ours.includes(kind) ? kind : "unicast");
    }),
    { numRuns: 2000 },
  );
});
