/**
 * The default policies on the tokens of a path, with the verdicts of the Rego files of the same names (docs/protocol.md,
 * "Policies"). Only the neighbour's signature is verified; tokens further away are the neighbour's word.
 */
import type { X509Certificate } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { NsmError } from "./errors.ts";
import { isJsonObject } from "./json.ts";
import type { JsonValue } from "./json.ts";
import { isSignedBy, parseToken, subjectOf } from "./jwt.ts";
import { isSpiffeId } from "./spiffe/id.ts";

/** `deny` becomes PERMISSION_DENIED, `error` (the rule contradicts itself) becomes INTERNAL. */
export type Verdict = "allow" | "deny" | "error";

/** What the path policies look at. */
export interface PathFacts {
  /** A server cuts them at its own index, a client passes the whole returned path. */
  readonly tokens: readonly string[];
  /** Own position. */
  readonly index: number;
  /** Verified TLS leaf of the other side. */
  readonly peerCertificate: X509Certificate | undefined;
  readonly nowMs: number;
}

export interface RegistrationFacts extends PathFacts {
  /** `path_ids` of the record that already bears the name; undefined when the name is free. */
  readonly owners: readonly string[] | undefined;
}

export interface Policy<Facts> {
  /** `common/tokens_valid` */
  readonly name: string;
  readonly decide: (facts: Facts) => Verdict;
  /** Why it may have denied, for the caller's eyes. */
  readonly hint: string;
}

/** At least one segment, and each token reads as a JWT. No signature is looked at. */
export const tokensValid: Policy<PathFacts> = {
  name: "common/tokens_valid",
  decide: ({ tokens }) =>
    allowIf(tokens.length > 0 && tokens.every((token) => claimsOf(token) !== undefined)),
  hint: "a path segment has no readable token",
};

/** At least one segment, and each `exp` is ahead. Text, arrays and objects count as greater than any number, as in Rego. */
export const tokensExpired: Policy<PathFacts> = {
  name: "common/tokens_expired",
  decide: ({ tokens, nowMs }) =>
    allowIf(tokens.length > 0 && tokens.every((token) => isAhead(claimsOf(token)?.get("exp"), nowMs / 1000))),
  hint: "a token of the path has expired: refresh earlier, and compare the clocks of the hops",
};

/** At least one segment, and each token's `aud` names the `sub` of the next token. */
export const tokensChained: Policy<PathFacts> = {
  name: "common/tokens_chained",
  decide({ tokens }) {
    if (tokens.length === 0) return "deny";
    const links = tokens.slice(1).map((token, i) => linkVerdict(tokens[i] ?? "", token));
    if (links.includes("error")) return "error";
    return allowIf(links.every((verdict) => verdict === "allow"));
  },
  hint: "a token is not addressed to the hop that follows it",
};

/** The token of the segment before the own one is signed by the caller. */
export const prevTokenSigned: Policy<PathFacts> = {
  name: "server/prev_token_signed",
  decide: ({ tokens, index, peerCertificate }) => signedVerdict(tokens[index - 1], peerCertificate),
  hint: "the token of the caller's segment is not signed with the key of the caller's certificate",
};

/** The token of the segment behind the own one is signed by the server that answered. */
export const nextTokenSigned: Policy<PathFacts> = {
  name: "client/next_token_signed",
  decide: ({ tokens, index, peerCertificate }) => signedVerdict(tokens[index + 1], peerCertificate),
  hint: "the token of the next segment is not signed with the key of the server's certificate",
};

/** The name is free, or its first owner is who registers: the `sub` of the first token. */
export const clientAllowed: Policy<RegistrationFacts> = {
  name: "registry/client_allowed",
  decide: ({ tokens, owners }) => allowIf(owners === undefined || owners[0] === spiffeIdOf(tokens[0] ?? "")),
  hint: "the name belongs to somebody else",
};

const COMMON = [tokensChained, tokensExpired, tokensValid];
const SERVER = [...COMMON, prevTokenSigned];
const CLIENT = [...COMMON, nextTokenSigned];
const REGISTRY_SERVER = [...COMMON, clientAllowed, prevTokenSigned];
const REGISTRY_CLIENT = [...COMMON, clientAllowed, nextTokenSigned];

/**
 * Request and Close at a server. `tokens`: those of segments 0 to `index`, the own one.
 * Throws PERMISSION_DENIED or INTERNAL `policy` that names the policy.
 */
export function authorizeServerPath(
  tokens: readonly string[],
  index: number,
  peerCertificate: X509Certificate | undefined,
  nowMs: number,
): void {
  authorize(SERVER, { tokens, index, peerCertificate, nowMs });
}

/** The answer at the client that began the connection. `tokens`: the whole path. Throws as `authorizeServerPath`. */
export function authorizeClientPath(
  tokens: readonly string[],
  index: number,
  peerCertificate: X509Certificate | undefined,
  nowMs: number,
): void {
  authorize(CLIENT, { tokens, index, peerCertificate, nowMs });
}

/** Register and Unregister at a registry server, on the path up to the own index. Throws as `authorizeServerPath`. */
export function authorizeRegistration(facts: RegistrationFacts): void {
  authorize(REGISTRY_SERVER, facts);
}

/** The answered path at a registry client. Throws as `authorizeServerPath`. */
export function authorizeRegistrationAnswer(facts: RegistrationFacts): void {
  authorize(REGISTRY_CLIENT, facts);
}

/** The optional policy of monitors: the caller requested a connection that the selector names. */
export function monitorVerdict(ownIds: readonly string[], selectedIds: readonly string[]): Verdict {
  return allowIf(selectedIds.some((id) => ownIds.includes(id)));
}

/** The `sub` of a token where it is a SPIFFE id, else empty. Not verified. */
export function spiffeIdOf(token: string): string {
  const subject = subjectOf(token) ?? "";
  return isSpiffeId(subject) ? subject : "";
}

function authorize<Facts>(policies: readonly Policy<Facts>[], facts: Facts): void {
  for (const { name, decide, hint } of policies) {
    const verdict = decide(facts);
    if (verdict === "error")
      throw new NsmError("INTERNAL", "policy", `policy ${name}: ${hint} in one of its values only`);
    if (verdict === "deny") throw new NsmError("PERMISSION_DENIED", "policy", `policy ${name}: ${hint}`);
  }
}

/** Rego collects one verdict for each value of `aud`; different ones contradict each other. */
function linkVerdict(token: string, next: string): Verdict {
  const subject = claimsOf(next)?.get("sub");
  if (subject === undefined) return "deny";
  const fits = valuesOf(claimsOf(token)?.get("aud")).map((value) => isDeepStrictEqual(value, subject));
  if (fits.includes(true) && fits.includes(false)) return "error";
  return allowIf(fits.includes(true));
}

function signedVerdict(token: string | undefined, certificate: X509Certificate | undefined): Verdict {
  return allowIf(token !== undefined && certificate !== undefined && isSignedBy(token, certificate));
}

function claimsOf(token: string) {
  return parseToken(token)?.claims;
}

/** The order of types in Rego: null < boolean < number < string < array < object. */
function isAhead(exp: JsonValue | undefined, nowSeconds: number): boolean {
  if (exp === undefined || exp === null || typeof exp === "boolean") return false;
  return typeof exp === "number" ? exp > nowSeconds : true;
}

function valuesOf(value: JsonValue | undefined): readonly JsonValue[] {
  if (isJsonObject(value)) return [...value.values()];
  return Array.isArray(value) ? value : [];
}

function allowIf(condition: boolean): Verdict {
  return condition ? "allow" : "deny";
}
