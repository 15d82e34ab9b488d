/** Good and bad tokens: every header with every payload and every signature, against verdicts that the parts name themselves. */
import { sign } from "node:crypto";
import { beforeAll, expect, test } from "vitest";
import { makeAuthority } from "../test/support/certificates.ts";
import { parseToken } from "./jwt.ts";
import {
  authorizeServerPath,
  prevTokenSigned,
  tokensChained,
  tokensExpired,
  tokensValid,
} from "./policies.ts";
import type { X509Svid } from "./spiffe/source.ts";
import { fastest } from "../test/support/timing.ts";

const NOW_MS = 1_800_000_000_000;
const FUTURE = 1_900_000_000;
const CALLER = "spiffe://example.org/caller";
const SELF = "spiffe://example.org/self";

let caller: X509Svid;
let stranger: X509Svid;
beforeAll(async () => {
  const authority = await makeAuthority("example.org");
  ({ svid: caller } = await authority.issue("/caller"));
  ({ svid: stranger } = await authority.issue("/stranger"));
});

interface Part {
  readonly about: string;
  readonly text: string;
}

/** `reads`: is a signed JWT's header. `claims`: lets the payload count as claims. */
const HEADERS: readonly (Part & { readonly reads: boolean; readonly claims: boolean })[] = [
  { about: "usual", text: '{"alg":"ES256","typ":"JWT"}', reads: true, claims: true },
  { about: "empty object", text: "{}", reads: true, claims: true },
  { about: "alg none", text: '{"alg":"none"}', reads: true, claims: true },
  { about: "alg HS256", text: '{"alg":"HS256"}', reads: true, claims: true },
  { about: "alg ES384", text: '{"alg":"ES384"}', reads: true, claims: true },
  {
    about: "key to trust",
    text: '{"alg":"ES256","jwk":{"kty":"EC"},"jku":"https://evil","x5u":"x"}',
    reads: true,
    claims: true,
  },
  { about: "crit", text: '{"alg":"ES256","crit":["b64"],"b64":false}', reads: true, claims: true },
  { about: "nested", text: '{"alg":"ES256","cty":"JWT"}', reads: true, claims: false },
  { about: "encrypted", text: '{"alg":"ES256","enc":"A128GCM"}', reads: false, claims: false },
  { about: "repeated member", text: '{"alg":"ES256","alg":"none"}', reads: false, claims: false },
  { about: "array", text: "[]", reads: false, claims: false },
  { about: "no JSON", text: "{", reads: false, claims: false },
  { about: "deep", text: `{"a":${"[".repeat(40)}${"]".repeat(40)}}`, reads: false, claims: false },
];

/** `ahead`: has not expired. `link`: verdict of the chain from this token to our own. */
const PAYLOADS: readonly (Part & {
  readonly reads: boolean;
  readonly ahead: boolean;
  readonly link: string;
})[] = [
  claims("usual", {}, true, "allow"),
  claims("exp now", { exp: NOW_MS / 1000 }, false, "allow"),
  claims("exp in a second", { exp: NOW_MS / 1000 + 1 }, true, "allow"),
  claims("exp fraction", { exp: FUTURE + 0.5 }, true, "allow"),
  claims("exp negative", { exp: -5 }, false, "allow"),
  claims("exp zero", { exp: 0 }, false, "allow"),
  claims("exp missing", { exp: undefined }, false, "allow"),
  claims("exp null", { exp: null }, false, "allow"),
  claims("exp true", { exp: true }, false, "allow"),
  claims("exp text", { exp: "1" }, true, "allow"),
  claims("exp array", { exp: [] }, true, "allow"),
  claims("exp object", { exp: {} }, true, "allow"),
  claims("aud text", { aud: SELF }, true, "deny"),
  claims("aud missing", { aud: undefined }, true, "deny"),
  claims("aud empty", { aud: [] }, true, "deny"),
  claims("aud other", { aud: [CALLER] }, true, "deny"),
  claims("aud fits and not", { aud: [SELF, CALLER] }, true, "error"),
  claims("aud fits twice", { aud: [SELF, SELF] }, true, "allow"),
  claims("aud object", { aud: { a: SELF } }, true, "allow"),
  claims("aud null element", { aud: [null] }, true, "deny"),
  claims("aud prefix", { aud: [`${SELF}/more`] }, true, "deny"),
  claims("sub other", { sub: SELF }, true, "allow"),
  claims("nbf ahead", { nbf: FUTURE }, true, "allow"),
  {
    about: "exp 1e400",
    text: `{"sub":"${CALLER}","aud":["${SELF}"],"exp":1e400}`,
    reads: true,
    ahead: true,
    link: "allow",
  },
  {
    about: "repeated exp",
    text: `{"sub":"${CALLER}","aud":["${SELF}"],"exp":1,"exp":${FUTURE}}`,
    reads: false,
    ahead: false,
    link: "deny",
  },
  { about: "array", text: "[1]", reads: false, ahead: false, link: "deny" },
  { about: "text", text: "hello", reads: false, ahead: false, link: "deny" },
  { about: "empty", text: "", reads: false, ahead: false, link: "deny" },
];

/** `reads`: is base64url. `valid`: signed by the caller. */
const SIGNATURES: readonly {
  readonly about: string;
  readonly reads: boolean;
  readonly valid: boolean;
  readonly make: (input: string) => string;
}[] = [
  { about: "good", reads: true, valid: true, make: (input) => signed(input, caller) },
  { about: "padded", reads: true, valid: true, make: (input) => `${signed(input, caller)}==` },
  { about: "its second form", reads: true, valid: true, make: (input) => secondForm(signed(input, caller)) },
  { about: "by a stranger", reads: true, valid: false, make: (input) => signed(input, stranger) },
  { about: "of other text", reads: true, valid: false, make: (input) => signed(`${input}x`, caller) },
  { about: "empty", reads: true, valid: false, make: () => "" },
  { about: "zero", reads: true, valid: false, make: () => Buffer.alloc(64).toString("base64url") },
  { about: "DER", reads: true, valid: false, make: (input) => signed(input, caller, "der") },
  {
    about: "63 bytes",
    reads: true,
    valid: false,
    make: (input) => bytesOf(signed(input, caller)).subarray(1).toString("base64url"),
  },
  {
    about: "65 bytes",
    reads: true,
    valid: false,
    make: (input) => Buffer.concat([bytesOf(signed(input, caller)), Buffer.alloc(1)]).toString("base64url"),
  },
  { about: "with a blank", reads: false, valid: false, make: (input) => `${signed(input, caller)} ` },
  { about: "with a line break", reads: false, valid: false, make: (input) => `${signed(input, caller)}\n` },
  { about: "other alphabet", reads: false, valid: false, make: () => "+/".repeat(43) },
  { about: "one = too few", reads: false, valid: false, make: (input) => `${signed(input, caller)}=` },
  { about: "a fourth part", reads: false, valid: false, make: (input) => `${signed(input, caller)}.x` },
];

const MATRIX = HEADERS.flatMap((header) =>
  PAYLOADS.flatMap((payload) => SIGNATURES.map((signature) => ({ header, payload, signature }))),
);

test(`all ${MATRIX.length} combinations get their verdicts`, () => {
  const peerCertificate = caller.chain[0];
  const ownToken = `${encode("{}")}.${encode(`{"sub":"${SELF}","exp":${FUTURE}}`)}.`;
  const wrong: unknown[] = [];
  for (const { header, payload, signature } of MATRIX) {
    const input = `${encode(header.text)}.${encode(payload.text)}`;
    const token = `${input}.${signature.make(input)}`;
    const facts = { tokens: [token, ownToken], index: 1, peerCertificate, nowMs: NOW_MS };
    const ours = [tokensValid, tokensExpired, tokensChained, prevTokenSigned].map(({ decide }) =>
      decide(facts),
    );

    const isToken = header.reads && signature.reads;
    const hasClaims = isToken && header.claims && payload.reads;
    const expected = [
      hasClaims ? "allow" : "deny",
      hasClaims && payload.ahead ? "allow" : "deny",
      hasClaims ? payload.link : "deny",
      isToken && signature.valid ? "allow" : "deny",
    ];
    if (ours.join() !== expected.join())
      wrong.push([header.about, payload.about, signature.about, ours, expected]);
  }
  expect(wrong).toEqual([]);
});

test.each([
  ["nothing", ""],
  ["dots", "..."],
  ["text", "just text"],
  ["two parts", "e30.e30"],
  ["64 KiB", "A".repeat(65_536)],
  ["a million dots", ".".repeat(1_000_000)],
  ["64 KiB of JSON", `${encode("{}")}.${encode(`{"sub":"${"x".repeat(65_536)}"}`)}.`],
])("%s is no token, and refused at once", (_, token) => {
  expect(parseToken(token)).toBeUndefined();
  // A search that grows faster than the text would take seconds.
  expect(fastest(() => parseToken(token))).toBeLessThan(1000);
});

test("a refusal names the policy and no token", () => {
  const token = `${encode("{}")}.${encode(`{"exp":1,"aud":["${SELF}"]}`)}.`;
  const own = `${encode("{}")}.${encode(`{"exp":${FUTURE},"sub":"${SELF}"}`)}.`;
  expect(() => authorizeServerPath([token, own], 1, caller.chain[0], NOW_MS)).toThrow(
    expect.objectContaining({
      code: "PERMISSION_DENIED",
      reason: "policy",
      message: expect.stringMatching(/^policy common\/tokens_expired: [^.]*$/),
    }),
  );
});

function claims(about: string, changed: Readonly<Record<string, unknown>>, ahead: boolean, link: string) {
  const text = JSON.stringify({ sub: CALLER, aud: [SELF], exp: FUTURE, ...changed });
  return { about, text, reads: true, ahead, link };
}

function encode(text: string): string {
  return Buffer.from(text).toString("base64url");
}

function bytesOf(text: string): Buffer {
  return Buffer.from(text, "base64url");
}

function signed(input: string, by: X509Svid, dsaEncoding: "der" | "ieee-p1363" = "ieee-p1363"): string {
  return sign("sha256", Buffer.from(input), { key: by.privateKey, dsaEncoding }).toString("base64url");
}

/** (r, n-s) is as valid as (r, s). */
function secondForm(signature: string): string {
  const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
  const bytes = bytesOf(signature);
  const s = order - BigInt(`0x${bytes.subarray(32).toString("hex")}`);
  return Buffer.concat([
    bytes.subarray(0, 32),
    Buffer.from(s.toString(16).padStart(64, "0"), "hex"),
  ]).toString("base64url");
}
