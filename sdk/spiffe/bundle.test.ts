import { generateKeyPairSync } from "node:crypto";
import * as fc from "fast-check";
import { exportJWK } from "jose";
import { beforeAll, describe, expect, test } from "vitest";
import {
  caExtensions,
  makeCa,
  makeCertificate,
  rsa,
  svidExtensions,
  x509Of,
} from "../../test/support/certificates.ts";
import type { Holder } from "../../test/support/certificates.ts";
import { NsmError } from "../errors.ts";
import { MAX_BUNDLE_BYTES, formatBundle, isNews, parseBundle } from "./bundle.ts";
import type { Bundle } from "./bundle.ts";

let ca: Holder;
let another: Holder;
let x509Key: Readonly<Record<string, unknown>>;
let jwtKey: Readonly<Record<string, unknown>>;
let good: Bundle;
beforeAll(async () => {
  [ca, another] = await Promise.all([makeCa("CN=one"), makeCa("CN=two")]);
  x509Key = {
    use: "x509-svid",
    ...x509Of(ca).publicKey.export({ format: "jwk" }),
    x5c: [ca.der.toString("base64")],
  };
  const jwk = await exportJWK(generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey);
  jwtKey = { use: "jwt-svid", kid: "k1", ...jwk };
  good = {
    certificates: [x509Of(ca), x509Of(another)],
    jwtKeys: [{ kid: "k1", ...jwk }],
    sequence: 7n,
    refreshHintSeconds: 60,
  };
});

const document = (keys: readonly unknown[], more: object = {}) => JSON.stringify({ ...more, keys });

test("a bundle survives its document, a sequence of 64 bits too", () => {
  for (const sequence of [undefined, 0n, 2n ** 53n + 1n, 2n ** 64n - 1n])
    for (const refreshHintSeconds of [undefined, 0, 300]) {
      const read = parseBundle(formatBundle({ ...good, sequence, refreshHintSeconds }));
      expect(read).toMatchObject({ sequence, refreshHintSeconds });
      expect(read.certificates.map(({ raw }) => raw)).toEqual(good.certificates.map(({ raw }) => raw));
      expect(read.jwtKeys).toEqual(good.jwtKeys);
    }
});

test("what is written is what the standard says: x5c with one certificate and no kid, jwt keys with kid", () => {
  const { keys, ...others } = JSON.parse(formatBundle(good));
  expect(others).toEqual({ spiffe_sequence: 7, spiffe_refresh_hint: 60 });
  expect(keys[0]).toEqual({ ...x509Key, kty: "EC", crv: "P-256" });
  expect(keys[2]).toEqual({ ...jwtKey, kty: "EC" });
});

test("no keys at all means that everything is withdrawn", () => {
  expect(parseBundle('{"keys":[]}')).toEqual({
    certificates: [],
    jwtKeys: [],
    sequence: undefined,
    refreshHintSeconds: undefined,
  });
});

describe("an element of no use is skipped, and the others count", () => {
  const spoilt: readonly (readonly [string, () => unknown])[] = [
    ["no object", () => "key"],
    ["null", () => null],
    ["no use", () => ({ ...x509Key, use: undefined })],
    ["use in capitals", () => ({ ...x509Key, use: "X509-SVID" })],
    ["use of others", () => ({ ...x509Key, use: "wit-svid" })],
    ["no kty", () => ({ ...x509Key, kty: undefined })],
    ["unknown kty", () => ({ ...x509Key, kty: "AKP" })],
    ["no x5c", () => ({ ...x509Key, x5c: undefined })],
    ["empty x5c", () => ({ ...x509Key, x5c: [] })],
    ["x5c that is text", () => ({ ...x509Key, x5c: another.der.toString("base64") })],
    ["x5c of numbers", () => ({ ...x509Key, x5c: [1] })],
    [
      "x5c in base64url",
      () => ({ ...x509Key, x5c: [Buffer.from([...another.der, 0xfb, 0xff]).toString("base64url")] }),
    ],
    ["x5c with white space", () => ({ ...x509Key, x5c: [` ${another.der.toString("base64")}`] })],
    ["a cut certificate", () => ({ ...x509Key, x5c: [another.der.subarray(0, -1).toString("base64")] })],
    [
      "two certificates in one",
      () => ({ ...x509Key, x5c: [Buffer.concat([another.der, another.der]).toString("base64")] }),
    ],
    ["a jwt key without kid", () => ({ ...jwtKey, kid: undefined })],
    ["a jwt key with an empty kid", () => ({ ...jwtKey, kid: "" })],
    ["a jwt key without coordinates", () => ({ ...jwtKey, kid: "k2", x: undefined })],
    ["a jwt key off its curve", () => ({ ...jwtKey, kid: "k2", x: jwtKey["y"] })],
    ["a second jwt key of the same kid", () => ({ ...jwtKey, d: "secret" })],
    ["a shared secret", () => ({ use: "jwt-svid", kid: "k2", kty: "oct", k: "AAAA" })],
  ];
  test.each(spoilt)("%s", (_, element) => {
    const { certificates, jwtKeys } = parseBundle(document([x509Key, jwtKey, element()]));
    expect(certificates.map(({ raw }) => raw)).toEqual([ca.der]);
    expect(jwtKeys).toEqual(good.jwtKeys);
  });

  test("certificates that may not sign, or whose key is weak", async () => {
    const holders = await Promise.all([
      makeCertificate({ extensions: svidExtensions("spiffe://a.test/x") }),
      makeCertificate({ extensions: [] }),
      makeCertificate({ extensions: caExtensions(), algorithm: rsa(1024) }),
    ]);
    const keys = holders.map((holder) => ({ ...x509Key, x5c: [holder.der.toString("base64")] }));
    expect(parseBundle(document(keys)).certificates).toEqual([]);
  });

  test("weak JWT keys; strong RSA keys count", async () => {
    const rsaKey = async (modulusLength: number) => ({
      use: "jwt-svid",
      kid: String(modulusLength),
      ...(await exportJWK(generateKeyPairSync("rsa", { modulusLength }).publicKey)),
    });
    const keys = await Promise.all([rsaKey(1024), rsaKey(2048)]);
    expect(parseBundle(document(keys)).jwtKeys.map(({ kid }) => kid)).toEqual(["2048"]);
  });
});

test("the first certificate of x5c counts, the same one twice is one; a kid or unknown members do no harm", () => {
  const two = {
    ...x509Key,
    kid: "x",
    future: { a: [] },
    x5c: [ca.der.toString("base64"), another.der.toString("base64")],
  };
  const { certificates } = parseBundle(document([two, x509Key], { spiffe_future: 1.5 }));
  expect(certificates.map(({ raw }) => raw)).toEqual([ca.der]);
});

describe("a document is refused as a whole", () => {
  test.each<[string, string | Uint8Array]>([
    ["no JSON", "{"],
    ["no object", "[]"],
    ["no keys", "{}"],
    ["keys that are no array", '{"keys":{}}'],
    ["keys twice", '{"keys":[],"keys":[]}'],
    ["a sequence in text", '{"keys":[],"spiffe_sequence":"1"}'],
    ["a negative sequence", '{"keys":[],"spiffe_sequence":-1}'],
    ["a fraction as sequence", '{"keys":[],"spiffe_sequence":1.5}'],
    ["an exponent", '{"keys":[],"spiffe_sequence":1e400}'],
    ["a sequence of 65 bits", '{"keys":[],"spiffe_sequence":18446744073709551616}'],
    ["a hint of null", '{"keys":[],"spiffe_refresh_hint":null}'],
    ["deep nesting", `{"keys":[],"x":${"[".repeat(100_000)}`],
    ["no UTF-8", Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d)],
  ])("%s", (_, text) => {
    expect(() => parseBundle(text)).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "bad-bundle" }),
    );
  });

  test("too many bytes, certificates or keys", async () => {
    const large = expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "bundle-too-large" });
    expect(() => parseBundle(`{"keys":[]${" ".repeat(MAX_BUNDLE_BYTES)}}`)).toThrow(large);
    const keys = Array.from({ length: 65 }, (_, i) => ({ ...jwtKey, kid: `k${i}` }));
    expect(() => parseBundle(document(keys))).toThrow(large);
    const cas = await Promise.all(Array.from({ length: 65 }, (_, i) => makeCa(`CN=${i}`, { keys: ca.keys })));
    const many = cas.map(({ der }) => ({ ...x509Key, x5c: [der.toString("base64")] }));
    expect(() => parseBundle(document(many))).toThrow(large);
    expect(parseBundle(document(many.slice(1))).certificates).toHaveLength(64);
  });
});

describe("which of two documents counts", () => {
  test("a higher sequence, or the newest where one has none", () => {
    const other = { ...good, certificates: [] };
    expect(isNews(good, undefined, "a.test")).toBe(true);
    expect(isNews({ ...good, sequence: 8n }, good, "a.test")).toBe(true);
    expect(isNews({ ...other, sequence: undefined }, good, "a.test")).toBe(true);
    expect(isNews(other, { ...good, sequence: undefined }, "a.test")).toBe(true);
    expect(isNews(parseBundle(formatBundle(good)), good, "a.test")).toBe(false);
  });

  test("a sequence that goes backwards is refused, with both numbers", () => {
    expect(() =>
      isNews({ ...good, sequence: 2n ** 53n }, { ...good, sequence: 2n ** 53n + 1n }, "a.test"),
    ).toThrow(
      expect.objectContaining({
        code: "FAILED_PRECONDITION",
        reason: "sequence-backwards",
        message: expect.stringMatching(/a\.test.*9007199254740992 .*9007199254740993/),
      }),
    );
  });
});

test("whatever bytes come: a bundle that can be written again, or a refusal", () => {
  const text = formatBundle(good);
  const scraps = fc.constantFrom(
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "0",
    "-",
    "e",
    "\\",
    "\u0000",
    "x5c",
    "é",
    "null",
  );
  const cuts = fc.array(fc.tuple(fc.nat(text.length), fc.nat(8), scraps), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(cuts, (list) => {
      const spoilt = list.reduce(
        (all, [at, length, by]) => all.slice(0, at) + by + all.slice(at + length),
        text,
      );
      const verdict = verdictOf(spoilt);
      expect(verdict === "bad-bundle" || verdict === formatBundle(parseBundle(verdict))).toBe(true);
    }),
    { numRuns: 500 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => verdictOf(bytes) === "bad-bundle"));
});

/** The document written again, or the reason of the refusal. */
function verdictOf(document: string | Uint8Array): string {
  try {
    return formatBundle(parseBundle(document));
  } catch (error) {
    if (error instanceof NsmError && error.code === "INVALID_ARGUMENT") return error.reason;
    throw error;
  }
}
