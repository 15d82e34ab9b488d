/** Registries that show each domain what is exported to it, and the own one everything (docs/protocol.md, "Exports"). */
import type { Empty } from "@bufbuild/protobuf/wkt";
import type { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../api/gen/registry_pb.js";
import { NsmError } from "../errors.ts";
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
/** Of one domain at a time: one a service and record that somebody there uses. */
const MOST_WATCHES = 2000;

export interface ByDomainOptions {
  readonly peers: PeerDomains;
  readonly exports: Exports;
  /** What a domain is shown a part of. One that has watches without end takes none from another where each has sessions of its own. */
  readonly homeFor: (domain: string) => Registries;
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

export function handlersByDomain({ peers, exports, homeFor, own, serve }: ByDomainOptions): RegistryHandlers {
  const known = new LruMap<string, Shown>(MOST_DOMAINS);
  const isElsewhere = ({ pathIds }: { readonly pathIds: readonly string[] }) =>
    pathIds.some((id) => peers.domainOf(id) !== undefined);
  const handlersFor = (domain: string): RegistryHandlers => {
    const shown = exportedRegistries({ home: homeFor(domain), exports, domain, isElsewhere });
    return handlersOf(shown, {
      ...serve,
      mayRelay: () => true, // for whom it registers is looked at where it is shown what it may see
      // That a name is taken is said to nobody who could not take it.
      ownersOfService: () => undefined,
      ownersOfEndpoint: (name, claimant) =>
        exports.acceptsAny(domain) ? serve.ownersOfEndpoint(name, claimant) : undefined,
    });
  };
  const all: Shown = { handlers: own, domain: undefined, watches: 0 };
  const of = ({ peer }: Caller): Shown => {
    const domain = peers.domainOf(peer.spiffeId);
    if (domain === undefined) return all;
    const shown = known.get(domain) ?? { handlers: handlersFor(domain), domain, watches: 0 };
    known.set(domain, shown);
    return shown;
  };
  return {
    services: chosen(of, ({ services }) => services),
    endpoints: chosen(of, ({ endpoints }) => endpoints),
  };
}

/** What one domain is shown. */
interface Shown {
  readonly handlers: RegistryHandlers;
  /** Undefined for the own one. */
  readonly domain: string | undefined;
  /** How many are open. */
  watches: number;
}

interface Methods<E, Q, R> {
  register(entry: E, caller: Caller): Promise<E>;
  find(query: Q, caller: Caller): AsyncIterable<R>;
  unregister(entry: E, caller: Caller): Promise<Empty>;
}

function chosen<E, Q extends { readonly watch: boolean }, R>(
  of: (caller: Caller) => Shown,
  kind: (handlers: RegistryHandlers) => Methods<E, Q, R>,
): Methods<E, Q, R> {
  return {
    register: (entry, caller) => kind(of(caller).handlers).register(entry, caller),
    unregister: (entry, caller) => kind(of(caller).handlers).unregister(entry, caller),
    async *find(query, caller) {
      const shown = of(caller);
      const found = kind(shown.handlers).find(query, caller);
      if (!query.watch || shown.domain === undefined) {
        yield* found;
        return;
      }
      if (shown.watches >= MOST_WATCHES)
        throw new NsmError(
          "RESOURCE_EXHAUSTED",
          "too-many-watches",
          `domain ${JSON.stringify(shown.domain)} has ${MOST_WATCHES} watches open here: end some`,
        );
      shown.watches++;
      try {
        yield* found;
      } finally {
        shown.watches--;
      }
    },
  };
}
