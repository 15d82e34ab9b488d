/** The registries of all other domains as one (docs/protocol.md, "Domains"): the role of a registry proxy. */
import type { Registries, Registry } from "../sdk/registry/registry.ts";
import type { DomainResolver } from "../sdk/domains/resolver.ts";
import { endpointKind, serviceKind } from "../sdk/domains/records.ts";
import type { DomainKind } from "../sdk/domains/records.ts";
import { NsmError } from "../sdk/errors.ts";
import { LruMap } from "../sdk/lru.ts";

/** Domains whose calls are kept ready; the sessions themselves are the pool's. */
const MOST_DOMAINS = 1024;

export interface DomainRegistriesOptions {
  readonly resolver: DomainResolver;
  /** The registries behind a URL. */
  readonly open: (url: string) => Registries;
}

export function createDomainRegistries({ resolver, open }: DomainRegistriesOptions): Registries {
  const byUrl = new LruMap<string, Registries>(MOST_DOMAINS);
  const at = async (domain: string, signal: AbortSignal): Promise<Registries> => {
    const url = await resolver.registryOf(domain, signal);
    const known = byUrl.get(url) ?? open(url);
    byUrl.set(url, known);
    return known;
  };
  const services = inDomain(serviceKind, async (domain, signal) => (await at(domain, signal)).services);
  const endpoints = inDomain(endpointKind, async (domain, signal) => (await at(domain, signal)).endpoints);
  return {
    services,
    endpoints: {
      ...endpoints,
      // Who answers for an endpoint of another domain is the proxy there; a domain without one publishes what can be dialled.
      async *find(query, ctx) {
        const domain = domainOf(endpointKind, query.entry);
        const proxy = await resolver.proxyOf(domain, ctx.signal);
        for await (const { entry, deleted } of endpoints.find(query, ctx)) {
          if (proxy !== undefined) entry.url = proxy;
          yield { entry, deleted };
        }
      },
    },
  };
}

function inDomain<T extends { readonly name: string }>(
  kind: DomainKind<T>,
  registryOf: (domain: string, signal: AbortSignal) => Promise<Registry<T>>,
): Registry<T> {
  return {
    async register(entry, ctx) {
      const domain = domainOf(kind, entry);
      const registry = await registryOf(domain, ctx.signal);
      return kind.join(await registry.register(kind.strip(entry), ctx), domain);
    },
    async *find({ entry, watch }, ctx) {
      const domain = domainOf(kind, entry);
      const registry = await registryOf(domain, ctx.signal);
      for await (const found of registry.find({ entry: kind.strip(entry), watch }, ctx))
        yield { ...found, entry: kind.join(found.entry, domain) };
    },
    async unregister(entry, ctx) {
      const registry = await registryOf(domainOf(kind, entry), ctx.signal);
      await registry.unregister(kind.strip(entry), ctx);
    },
  };
}

function domainOf<T extends { readonly name: string }>(kind: DomainKind<T>, entry: T): string {
  const domain = kind.domainOf(entry);
  if (domain !== undefined && domain !== "") return domain;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "no-domain",
    `${JSON.stringify(entry.name)} names no domain: a registry proxy is asked for service@domain`,
  );
}
