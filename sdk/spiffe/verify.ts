/**
 * Is this chain the X509-SVID of somebody whom we may believe? (SPIFFE standard "X509-SVID", §5; RFC 5280, §6)
 *
 * TLS libraries check a chain against all roots at once, so that any trust domain could speak for any other. Here the id in
 * the leaf chooses the only bundle that counts. No name constraints and no revocation lists: a chain with a critical name
 * constraint is refused, SVIDs are short-lived instead of revoked (docs/identity.md).
 */
import { createHash } from "node:crypto";
import type { X509Certificate } from "node:crypto";
import { NsmError, messageOf } from "../errors.ts";
import { LruMap } from "../lru.ts";
import {
  KeyUsage,
  Purpose,
  factsOf,
  hasStrongSignature,
  keyWeakness,
  readCertificate,
} from "./certificate.ts";
import type { Certificate } from "./certificate.ts";
import { parseWorkloadId } from "./id.ts";
import type { SpiffeId } from "./id.ts";

/** How far our clock may be behind that of the issuer. */
const NOT_BEFORE_LEEWAY_MS = 30_000;
const MAX_CHAIN_LENGTH = 8;
const MAX_CERTIFICATE_BYTES = 16 * 1024;
/** Verified chains that are remembered for each set of bundles. */
const MAX_REMEMBERED = 1024;

/** Trust domain name -> its CA certificates. */
export type Bundles = ReadonlyMap<string, readonly X509Certificate[]>;

export interface VerifiedSvid {
  /** `spiffe://trust-domain/path` */
  readonly id: string;
  readonly leaf: X509Certificate;
  /** From when (leeway included) to when every certificate on the path is valid, milliseconds since 1970. */
  readonly validFromMs: number;
  readonly notAfterMs: number;
}

/**
 * Verifies a chain as it came from the wire (DER, leaf first) for the moment `nowMs`. About 0.2 ms, or 10 µs for a chain
 * that was verified with this very `bundles` object before.
 *
 * Throws UNAUTHENTICATED and nothing else: `svid-malformed` (not a certificate, no single SPIFFE id), `svid-not-leaf` (may sign others, or
 * its usages do not fit), `svid-unknown-trust-domain`, `svid-expired`, `svid-not-yet-valid`, `svid-untrusted` (no valid path to
 * a CA of its trust domain).
 */
export function verifySvid(chainDer: readonly Uint8Array[], bundles: Bundles, nowMs: number): VerifiedSvid {
  const remembered = memoryOf(bundles);
  const key = fingerprint(chainDer);
  const known = remembered.get(key);
  if (known !== undefined && known.validFromMs <= nowMs && nowMs <= known.notAfterMs) return known;

  const verified = verifyChain(chainDer, bundles, nowMs);
  remembered.set(key, verified);
  return verified;
}

function verifyChain(chainDer: readonly Uint8Array[], bundles: Bundles, nowMs: number): VerifiedSvid {
  try {
    const [leaf, intermediates] = readChain(chainDer);
    const id = readLeafId(leaf);
    checkLeafUsage(leaf, id);
    checkValidity(leaf, id, nowMs);
    const path = [leaf, ...pathToBundle(leaf, intermediates, bundleOf(id, bundles), id, nowMs)];
    return {
      id: id.text,
      leaf: leaf.x509,
      validFromMs: Math.max(...path.map(({ x509 }) => x509.validFromDate.getTime())) - NOT_BEFORE_LEEWAY_MS,
      notAfterMs: Math.min(...path.map(({ x509 }) => x509.validToDate.getTime())),
    };
  } catch (error) {
    if (error instanceof NsmError && error.code === "UNAUTHENTICATED") throw error;
    // Faults of DER and of ids, and what OpenSSL throws for keys that it cannot read.
    throw refuse("svid-malformed", messageOf(error), error);
  }
}

function readChain(chainDer: readonly Uint8Array[]): readonly [Certificate, readonly Certificate[]] {
  if (chainDer.length > MAX_CHAIN_LENGTH)
    throw refuse("svid-malformed", `chain of ${chainDer.length} certificates, at most ${MAX_CHAIN_LENGTH}`);
  if (chainDer.some((der) => der.length > MAX_CERTIFICATE_BYTES))
    throw refuse("svid-malformed", `certificate larger than ${MAX_CERTIFICATE_BYTES} bytes`);
  const [leaf, ...intermediates] = chainDer.map(readCertificate);
  if (leaf === undefined) throw refuse("svid-malformed", "the peer showed no certificate");
  return [leaf, intermediates];
}

function readLeafId({ facts }: Certificate): SpiffeId {
  const [uri, ...others] = facts.uris;
  if (uri === undefined || others.length > 0)
    throw refuse("svid-malformed", `subjectAltName has ${facts.uris.length} URIs, must have exactly one`);
  return parseWorkloadId(uri);
}

function checkLeafUsage({ x509, facts }: Certificate, id: SpiffeId): void {
  const fault = (what: string) => refuse("svid-not-leaf", `${id.text}: ${what}`);
  if (facts.isCa) throw fault("certificate is a CA");
  if (!facts.keyUsage?.has(KeyUsage.digitalSignature)) throw fault("key usage lacks digitalSignature");
  if (facts.keyUsage.has(KeyUsage.keyCertSign) || facts.keyUsage.has(KeyUsage.cRLSign))
    throw fault("key usage allows signing certificates or revocation lists");
  const { purposes } = facts;
  if (purposes && !(purposes.includes(Purpose.serverAuth) && purposes.includes(Purpose.clientAuth)))
    throw fault("extended key usage lacks serverAuth or clientAuth");
  if (facts.unknownCritical.length > 0)
    throw fault(`critical extension ${facts.unknownCritical.join(", ")} is not known`);
  const weakness = keyWeakness(x509);
  if (weakness !== undefined) throw fault(weakness);
}

function checkValidity({ x509 }: Certificate, id: SpiffeId, nowMs: number): void {
  if (isExpired(x509, nowMs)) throw refuse("svid-expired", `${id.text}: expired at ${x509.validTo}`);
  if (isTooYoung(x509, nowMs)) throw refuse("svid-not-yet-valid", `${id.text}: valid from ${x509.validFrom}`);
}

// Written so that a date that cannot be read (NaN) is refused.
function isExpired(x509: X509Certificate, nowMs: number): boolean {
  return !(nowMs <= x509.validToDate.getTime());
}

function isTooYoung(x509: X509Certificate, nowMs: number): boolean {
  return !(nowMs + NOT_BEFORE_LEEWAY_MS >= x509.validFromDate.getTime());
}

function bundleOf(id: SpiffeId, bundles: Bundles): readonly X509Certificate[] {
  const bundle = bundles.get(id.trustDomain);
  if (bundle !== undefined) return bundle;
  const trusted = [...bundles.keys()].join(", ") || "none";
  throw refuse(
    "svid-unknown-trust-domain",
    `${id.text}: trust domain ${id.trustDomain} is not trusted here (${trusted})`,
  );
}

/** The certificates above the leaf, up to and including a CA of the bundle. */
function pathToBundle(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  bundle: readonly X509Certificate[],
  id: SpiffeId,
  nowMs: number,
): readonly Certificate[] {
  const faults = new Set<string>();
  // Each intermediate is tried once, or a few that sign one another would make the search exponential.
  const untried = new Set(intermediates);
  const climb = (subject: Certificate, depth: number): readonly Certificate[] | undefined => {
    for (const x509 of bundle) {
      if (!subject.x509.checkIssued(x509)) continue;
      const anchor = { x509, facts: factsOf(x509) };
      const fault = issuerFault(subject, anchor, depth, nowMs);
      if (fault === undefined) return [anchor];
      faults.add(fault);
    }
    for (const issuer of untried) {
      if (!subject.x509.checkIssued(issuer.x509)) continue;
      untried.delete(issuer);
      const fault = issuerFault(subject, issuer, depth, nowMs);
      if (fault !== undefined) faults.add(fault);
      else {
        const above = climb(issuer, depth + (issuer.facts.isSelfIssued ? 0 : 1));
        if (above !== undefined) return [issuer, ...above];
      }
    }
    return undefined;
  };
  const path = climb(leaf, 0);
  if (path !== undefined) return path;
  const detail = faults.size > 0 ? `: ${[...faults].join("; ")}` : "";
  throw refuse("svid-untrusted", `${id.text}: no path to a CA of ${id.trustDomain}${detail}`);
}

/** Why `issuer` may not vouch for `subject`, with `depth` intermediates below it; undefined when it does. */
function issuerFault(
  subject: Certificate,
  { x509, facts }: Certificate,
  depth: number,
  nowMs: number,
): string | undefined {
  const name = `issuer ${JSON.stringify(x509.subject ?? "")}`;
  if (!facts.isCa || !facts.keyUsage?.has(KeyUsage.keyCertSign)) return `${name} is not a CA`;
  if (facts.pathLength !== undefined && depth > facts.pathLength) return `${name} allows no chain this long`;
  if (isExpired(x509, nowMs)) return `${name} expired at ${x509.validTo}`;
  if (isTooYoung(x509, nowMs)) return `${name} is not valid before ${x509.validFrom}`;
  if (facts.unknownCritical.length > 0) return `${name} has unknown critical extensions`;
  const weakness = keyWeakness(x509);
  if (weakness !== undefined) return `${name}: ${weakness}`;
  if (!hasStrongSignature(subject.x509))
    return `signature algorithm ${subject.x509.signatureAlgorithm} is not accepted`;
  if (!subject.x509.verify(x509.publicKey)) return `the signature of ${name} is wrong`;
  return undefined;
}

/** Bundles are replaced, never changed, so that the object stands for its contents; its memory goes with it. */
const memories = new WeakMap<Bundles, LruMap<string, VerifiedSvid>>();

function memoryOf(bundles: Bundles): LruMap<string, VerifiedSvid> {
  let memory = memories.get(bundles);
  if (memory === undefined) memories.set(bundles, (memory = new LruMap(MAX_REMEMBERED)));
  return memory;
}

function fingerprint(chainDer: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const der of chainDer) hash.update(`${der.length}:`).update(der);
  return hash.digest("base64");
}

/** The message holds names that the peer chose: quoted where they occur, and cut to what a log line takes. */
function refuse(reason: string, message: string, cause?: unknown): NsmError {
  return new NsmError("UNAUTHENTICATED", reason, `X509-SVID refused: ${message.slice(0, 1000)}`, cause);
}
