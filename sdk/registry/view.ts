/**
 * What a registry knows of the services that this process uses, kept current by one watch each: no look-up on the hot path.
 *
 * Clients name services as they like, so a watch is only for what the registry has, and there are not more than so many.
 */
import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { sameEndpoint, sameService } from "./equal.ts";
import type { Registries } from "./registry.ts";
import { createWatches } from "./watches.ts";

export interface RegistryView extends Disposable {
  service(name: string, signal: AbortSignal): Promise<NetworkService | undefined>;
  /** Endpoints of a service that are not expired, in the registry's order. */
  endpointsOf(service: string, signal: AbortSignal): Promise<readonly NetworkServiceEndpoint[]>;
  /** By name, unless it is expired. `service`: where it is found without asking if that is followed already. */
  endpoint(name: string, service: string, signal: AbortSignal): Promise<NetworkServiceEndpoint | undefined>;
  /** Keeps watching a service and its endpoints, and tells of changes that matter for choosing; a renewed registration is none. */
  follow(service: string, onChange: () => void): FollowedService;
}

/** What is known of a service without asking. */
export interface KnownService {
  /** Undefined when the registry has none of that name. */
  readonly service: NetworkService | undefined;
  /** Those that are not expired. */
  readonly endpoints: readonly NetworkServiceEndpoint[];
}

export interface FollowedService extends Disposable {
  /** Undefined while the registry has not told yet, or there is no watch left for it. */
  known(): KnownService | undefined;
}

export function createRegistryView(registries: Registries, clock: Clock, log: Logger): RegistryView {
  const services = createWatches(registries.services, sameService, clock, log);
  const endpoints = createWatches(registries.endpoints, sameEndpoint, clock, log);
  const named = createWatches(registries.endpoints, sameEndpoint, clock, log);
  const serviceQuery = (name: string) => create(NetworkServiceSchema, { name });
  const endpointsQuery = (service: string) =>
    create(NetworkServiceEndpointSchema, { networkServiceNames: [service] });
  const alive = (entry: NetworkServiceEndpoint) =>
    entry.expirationTime === undefined || timestampMs(entry.expirationTime) > clock.now();
  return {
    async service(name, signal) {
      const known = await services.get(name, serviceQuery(name), signal);
      return known.find((entry) => entry.name === name);
    },
    async endpointsOf(service, signal) {
      // What runs out while the watch is broken may have been renewed.
      return (await endpoints.get(service, endpointsQuery(service), signal, alive)).filter(alive);
    },
    async endpoint(name, service, signal) {
      const known = endpoints.known(service)?.find((entry) => entry.name === name && alive(entry));
      if (known !== undefined) return known;
      const found = await named.get(name, create(NetworkServiceEndpointSchema, { name }), signal, alive);
      return found.find((entry) => entry.name === name && alive(entry));
    },
    follow(service, onChange) {
      const both = new DisposableStack();
      both.use(services.follow(service, serviceQuery(service), onChange));
      both.use(endpoints.follow(service, endpointsQuery(service), onChange));
      return {
        known() {
          const [records, all] = [services.known(service), endpoints.known(service)];
          if (records === undefined || all === undefined) return undefined;
          return { service: records.find(({ name }) => name === service), endpoints: all.filter(alive) };
        },
        [Symbol.dispose]: () => both.dispose(),
      };
    },
    [Symbol.dispose]() {
      services[Symbol.dispose]();
      endpoints[Symbol.dispose]();
      named[Symbol.dispose]();
    },
  };
}
