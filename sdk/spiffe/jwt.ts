/** JWT-SVIDs and the bundles that verify them (SPIFFE standards "JWT-SVID" and "Trust Domain and Bundle", §4). */
import { createLocalJWKSet, errors, jwtVerify } from "jose";
import type { JWK, JWTPayload } from "jose";
import type { JWTBundlesResponse } from "../../api/gen/workload_pb.js";
import { NsmError, messageOf } from "../errors.ts";
import { isJsonObject, parseJson, tryParseJson } from "../json.ts";
import type { JsonObject, JsonValue } from "../json.ts";
import { parseTrustDomainId, parseWorkloadId } from "./id.ts";
import type { SpiffeId } from "./id.ts";

/** Trust domain name -> its JWT keys. Never merged across domains. */
export type JwtBundles = ReadonlyMap<string, readonly JWK[]>;

const ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];
const HEADERS = new Set(["alg", "kid", "typ"]);
const MAX_TOKEN_LENGTH = 16 * 1024;
const LEEWAY_S = 5;

export interface VerifiedJwtSvid {
  readonly id: string;
  readonly claims: JWTPayload;
  readonly expiresMs: number;
}

/**
 * Verifies a token for one of our own audiences. Throws UNAUTHENTICATED `jwt-malformed`, `jwt-expired`,
 * `jwt-wrong-audience`, `jwt-unknown-trust-domain`, `jwt-untrusted`.
 */
export async function verifyJwtSvid(
  token: string,
  bundles: JwtBundles,
  audience: string,
  nowMs: number,
): Promise<VerifiedJwtSvid> {
  const { kid, id } = readUnverified(token);
  const keys = bundles.get(id.trustDomain);
  if (keys === undefined)
    throw refuse("jwt-unknown-trust-domain", `trust domain ${id.trustDomain} is not trusted here`);
  const ofKid = keys.filter((key) => key.kid === kid);
  if (ofKid.length === 0)
    throw refuse("jwt-untrusted", `${id.trustDomain} has no key ${JSON.stringify(kid)}`);
  try {
    const { payload } = await jwtVerify(token, createLocalJWKSet({ keys: ofKid }), {
      algorithms: ALGORITHMS,
      audience,
      requiredClaims: ["exp", "aud", "sub"],
      clockTolerance: LEEWAY_S,
      currentDate: new Date(nowMs),
    });
    return { id: id.text, claims: payload, expiresMs: Number(payload.exp) * 1000 };
  } catch (error) {
    throw refuse(reasonOf(error), messageOf(error), error);
  }
}

/** What the token says of itself, checked as far as it can be before any key is chosen. */
function readUnverified(token: string): { readonly kid: string; readonly id: SpiffeId } {
  if (token.length > MAX_TOKEN_LENGTH)
    throw refuse("jwt-malformed", `longer than ${MAX_TOKEN_LENGTH} characters`);
  const parts = token.split(".");
  const [header, payload] = parts.slice(0, 2).map(readPart);
  if (parts.length !== 3 || header === undefined || payload === undefined)
    throw refuse("jwt-malformed", "not a compact JWS of two JSON objects and a signature");
  for (const name of header.keys())
    if (!HEADERS.has(name)) throw refuse("jwt-malformed", `header ${JSON.stringify(name)} is not allowed`);
  const { alg, kid, typ = "JWT" } = Object.fromEntries(header);
  if (typeof alg !== "string" || !ALGORITHMS.includes(alg))
    throw refuse("jwt-malformed", `algorithm ${JSON.stringify(alg)} is not accepted`);
  if (typ !== "JWT" && typ !== "JOSE") throw refuse("jwt-malformed", "header typ is neither JWT nor JOSE");
  if (typeof kid !== "string" || kid === "") throw refuse("jwt-malformed", "header kid is missing");
  const subject = payload.get("sub");
  if (typeof subject !== "string") throw refuse("jwt-malformed", "claim sub is missing");
  try {
    return { kid, id: parseWorkloadId(subject) };
  } catch (error) {
    throw refuse("jwt-malformed", messageOf(error), error);
  }
}

/** A part as JSON; undefined unless it is the one base64url spelling (RFC 4648, §5) of a JSON object. */
function readPart(part: string): JsonObject | undefined {
  const bytes = Buffer.from(part, "base64url");
  if (bytes.toString("base64url") !== part) return undefined;
  const value = tryParseJson(bytes.toString());
  return isJsonObject(value) ? value : undefined;
}

function reasonOf(error: unknown): string {
  if (error instanceof errors.JWTExpired) return "jwt-expired";
  if (error instanceof errors.JWTClaimValidationFailed)
    return error.claim === "aud" ? "jwt-wrong-audience" : "jwt-malformed";
  return "jwt-untrusted";
}

/** Bundles of a message of the Workload API. Throws INVALID_ARGUMENT. */
export function readJwtBundles({ bundles }: JWTBundlesResponse): JwtBundles {
  return new Map(
    Object.entries(bundles).map(([id, json]) => [
      parseTrustDomainId(id),
      readJwtKeys(Buffer.from(json).toString()),
    ]),
  );
}

/**
 * The keys of a JWK Set that may sign JWT-SVIDs. Keys for something else or of an unknown kind are skipped. `use` may be absent:
 * agents of SPIRE leave it out here. Throws INVALID_ARGUMENT `bad-json`, `bad-jwk-set`.
 */
export function readJwtKeys(json: string): readonly JWK[] {
  const set = parseJson(json);
  const keys = isJsonObject(set) ? set.get("keys") : undefined;
  if (!Array.isArray(keys)) throw new NsmError("INVALID_ARGUMENT", "bad-jwk-set", "JWK Set without keys");
  return keys.flatMap((key: JsonValue) => readJwtKey(key) ?? []);
}

/** Only the public members, so that no other one can have an effect. */
export function readJwtKey<N>(key: JsonValue<N>): JWK | undefined {
  if (!isJsonObject(key)) return undefined;
  const text = (name: string) => {
    const value = key.get(name);
    return typeof value === "string" ? value : undefined;
  };
  const [kty, kid, use = "jwt-svid"] = ["kty", "kid", "use"].map(text);
  if (kid === undefined || kid === "" || use !== "jwt-svid") return undefined;
  const [crv, x, y, n, e] = ["crv", "x", "y", "n", "e"].map(text);
  if (kty === "EC" && crv !== undefined && x !== undefined && y !== undefined) return { kty, kid, crv, x, y };
  if (kty === "RSA" && n !== undefined && e !== undefined) return { kty, kid, n, e };
  return undefined;
}

function refuse(reason: string, message: string, cause?: unknown): NsmError {
  return new NsmError("UNAUTHENTICATED", reason, `JWT-SVID refused: ${message}`, cause);
}
