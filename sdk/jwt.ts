/**
 * Path tokens as text: compact JWS (RFC 7515, RFC 7519) read without trust, and ES256 signatures (RFC 7518 §3.4).
 *
 * Reading and verifying the same token again costs a look-up: both are remembered in bounded maps. A token's text is never an
 * identity, because an ECDSA signature has a second valid form.
 */
import { sign, verify } from "node:crypto";
import type { KeyObject, X509Certificate } from "node:crypto";
import { isJsonObject, tryParseJson } from "./json.ts";
import type { JsonObject } from "./json.ts";
import { LruMap } from "./lru.ts";
import { meters } from "./metrics/meters.ts";

/** Longer tokens count as unreadable. */
export const MAX_TOKEN_BYTES = 4096;
const REMEMBERED_TOKENS = 2048;
const REMEMBERED_VERDICTS = 2048;
const SIGNATURE_BYTES = 64;

/** What a token says. Nothing of it is verified. */
export interface ParsedToken {
  /** Undefined when the payload is no JSON object, or the token is encrypted or nested (RFC 7519 §5.2). */
  readonly claims: JsonObject | undefined;
  readonly signature: Uint8Array;
  /** The bytes that the signature covers, as ASCII text. */
  readonly signingInput: string;
}

const parsed = new LruMap<string, ParsedToken | "unreadable">(REMEMBERED_TOKENS);
// By certificate fingerprint and token. A verdict never changes; expiry is a claim, which the policies look at each time.
const verdicts = new LruMap<string, boolean>(REMEMBERED_VERDICTS);

/** Undefined when the text is no signed compact JWT: not three parts, no base64url, or a header that is no JSON object. */
export function parseToken(token: string): ParsedToken | undefined {
  if (token.length > MAX_TOKEN_BYTES) return undefined;
  let known = parsed.get(token);
  if (known === undefined) {
    known = readToken(token) ?? "unreadable";
    parsed.set(token, known);
  }
  return known === "unreadable" ? undefined : known;
}

/** The `sub` claim where it is text. Not verified. */
export function subjectOf(token: string): string | undefined {
  const subject = parseToken(token)?.claims?.get("sub");
  return typeof subject === "string" ? subject : undefined;
}

/** The `exp` claim in milliseconds since 1970 where it is a finite number. Not verified. */
export function claimedExpiryMs(token: string): number | undefined {
  const exp = parseToken(token)?.claims?.get("exp");
  return typeof exp === "number" && Number.isFinite(exp) ? exp * 1000 : undefined;
}

/** True when `token` bears a valid ES256 signature by the key of `certificate`, whatever its header calls the algorithm. */
export function isSignedBy(token: string, certificate: X509Certificate): boolean {
  if (token.length > MAX_TOKEN_BYTES) return false;
  const key = `${certificate.fingerprint256} ${token}`;
  let verdict = verdicts.get(key);
  if (verdict === undefined) {
    verdict = hasValidSignature(token, certificate.publicKey);
    verdicts.set(key, verdict);
    meters.tokensVerified.inc({ result: verdict ? "ok" : "bad" });
  }
  return verdict;
}

/** An ES256 JWT of `claims`, in their order. `key` is a P-256 private key. */
export function signToken(claims: Readonly<Record<string, unknown>>, key: KeyObject): string {
  const signingInput = `${encode('{"alg":"ES256","typ":"JWT"}')}.${encode(JSON.stringify(claims))}`;
  const signature = sign("sha256", Buffer.from(signingInput), { key, dsaEncoding: "ieee-p1363" });
  return `${signingInput}.${signature.toString("base64url")}`;
}

export function isP256(key: KeyObject): boolean {
  return key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve === "prime256v1";
}

function readToken(token: string): ParsedToken | undefined {
  const parts = token.split(".");
  const [header, payload, signature] = parts.map(decodeBase64Url);
  if (parts.length !== 3 || header === undefined || payload === undefined || signature === undefined)
    return undefined;
  const fields = tryParseJson(header.toString());
  // RFC 7516 §9: `enc` tells an encrypted token from a signed one.
  if (!isJsonObject(fields) || fields.has("enc")) return undefined;
  const claims = fields.get("cty") === "JWT" ? undefined : tryParseJson(payload.toString());
  return {
    claims: isJsonObject(claims) ? claims : undefined,
    signature,
    signingInput: token.slice(0, token.lastIndexOf(".")),
  };
}

function hasValidSignature(token: string, key: KeyObject): boolean {
  const read = parseToken(token);
  if (read === undefined || read.signature.length !== SIGNATURE_BYTES || !isP256(key)) return false;
  return verify("sha256", Buffer.from(read.signingInput), { key, dsaEncoding: "ieee-p1363" }, read.signature);
}

function encode(text: string): string {
  return Buffer.from(text).toString("base64url");
}

/**
 * RFC 4648 §5 with exact padding or none. Node's own decoder also takes blanks and the other alphabet. Stray bits in the last
 * character are ignored, as the Go programs do.
 */
function decodeBase64Url(text: string): Buffer | undefined {
  const bare = text.length % 4 === 0 ? text.replace(/={1,2}$/, "") : text;
  if (!/^[\w-]*$/.test(bare) || bare.length % 4 === 1) return undefined;
  return Buffer.from(bare, "base64url");
}
