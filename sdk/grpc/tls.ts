/**
 * TLS with X.509-SVIDs on both sides (RFC 8446; SPIFFE standard "X509-SVID", §5).
 *
 * OpenSSL is given no CA at all: it proves that the peer has the key of its leaf, and the chain is verified here, for the
 * one trust domain that the leaf names, before a byte of HTTP/2 is read or written. A pool of the CAs of all domains would
 * let each of them speak for any other. (Besides, Node 24.21 and 26.8 to 26.10 drop the client's intermediates once OpenSSL
 * has accepted the chain: nodejs/node issue 65579.)
 */
import type { X509Certificate } from "node:crypto";
import type { SecureContextOptions, TLSSocket } from "node:tls";
import { NsmError } from "../errors.ts";
import type { X509Snapshot } from "../spiffe/source.ts";

export const ALPN = "h2";
/** Longer chains are not looked at; the verifier has its own, lower limit. */
const MAX_CHAIN_LENGTH = 16;

/** `verifySvid` of `sdk/spiffe/verify.ts`: throws UNAUTHENTICATED unless the chain is a valid SVID of a trusted domain. */
export type Verify = (
  chainDer: readonly Uint8Array[],
  bundles: ReadonlyMap<string, readonly X509Certificate[]>,
  nowMs: number,
) => { readonly id: string; readonly leaf: X509Certificate };

/** Key, certificate and protocol rules, the same for both sides. */
export function secureContextOptions({ svid }: X509Snapshot): SecureContextOptions {
  return { key: svid.privateKeyPem, cert: svid.chainPem, ca: [], minVersion: "TLSv1.2" };
}

export interface VerifiedPeer {
  readonly id: string;
  readonly leaf: X509Certificate;
  /** As it came, leaf first: to be verified again when the bundles change. */
  readonly chain: readonly Uint8Array[];
}

/** Who is at the other side of a finished handshake. Throws UNAUTHENTICATED with the verifier's reason, or `no-alpn`. */
export function verifyPeer(
  socket: TLSSocket,
  own: X509Snapshot,
  verify: Verify,
  nowMs: number,
  alpn = ALPN,
): VerifiedPeer {
  if (socket.alpnProtocol !== alpn)
    throw new NsmError("UNAUTHENTICATED", "no-alpn", `the peer did not negotiate ${alpn} by ALPN`);
  const chain = chainOf(socket);
  return { ...verify(chain, own.bundles, nowMs), chain };
}

/** What the peer sent (DER), leaf first. Node empties OpenSSL's list as it reads it: once per connection. */
export function chainOf(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = [];
  let certificate = socket.getPeerX509Certificate();
  while (certificate !== undefined && chain.length < MAX_CHAIN_LENGTH) {
    chain.push(certificate.raw);
    certificate = certificate.issuerCertificate;
  }
  return chain;
}
