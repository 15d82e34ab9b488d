/**
 * SPIFFE ids and patterns of them (SPIFFE standard "SPIFFE-ID", §2), read by hand: a URL parser would normalise.
 *
 *     id           = "spiffe://" trust-domain path
 *     trust-domain = 1*255( a-z / 0-9 / "." / "-" / "_" )
 *     path         = *( "/" segment )
 *     segment      = 1*( A-Z / a-z / 0-9 / "." / "-" / "_" )      ; but not "." or ".."
 *
 * There is one spelling of each id, so comparing is comparing texts. Upper-case schemes and trust domains are refused.
 */
import { NsmError } from "../errors.ts";

const SCHEME = "spiffe://";
const MAX_ID_LENGTH = 2048;
const MAX_TRUST_DOMAIN_LENGTH = 255;

export interface SpiffeId {
  /** The id as written. */
  readonly text: string;
  /** `example.org` */
  readonly trustDomain: string;
  /** `["ns", "default"]` of `/ns/default`; empty for the id of a trust domain itself. */
  readonly segments: readonly string[];
}

/** Throws INVALID_ARGUMENT `bad-spiffe-id` that names the fault. */
export function parseSpiffeId(text: string): SpiffeId {
  return split(text, isSegment);
}

/** An id that a workload may have: with a path. Throws INVALID_ARGUMENT `bad-spiffe-id`. */
export function parseWorkloadId(text: string): SpiffeId {
  const id = parseSpiffeId(text);
  if (id.segments.length === 0) throw bad(text, "it names a trust domain; a workload's id has a path");
  return id;
}

/** `example.org` of `spiffe://example.org`, the key of bundle maps. Throws INVALID_ARGUMENT `bad-spiffe-id`. */
export function parseTrustDomainId(text: string): string {
  const id = parseSpiffeId(text);
  if (id.segments.length > 0) throw bad(text, "a trust domain's id has no path");
  return id.trustDomain;
}

export function isSpiffeId(text: string): boolean {
  try {
    parseSpiffeId(text);
    return true;
  } catch (error) {
    if (error instanceof NsmError) return false;
    throw error;
  }
}

/** `text` itself when it is a trust domain name (`example.org`); throws INVALID_ARGUMENT `bad-trust-domain`. */
export function parseTrustDomain(text: string): string {
  const fault = trustDomainFault(text);
  if (fault === undefined) return text;
  throw new NsmError("INVALID_ARGUMENT", "bad-trust-domain", `trust domain ${quoted(text)}: ${fault}`);
}

/** The id of a trust domain itself: `spiffe://example.org`. */
export function trustDomainId(trustDomain: string): string {
  return `${SCHEME}${trustDomain}`;
}

/** Ids of one trust domain that agree segment by segment; `*` stands for any one whole segment. */
export interface IdPattern {
  readonly text: string;
  readonly trustDomain: string;
  readonly segments: readonly string[];
}

/**
 * Reads a pattern such as `spiffe://example.org/node/*`. The trust domain is never a wildcard, and there is no wildcard for
 * a part of a segment or for many segments. Throws INVALID_ARGUMENT `bad-spiffe-id`.
 */
export function parseIdPattern(text: string): IdPattern {
  return split(text, (segment) => segment === "*" || isSegment(segment));
}

export function matchesPattern(pattern: IdPattern, id: SpiffeId): boolean {
  return (
    pattern.trustDomain === id.trustDomain &&
    pattern.segments.length === id.segments.length &&
    pattern.segments.every((segment, i) => segment === "*" || segment === id.segments[i])
  );
}

/** True when `id` is a valid id that fits one of the patterns. */
export function matchesAny(patterns: readonly IdPattern[], id: string): boolean {
  if (!isSpiffeId(id)) return false;
  const parsed = parseSpiffeId(id);
  return patterns.some((pattern) => matchesPattern(pattern, parsed));
}

function split(text: string, isAllowed: (segment: string) => boolean): SpiffeId {
  if (text.length > MAX_ID_LENGTH) throw bad(text, `longer than ${MAX_ID_LENGTH} bytes`);
  if (!text.startsWith(SCHEME)) throw bad(text, `must start with ${SCHEME}`);
  const [trustDomain = "", ...segments] = text.slice(SCHEME.length).split("/");
  const fault = trustDomainFault(trustDomain);
  if (fault !== undefined) throw bad(text, `trust domain: ${fault}`);
  const wrong = segments.find((segment) => !isAllowed(segment));
  if (wrong === "") throw bad(text, "empty path segment or trailing slash");
  if (wrong !== undefined)
    throw bad(text, `path segment ${quoted(wrong)}: only letters, digits, ".", "-" and "_", not "." or ".."`);
  return { text, trustDomain, segments };
}

function trustDomainFault(name: string): string | undefined {
  if (name === "") return "must not be empty";
  if (name.length > MAX_TRUST_DOMAIN_LENGTH) return `longer than ${MAX_TRUST_DOMAIN_LENGTH} bytes`;
  for (let i = 0; i < name.length; i++)
    if (!isLowerDigitOrMark(name.charCodeAt(i)))
      return `only a-z, 0-9, ".", "-" and "_", not ${quoted(name.charAt(i))}`;
  return undefined;
}

function isSegment(segment: string): boolean {
  if (segment === "" || segment === "." || segment === "..") return false;
  for (let i = 0; i < segment.length; i++) {
    const code = segment.charCodeAt(i);
    if (!isLowerDigitOrMark(code) && !(code >= 0x41 && code <= 0x5a)) return false;
  }
  return true;
}

function isLowerDigitOrMark(code: number): boolean {
  return (
    (code >= 0x61 && code <= 0x7a) ||
    (code >= 0x30 && code <= 0x39) ||
    code === 0x2e ||
    code === 0x2d ||
    code === 0x5f
  );
}

function bad(text: string, fault: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-spiffe-id", `SPIFFE id ${quoted(text)}: ${fault}`);
}

/** As JSON, so that control characters show, and short enough for a log line. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text);
}
