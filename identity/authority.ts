/**
 * The certificate authority of one trust domain: a self-signed P-256 CA and the SVIDs that it signs (SPIFFE standards
 * "X509-SVID", §3-4, and "JWT-SVID", §2-3). ES256 throughout.
 */
import { KeyObject, X509Certificate, createPrivateKey, createPublicKey, randomBytes } from "node:crypto";
import type { webcrypto } from "node:crypto";
import { SignJWT, calculateJwkThumbprint, exportJWK } from "jose";
import type { Bundle } from "../sdk/spiffe/bundle.ts";
import { trustDomainId } from "../sdk/spiffe/id.ts";
import { x509 } from "../sdk/spiffe/x509.ts";
import type { Changing } from "./callers.ts";
import type { State } from "./state.ts";

const ES256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const CA_LIFETIME_MS = 10 * 365 * 24 * 3_600_000;
/** Certificates are valid from a little earlier, for workloads whose clock is behind. */
const BACKDATED_MS = 10_000;
const JWT_LIFETIME_MS = 5 * 60_000;
const { digitalSignature, keyCertSign, cRLSign } = x509.KeyUsageFlags;
const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;

/** An X509-SVID as the Workload API sends it. */
export interface IssuedSvid {
  readonly id: string;
  /** DER. */
  readonly certificate: Uint8Array;
  /** PKCS #8 DER. */
  readonly privateKey: Uint8Array;
  readonly notAfterMs: number;
}

export interface Authority extends Changing {
  readonly trustDomain: string;
  /** What verifies our SVIDs; the same object until it changes. */
  bundle(): Bundle;
  /** A new key and its certificate; about 3 ms. Ends with the CA at the latest. */
  issueX509(id: string, nowMs: number, lifetimeMs: number): Promise<IssuedSvid>;
  /** Valid for five minutes. */
  issueJwt(id: string, audience: readonly string[], nowMs: number): Promise<string>;
}

/** Keys and a CA certificate for a new trust domain. */
export async function createAuthorityState(trustDomain: string, nowMs: number): Promise<State> {
  const keys = await generateKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: [{ O: ["Network Service Mesh"] }, { CN: [trustDomain.slice(0, 64)] }],
    notBefore: new Date(nowMs - BACKDATED_MS),
    notAfter: new Date(nowMs + CA_LIFETIME_MS),
    keys,
    signingAlgorithm: ES256,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(keyCertSign | cRLSign, true),
      new x509.SubjectAlternativeNameExtension([{ type: "url", value: trustDomainId(trustDomain) }]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const { privateKey: jwtKey } = await generateKeys();
  return {
    version: 1,
    trustDomain,
    certificate: certificate.toString("pem"),
    key: pemOf(keys.privateKey),
    jwtKey: pemOf(jwtKey),
  };
}

/** The authority that `state` describes. Throws when its parts cannot be read. */
export async function createAuthority(state: State): Promise<Authority> {
  const ca = new x509.X509Certificate(state.certificate);
  const authorityKeyId = ca.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId ?? "";
  const pkcs8 = createPrivateKey(state.key).export({ type: "pkcs8", format: "der" });
  const signingKey = await crypto.subtle.importKey("pkcs8", Buffer.from(pkcs8), ES256, false, ["sign"]);
  const jwtKey = createPrivateKey(state.jwtKey);
  const publicJwk = await exportJWK(createPublicKey(jwtKey));
  const kid = await calculateJwkThumbprint(publicJwk);
  const bundle: Bundle = {
    certificates: [new X509Certificate(state.certificate)],
    jwtKeys: [{ ...publicJwk, kid }],
    sequence: 1n,
    refreshHintSeconds: 300,
  };
  return {
    trustDomain: state.trustDomain,
    bundle: () => bundle,
    onChange: () => ({ [Symbol.dispose]: () => undefined }),

    async issueX509(id, nowMs, lifetimeMs) {
      const keys = await generateKeys();
      // Times of a certificate have whole seconds; a short life must not become shorter.
      const notAfterMs = Math.min(Math.ceil((nowMs + lifetimeMs) / 1000) * 1000, ca.notAfter.getTime());
      const certificate = await x509.X509CertificateGenerator.create({
        serialNumber: serialNumber(),
        subject: [{ O: ["Network Service Mesh"] }],
        issuer: ca.subjectName,
        notBefore: new Date(nowMs - BACKDATED_MS),
        notAfter: new Date(notAfterMs),
        publicKey: keys.publicKey,
        signingKey,
        signingAlgorithm: ES256,
        extensions: [
          new x509.SubjectAlternativeNameExtension([{ type: "url", value: id }]),
          new x509.KeyUsagesExtension(digitalSignature, true),
          new x509.ExtendedKeyUsageExtension([serverAuth, clientAuth]),
          new x509.BasicConstraintsExtension(false, undefined, true),
          new x509.AuthorityKeyIdentifierExtension(authorityKeyId),
        ],
      });
      return {
        id,
        certificate: new Uint8Array(certificate.rawData),
        privateKey: KeyObject.from(keys.privateKey).export({ type: "pkcs8", format: "der" }),
        notAfterMs,
      };
    },

    issueJwt: (id, audience, nowMs) =>
      new SignJWT()
        .setProtectedHeader({ alg: "ES256", kid, typ: "JWT" })
        .setSubject(id)
        .setAudience([...audience])
        .setIssuedAt(new Date(nowMs))
        .setExpirationTime(new Date(nowMs + JWT_LIFETIME_MS))
        .sign(jwtKey),
  };
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
