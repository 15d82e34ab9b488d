import { expect, test } from "vitest";
import { parseDnsDomains } from "./dns-domains.ts";
import { firstOf, peersByTrust } from "./peers.ts";

const OWN = "east.nsm";

test("a domain speaks for itself by the trust domain that was named, or by one of its own name", () => {
  const domains = parseDnsDomains("west=west.nsm, north");
  expect(["west", "north", "south"].filter((domain) => domains.has(domain))).toEqual(["west", "north"]);
  expect(domains.mayAnswer("west", "west.nsm", OWN)).toBe(true);
  expect(domains.mayAnswer("west", OWN, OWN)).toBe(false);
  expect(domains.mayAnswer("west", "north", OWN)).toBe(false);
  expect(domains.mayAnswer("north", "north", OWN)).toBe(true);
  expect(domains.mayAnswer("north", OWN, OWN)).toBe(true);
  expect(domains.mayAnswer("south", "south", OWN)).toBe(false);
});

test("none names none, and * everybody", () => {
  const [none, all] = [parseDnsDomains("none"), parseDnsDomains("*,west=west.nsm")];
  expect(none.has("west")).toBe(false);
  expect(none.domainOf("west")).toBeUndefined();
  expect(all.has("anything")).toBe(true);
  expect(all.domainOf("other.nsm")).toBe("other.nsm");
  expect(all.domainOf("west.nsm")).toBe("west");
  expect(all.mayAnswer("west", "other.nsm", OWN)).toBe(false);
});

test.for(["a@b", "=x", "west=", "west=UPPER", "west=a=b", "*.example.org", "west=x,north=x"])(
  "%s is refused",
  (text) => {
    expect(() => parseDnsDomains(text)).toThrow();
  },
);

test("proxies of other trust domains are peers, nobody of the own one is", () => {
  const peers = peersByTrust(parseDnsDomains(`*,east=${OWN}`), (id) => id.includes("/proxy/"), OWN);
  expect(peers.domainOf("spiffe://west.nsm/proxy/a")).toBe("west.nsm");
  expect(peers.domainOf("spiffe://west.nsm/forwarder/a")).toBeUndefined();
  expect(peers.domainOf(`spiffe://${OWN}/proxy/a`)).toBeUndefined();
  const linked = { domainOf: (id: string) => (id === "spiffe://west.nsm/proxy/a" ? "west" : undefined) };
  expect(firstOf(linked, peers).domainOf("spiffe://west.nsm/proxy/a")).toBe("west");
  expect(firstOf(linked, peers).domainOf("spiffe://west.nsm/proxy/b")).toBe("west.nsm");
});
