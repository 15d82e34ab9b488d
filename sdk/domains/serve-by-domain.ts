/** Registries that show each domain what is exported to it, and the own one everything (docs/protocol.md, "Exports"). */
import type { Empty } from "@bufbuild/protobuf/wkt";
import type { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../api/gen/registry_pb.js";
import type { Caller } from "../grpc/caller.ts";
import type { Handlers } from "../grpc/handlers.ts";
import { LruMap } from "../lru.ts";
import type { Registries } from "../registry/registry.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "../registry/serve.ts";
import type { ServeRegistryOptions } from "../registry/serve.ts";
import { exportedRegistries } from "./exported.ts";
import type { Exports } from "./exports.ts";
import type { PeerDomains } from "./peers.ts";

/** Domains whose handlers are kept ready. */
const MOST_DOMAINS = 1024;

export interface ByDomainOptions {
  readonly peers: PeerDomains;
  readonly exports: Exports;
  /** What other domains are shown a part of. */
  readonly home: Registries;
  /** For callers of this domain. */
  readonly own: RegistryHandlers;
  readonly serve: Omit<ServeRegistryOptions, "mayRelay">;
}

export interface RegistryHandlers {
  readonly services: Handlers<typeof NetworkServiceRegistry>;
  readonly endpoints: Handlers<typeof NetworkServiceEndpointRegistry>;
}

export function handlersOf(registries: Registries, options: ServeRegistryOptions): RegistryHandlers {
  return {
    services: serviceRegistryHandlers(registries, options),
    endpoints: endpointRegistryHandlers(registries, options),
  };
}

export function handlersByDomain({ peers, exports, home, own, serve }: ByDomainOptions): RegistryHandlers {
  const known = new LruMap<string, RegistryHandlers>(MOST_DOMAINS);
  const isElsewhere = ({ pathIds }: { readonly pathIds: readonly string[] }) =>
    pathIds.some((id) => peers.domainOf(id) !== undefined);
  const handlersFor = (domain: string): RegistryHandlers => {
    const shown = exportedRegistries({ home, exports, domain, isElsewhere });
    return handlersOf(shown, {
      ...serve,
      mayRelay: () => true, // for whom it registers is looked at where it is shown what it may see
      // That a name is taken is said to nobody who could not take it.
      ownersOfService: () => undefined,
      ownersOfEndpoint: (name, claimant) =>
        exports.acceptsAny(domain) ? serve.ownersOfEndpoint(name, claimant) : undefined,
    });
  };
  const of = ({ peer }: Caller): RegistryHandlers => {
    const domain = peers.domainOf(peer.spiffeId);
    if (domain === undefined) return own;
    const handlers = known.get(domain) ?? handlersFor(domain);
    known.set(domain, handlers);
    return handlers;
  };
  return {
    services: chosen((caller) => of(caller).services),
    endpoints: chosen((caller) => of(caller).endpoints),
  };
}

interface Methods<E, Q, R> {
  register(entry: E, caller: Caller): Promise<E>;
  find(query: Q, caller: Caller): AsyncIterable<R>;
  unregister(entry: E, caller: Caller): Promise<Empty>;
}

function chosen<E, Q, R>(of: (caller: Caller) => Methods<E, Q, R>): Methods<E, Q, R> {
  return {
    register: (entry, caller) => of(caller).register(entry, caller),
    find: (query, caller) => of(caller).find(query, caller),
    unregister: (entry, caller) => of(caller).unregister(entry, caller),
  };
}
