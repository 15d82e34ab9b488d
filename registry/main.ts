/** The registry daemon, in memory: a restart starts empty, and everybody registers again within a second. */
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../api/gen/registry_pb.js";
import { defineDaemon } from "../sdk/daemon.ts";
import { Defaults } from "../sdk/defaults.ts";
import { keepImports } from "../sdk/domains/imports.ts";
import { followExportedServices } from "../sdk/domains/exports.ts";
import { peersByTrust } from "../sdk/domains/peers.ts";
import { handlersByDomain, handlersOf } from "../sdk/domains/serve-by-domain.ts";
import { routeByDomain } from "../sdk/domains/route.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { openMesh } from "../sdk/mesh.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { meters } from "../sdk/metrics/meters.ts";
import { idMatcher, idMatcherOfAnyDomain } from "../sdk/peer-ids.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { createPresence } from "../sdk/registry/presence.ts";
import type { Registries } from "../sdk/registry/registry.ts";
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
    const { clock, trustDomain } = mesh;
    const { log } = runtime;
    const registries = stack.use(
      createMemoryRegistries(clock, {
        refusedAddresses,
        trustDomain,
        ...(config.bindManagers && { isPresent: presence.isPresent }),
      }),
    );
    if (config.servicesPath !== undefined)
      stack.use(await keepServices(config.servicesPath, registries, { ...mesh, log }));
    stack.use(
      meters.registryEntries.track(() => [
        { labels: { kind: "service" }, value: registries.sizes().services },
        { labels: { kind: "endpoint" }, value: registries.sizes().endpoints },
      ]),
    );
    const others = elsewhere(config, mesh);
    stack.use(keepImports({ registries, elsewhere: others, clock, log }));
    const routed = routeByDomain(registries, others);
    const serve = { ...mesh, ...registries, presence };
    const mayRelay = idMatcher([...config.managerIds, ...config.proxyIds], trustDomain);
    const peers = peersByTrust(config.dnsDomains, idMatcherOfAnyDomain(config.proxyIds), trustDomain);
    const isNeighbour = (id: string) => peers.domainOf(id) !== undefined;
    const handlers = handlersByDomain({
      peers,
      exports: stack.use(followExportedServices(registries.services, clock, log)),
      homeFor: () => registries,
      own: handlersOf(routed, { ...serve, mayRelay }),
      serve,
    });
    const limits = { maxConcurrentStreams: Defaults.watchStreams };
    const server = stack.use(
      await openServer({ ...mesh, log, listen: config.listenOn, limits, isNeighbour }, (add) => {
        add(NetworkServiceRegistry, handlers.services);
        add(NetworkServiceEndpointRegistry, handlers.endpoints);
      }),
    );
    log.info({ addresses: server.addresses }, "registry serves");
  },
});

/** Registries of other domains, behind the proxy of this one. */
function elsewhere({ proxyRegistryUrl: url, proxyIds }: RegistryConfig, mesh: Mesh): Registries | undefined {
  if (url === undefined) return undefined;
  return createRegistryClient({ ...mesh, target: { url, expect: idMatcher(proxyIds, mesh.trustDomain) } });
}
