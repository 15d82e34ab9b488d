/** A registry that passes on what concerns other domains (docs/protocol.md, "Domains"). */
import { NsmError } from "../errors.ts";
import type { Registries, Registry } from "../registry/registry.ts";
import { endpointKind, serviceKind } from "./records.ts";
import type { DomainKind } from "./records.ts";

/** `elsewhere`: who knows other domains; undefined refuses their names with FAILED_PRECONDITION `no-other-domains`. */
export function routeByDomain(local: Registries, elsewhere: Registries | undefined): Registries {
  return {
    services: routed(local.services, elsewhere?.services, serviceKind),
    endpoints: routed(local.endpoints, elsewhere?.endpoints, endpointKind),
  };
}

function routed<T extends { readonly name: string }>(
  local: Registry<T>,
  elsewhere: Registry<T> | undefined,
  kind: DomainKind<T>,
): Registry<T> {
  const registryFor = (entry: T): Registry<T> => {
    const domain = kind.domainOf(entry);
    if (domain === undefined) return local;
    if (elsewhere !== undefined) return elsewhere;
    throw new NsmError(
      "FAILED_PRECONDITION",
      "no-other-domains",
      `${JSON.stringify(entry.name)} is of the domain ${JSON.stringify(domain)}, and this registry knows no other: set NSM_PROXY_REGISTRY_URL`,
    );
  };
  return {
    register: async (entry, ctx) => await registryFor(entry).register(entry, ctx),
    async *find(query, ctx) {
      yield* registryFor(query.entry).find(query, ctx);
    },
    unregister: async (entry, ctx) => {
      await registryFor(entry).unregister(entry, ctx);
    },
  };
}
