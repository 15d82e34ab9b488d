/** The manager, as nsmgr/main.ts builds it. */
import { randomUUID } from "node:crypto";
import { MonitorConnection } from "../../../api/gen/connection_pb.js";
import { NetworkService } from "../../../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../../api/gen/registry_pb.js";
import { createManagerChain } from "../../../nsmgr/chain.ts";
import { createLocalEndpoints } from "../../../nsmgr/local-endpoints.ts";
import { createManagerRegistries } from "../../../nsmgr/registry.ts";
import { clientInfoOf } from "../../../sdk/client-info.ts";
import { Defaults } from "../../../sdk/defaults.ts";
import { createHistory } from "../../../sdk/elements/history.ts";
import { createMonitorStore } from "../../../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../../../sdk/elements/serve.ts";
import { createHops } from "../../../sdk/hops.ts";
import { silentLogger as log } from "../../../sdk/log.ts";
import { idMatcher } from "../../../sdk/peer-ids.ts";
import { createRegistryClient } from "../../../sdk/registry/client.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "../../../sdk/registry/serve.ts";
import { createRegistryView } from "../../../sdk/registry/view.ts";
import { publicUrlOf } from "./places.ts";
import { serverOf } from "./recording.ts";
import type { Start } from "./roles.ts";

export const startManager: Start = (bench, { pool }) => {
  const { recorded, component, clock, minter, trustDomain, places, subject } = bench;
  const stack = new AsyncDisposableStack();
  const env = component.env ?? {};
  const info = clientInfoOf({
    nodeName: env["NODE_NAME"],
    podName: env["POD_NAME"],
    zoneName: env["ZONE_NAME"],
    clusterName: env["CLUSTER_NAME"],
  });
  const registry = serverOf(recorded, component.name, "registry");
  const upstream = createRegistryClient({
    pool,
    minter,
    clock,
    target: { url: places.urlOf(registry), expect: idMatcher(Defaults.registryIds.split(","), trustDomain) },
  });
  const local = createLocalEndpoints(clock);
  const { forwarderService } = Defaults;
  const shared = {
    local,
    forwarderService,
    publicUrl: publicUrlOf(component),
    info,
    clock,
    log,
    refusedAddresses: [],
  };
  const mayForward = idMatcher(Defaults.forwarderIds.split(","), trustDomain);
  const registries = stack.use(createManagerRegistries({ ...shared, upstream, mayForward }));
  const view = stack.use(createRegistryView(upstream, clock, log));
  const store = createMonitorStore();
  const hops = stack.use(createHops({ pool, minter, name: component.name, log }));
  const newId = () => subject.names.invent(randomUUID());
  const chain = createManagerChain({
    ...shared,
    // Nothing is edited in the recordings.
    moves: { keep: () => undefined, drop: () => undefined, [Symbol.dispose]: () => undefined },
    lostForwarders: { serves: () => undefined, drop: () => undefined, isGivenUp: () => false },
    // Nor does anybody wait.
    waiting: {
      asks: () => undefined,
      add: () => undefined,
      drop: () => undefined,
      [Symbol.dispose]: () => undefined,
    },
    name: component.name,
    minter,
    store,
    history: createHistory(clock),
    hops,
    view,
    newId,
    mayForward,
    excluded: () => [],
    clientGraceMs: 1000,
  });
  const owners = {
    minter,
    clock,
    ownersOfService: () => undefined,
    ownersOfEndpoint: (name: string) => local.get(name)?.entry.pathIds,
    mayRelay: () => false,
  };
  return {
    handlers: new Map<string, Readonly<Record<string, unknown>>>([
      [NetworkService.typeName, networkServiceHandlers(chain)],
      [MonitorConnection.typeName, monitorHandlers(store)],
      [NetworkServiceRegistry.typeName, serviceRegistryHandlers(registries, owners)],
      [NetworkServiceEndpointRegistry.typeName, endpointRegistryHandlers(registries, owners)],
    ]),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
};
