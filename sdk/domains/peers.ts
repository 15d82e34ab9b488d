/** Who speaks for which domain. */

export interface PeerDomains {
  /** The domain that a proxy of another domain speaks for; undefined for an id that speaks for none. */
  domainOf(spiffeId: string): string | undefined;
}
