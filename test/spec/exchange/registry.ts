/** The registry, as registry/main.ts builds it. */
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../../registry/memory.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "../../../sdk/registry/serve.ts";
import type { Start } from "./roles.ts";

export const startRegistry: Start = ({ clock, minter }) => {
  const registries = createMemoryRegistries(clock);
  const options = { clock, minter, ...registries, mayRelay: () => true };
  return {
    handlers: new Map<string, Readonly<Record<string, unknown>>>([
      [NetworkServiceRegistry.typeName, serviceRegistryHandlers(registries, options)],
      [NetworkServiceEndpointRegistry.typeName, endpointRegistryHandlers(registries, options)],
    ]),
    [Symbol.asyncDispose]: () => Promise.resolve(registries[Symbol.dispose]()),
  };
};
