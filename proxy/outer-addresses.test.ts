import { expect, test } from "vitest";
import { outerUrl, parseOuterAddresses } from "./outer-addresses.ts";

test("addresses of nodes, in any spelling", () => {
  const outer = parseOuterAddresses("172.18.0.2: 203.0.113.2\n'2001:DB8::0:1': 2001:db8:f::1\n");
  expect([...outer]).toEqual([
    ["172.18.0.2", "203.0.113.2"],
    ["2001:db8::1", "2001:db8:f::1"],
  ]);
});

test("an empty file is an empty map", () => {
  expect(parseOuterAddresses("").size).toBe(0);
});

test.for(["node-1: 203.0.113.2", "172.18.0.2: elsewhere", "- 172.18.0.2"])("%s is refused", (text) => {
  expect(() => parseOuterAddresses(text)).toThrow(expect.objectContaining({ reason: "bad-yaml" }));
});

test.for([
  ["tcp://172.18.0.2:5004", "tcp://203.0.113.2:5004"],
  ["tcp://172.18.0.3:5004", "tcp://172.18.0.3:5004"],
  ["tcp://[2001:db8::1]:5004", "tcp://[2001:db8:f::1]:5004"],
  ["tcp://[2001:db8::2]:5004", "tcp://203.0.113.9:5004"],
  ["tcp://172.18.0.4:5004", "tcp://[2001:db8:f::4]:5004"],
  ["unix:///run/proxy.sock", "unix:///run/proxy.sock"],
] as const)("%s is reached at %s", ([inner, outer]) => {
  const file =
    "{ 172.18.0.2: 203.0.113.2, 172.18.0.4: '2001:db8:f::4', '2001:db8::1': '2001:db8:f::1', '2001:db8::2': 203.0.113.9 }";
  const addresses = parseOuterAddresses(file);
  expect(outerUrl(inner, (address) => addresses.get(address) ?? address)).toBe(outer);
});
