import { expect, test } from "vitest";
import { parseDnsDomains } from "../sdk/domains/dns-domains.ts";
import type { DomainResolver } from "../sdk/domains/resolver.ts";
import { parseDomains, resolveByTable, trustByTable } from "./domains-file.ts";

const NEVER = new AbortController().signal;
const others: DomainResolver = {
  registryOf: (domain) => Promise.resolve(`dns of ${domain}`),
  proxyOf: (domain) => Promise.resolve(`dns of ${domain}`),
};

test("a domain of the file is not looked up, any other is", async () => {
  const table = parseDomains(
    "domains:\n  west: { registry: tcp://192.0.2.1:5002, proxy: tcp://192.0.2.1:5004 }\n  floating: { registry: tcp://192.0.2.9:5002 }\n",
  );
  const resolver = resolveByTable(() => table, others);
  expect(await resolver.registryOf("west", NEVER)).toBe("tcp://192.0.2.1:5002");
  expect(await resolver.proxyOf("west", NEVER)).toBe("tcp://192.0.2.1:5004");
  expect(await resolver.proxyOf("floating", NEVER)).toBeUndefined();
  expect(await resolver.registryOf("north", NEVER)).toBe("dns of north");
  expect(await resolver.proxyOf("north", NEVER)).toBe("dns of north");
});

test("an empty file knows none", () => {
  expect(parseDomains("").size).toBe(0);
});

test.for([
  ["no address", "domains: { west: { registry: 192.0.2.1 } }"],
  ["no registry", "domains: { west: { proxy: 'tcp://192.0.2.1:5004' } }"],
  ["a name with @", "domains: { a@b: { registry: 'tcp://192.0.2.1:5002' } }"],
  [
    "a trust domain that is none",
    "domains: { west: { registry: 'tcp://192.0.2.1:5002', trustDomain: A_B/c } }",
  ],
  [
    "a trust domain of two domains",
    "domains: { a: { registry: 'tcp://192.0.2.1:5002', trustDomain: b }, b: { registry: 'tcp://192.0.2.1:5002' } }",
  ],
  ["something else", "links: []"],
] as const)("%s is refused", ([, text]) => {
  expect(() => parseDomains(text)).toThrow(expect.objectContaining({ reason: "bad-yaml" }));
});

test("a domain of the file has the trust domain that the file says, any other that of others", () => {
  const table = parseDomains(
    "domains: { west: { registry: 'tcp://192.0.2.1:5002', trustDomain: west.nsm }, north: { registry: 'tcp://192.0.2.1:5002' } }",
  );
  const trust = trustByTable(() => table, parseDnsDomains("south=south.nsm"));
  expect(["west.nsm", "north", "south.nsm", "west"].map((name) => trust.domainOf(name))).toEqual([
    "west",
    "north",
    "south",
    undefined,
  ]);
  expect(trust.mayAnswer("west", "own", "own")).toBe(false);
  expect(trust.mayAnswer("north", "own", "own")).toBe(true);
  expect(trust.mayAnswer("south", "south.nsm", "own")).toBe(true);
});
