/** Where the registry and the manager proxy of a domain are. */

export interface DomainResolver {
  /** `tcp://address:port` of its registry. Throws NOT_FOUND `domain-not-found`, UNAVAILABLE `domain-silent`. */
  registryOf(domain: string, signal: AbortSignal): Promise<string>;
  /** `tcp://address:port` of its manager proxy; undefined for a domain without nodes. Throws as `registryOf`, but not NOT_FOUND. */
  proxyOf(domain: string, signal: AbortSignal): Promise<string | undefined>;
}
