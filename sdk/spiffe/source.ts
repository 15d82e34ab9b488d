/** What a process knows of identities at one moment, as one immutable value (SPIFFE Workload API, X.509 profile). */
import type { KeyObject, X509Certificate } from "node:crypto";

/** One X.509-SVID with its key. */
export interface X509Svid {
  /** `spiffe://trust-domain/path` */
  readonly id: string;
  /** Leaf first, then intermediates. Never empty. */
  readonly chain: readonly X509Certificate[];
  /** The chain as concatenated PEM. */
  readonly chainPem: string;
  readonly privateKey: KeyObject;
  /** PKCS#8 PEM. */
  readonly privateKeyPem: string;
  /** End of the leaf's validity, milliseconds since 1970. */
  readonly notAfterMs: number;
}

/** SVID, key and bundles belong together: they are replaced as one, and sessions keep the one they were made with. */
export interface X509Snapshot {
  /** Grows by one with every change that the Workload API pushed. */
  readonly generation: number;
  readonly svid: X509Svid;
  /** Trust domain name (`example.org`) -> its CA certificates. A domain that is absent is not trusted. */
  readonly bundles: ReadonlyMap<string, readonly X509Certificate[]>;
}

/** A live view of this process's identity. */
export interface X509Source extends AsyncDisposable {
  /** The newest snapshot. Throws UNAVAILABLE: `identity-withdrawn` after the API took it back, `identity-expired` after its end. */
  current(): X509Snapshot;
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: (snapshot: X509Snapshot) => void): Disposable;
}
