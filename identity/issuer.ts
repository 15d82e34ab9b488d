/**
 * What signs: a CA with its key, and a key for JWTs (SPIFFE standards "X509-SVID", §3-4, and "JWT-SVID", §2-3). ES256 throughout for
 * what is made here; a CA that is given may have any key that SVIDs may have.
 */
import {
  KeyObject,
  X509Certificate,
  createHash,
  createPrivateKey,
  createPublicKey,
  randomBytes,
} from "node:crypto";
import type { webcrypto } from "node:crypto";
import { SignJWT, calculateJwkThumbprint, exportJWK } from "jose";
import type { JWK } from "jose";
import { NsmError } from "../sdk/errors.ts";
import { trustDomainId } from "../sdk/spiffe/id.ts";
import { x509 } from "../sdk/spiffe/x509.ts";

const ES256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
/** Certificates are valid from a little earlier, for workloads whose clock is behind. */
export const BACKDATED_MS = 10_000;
const { digitalSignature, keyCertSign, cRLSign } = x509.KeyUsageFlags;
const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;

/** An X509-SVID as the Workload API sends it. */
export interface IssuedSvid {
  readonly id: string;
  /** DER, leaf first, then the intermediates. */
  readonly certificate: Uint8Array;
  /** PKCS #8 DER. */
  readonly privateKey: Uint8Array;
  readonly notAfterMs: number;
  /** The issuer's id. */
  readonly issuer: string;
}

/** Signs certificates. */
export interface X509Issuer {
  /** The first 16 hexadecimal digits of its certificate's SHA-256. */
  readonly id: string;
  readonly certificate: X509Certificate;
  /** A new key and its certificate; about 3 ms. Ends with the CA at the latest. */
  issue(id: string, nowMs: number, lifetimeMs: number): Promise<IssuedSvid>;
}

/** Signs JWTs. */
export interface JwtIssuer {
  /** Public members only. */
  readonly jwk: JWK & { readonly kid: string };
  issue(id: string, audience: readonly string[], nowMs: number, lifetimeMs: number): Promise<string>;
}

/** A self-signed CA and its key, PEM. */
export async function makeCa(trustDomain: string, nowMs: number, lifetimeMs: number) {
  const keys = await generateKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: [{ O: ["Network Service Mesh"] }, { CN: [trustDomain.slice(0, 64)] }],
    notBefore: new Date(nowMs - BACKDATED_MS),
    notAfter: new Date(Math.ceil((nowMs + lifetimeMs) / 1000) * 1000),
    keys,
    signingAlgorithm: ES256,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(keyCertSign | cRLSign, true),
      new x509.SubjectAlternativeNameExtension([{ type: "url", value: trustDomainId(trustDomain) }]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: certificate.toString("pem"), key: pemOf(keys.privateKey) };
}

/** PKCS #8 PEM. */
export async function makeJwtKey(): Promise<string> {
  return pemOf((await generateKeys()).privateKey);
}

/**
 * A CA with its key, PEM; `intermediates` (DER) go with what it issues, its own certificate first when it is none that anybody
 * trusts. Throws FAILED_PRECONDITION `bad-authority` for a key that cannot sign or does not fit.
 */
export async function createX509Issuer(
  pem: { readonly certificate: string; readonly key: string },
  intermediates: readonly Uint8Array[] = [],
): Promise<X509Issuer> {
  const certificate = new X509Certificate(pem.certificate);
  const privateKey = createPrivateKey(pem.key);
  if (!certificate.checkPrivateKey(privateKey)) throw badAuthority("the key does not fit the certificate");
  const ca = new x509.X509Certificate(certificate.raw);
  const algorithm = algorithmOf(privateKey);
  const pkcs8 = Buffer.from(privateKey.export({ type: "pkcs8", format: "der" }));
  const signingKey = await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
  const authorityKeyId = ca.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  const id = idOf(certificate.raw);
  return {
    id,
    certificate,
    async issue(spiffeId, nowMs, lifetimeMs) {
      const keys = await generateKeys();
      // Times of a certificate have whole seconds; a short life must not become shorter.
      const notAfterMs = Math.min(Math.ceil((nowMs + lifetimeMs) / 1000) * 1000, ca.notAfter.getTime());
      const leaf = await x509.X509CertificateGenerator.create({
        serialNumber: serialNumber(),
        subject: [{ O: ["Network Service Mesh"] }],
        issuer: ca.subjectName,
        notBefore: new Date(nowMs - BACKDATED_MS),
        notAfter: new Date(notAfterMs),
        publicKey: keys.publicKey,
        signingKey,
        signingAlgorithm: algorithm,
        extensions: [
          new x509.SubjectAlternativeNameExtension([{ type: "url", value: spiffeId }]),
          new x509.KeyUsagesExtension(digitalSignature, true),
          new x509.ExtendedKeyUsageExtension([serverAuth, clientAuth]),
          new x509.BasicConstraintsExtension(false, undefined, true),
          ...(authorityKeyId === undefined ? [] : [new x509.AuthorityKeyIdentifierExtension(authorityKeyId)]),
        ],
      });
      return {
        id: spiffeId,
        certificate: Buffer.concat([new Uint8Array(leaf.rawData), ...intermediates]),
        privateKey: KeyObject.from(keys.privateKey).export({ type: "pkcs8", format: "der" }),
        notAfterMs,
        issuer: id,
      };
    },
  };
}

/** Of a PKCS #8 PEM, P-256. */
export async function createJwtIssuer(pem: string): Promise<JwtIssuer> {
  const key = createPrivateKey(pem);
  const publicJwk = await exportJWK(createPublicKey(key));
  const kid = await calculateJwkThumbprint(publicJwk);
  return {
    jwk: { ...publicJwk, kid },
    issue: (id, audience, nowMs, lifetimeMs) =>
      new SignJWT()
        .setProtectedHeader({ alg: "ES256", kid, typ: "JWT" })
        .setSubject(id)
        .setAudience([...audience])
        .setIssuedAt(new Date(nowMs))
        .setExpirationTime(new Date(nowMs + lifetimeMs))
        .sign(key),
  };
}

/** What certificates and keys are called by for people. */
export function idOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 16);
}

/** How WebCrypto signs with that key: the digest of the size that fits the curve. */
function algorithmOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject) {
  const curve = asymmetricKeyDetails?.namedCurve;
  if (asymmetricKeyType === "rsa") return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  if (asymmetricKeyType === "ec" && curve === "prime256v1") return ES256;
  if (asymmetricKeyType === "ec" && curve === "secp384r1")
    return { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" };
  if (asymmetricKeyType === "ec" && curve === "secp521r1")
    return { name: "ECDSA", namedCurve: "P-521", hash: "SHA-512" };
  throw badAuthority(
    `its key is ${asymmetricKeyType ?? "unknown"} ${curve ?? ""}: RSA, P-256, P-384 or P-521`,
  );
}

function badAuthority(fault: string): NsmError {
  return new NsmError("FAILED_PRECONDITION", "bad-authority", `certificate authority: ${fault}`);
}

function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(ES256, true, ["sign", "verify"]);
}

function pemOf(key: webcrypto.CryptoKey): string {
  return KeyObject.from(key).export({ type: "pkcs8", format: "pem" }).toString();
}

/** 127 random bits, positive (RFC 5280, §4.1.2.2). */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes.toString("hex");
}
