/** The facts of a certificate that decide whether it is an X509-SVID, and that Node does not show (RFC 5280, §4.2). */
import { X509Certificate } from "node:crypto";
import { NsmError } from "../errors.ts";
import {
  Tag,
  contentOf,
  membersOf,
  readBits,
  readBoolean,
  readDerSequence,
  readDerWhole,
  readOid,
  readSmallInteger,
} from "./der.ts";
import type { DerValue } from "./der.ts";

/** Bits of the key usage extension (RFC 5280, §4.2.1.3). */
export const KeyUsage = { digitalSignature: 0, keyCertSign: 5, cRLSign: 6 } as const;

/** Purposes of the extended key usage extension (RFC 5280, §4.2.1.12). */
export const Purpose = { serverAuth: "1.3.6.1.5.5.7.3.1", clientAuth: "1.3.6.1.5.5.7.3.2" } as const;

export interface CertificateFacts {
  /** Every URI of subjectAltName, byte for byte (ISO 8859-1). */
  readonly uris: readonly string[];
  readonly isCa: boolean;
  /** Most intermediate certificates below this CA; undefined = no limit. */
  readonly pathLength: number | undefined;
  /** Undefined when the extension is absent. */
  readonly keyUsage: ReadonlySet<number> | undefined;
  /** Purposes as dotted OIDs; undefined when the extension is absent. */
  readonly purposes: readonly string[] | undefined;
  /** Critical extensions that are not among these and not key identifiers. */
  readonly unknownCritical: readonly string[];
  /** Subject and issuer are the same name. */
  readonly isSelfIssued: boolean;
}

export interface Certificate {
  readonly x509: X509Certificate;
  readonly facts: CertificateFacts;
}

const SUBJECT_KEY_ID = "2.5.29.14";
const KEY_USAGE = "2.5.29.15";
const SUBJECT_ALT_NAME = "2.5.29.17";
const BASIC_CONSTRAINTS = "2.5.29.19";
const AUTHORITY_KEY_ID = "2.5.29.35";
const EXTENDED_KEY_USAGE = "2.5.29.37";
const UNDERSTOOD = new Set([
  SUBJECT_KEY_ID,
  KEY_USAGE,
  SUBJECT_ALT_NAME,
  BASIC_CONSTRAINTS,
  AUTHORITY_KEY_ID,
  EXTENDED_KEY_USAGE,
]);

/** GeneralName uniformResourceIdentifier, `[6] IA5String`. */
const URI_NAME = 0x86;
/** `[3] EXPLICIT Extensions` of TBSCertificate. */
const EXTENSIONS = 0xa3;
/** `[0] EXPLICIT Version` of TBSCertificate. */
const VERSION = 0xa0;

/** One certificate, nothing before or after it. Throws INVALID_ARGUMENT `bad-der` or `bad-certificate`. */
export function readCertificate(der: Uint8Array): Certificate {
  const facts = readFacts(der);
  try {
    return { x509: new X509Certificate(der), facts };
  } catch (error) {
    throw new NsmError("INVALID_ARGUMENT", "bad-certificate", "certificate cannot be read", error);
  }
}

const known = new WeakMap<X509Certificate, CertificateFacts>();

/** Facts of a certificate that was read before (a CA of a bundle); kept with the object. */
export function factsOf(x509: X509Certificate): CertificateFacts {
  let facts = known.get(x509);
  if (facts === undefined) {
    facts = readFacts(x509.raw);
    known.set(x509, facts);
  }
  return facts;
}

/** Certificates one after the other without separators, as the Workload API sends them. Throws INVALID_ARGUMENT. */
export function readCertificates(der: Uint8Array): X509Certificate[] {
  return readDerSequence(der).map((value) => readCertificate(value.raw).x509);
}

/** SHA-2 with ECDSA or RSA (PKCS #1 1.5), and Ed25519. */
const SIGNATURES: ReadonlySet<string | undefined> = new Set([
  "1.2.840.10045.4.3.2",
  "1.2.840.10045.4.3.3",
  "1.2.840.10045.4.3.4",
  "1.2.840.113549.1.1.11",
  "1.2.840.113549.1.1.12",
  "1.2.840.113549.1.1.13",
  "1.3.101.112",
]);
const CURVES = new Set(["prime256v1", "secp384r1", "secp521r1"]);
const MIN_RSA_BITS = 2048;

/** False for SHA-1, MD5 and algorithms that nobody needs here (DSA, RSA-PSS). */
export function hasStrongSignature(x509: X509Certificate): boolean {
  return SIGNATURES.has(x509.signatureAlgorithmOid);
}

/** Why a certificate's key is not accepted; undefined for P-256, P-384, P-521, Ed25519 and RSA from 2048 bits. */
export function keyWeakness({ publicKey }: X509Certificate): string | undefined {
  const { modulusLength = 0, namedCurve = "" } = publicKey.asymmetricKeyDetails ?? {};
  const kind = publicKey.asymmetricKeyType ?? "unknown";
  if (kind === "ec") return CURVES.has(namedCurve) ? undefined : `curve ${namedCurve} is not accepted`;
  if (kind === "rsa")
    return modulusLength >= MIN_RSA_BITS ? undefined : `RSA key of ${modulusLength} bits is too weak`;
  return kind === "ed25519" ? undefined : `key type ${kind} is not accepted`;
}

function readFacts(der: Uint8Array): CertificateFacts {
  const [tbs] = membersOf(readDerWhole(der), Tag.SEQUENCE);
  const fields = membersOf(tbs, Tag.SEQUENCE);
  // version is absent in X.509 v1, which has no extensions and is no SVID either.
  const [, , issuer, , subject] = fields[0]?.tag === VERSION ? fields.slice(1) : fields;
  const extensions = readExtensions(fields.find((field) => field.tag === EXTENSIONS));
  const constraints = readBasicConstraints(extensions.get(BASIC_CONSTRAINTS)?.value);
  const keyUsage = extensions.get(KEY_USAGE);
  const purposes = extensions.get(EXTENDED_KEY_USAGE);
  return {
    uris: readUris(extensions.get(SUBJECT_ALT_NAME)?.value),
    ...constraints,
    keyUsage: keyUsage && readBits(readDerWhole(keyUsage.value)),
    purposes: purposes && membersOf(readDerWhole(purposes.value), Tag.SEQUENCE).map(readOid),
    unknownCritical: [...extensions]
      .filter(([oid, extension]) => extension.isCritical && !UNDERSTOOD.has(oid))
      .map(([oid]) => oid),
    isSelfIssued:
      issuer !== undefined && subject !== undefined && Buffer.compare(issuer.raw, subject.raw) === 0,
  };
}

interface Extension {
  readonly isCritical: boolean;
  readonly value: Uint8Array;
}

function readExtensions(field: DerValue | undefined): ReadonlyMap<string, Extension> {
  const extensions = new Map<string, Extension>();
  if (field === undefined) return extensions;
  for (const item of membersOf(readDerWhole(field.content), Tag.SEQUENCE)) {
    const [name, ...rest] = membersOf(item, Tag.SEQUENCE);
    const oid = readOid(name ?? item);
    const [critical, value] = rest.length > 1 ? rest : [undefined, rest[0]];
    if (rest.length > 2) throw malformed(`extension ${oid} has more than three members`);
    if (extensions.has(oid)) throw malformed(`extension ${oid} occurs twice`);
    extensions.set(oid, {
      isCritical: critical !== undefined && readBoolean(critical),
      value: contentOf(value, Tag.OCTET_STRING),
    });
  }
  return extensions;
}

function readUris(value: Uint8Array | undefined): readonly string[] {
  if (value === undefined) return [];
  return membersOf(readDerWhole(value), Tag.SEQUENCE)
    .filter((name) => name.tag === URI_NAME)
    .map((name) => Buffer.from(name.content).toString("latin1"));
}

function readBasicConstraints(value: Uint8Array | undefined): Pick<CertificateFacts, "isCa" | "pathLength"> {
  const members = value === undefined ? [] : membersOf(readDerWhole(value), Tag.SEQUENCE);
  const [first] = members;
  const hasFlag = first?.tag === Tag.BOOLEAN;
  const isCa = hasFlag && readBoolean(first);
  const [length, ...surplus] = hasFlag ? members.slice(1) : members;
  if (surplus.length > 0 || (length !== undefined && !isCa))
    throw malformed("basicConstraints cannot be read");
  return { isCa, pathLength: length && readSmallInteger(length) };
}

function malformed(what: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-certificate", `certificate: ${what}`);
}
