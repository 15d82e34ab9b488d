import { generateKeyPairSync } from "node:crypto";
import { SignJWT, base64url, exportJWK } from "jose";
import type { JWK } from "jose";
import { beforeAll, expect, test } from "vitest";
import { NsmError } from "../errors.ts";
import { readJwtKeys, verifyJwtSvid } from "./jwt.ts";

const ID = "spiffe://a.test/x";
const now = Date.now();
const seconds = Math.floor(now / 1000);
const ec = () => generateKeyPairSync("ec", { namedCurve: "P-256" });
const keys = { a: ec(), b: ec(), rsa: generateKeyPairSync("rsa", { modulusLength: 2048 }) };

let bundles: ReadonlyMap<string, readonly JWK[]>;
beforeAll(async () => {
  const set = async (
    ...pairs: readonly (readonly [string, { readonly publicKey: typeof keys.a.publicKey }])[]
  ) =>
    readJwtKeys(
      JSON.stringify({
        keys: await Promise.all(
          pairs.map(async ([kid, pair]) => ({ ...(await exportJWK(pair.publicKey)), kid, use: "jwt-svid" })),
        ),
      }),
    );
  bundles = new Map([
    ["a.test", await set(["k1", keys.a], ["k2", keys.rsa])],
    ["b.test", await set(["k1", keys.b])],
  ]);
});

interface Token {
  readonly header?: Readonly<Record<string, unknown>>;
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly key?: typeof keys.a.privateKey;
}

function sign({ header = {}, claims = {}, key = keys.a.privateKey }: Token = {}): Promise<string> {
  const payload = { sub: ID, aud: ["me"], exp: seconds + 60, ...claims };
  return new SignJWT(payload).setProtectedHeader({ alg: "ES256", kid: "k1", ...header }).sign(key);
}

async function verdict(token: string): Promise<string> {
  try {
    return (await verifyJwtSvid(token, bundles, "me", now)).id;
  } catch (error) {
    if (error instanceof NsmError && error.code === "UNAUTHENTICATED") return error.reason;
    throw error;
  }
}

const text = (value: unknown) => base64url.encode(JSON.stringify(value));
const unsigned = (header: unknown) =>
  `${text(header)}.${text({ sub: ID, aud: "me", exp: seconds + 60 })}.AAAA`;

test.each<[name: string, token: Token, expected: string]>([
  ["a proper one", {}, ID],
  ["typ JWT", { header: { typ: "JWT" } }, ID],
  ["typ JOSE", { header: { typ: "JOSE" } }, ID],
  ["RSA", { header: { alg: "RS256", kid: "k2" }, key: keys.rsa.privateKey }, ID],
  ["RSA-PSS", { header: { alg: "PS512", kid: "k2" }, key: keys.rsa.privateKey }, ID],
  ["audience as text", { claims: { aud: "me" } }, ID],
  ["several audiences", { claims: { aud: ["you", "me"] } }, ID],
  ["expired within the leeway", { claims: { exp: seconds - 3 } }, ID],
  ["expired", { claims: { exp: seconds - 10 } }, "jwt-expired"],
  ["no expiry", { claims: { exp: undefined } }, "jwt-malformed"],
  ["expiry as text", { claims: { exp: `${seconds + 60}` } }, "jwt-malformed"],
  ["not yet valid", { claims: { nbf: seconds + 60 } }, "jwt-malformed"],
  ["another audience", { claims: { aud: ["you"] } }, "jwt-wrong-audience"],
  ["no audience", { claims: { aud: undefined } }, "jwt-wrong-audience"],
  ["empty audience", { claims: { aud: [] } }, "jwt-wrong-audience"],
  ["no subject", { claims: { sub: undefined } }, "jwt-malformed"],
  ["a trust domain as subject", { claims: { sub: "spiffe://a.test" } }, "jwt-malformed"],
  ["an upper-case subject", { claims: { sub: "spiffe://A.test/x" } }, "jwt-malformed"],
  ["an unknown trust domain", { claims: { sub: "spiffe://c.test/x" } }, "jwt-unknown-trust-domain"],
  ["another domain's key of the same name", { key: keys.b.privateKey }, "jwt-untrusted"],
  ["an unknown key", { header: { kid: "k9" } }, "jwt-untrusted"],
  ["no kid", { header: { kid: undefined } }, "jwt-malformed"],
  ["an algorithm that does not fit the key", { header: { kid: "k2" } }, "jwt-untrusted"],
  ["another typ", { header: { typ: "at+jwt" } }, "jwt-malformed"],
  ["a certificate in the header", { header: { x5c: ["AA"] } }, "jwt-malformed"],
  ["a key in the header", { header: { jwk: { kty: "EC" } } }, "jwt-malformed"],
])("%s", async (_, token, expected) => {
  expect(await verdict(await sign(token))).toBe(expected);
});

test("algorithms that are not in the list are refused before any key is chosen", async () => {
  for (const alg of ["none", "HS256", "EdDSA", "", undefined, 5])
    expect(await verdict(unsigned({ alg, kid: "k1" }))).toBe("jwt-malformed");
  expect(await verdict(unsigned({ alg: "ES256", kid: "k1" }))).toBe("jwt-untrusted");
});

test("only the one spelling of a compact JWS is read", async () => {
  const token = await sign();
  const [header = "", payload = "", signature = ""] = token.split(".");
  const doubled = base64url.encode(`{"sub":"${ID}","sub":"${ID}","aud":"me","exp":${seconds + 60}}`);
  for (const text of [
    "",
    "..",
    `${header}.${payload}`,
    `${token}.`,
    `${header}=.${payload}.${signature}`,
    ` ${token}`,
    `${header}.${payload}A.${signature}`,
    `${header}.${doubled}.${signature}`,
    JSON.stringify({ payload, protected: header, signature }),
    `${header}.${"A".repeat(20_000)}.${signature}`,
  ])
    expect(await verdict(text)).toBe("jwt-malformed");
});

test("a key set gives its JWT keys, only their public members, and skips what it does not know", () => {
  const jwk = { kty: "EC", kid: "k", crv: "P-256", x: "AA", y: "AA" };
  const set = [
    { ...jwk, use: "jwt-svid", alg: "ES256", d: "secret", __proto__: null },
    { ...jwk, kid: "without use, as SPIRE sends it here" },
    { ...jwk, use: "x509-svid" },
    { ...jwk, kid: "" },
    { kty: "oct", kid: "k", k: "AA" },
    { kty: "EC", kid: "k" },
    "rubbish",
  ];
  expect(readJwtKeys(JSON.stringify({ keys: set, spiffe_sequence: 5 }))).toEqual([
    jwk,
    { ...jwk, kid: "without use, as SPIRE sends it here" },
  ]);
  expect(readJwtKeys('{"keys":[]}')).toEqual([]);
  for (const json of ["", "{}", '{"keys":{}}', '{"keys":[],"keys":[]}'])
    expect(() => readJwtKeys(json)).toThrow(NsmError);
});
