/** The registry daemon, in memory: a restart starts empty, and everybody registers again within a second. */
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../api/gen/registry_pb.js";
import { defineDaemon } from "../sdk/daemon.ts";
import { Defaults } from "../sdk/defaults.ts";
import { keepImports } from "../sdk/domains/imports.ts";
import { routeByDomain } from "../sdk/domains/route.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { openMesh } from "../sdk/mesh.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { meters } from "../sdk/metrics/meters.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { createPresence } from "../sdk/registry/presence.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "../sdk/registry/serve.ts";
import { table } from "./config.ts";
import type { RegistryConfig } from "./config.ts";
import { createMemoryRegistries } from "./memory.ts";
import { keepServices } from "./services-file.ts";

export const daemon = defineDaemon({
  name: "registry",
  summary: "directory of network services and endpoints",
  about:
    "Keeps the network services of a mesh and the endpoints that offer them, in memory. Managers register and look up here; endpoints disappear when they are not renewed within a minute.",
  table,
  async open(config, runtime, stack) {
    const mesh = stack.use(await openMesh(config, runtime));
    const presence = createPresence();
    const { refusedAddresses } = config;
    const registries = stack.use(
      createMemoryRegistries(mesh.clock, {
        refusedAddresses,
        ...(config.bindManagers && { isPresent: presence.isPresent }),
      }),
    );
    if (config.servicesPath !== undefined)
      stack.use(await keepServices(config.servicesPath, registries, { ...mesh, log: runtime.log }));
    stack.use(
      meters.registryEntries.track(() => [
        { labels: { kind: "service" }, value: registries.sizes().services },
        { labels: { kind: "endpoint" }, value: registries.sizes().endpoints },
      ]),
    );
    const others = elsewhere(config, mesh);
    stack.use(keepImports({ registries, elsewhere: others, clock: mesh.clock, log: runtime.log }));
    const routed = routeByDomain(registries, others);
    const mayRelay = idMatcher(config.managerIds, mesh.trustDomain);
    const options = { ...mesh, ...registries, mayRelay, presence };
    const limits = { maxConcurrentStreams: Defaults.watchStreams };
    const server = stack.use(
      await openServer({ ...mesh, log: runtime.log, listen: config.listenOn, limits }, (add) => {
        add(NetworkServiceRegistry, serviceRegistryHandlers(routed, options));
        add(NetworkServiceEndpointRegistry, endpointRegistryHandlers(routed, options));
      }),
    );
    runtime.log.info({ addresses: server.addresses }, "registry serves");
  },
});

/** Registries of other domains, behind the proxy of this one. */
function elsewhere({ proxyRegistryUrl: url, proxyIds }: RegistryConfig, mesh: Mesh): Registries | undefined {
  if (url === undefined) return undefined;
  return createRegistryClient({ ...mesh, target: { url, expect: idMatcher(proxyIds, mesh.trustDomain) } });
}
