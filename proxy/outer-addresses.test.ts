import { expect, test } from "vitest";
import { createOuterAddress, outerUrl, parseOuterAddresses } from "./outer-addresses.ts";

test("addresses of nodes, in any spelling", () => {
  const outer = parseOuterAddresses("172.18.0.2: 203.0.113.2\n'2001:DB8::0:1': 2001:db8:f::1\n");
  expect(outer.get("172.18.0.2")).toBe("203.0.113.2");
  expect(outer.get("2001:db8:0::1")).toBe("2001:db8:f::1");
  expect(outer.get("172.18.0.3")).toBeUndefined();
  expect(outer.get("node-1")).toBeUndefined();
});

test("networks are translated one to one, and what is said of less of them counts", () => {
  const outer = parseOuterAddresses(
    "{ 192.0.2.0/24: 198.51.100.0/24, 192.0.2.128/25: 203.0.113.128/25, 192.0.2.200: 203.0.113.1, 'fd02::/64': '2001:db8:e::/64' }",
  );
  expect(
    ["192.0.2.11", "192.0.2.130", "192.0.2.200", "fd02::b", "fd03::b"].map((ip) => outer.get(ip)),
  ).toEqual(["198.51.100.11", "203.0.113.130", "203.0.113.1", "2001:db8:e::b", undefined]);
});

test("an empty file names nobody", () => {
  expect(parseOuterAddresses("").get("172.18.0.2")).toBeUndefined();
});

test("what is known first counts: the file, the address of all, where the other domain sees this one", () => {
  const file = () => parseOuterAddresses("10.0.0.1: 198.51.100.1");
  const observed = (domain: string) => (domain === "west" ? "198.51.100.9" : undefined);
  const seen = createOuterAddress({ file }, observed);
  expect([seen("10.0.0.1", "west"), seen("10.0.0.2", "west")]).toEqual(["198.51.100.1", "198.51.100.9"]);
  expect([seen("10.0.0.2", "north"), seen("10.0.0.2")]).toEqual(["10.0.0.2", "10.0.0.2"]);
  const one = createOuterAddress({ file, all: "198.51.100.7" }, observed);
  expect([one("10.0.0.1", "west"), one("10.0.0.2", "west")]).toEqual(["198.51.100.1", "198.51.100.7"]);
});

test.for([
  ["10.0.0.2", "203.0.113.9", "203.0.113.9"],
  ["fd02::b", "2001:db8::9", "2001:db8::9"],
  // In one private network, or behind the proxy's own node.
  ["10.0.0.2", "10.0.0.7", "10.0.0.2"],
  ["10.0.0.2", "100.64.0.7", "10.0.0.2"],
  // Public themselves.
  ["198.51.100.2", "203.0.113.9", "198.51.100.2"],
  ["10.0.0.2", "2001:db8::9", "10.0.0.2"],
  ["10.0.0.2", "::ffff:203.0.113.9", "203.0.113.9"],
  ["10.0.0.2", "127.0.0.1", "10.0.0.2"],
  ["10.0.0.2", "nonsense", "10.0.0.2"],
] as const)("a node at %s whose domain is seen at %s is reached at %s", ([inner, observed, outer]) => {
  const file = () => parseOuterAddresses("");
  expect(createOuterAddress({ file }, () => observed)(inner, "west")).toBe(outer);
});

test.for([
  "node-1: 203.0.113.2",
  "172.18.0.2: elsewhere",
  "- 172.18.0.2",
  "172.18.0.0/24: 203.0.113.0/25",
  "172.18.0.0/24: 203.0.113.2",
  "172.18.0.0/32: 'fd00::/32'",
])("%s is refused", (text) => {
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
