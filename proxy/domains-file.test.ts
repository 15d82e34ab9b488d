import { expect, test } from "vitest";
import type { DomainResolver } from "../sdk/domains/resolver.ts";
import { parseDomains, resolveByTable } from "./domains-file.ts";

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
  ["something else", "links: []"],
] as const)("%s is refused", ([, text]) => {
  expect(() => parseDomains(text)).toThrow(expect.objectContaining({ reason: "bad-yaml" }));
});
