/** What the authority tells its workloads to trust: the own bundle and those of federated trust domains, as messages want them. */
import type { JwtBundles } from "../sdk/spiffe/jwt.ts";
import { trustDomainId } from "../sdk/spiffe/id.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import type { Bundle } from "../sdk/spiffe/bundle.ts";
import type { Changing } from "./callers.ts";
import type { Federated } from "./federated.ts";

export interface Trust extends Changing {
  /** The same object until something changes. */
  current(): TrustView;
}

export interface TrustView {
  readonly own: Bundle;
  /** The own CA certificates, DER, one after the other. */
  readonly ownCertificates: Uint8Array;
  /** By the id of the trust domain; a domain without certificates is left out: nobody of it is trusted. */
  readonly federatedCertificates: Readonly<Record<string, Uint8Array>>;
  /** JWK Sets by the id of the trust domain, the own one included. */
  readonly jwtSets: Readonly<Record<string, Uint8Array>>;
  /** The same by name. */
  readonly jwtBundles: JwtBundles;
}

interface Own extends Changing {
  readonly trustDomain: string;
  bundle(): Bundle;
}

export function createTrust(own: Own, federated: Federated): Trust {
  let made:
    | { readonly own: Bundle; readonly others: ReadonlyMap<string, Bundle>; readonly view: TrustView }
    | undefined;
  return {
    current() {
      const [bundle, others] = [own.bundle(), federated.current()];
      if (made?.own !== bundle || made.others !== others)
        made = { own: bundle, others, view: viewOf(own.trustDomain, bundle, others) };
      return made.view;
    },
    onChange(listener) {
      const listeners = [own.onChange(listener), federated.onChange(listener)];
      return { [Symbol.dispose]: () => listeners.forEach((each) => each[Symbol.dispose]()) };
    },
  };
}

function viewOf(name: string, own: Bundle, others: ReadonlyMap<string, Bundle>): TrustView {
  // The own one last, so that no federated entry could take its place.
  const all = [...others].filter(([other]) => other !== name).concat([[name, own]]);
  return {
    own,
    ownCertificates: concatenated(own),
    federatedCertificates: Object.fromEntries(
      all
        .filter(([other, { certificates }]) => other !== name && certificates.length > 0)
        .map(([other, bundle]) => [trustDomainId(other), concatenated(bundle)]),
    ),
    jwtSets: Object.fromEntries(
      all.map(([each, { jwtKeys }]) => [
        trustDomainId(each),
        Buffer.from(
          formatBundle({ certificates: [], jwtKeys, sequence: undefined, refreshHintSeconds: undefined }),
        ),
      ]),
    ),
    jwtBundles: new Map(all.map(([each, { jwtKeys }]) => [each, jwtKeys])),
  };
}

function concatenated({ certificates }: Bundle): Uint8Array {
  return Buffer.concat(certificates.map(({ raw }) => raw));
}
