/** The registry, as registry/main.ts builds it. */
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../../registry/memory.ts";
import { routeByDomain } from "../../../sdk/domains/route.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "../../../sdk/registry/serve.ts";
import { registriesAt, sameDomain } from "./proxies.ts";
import type { Start } from "./roles.ts";

export const startRegistry: Start = (bench, playback) => {
  const { clock, minter } = bench;
  const registries = createMemoryRegistries(clock);
  const proxy = sameDomain(bench, "nsmgr-proxy");
  const routed = routeByDomain(
    registries,
    proxy === undefined ? undefined : registriesAt(bench, playback, proxy),
  );
  const options = { clock, minter, ...registries, mayRelay: () => true };
  return {
    handlers: new Map<string, Readonly<Record<string, unknown>>>([
      [NetworkServiceRegistry.typeName, serviceRegistryHandlers(routed, options)],
      [NetworkServiceEndpointRegistry.typeName, endpointRegistryHandlers(routed, options)],
    ]),
    [Symbol.asyncDispose]: () => Promise.resolve(registries[Symbol.dispose]()),
  };
};
