import { expect, test } from "vitest";
import {
  CLOCKS_APART_MS,
  LinkState,
  NO_LINKS,
  addLink,
  addToken,
  changeLink,
  checkClocks,
  endLink,
  endWasTold,
  endedOf,
  redeem,
} from "./state.ts";
import type { LinkRecord, Own } from "./state.ts";
import { hashOfSecret } from "./token.ts";

const NOW = Date.UTC(2030, 0, 1);
const own: Own = { domain: "east", trustDomain: "east.nsm", proxyId: "spiffe://east.nsm/proxy" };
const secret = Buffer.alloc(32, 7).toString("base64url");
const token = { id: "token-1", secret };
const link: LinkRecord = {
  id: "link-1",
  domain: "west",
  trustDomain: "west.nsm",
  proxyId: "spiffe://west.nsm/proxy",
  addresses: [],
  dials: false,
  state: "pending",
  sinceMs: NOW,
  bundle: "{}",
  gaveBundle: true,
};
const withToken = () =>
  addToken(NO_LINKS, { id: token.id, hash: hashOfSecret(secret), expiresMs: NOW + 1000 }, NOW);
const because = (reason: string) => expect.objectContaining({ reason });

test("a token makes one link, and none after that", () => {
  const used = redeem(withToken(), token, own, link, NOW);
  expect(used.links).toEqual([link]);
  expect(LinkState.parse(JSON.parse(JSON.stringify(used)))).toEqual(used);
  const other = { ...link, id: "link-2", domain: "north", trustDomain: "n.nsm", proxyId: "spiffe://n.nsm/p" };
  expect(() => redeem(used, token, own, other, NOW)).toThrow(because("token-used"));
  expect(() => redeem(used, token, own, other, NOW)).toThrow(/used by west/);
});

test("without its secret nothing is told of a token, with it what became of it", () => {
  const wrong = { ...token, secret: Buffer.alloc(32, 8).toString("base64url") };
  expect(() => redeem(withToken(), wrong, own, link, NOW)).toThrow(because("token-unknown"));
  expect(() => redeem(NO_LINKS, token, own, link, NOW)).toThrow(because("token-unknown"));
  expect(() => redeem(withToken(), token, own, link, NOW + 1000)).toThrow(because("token-expired"));
  expect(() => redeem(withToken(), wrong, own, link, NOW + 1000)).toThrow(because("token-unknown"));
});

test("a token that was refused for another reason stays good", () => {
  const state = withToken();
  expect(() => redeem(state, token, own, { ...link, domain: "east" }, NOW)).toThrow(because("own-domain"));
  expect(redeem(state, token, own, link, NOW).links).toHaveLength(1);
});

const linked = { ...link, state: "linked" } as const;
const refused: readonly (readonly [string, string, Partial<LinkRecord>])[] = [
  ["the own name", "own-domain", { domain: "east" }],
  ["the own proxy's id", "own-proxy", { proxyId: own.proxyId, trustDomain: "east.nsm" }],
  ["an id of another trust domain", "foreign-id", { domain: "north", proxyId: "spiffe://east.nsm/x" }],
  ["a name that is linked", "already-linked", { id: "2" }],
  ["the name of another trust domain", "domain-taken", { trustDomain: "x", proxyId: "spiffe://x/proxy" }],
  ["another name of a linked proxy", "proxy-taken", { domain: "north" }],
  [
    "another name of a linked trust domain",
    "trust-domain-taken",
    { domain: "north", proxyId: "spiffe://west.nsm/q" },
  ],
  [
    "an id of a link that is known",
    "bad-request",
    { domain: "n", trustDomain: "n", proxyId: "spiffe://n/p" },
  ],
];
test.for(refused)("%s is refused: %s", ([, reason, change]) => {
  const state = addLink(NO_LINKS, own, linked);
  expect(() => addLink(state, own, { ...link, ...change })).toThrow(because(reason));
});

test("in one trust domain, several domains are linked, each by its own proxy", () => {
  const unified = { trustDomain: own.trustDomain, gaveBundle: false };
  const west = { ...linked, ...unified, proxyId: "spiffe://east.nsm/proxy-west" };
  const north = { ...linked, ...unified, id: "2", domain: "north", proxyId: "spiffe://east.nsm/proxy-north" };
  expect(addLink(addLink(NO_LINKS, own, west), own, north).links).toHaveLength(2);
});

test("clocks that are too far apart are told, both of them", () => {
  checkClocks(NOW, NOW + CLOCKS_APART_MS);
  checkClocks(NOW, NOW - CLOCKS_APART_MS);
  for (const other of [NOW + 3_600_000, NOW - 3_600_000]) {
    expect(() => checkClocks(NOW, other)).toThrow(because("clocks-apart"));
    expect(() => checkClocks(NOW, other)).toThrow(new Date(NOW).toISOString());
    expect(() => checkClocks(NOW, other)).toThrow(new Date(other).toISOString());
  }
  expect(() => checkClocks(NOW, Number.MAX_VALUE)).toThrow(because("clocks-apart"));
});

test("old tokens are forgotten an hour after their end, and no more than 256 are open", () => {
  let state = withToken();
  const add = (id: string, atMs: number) => addToken(state, { id, hash: "", expiresMs: atMs + 1000 }, atMs);
  expect(add("2", NOW + 1000 + 3_599_999).tokens).toHaveLength(2);
  expect(add("2", NOW + 1000 + 3_600_000).tokens).toHaveLength(1);
  for (let i = 1; i < 256; i++) state = add(`t${i}`, NOW);
  expect(() => add("one more", NOW)).toThrow(because("too-many-tokens"));
});

test("a link is changed or taken away by its id alone", () => {
  const state = addLink(NO_LINKS, own, link);
  expect(changeLink(state, "other", () => undefined)).toEqual(state);
  expect(changeLink(state, link.id, (each) => ({ ...each, state: "linked" })).links).toEqual([linked]);
  expect(changeLink(state, link.id, () => undefined).links).toEqual([]);
});

test("who ended a link is remembered for a day, and what proves the other side until that has heard", () => {
  const made = addLink(NO_LINKS, own, { ...link, addresses: ["tcp://192.0.2.1:1"] });
  const stands = changeLink(made, link.id, (each) => ({ ...each, state: "linked" }));
  expect(endLink(made, link.id, "us", NOW).ended).toEqual([]); // it never stood
  expect(endLink(stands, link.id, "them", NOW).ended).toMatchObject([
    { domain: "west", by: "them", isTold: true, addresses: [], bundle: "" },
  ]);
  const mine = endLink(stands, link.id, "us", NOW);
  expect(mine.links).toMatchObject([{ state: "leaving" }]);
  expect(mine.ended).toMatchObject([
    { by: "us", isTold: false, addresses: ["tcp://192.0.2.1:1"], bundle: "{}" },
  ]);
  expect(endLink(mine, link.id, "them", NOW).ended).toEqual(mine.ended); // ended once
  expect(endWasTold(mine, link.id).ended).toMatchObject([{ isTold: true, addresses: [], bundle: "" }]);
  expect(endedOf(mine, NOW + 24 * 3_600_000 - 1)).toHaveLength(1);
  expect(endedOf(mine, NOW + 24 * 3_600_000)).toEqual([]);
  const gone = changeLink(mine, link.id, () => undefined);
  expect(addLink(gone, own, { ...link, id: "link-2" }).ended).toEqual([]);
  expect(LinkState.parse({ version: 1, tokens: [], links: [] })).toEqual(NO_LINKS); // written before there was this
});
