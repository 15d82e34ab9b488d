/** An authority above ours: an intermediate CA that signs in our place, and the roots that everybody trusts instead of a CA of ours. */
import type { X509Certificate } from "node:crypto";
import type { Changing } from "./callers.ts";
import type { X509Issuer } from "./issuer.ts";

export interface UpstreamView {
  /** Issues with the chain from the intermediate up to, and without, the root. */
  readonly issuer: X509Issuer;
  readonly roots: readonly X509Certificate[];
}

export interface Upstream extends Changing {
  current(): UpstreamView;
}
