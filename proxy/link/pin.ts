/** Certificate authorities by their hash, as a token names the one that its issuer's chain ends at. */
import { createHash } from "node:crypto";
import { NsmError } from "../../sdk/errors.ts";
import { parseSpiffeId } from "../../sdk/spiffe/id.ts";
import type { X509Snapshot } from "../../sdk/spiffe/source.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";

/** Hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** SHA-256 (hex) of the CA that our own chain ends at. Throws INTERNAL `no-own-ca`. */
export function ownCaSha256({ svid, bundles }: X509Snapshot, nowMs: number): string {
  const { trustDomain } = parseSpiffeId(svid.id);
  const chain = svid.chain.map(({ raw }) => raw);
  for (const ca of bundles.get(trustDomain) ?? []) {
    try {
      verifySvid(chain, new Map([[trustDomain, [ca]]]), nowMs);
      return sha256(ca.raw);
    } catch (error) {
      if (!(error instanceof NsmError)) throw error;
    }
  }
  throw new NsmError(
    "INTERNAL",
    "no-own-ca",
    `no CA of ${trustDomain} has signed the certificate of ${svid.id}`,
  );
}
