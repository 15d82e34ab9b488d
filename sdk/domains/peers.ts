/** Who speaks for which domain (docs/protocol.md, "Domains"). */
import { parseSpiffeId } from "../spiffe/id.ts";

export interface PeerDomains {
  /** The domain that a proxy of another domain speaks for; undefined for an id that speaks for none. */
  domainOf(spiffeId: string): string | undefined;
}

/** Domains as trust domains: each speaks for itself alone. */
export interface DomainTrust {
  /** The domain of a trust domain other than the own one; undefined for one that nobody has named. */
  domainOf(trustDomain: string): string | undefined;
  /** True where somebody of that trust domain may answer as the domain's registry or proxy. `own`: the trust domain of this mesh. */
  mayAnswer(domain: string, trustDomain: string, own: string): boolean;
}

/** Proxies of other trust domains. The own one is no other domain, whatever a file says of it. */
export function peersByTrust(
  trust: Pick<DomainTrust, "domainOf">,
  isProxy: (spiffeId: string) => boolean,
  own: string,
): PeerDomains {
  return {
    domainOf(spiffeId) {
      const { trustDomain } = parseSpiffeId(spiffeId);
      return trustDomain === own || !isProxy(spiffeId) ? undefined : trust.domainOf(trustDomain);
    },
  };
}

/** The first that knows an id. */
export function firstOf(...all: readonly PeerDomains[]): PeerDomains {
  return {
    domainOf(spiffeId) {
      for (const peers of all) {
        const domain = peers.domainOf(spiffeId);
        if (domain !== undefined) return domain;
      }
      return undefined;
    },
  };
}
