/**
 * SPIFFE bundle documents, both ways: the keys of one trust domain as a JWK Set (SPIFFE standard "Trust Domain and Bundle", §4;
 * RFC 7517). A document does not say whose it is: whoever reads it knows from where it came.
 */
import { X509Certificate, createPublicKey } from "node:crypto";
import type { JWK } from "jose";
import { NsmError } from "../errors.ts";
import { isJsonObject, parseJson } from "../json.ts";
import type { JsonObject, JsonValue } from "../json.ts";
import { KeyUsage, factsOf, keyWeakness, readCertificate } from "./certificate.ts";
import { readJwtKey } from "./jwt.ts";

/** Larger documents are refused. */
export const MAX_BUNDLE_BYTES = 1024 * 1024;
/** More than a rotation needs; what a domain publishes goes to every workload of those that trust it. */
const MAX_CERTIFICATES = 64;
const MAX_CERTIFICATE_BYTES = 8 * 1024;
const MAX_JWT_KEYS = 64;
const MAX_UINT64 = 2n ** 64n - 1n;
const MIN_RSA_BITS = 2048;

export interface Bundle {
  /** CA certificates. Empty: no X509-SVID of the domain is to be trusted. */
  readonly certificates: readonly X509Certificate[];
  /** Public keys that sign JWT-SVIDs, each with its own `kid`. */
  readonly jwtKeys: readonly JWK[];
  /** Grows with every change of the domain's keys. */
  readonly sequence: bigint | undefined;
  /** How often the publisher wants to be asked. */
  readonly refreshHintSeconds: number | undefined;
}

type Value = JsonValue<bigint | number>;

/**
 * Elements that are of no use (unknown `kty` or `use`, no certificate, no CA, weak keys) are skipped, what is unknown is ignored.
 *
 * Throws INVALID_ARGUMENT: `bundle-too-large` (bytes, or more keys than anybody needs), `bad-bundle` (no JSON, a member twice, no
 * `keys`, a sequence or hint that is no whole number).
 */
export function parseBundle(document: Uint8Array | string): Bundle {
  const set = readSet(document);
  const keys = set.get("keys");
  if (!Array.isArray(keys)) throw bad('it has no array "keys"');
  const certificates = new Map<string, X509Certificate>();
  const jwtKeys = new Map<string, JWK>();
  for (const key of keys as readonly Value[]) {
    if (!isJsonObject(key)) continue;
    const use = key.get("use");
    if (use === "x509-svid") {
      const certificate = readAuthority(key);
      if (certificate !== undefined) certificates.set(certificate.fingerprint256, certificate);
    } else if (use === "jwt-svid") {
      const jwk = readVerifyingKey(key);
      if (jwk?.kid !== undefined && !jwtKeys.has(jwk.kid)) jwtKeys.set(jwk.kid, jwk);
    }
  }
  if (certificates.size > MAX_CERTIFICATES || jwtKeys.size > MAX_JWT_KEYS)
    throw tooLarge(`more than ${MAX_CERTIFICATES} certificates or ${MAX_JWT_KEYS} JWT keys`);
  const hint = readWholeNumber(set, "spiffe_refresh_hint");
  return {
    certificates: [...certificates.values()],
    jwtKeys: [...jwtKeys.values()],
    sequence: readWholeNumber(set, "spiffe_sequence"),
    refreshHintSeconds: hint === undefined ? undefined : Number(hint),
  };
}

/** The document of a bundle, as `application/json`; one text for equal bundles. */
export function formatBundle({ certificates, jwtKeys, sequence, refreshHintSeconds }: Bundle): string {
  const keys = [
    ...certificates.map((certificate) => ({
      use: "x509-svid",
      ...certificate.publicKey.export({ format: "jwk" }),
      x5c: [certificate.raw.toString("base64")],
    })),
    ...jwtKeys.map(({ kty, kid, crv, x, y, n, e }) => ({ use: "jwt-svid", kty, kid, crv, x, y, n, e })),
  ];
  const members = [`"keys":${JSON.stringify(keys)}`];
  // A number of 64 bits: JSON.stringify takes none.
  if (sequence !== undefined) members.push(`"spiffe_sequence":${sequence}`);
  if (refreshHintSeconds !== undefined) members.push(`"spiffe_refresh_hint":${refreshHintSeconds}`);
  return `{${members.join(",")}}`;
}

/**
 * True when `next` says something else than `previous`, of the same domain. A higher sequence wins; without one on both sides
 * the newest document does. Throws FAILED_PRECONDITION `sequence-backwards`: somebody shows an old document, perhaps to bring back
 * a key that was withdrawn.
 */
export function isNews(next: Bundle, previous: Bundle | undefined, trustDomain: string): boolean {
  if (previous === undefined) return true;
  if (next.sequence !== undefined && previous.sequence !== undefined && next.sequence < previous.sequence)
    throw new NsmError(
      "FAILED_PRECONDITION",
      "sequence-backwards",
      `bundle of ${trustDomain}: sequence ${next.sequence} is older than ${previous.sequence}, which is known; remove the domain's bundle first if its authority was made anew`,
    );
  return formatBundle(next) !== formatBundle(previous);
}

function readSet(document: Uint8Array | string): JsonObject<bigint | number> {
  const bytes = Buffer.from(document);
  if (bytes.length > MAX_BUNDLE_BYTES) throw tooLarge(`more than ${MAX_BUNDLE_BYTES} bytes`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    const set = parseJson<bigint | number>(text, { number: readNumber });
    if (isJsonObject(set)) return set;
  } catch (error) {
    throw bad(error instanceof NsmError ? error.message : "it is not UTF-8", error);
  }
  throw bad("it is no JSON object");
}

/** Whole numbers as they are written; what no 64 bits can hold becomes a number that nothing accepts. */
function readNumber(text: string): bigint | number {
  return /^\d{1,20}$/.test(text) ? BigInt(text) : Number.NaN;
}

function readWholeNumber(set: JsonObject<bigint | number>, name: string): bigint | undefined {
  const value = set.get(name);
  if (value === undefined) return undefined;
  if (typeof value === "bigint" && value <= MAX_UINT64) return value;
  throw bad(`${name} is no whole number of 64 bits`);
}

const KEY_TYPES: ReadonlySet<Value | undefined> = new Set(["EC", "RSA", "OKP"]);

/** The CA certificate of an `x509-svid` key: the first of `x5c` counts. */
function readAuthority(key: JsonObject<bigint | number>): X509Certificate | undefined {
  const chain = key.get("x5c");
  if (!KEY_TYPES.has(key.get("kty")) || !Array.isArray(chain)) return undefined;
  const first: unknown = chain[0];
  const der = typeof first === "string" ? decodeBase64(first) : undefined;
  if (der === undefined || der.length > MAX_CERTIFICATE_BYTES) return undefined;
  return unlessUnreadable(() => {
    const { x509, facts } = readCertificate(der);
    const maySign = facts.isCa && facts.keyUsage?.has(KeyUsage.keyCertSign) === true;
    if (!maySign || facts.unknownCritical.length > 0 || keyWeakness(x509) !== undefined) return undefined;
    factsOf(x509); // reads the same bytes again, and remembers
    return x509;
  });
}

function readVerifyingKey(key: JsonObject<bigint | number>): JWK | undefined {
  const jwk = readJwtKey(key);
  if (jwk === undefined) return undefined;
  return unlessUnreadable(() => {
    const { modulusLength = MIN_RSA_BITS } =
      createPublicKey({ key: jwk, format: "jwk" }).asymmetricKeyDetails ?? {};
    return modulusLength >= MIN_RSA_BITS ? jwk : undefined;
  });
}

/** An element that OpenSSL or our reader of DER cannot read is skipped, whatever they say. */
function unlessUnreadable<T>(read: () => T | undefined): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** RFC 4648, §4; undefined unless it is the one spelling of its bytes. */
function decodeBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, "base64");
  return bytes.length > 0 && bytes.toString("base64") === text ? bytes : undefined;
}

function bad(fault: string, cause?: unknown): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-bundle", `SPIFFE bundle: ${fault}`, cause);
}

function tooLarge(fault: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bundle-too-large", `SPIFFE bundle: ${fault}`);
}
