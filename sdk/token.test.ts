import { create } from "@bufbuild/protobuf";
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { beforeAll, expect, test } from "vitest";
import { PathSchema } from "../api/gen/connection_pb.js";
import { makeAuthority } from "../test/support/certificates.ts";
import { systemClock } from "./clock.ts";
import { claimedExpiryMs, isSignedBy, parseToken, subjectOf } from "./jwt.ts";
import type { X509Svid } from "./spiffe/source.ts";
import { createTokenMinter, placeTokens, readTokenMetadata, signAgain, writeTokenMetadata } from "./token.ts";
import type { PathToken } from "./token.ts";

const PEER = "spiffe://example.org/nsmgr";
let own: X509Svid;
let nowMs = 0;
const clock = { ...systemClock, now: () => nowMs };

beforeAll(async () => {
  const authority = await makeAuthority("example.org");
  ({ svid: own } = await authority.issue("/nsc"));
  nowMs = Date.now();
});

function leafOf(svid: X509Svid) {
  const [leaf] = svid.chain;
  if (leaf === undefined) throw new Error("no leaf");
  return leaf;
}

test("a token says who speaks to whom until when, signed with the key of the SVID", () => {
  const { token, expires, expiresMs } = createTokenMinter({ clock, maxLifetimeMs: 60_000 }).mint(own, PEER);
  expect(Object.fromEntries(parseToken(token)?.claims ?? [])).toEqual({
    sub: own.id,
    aud: [PEER],
    exp: Math.floor((nowMs + 60_000) / 1000),
  });
  expect(Buffer.from(token.split(".")[0] ?? "", "base64url").toString()).toBe('{"alg":"ES256","typ":"JWT"}');
  expect(isSignedBy(token, leafOf(own))).toBe(true);
  expect(expiresMs).toBe(nowMs + 60_000);
  expect(Number(expires.seconds) * 1000 + expires.nanos / 1e6).toBe(expiresMs);
  expect(subjectOf(token)).toBe(own.id);
  expect(claimedExpiryMs(token)).toBe(Math.floor(expiresMs / 1000) * 1000);
});

test("our token is signed again for a caller that has seen another certificate of ours, nobody else's is", async () => {
  const minter = createTokenMinter({ clock });
  const { svid: older } = await (await makeAuthority("example.org")).issue("/nsc");
  const again = signAgain(minter, older, minter.mint(own, PEER).token);
  expect(isSignedBy(again?.token ?? "", leafOf(older))).toBe(true);
  expect(parseToken(again?.token ?? "")?.claims?.get("aud")).toEqual([PEER]);
  const { svid: other } = await (await makeAuthority("example.org")).issue("/other");
  expect(signAgain(minter, older, minter.mint(other, PEER).token)).toBeUndefined();
});

test("without a peer there is no audience", () => {
  const { token } = createTokenMinter({ clock }).mint(own);
  expect([...(parseToken(token)?.claims?.keys() ?? [])]).toEqual(["sub", "exp"]);
});

test("it lives no longer than the own certificate; the peer's bounds only the expiry beside it", () => {
  const minter = createTokenMinter({ clock, maxLifetimeMs: 100 * 24 * 3_600_000 });
  const own1 = minter.mint(own, PEER);
  expect(own1.expiresMs).toBe(own.notAfterMs);
  expect(claimedExpiryMs(own1.token)).toBe(Math.floor(own.notAfterMs / 1000) * 1000);
  const short = minter.mint(own, PEER, nowMs + 5000);
  expect(short.expiresMs).toBe(nowMs + 5000);
  expect(claimedExpiryMs(short.token)).toBe(Math.floor(own.notAfterMs / 1000) * 1000);
});

test("one token serves a peer for a tenth of its life", () => {
  const minter = createTokenMinter({ clock, maxLifetimeMs: 60_000 });
  const start = nowMs;
  const first = minter.mint(own, PEER);
  nowMs = start + 5999;
  expect(minter.mint(own, PEER)).toBe(first);
  expect(minter.mint(own, "spiffe://example.org/other")).not.toBe(first);
  expect(minter.mint({ ...own }, PEER)).not.toBe(first);
  nowMs = start + 6000;
  expect(minter.mint(own, PEER)).not.toBe(first);
  nowMs = start;
});

test("a clock that jumps back makes a new token", () => {
  const minter = createTokenMinter({ clock, maxLifetimeMs: 60_000 });
  const start = nowMs;
  minter.mint(own, PEER);
  nowMs = start - 3_600_000;
  expect(minter.mint(own, PEER).expiresMs).toBe(nowMs + 60_000);
  nowMs = start;
});

test.each([
  ["RSA", () => generateKeyPairSync("rsa", { modulusLength: 2048 })],
  ["P-384", () => generateKeyPairSync("ec", { namedCurve: "P-384" })],
  ["Ed25519", () => generateKeyPairSync("ed25519")],
])("a key of type %s is refused by name", (_, makePair) => {
  const privateKey = createPrivateKey(makePair().privateKey.export({ type: "pkcs8", format: "pem" }));
  expect(() => createTokenMinter({ clock }).mint({ ...own, privateKey }, PEER)).toThrow(
    expect.objectContaining({ code: "FAILED_PRECONDITION", reason: "identity-key" }),
  );
});

const pair = (token: string, expires: string) => ({
  "nsm-client-token": [token],
  "nsm-client-token-expires": [expires],
});
const read = (metadata: Readonly<Record<string, readonly string[]>>) =>
  readTokenMetadata({ get: (key) => metadata[key] ?? [] });

test("metadata carries the token to the nanosecond", () => {
  const token: PathToken = {
    token: "t",
    expires: { seconds: 1925089445n, nanos: 1000 },
    expiresMs: 1925089445000,
  };
  expect(writeTokenMetadata(token)).toEqual({
    "nsm-client-token": "t",
    "nsm-client-token-expires": "2031-01-02T03:04:05.000001Z",
  });
  expect(read(pair("t", "2031-01-02T03:04:05.000001Z"))).toEqual(token);
});

test.each([
  ["nothing", {}],
  ["no expiry", { "nsm-client-token": ["t"] }],
  ["no token", { "nsm-client-token-expires": ["2031-01-02T03:04:05Z"] }],
  ["two tokens", { ...pair("t", "2031-01-02T03:04:05Z"), "nsm-client-token": ["t", "t"] }],
  [
    "two expiries",
    { ...pair("t", ""), "nsm-client-token-expires": ["2031-01-02T03:04:05Z", "2031-01-02T03:04:05Z"] },
  ],
  ["an unreadable expiry", pair("t", "tomorrow")],
])("%s is no token", (_, metadata) => {
  expect(read(metadata)).toBeUndefined();
});

test("tokens go into the caller's and the own segment only", () => {
  const path = create(PathSchema, {
    index: 1,
    pathSegments: [{ token: "a" }, { token: "b" }, { token: "c" }],
  });
  const make = (token: string): PathToken => ({ token, expires: { seconds: 1n, nanos: 2 }, expiresMs: 1000 });
  placeTokens(path, make("caller"), make("own"));
  expect(path.pathSegments.map((segment) => segment.token)).toEqual(["caller", "own", "c"]);
  expect(path.pathSegments[0]?.expires).toMatchObject({ seconds: 1n, nanos: 2 });
  placeTokens(path, undefined, make("newer"));
  expect(path.pathSegments.map((segment) => segment.token)).toEqual(["caller", "newer", "c"]);
  path.index = 0;
  placeTokens(path, make("nobody's"), make("first"));
  expect(path.pathSegments.map((segment) => segment.token)).toEqual(["first", "newer", "c"]);
  path.index = 2 ** 32 - 1;
  placeTokens(path, make("x"), make("y"));
  expect(path.pathSegments.map((segment) => segment.token)).toEqual(["first", "newer", "c"]);
});
