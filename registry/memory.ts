/** The registry's records in memory: names, leases and who may change them (docs/protocol.md, "Registry"). */
import { clone } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { Clock } from "../sdk/clock.ts";
import { checkTcpUrl } from "../sdk/endpoint-url.ts";
import type { RefusedAddresses } from "../sdk/endpoint-url.ts";
import { NsmError } from "../sdk/errors.ts";
import { matchesEndpoint, matchesNetworkService } from "../sdk/match.ts";
import type { Registries, Registry, RegistryContext } from "../sdk/registry/registry.ts";
import { isSpiffeId, parseSpiffeId } from "../sdk/spiffe/id.ts";
import { createStore } from "../sdk/registry/store.ts";
import type { Store } from "../sdk/registry/store.ts";
import { createBringers } from "./bringers.ts";
import type { Bringers } from "./bringers.ts";
import { createLeases } from "./leases.ts";
import type { Leases } from "./leases.ts";

/** Longest life of a registration without a refresh; the value of the Go registries. */
const EXPIRY_MS = 60_000;
/** How late an expired endpoint may disappear. */
const SWEEP_MS = 500;
/** Everybody who watches is told of each endpoint that ends: nobody else waits for longer meanwhile. */
const SLICE_MS = 1;
const DEFAULT_PAYLOAD = "IP";

export interface MemoryRegistries extends Registries, Disposable {
  /** `path_ids` of the record that bears a name now. */
  ownersOfService(name: string): readonly string[] | undefined;
  /** Undefined also for one that another domain has registered, when somebody of this one claims the name. */
  ownersOfEndpoint(name: string, claimant: string): readonly string[] | undefined;
  /** How many there are now. */
  sizes(): { readonly services: number; readonly endpoints: number };
}

export interface MemoryOptions {
  /** True for a manager that is connected now: nobody else changes what it has registered. Default: nobody is. */
  readonly isPresent?: (spiffeId: string) => boolean;
  /** Of this mesh: its people are not kept from a name by those of others. Default: all are of this mesh. */
  readonly trustDomain?: string | undefined;
  /** Networks that no endpoint's URL may lead to; default none. */
  readonly refusedAddresses?: RefusedAddresses;
}

export function createMemoryRegistries(clock: Clock, options: MemoryOptions = {}): MemoryRegistries {
  const services = createStore<NetworkService>({
    nameOf: ({ name }) => name,
    servicesOf: () => [],
    matches: matchesNetworkService,
  });
  const endpoints = createStore<NetworkServiceEndpoint>({
    nameOf: ({ name }) => name,
    servicesOf: ({ networkServiceNames }) => networkServiceNames,
    matches: matchesEndpoint,
  });
  const bringers = createBringers({ endpoints, isPresent: options.isPresent ?? (() => false) });
  let timer: Disposable;
  const leases = createLeases();
  const tick = () => {
    const isDone = expire(endpoints, leases, clock);
    timer = clock.timer(isDone ? SWEEP_MS : 0, tick);
  };
  tick();
  return {
    services: serviceRegistry(services, bringers),
    endpoints: endpointRegistry(endpoints, leases, bringers, clock, options),
    ownersOfService: (name) => services.get(name)?.pathIds,
    ownersOfEndpoint(name, claimant) {
      const owners = endpoints.get(name)?.pathIds;
      return outranks(claimant, owners?.[0], options) ? undefined : owners;
    },
    sizes: () => ({ services: services.size, endpoints: endpoints.size }),
    [Symbol.dispose]: () => timer[Symbol.dispose](),
  };
}

function serviceRegistry(store: Store<NetworkService>, bringers: Bringers): Registry<NetworkService> {
  return {
    register(service, ctx) {
      requireName(service.name, "network service");
      if (service.payload === "") service.payload = DEFAULT_PAYLOAD;
      // Which other domains it has to do with is for whoever runs the registry to say.
      if (ctx.peer !== undefined) service.exportTo = service.importFrom = service.acceptEndpointsFrom = [];
      if (bringers.mayChangeService(store.get(service.name), service, ctx)) {
        const stored = clone(NetworkServiceSchema, service);
        bringers.note(stored, ctx);
        store.put(stored);
      }
      return Promise.resolve(service);
    },
    find: (query, { signal }) => store.find(query, signal),
    unregister(service, ctx) {
      if (bringers.mayChangeService(store.get(service.name), undefined, ctx)) store.remove(service.name);
      return Promise.resolve();
    },
  };
}

function endpointRegistry(
  store: Store<NetworkServiceEndpoint>,
  leases: Leases,
  bringers: Bringers,
  clock: Clock,
  { refusedAddresses = [], trustDomain }: MemoryOptions,
): Registry<NetworkServiceEndpoint> {
  return {
    register(endpoint, ctx) {
      requireName(endpoint.name, "endpoint");
      const known = store.get(endpoint.name);
      // Most are renewals, whose URL has been looked at.
      if (endpoint.url !== known?.url) checkUrl(endpoint, refusedAddresses);
      if (!outranks(endpoint.pathIds[0], known?.pathIds[0], { trustDomain }))
        bringers.refuseEndpoint(known, ctx);
      const nowMs = clock.now();
      const first = known?.initialRegistrationTime ?? endpoint.initialRegistrationTime;
      endpoint.initialRegistrationTime = first ?? timestampFromMs(nowMs);
      const endMs = leaseEnd(endpoint, ctx, nowMs);
      endpoint.expirationTime = timestampFromMs(endMs);
      const stored = clone(NetworkServiceEndpointSchema, endpoint);
      bringers.note(stored, ctx);
      store.put(stored);
      leases.set(endpoint.name, endMs);
      return Promise.resolve(endpoint);
    },
    find: (query, { signal }) => store.find(query, signal),
    unregister(endpoint, ctx) {
      bringers.refuseEndpoint(store.get(endpoint.name), ctx);
      store.remove(endpoint.name);
      leases.set(endpoint.name, undefined);
      return Promise.resolve();
    },
  };
}

/** The claimant is of this mesh, and the owner is not. */
function outranks(
  claimant: string | undefined,
  owner: string | undefined,
  { trustDomain }: Pick<MemoryOptions, "trustDomain">,
): boolean {
  const isOurs = (id: string | undefined) =>
    id !== undefined && isSpiffeId(id) && parseSpiffeId(id).trustDomain === trustDomain;
  return trustDomain !== undefined && owner !== undefined && isOurs(claimant) && !isOurs(owner);
}

/** Other schemes lead nowhere from another node; a manager without TCP address is on its own, and publishes its socket. */
function checkUrl({ name, url }: NetworkServiceEndpoint, refused: RefusedAddresses): void {
  if (url.startsWith("tcp:") && !/^tcp:\/\/:\d+$/.test(url)) checkTcpUrl(url, refused, `endpoint ${name}`);
}

/** The registrant's wish, bounded by the tokens and certificates of both sides. */
function leaseEnd(
  endpoint: NetworkServiceEndpoint,
  { peer, latestExpiryMs = Infinity }: RegistryContext,
  nowMs: number,
): number {
  const wish = endpoint.expirationTime === undefined ? Infinity : timestampMs(endpoint.expirationTime);
  const certificates = peer && Math.min(peer.certificate.validToDate.getTime(), peer.own.svid.notAfterMs);
  return Math.min(wish, nowMs + EXPIRY_MS, latestExpiryMs, certificates ?? Infinity);
}

/** False when there are more than may be told of at once. */
function expire(store: Store<NetworkServiceEndpoint>, leases: Leases, clock: Clock): boolean {
  const startMs = clock.monotonic();
  for (const name of leases.ended(clock.now())) {
    store.remove(name);
    if (clock.monotonic() - startMs >= SLICE_MS) return false;
  }
  return true;
}

function requireName(name: string, what: string): void {
  if (name !== "") return;
  throw new NsmError("INVALID_ARGUMENT", "name-missing", `the ${what} has no name: set a unique one`);
}
