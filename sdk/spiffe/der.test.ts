import { X509Certificate } from "node:crypto";
import { beforeAll, describe, expect, test } from "vitest";
import { create } from "@bufbuild/protobuf";
import { X509SVIDResponseSchema } from "../../api/gen/workload_pb.js";
import { makeAuthority, makeCertificate, svidExtensions } from "../../test/support/certificates.ts";
import { NsmError } from "../errors.ts";
import { readCertificate, readCertificates } from "./certificate.ts";
import {
  readBits,
  readBoolean,
  readDer,
  readDerSequence,
  readDerWhole,
  readOid,
  readSmallInteger,
} from "./der.ts";
import { readJwtKeys } from "./jwt.ts";
import { verifySvid } from "./verify.ts";
import { readX509Response } from "./x509-message.ts";

const hex = (text: string) => Buffer.from(text, "hex");
const whole = (text: string) => readDerWhole(hex(text));

describe("values", () => {
  test("nest and follow one another", () => {
    const outer = whole("3006020101020102");
    expect(readDerSequence(outer.content).map(readSmallInteger)).toEqual([1, 2]);
    expect(readDer(hex("040161ff"))).toMatchObject({ tag: 4, raw: hex("040161"), content: hex("61") });
    expect(whole(`048180${"00".repeat(128)}`).content).toHaveLength(128);
  });

  test.each([
    ["nothing", ""],
    ["tag only", "30"],
    ["content cut", "3005020101"],
    ["length cut", "3082"],
    ["indefinite length", "30800000"],
    ["length not minimal", "04810161"],
    ["length with a leading zero", "0482000161"],
    ["length of five bytes", "04850000000001ff"],
    ["high tag number", "1f8101026161"],
    ["bytes after it", "0201ff00"],
  ])("%s is refused", (_, text) => {
    expect(() => whole(text)).toThrow(expect.objectContaining({ reason: "bad-der" }));
  });
});

test("object identifiers", () => {
  expect(readOid(whole("0603551d11"))).toBe("2.5.29.17");
  expect(readOid(whole("06082a8648ce3d040302"))).toBe("1.2.840.10045.4.3.2");
  expect(readOid(whole("0603883703"))).toBe("2.999.3");
  for (const text of ["0600", "060155ff", "060288", "0603558001", "060a55ffffffffffffffff7f"])
    expect(() => readOid(whole(text))).toThrow(NsmError);
});

test("booleans, integers and bits have one form", () => {
  expect([readBoolean(whole("0101ff")), readBoolean(whole("010100"))]).toEqual([true, false]);
  expect(
    ["020100", "02017f", "02020080", "02047fffffff"].map((text) => readSmallInteger(whole(text))),
  ).toEqual([0, 127, 128, 2147483647]);
  expect([...readBits(whole("03020186"))]).toEqual([0, 5, 6]);
  expect([...readBits(whole("03010000".slice(0, 6)))]).toEqual([]);
  for (const text of ["010101", "0100", "01020000"]) expect(() => readBoolean(whole(text))).toThrow(NsmError);
  for (const text of ["0200", "0201ff", "02020001", "020500ffffffff"])
    expect(() => readSmallInteger(whole(text))).toThrow(NsmError);
  for (const text of ["0300", "030108", "030101", "03020103"])
    expect(() => readBits(whole(text))).toThrow(NsmError);
});

describe("spoiled input", () => {
  const FUZZ_MS = 1000;
  let samples: readonly Buffer[];
  let bundles: ReadonlyMap<string, readonly X509Certificate[]>;
  let message: {
    readonly x509Svid: Uint8Array;
    readonly x509SvidKey: Uint8Array;
    readonly bundle: Uint8Array;
  };

  beforeAll(async () => {
    const authority = await makeAuthority("a.test");
    const { svid } = await authority.issue("/x");
    bundles = authority.bundles;
    const other = await makeCertificate({ extensions: svidExtensions("spiffe://a.test/y") });
    samples = [authority.ca.der, other.der, ...svid.chain.map(({ raw }) => raw)];
    message = {
      x509Svid: Buffer.concat(svid.chain.map(({ raw }) => raw)),
      x509SvidKey: svid.privateKey.export({ type: "pkcs8", format: "der" }),
      bundle: authority.ca.der,
    };
  });

  /** One to four changes: a byte replaced, a bit turned, a piece removed, repeated or taken from elsewhere. */
  function spoil(bytes: Uint8Array): Buffer {
    let result = Buffer.from(bytes);
    const below = (n: number) => Math.floor(Math.random() * n);
    for (let left = 1 + below(4); left > 0; left--) {
      const at = below(result.length + 1);
      const length = below(8);
      const rest = result.subarray(Math.min(result.length, at + length));
      const pieces = [
        [result.subarray(0, at), Buffer.of(below(256)), result.subarray(at + 1)],
        [result.subarray(0, at), Buffer.of((result[at] ?? 0) ^ (1 << below(8))), result.subarray(at + 1)],
        [result.subarray(0, at), rest],
        [result.subarray(0, at + length), result.subarray(at)],
        [result.subarray(0, at), result.subarray(below(result.length + 1)).subarray(0, length), rest],
      ];
      result = Buffer.concat(pieces[below(pieces.length)] ?? []);
    }
    return result;
  }

  const MAX_INPUT_MS = 5;

  /** Spoils and reads for a while; anything but a value or an NsmError, and an input that is always slow, is a fault. */
  function fuzz(original: () => Buffer, read: (input: Buffer) => void): number {
    const timed = (input: Buffer): number => {
      const started = performance.now();
      try {
        read(input);
      } catch (error) {
        if (!(error instanceof NsmError)) throw error;
      }
      return performance.now() - started;
    };
    let count = 0;
    for (const end = performance.now() + FUZZ_MS; performance.now() < end; count++) {
      const input = spoil(original());
      // A pause of the machine is none of ours: slow is what is slow every time.
      let tries = 0;
      while (timed(input) > MAX_INPUT_MS)
        if (++tries === 5) throw new Error(`slow input: ${input.toString("hex")}`);
    }
    return count;
  }

  test("certificates are read or refused, never half-read, and never more laxly than OpenSSL", () => {
    let i = 0;
    const next = () => samples[i++ % samples.length] ?? Buffer.alloc(0);
    const count = fuzz(next, (der) => {
      const { x509 } = readCertificate(der);
      expect(new X509Certificate(der).raw.equals(x509.raw)).toBe(true);
      expect(readCertificates(Buffer.concat([der, der]))).toHaveLength(2);
    });
    expect(count).toBeGreaterThan(1000);
  });

  test("a spoiled chain is never verified", () => {
    const original = samples.at(-1) ?? Buffer.alloc(0);
    const count = fuzz(
      () => original,
      (der) => {
        if (der.equals(original)) return;
        try {
          verifySvid([der], bundles, Date.now());
        } catch (error) {
          if (error instanceof NsmError && error.code === "UNAUTHENTICATED") return;
          throw error;
        }
        throw new Error(`verified: ${der.toString("hex")}`);
      },
    );
    expect(count).toBeGreaterThan(1000);
  });

  test.each(["x509Svid", "x509SvidKey", "bundle"] as const)(
    "a message with a spoiled %s is taken whole or refused",
    (part) => {
      const count = fuzz(
        () => Buffer.from(message[part]),
        (spoiled) => {
          const svid = { spiffeId: "spiffe://a.test/x", ...message, [part]: spoiled };
          readX509Response(create(X509SVIDResponseSchema, { svids: [svid] }), undefined, Date.now());
        },
      );
      expect(count).toBeGreaterThan(300);
    },
  );

  test("JWK Sets are read or refused", () => {
    const json = Buffer.from(
      JSON.stringify({
        keys: [{ kty: "EC", kid: "k", crv: "P-256", x: "AA", y: "AA", use: "jwt-svid" }, { kty: "RSA" }],
      }),
    );
    const count = fuzz(
      () => json,
      (spoiled) => void readJwtKeys(spoiled.toString()),
    );
    expect(count).toBeGreaterThan(1000);
  });
});
