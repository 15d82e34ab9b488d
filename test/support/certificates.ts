/** Certificates for tests: any combination of extensions, right or wrong, and a small authority for the usual case. */
import { KeyObject, X509Certificate, createPrivateKey } from "node:crypto";
import { x509 } from "../../sdk/spiffe/x509.ts";
import type { X509Snapshot, X509Svid } from "../../sdk/spiffe/source.ts";

export const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

export type KeyAlgorithm = typeof P256 | RsaHashedKeyGenParams | { readonly name: "Ed25519" };

export function rsa(modulusLength: number, hash = "SHA-256"): RsaHashedKeyGenParams {
  return { name: "RSASSA-PKCS1-v1_5", modulusLength, publicExponent: Uint8Array.of(1, 0, 1), hash };
}

interface RsaHashedKeyGenParams {
  readonly name: string;
  readonly modulusLength: number;
  readonly publicExponent: Uint8Array<ArrayBuffer>;
  readonly hash: string;
}

type Pair = Awaited<ReturnType<typeof generatePair>>;

async function generatePair(algorithm: KeyAlgorithm) {
  const pair = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  if (!("publicKey" in pair)) throw new Error("not a key pair");
  return { algorithm, publicKey: pair.publicKey, privateKey: pair.privateKey };
}

/** A certificate and its key, able to sign others. */
export interface Holder {
  readonly subject: string;
  readonly keys: Pair;
  readonly der: Buffer;
}

export interface CertificateOptions {
  readonly subject?: string;
  /** Signs; undefined = itself. */
  readonly issuer?: Holder;
  /** Re-used keys; a new pair otherwise. */
  readonly keys?: Pair;
  readonly algorithm?: KeyAlgorithm;
  /** Digest of the signature where it is not that of the key. */
  readonly hash?: string;
  readonly extensions: readonly x509.Extension[];
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
}

let serial = 0;

export async function makeCertificate(options: CertificateOptions): Promise<Holder> {
  const { issuer, subject = `CN=subject ${++serial}`, algorithm = P256 } = options;
  const keys = options.keys ?? (await generatePair(algorithm));
  const signer = issuer?.keys ?? keys;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: (++serial).toString(16).padStart(16, "10"),
    subject,
    issuer: issuer?.subject ?? subject,
    notBefore: new Date(options.notBeforeMs ?? Date.now() - 60_000),
    notAfter: new Date(options.notAfterMs ?? Date.now() + 3_600_000),
    publicKey: keys.publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: { ...signer.algorithm, ...(options.hash && { hash: options.hash }) },
    extensions: [...options.extensions],
  });
  return { subject, keys, der: Buffer.from(certificate.rawData) };
}

/** The extensions of a CA that may sign SVIDs. */
export function caExtensions(pathLength?: number): x509.Extension[] {
  return [
    new x509.BasicConstraintsExtension(true, pathLength, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
  ];
}

/** The extensions of a proper leaf. */
export function svidExtensions(id: string): x509.Extension[] {
  return [
    new x509.SubjectAlternativeNameExtension([{ type: "url", value: id }], true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
  ];
}

export function makeCa(subject: string, options: Partial<CertificateOptions> = {}): Promise<Holder> {
  return makeCertificate({ subject, extensions: caExtensions(), ...options });
}

export function x509Of(holder: Holder): X509Certificate {
  return new X509Certificate(holder.der);
}

/** A trust domain with one CA. */
export interface TestAuthority {
  readonly trustDomain: string;
  readonly ca: Holder;
  /** Trust in this domain only. */
  readonly bundles: ReadonlyMap<string, readonly X509Certificate[]>;
  /** A snapshot as the Workload API would give it; `path` begins with a slash. `as` is a forged id instead. */
  issue(
    path: string,
    options?: { readonly generation?: number; readonly lifetimeMs?: number; readonly as?: string },
  ): Promise<X509Snapshot>;
}

export async function makeAuthority(trustDomain: string): Promise<TestAuthority> {
  const ca = await makeCa(`CN=${trustDomain}`);
  const bundles = new Map([[trustDomain, [x509Of(ca)]]]);
  return {
    trustDomain,
    ca,
    bundles,
    async issue(path, { generation = 1, lifetimeMs = 3_600_000, as } = {}) {
      const id = as ?? `spiffe://${trustDomain}${path}`;
      const notAfterMs = Date.now() + lifetimeMs;
      const leaf = await makeCertificate({ issuer: ca, extensions: svidExtensions(id), notAfterMs });
      return { generation, svid: svidOf(id, leaf), bundles };
    },
  };
}

/** An SVID as the Workload API would give it; the intermediates go from the leaf's issuer upwards. */
export function svidOf(id: string, leaf: Holder, intermediates: readonly Holder[] = []): X509Svid {
  const certificate = x509Of(leaf);
  const chain = [certificate, ...intermediates.map(x509Of)];
  const pkcs8 = KeyObject.from(leaf.keys.privateKey).export({ type: "pkcs8", format: "pem" });
  const privateKeyPem = pkcs8.toString();
  return {
    id,
    chain,
    chainPem: chain.map((each) => each.toString()).join(""),
    privateKey: createPrivateKey(privateKeyPem),
    privateKeyPem,
    notAfterMs: certificate.validToDate.getTime(),
  };
}
