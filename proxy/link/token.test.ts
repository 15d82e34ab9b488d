import { randomBytes } from "node:crypto";
import { assert, integer, property } from "fast-check";
import { expect, test } from "vitest";
import { fitsHash, formatToken, hashOfSecret, isDomainName, parseToken } from "./token.ts";
import type { LinkToken } from "./token.ts";

const token: LinkToken = {
  id: "abcdefgh12345678",
  secret: randomBytes(32).toString("base64url"),
  addresses: ["tcp://198.51.100.1:5004", "tcp://[2001:db8::1]:5004", "tcp://proxy.east.example:5004"],
  domain: "east",
  proxyId: "spiffe://east.nsm/proxy/east",
  caSha256: "ab".repeat(32),
};

test("a token reads as it was written, with white space around it, too", () => {
  expect(parseToken(` ${formatToken(token)}\n`)).toEqual(token);
});

test("a token of which any part is missing is refused, and nothing of it is told", () => {
  const text = formatToken(token);
  for (let length = 0; length < text.length; length++)
    expect(() => parseToken(text.slice(0, length))).toThrow(expect.objectContaining({ reason: "bad-token" }));
  assert(
    property(integer({ min: 5, max: text.length - 1 }), (cut) => {
      try {
        parseToken(text.slice(0, cut) + text.slice(cut + 1));
        return true; // one letter of a name
      } catch (error) {
        return error instanceof Error && !error.message.includes(token.secret.slice(0, 8));
      }
    }),
  );
});

const wrong: readonly (readonly [string, Partial<LinkToken>])[] = [
  ["no address", { addresses: [] }],
  ["a socket as address", { addresses: ["unix:///run/x.sock"] }],
  ["an address without a port", { addresses: ["tcp://192.0.2.1"] }],
  ["an address without a host", { addresses: ["tcp://:5004"] }],
  ["a short secret", { secret: "abc" }],
  ["no SPIFFE id", { proxyId: "https://east/proxy" }],
  ["a domain that is a path", { domain: "../east" }],
  ["a domain with a name in it", { domain: "a@b" }],
  ["no hash", { caSha256: "" }],
];
test.for(wrong)("a token with %s is refused", ([, change]) => {
  expect(() => parseToken(formatToken({ ...token, ...change }))).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "bad-token" }),
  );
});

test("only its own secret fits a hash", () => {
  const hash = hashOfSecret(token.secret);
  expect(hash).not.toContain(token.secret);
  expect(fitsHash(token.secret, hash)).toBe(true);
  expect(fitsHash(randomBytes(32).toString("base64url"), hash)).toBe(false);
  expect(fitsHash("", hash)).toBe(false);
  expect(fitsHash(token.secret, "")).toBe(false);
});

test("names of domains are names of DNS and of files", () => {
  for (const good of ["east", "e", "east.example.org", "k8s-1"]) expect(isDomainName(good)).toBe(true);
  for (const bad of ["", "East", "-e", "e-", "a/b", "a b", "a@b", ".", "..", "x".repeat(64)])
    expect(isDomainName(bad)).toBe(false);
});
