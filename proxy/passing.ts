/** What the proxies that pass Requests on serve: the chain, the registries of other domains and of this one, links, and operators. */
import { MonitorConnection } from "../api/gen/connection_pb.js";
import { Exports } from "../api/gen/exports_pb.js";
import { Link, Links as LinksService } from "../api/gen/link_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../api/gen/registry_pb.js";
import { Defaults } from "../sdk/defaults.ts";
import { firstOf } from "../sdk/domains/peers.ts";
import type { PeerDomains } from "../sdk/domains/peers.ts";
import { handlersByDomain, handlersOf } from "../sdk/domains/serve-by-domain.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../sdk/elements/serve.ts";
import type { NetworkService as Chain } from "../sdk/chain.ts";
import { openServer } from "../sdk/grpc/server.ts";
import type { GrpcServer } from "../sdk/grpc/server.ts";
import { createHops } from "../sdk/hops.ts";
import type { Logger } from "../sdk/log.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { trackStore } from "../sdk/metrics/wires.ts";
import { idMatcher, idMatcherOfAnyDomain } from "../sdk/peer-ids.ts";
import { createReach } from "../sdk/reach.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import { createRegistryView } from "../sdk/registry/view.ts";
import { repeatCloses } from "../sdk/repeat-closes.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import { openAdmin } from "./admin.ts";
import { createProxyChain } from "./chain.ts";
import { parseClusterInfo, registerWith } from "./cluster-info.ts";
import type { ClusterInfo } from "./cluster-info.ts";
import type { PassingConfig, SharedConfig } from "./config.ts";
import { exportsHandlers } from "./exports/admin.ts";
import type { Home } from "./home.ts";
import { noteOfLink, warnOfHidden } from "./known-domains.ts";
import type { KnownDomains } from "./known-domains.ts";
import { linkAdmin, noLinkAdmin } from "./link/admin.ts";
import { linkUrl } from "./link/hub.ts";
import type { Links } from "./link/links.ts";
import { offersOf } from "./link/open.ts";
import { createOuterAddress } from "./outer-addresses.ts";
import { rememberEndpoints } from "./remote-endpoints.ts";
import type { RemoteEndpoints } from "./remote-endpoints.ts";

export const limits = { maxConcurrentStreams: Defaults.watchStreams };

export interface Passing {
  readonly config: PassingConfig;
  readonly log: Logger;
  readonly mesh: Mesh;
  readonly known: KnownDomains;
  readonly own: Home;
  /** Of other domains, by their names. */
  readonly elsewhere: Registries;
  /** Undefined without NSM_DOMAIN. */
  readonly links?: Links | undefined;
}

/** What passes through is the caller's: the registry that keeps it knows whose it is. */
export function relayed({ registryIds, proxyIds }: SharedConfig, mesh: Mesh) {
  return {
    ...mesh,
    ownersOfService: () => undefined,
    ownersOfEndpoint: () => undefined,
    mayRelay: idMatcher([...registryIds, ...proxyIds], mesh.trustDomain),
  };
}

/** Serves when it resolves. */
export async function servePassing(passing: Passing): Promise<AsyncDisposable> {
  const { config, log, mesh, known, own, elsewhere, links } = passing;
  await using stack = new AsyncDisposableStack();
  const path = config.clusterInfoPath;
  const cluster = stack.use(
    await openWatchedFile({
      path,
      variable: "NSM_CLUSTER_INFO_PATH",
      what: "labels of the cluster",
      parse: parseClusterInfo,
      missing: {},
      log,
      clock: mesh.clock,
    }),
  );
  const { registry: endpoints, remote } = rememberEndpoints(
    registerWith(elsewhere.endpoints, cluster.current),
    { here: own.here, elsewhere: own.url },
  );
  const peers = links === undefined ? known.peers : firstOf(links.hub.peers, known.peers);
  const store = createMonitorStore();
  stack.use(trackStore(store));
  const chain = openChain(passing, { remote, peers, clusterInfo: cluster.current }, store, stack);
  stack.use(await openOperatorsServer(passing));
  const serve = relayed(config, mesh);
  const registries = handlersByDomain({
    peers,
    exports: own.exports,
    homeFor: own.registriesFor,
    own: handlersOf({ services: elsewhere.services, endpoints }, serve),
    serve,
  });
  const isLinked = (id: string) => links?.mayConnect(id) === true;
  const isNeighbour = (id: string) => isLinked(id) || peers.domainOf(id) !== undefined;
  const others = links?.protocols ?? {};
  const server = stack.use(
    await openServer({ ...mesh, log, listen: config.listenOn, limits, isNeighbour, others }, (add) => {
      if (links !== undefined) add(Link, links.handlers, ({ spiffeId }) => isLinked(spiffeId));
      add(NetworkService, networkServiceHandlers(chain));
      add(MonitorConnection, monitorHandlers(store));
      add(NetworkServiceRegistry, registries.services);
      add(NetworkServiceEndpointRegistry, registries.endpoints);
    }),
  );
  if (links !== undefined) stack.use(warnOfHidden(links.hub, known, log));
  await links?.start(server.addresses.find((url) => url.startsWith("tcp:")) ?? server.addresses[0] ?? "");
  log.info({ addresses: server.addresses, published: own.here }, "proxy serves");
  return stack.move();
}

interface Surroundings {
  readonly remote: RemoteEndpoints;
  readonly peers: PeerDomains;
  readonly clusterInfo: () => ClusterInfo;
}

/** The way of a Request through this proxy. What it needs goes on the stack. */
function openChain(
  { config, log, mesh, own, links }: Passing,
  { remote, peers, clusterInfo }: Surroundings,
  store: MonitorStore,
  stack: AsyncDisposableStack,
): Chain {
  const { clock, minter, trustDomain } = mesh;
  const { pool = mesh.pool } = links ?? {};
  const { name, refusedAddresses } = config;
  const isProxy = idMatcherOfAnyDomain(config.proxyIds);
  const isManager = idMatcher(config.managerIds, trustDomain);
  const isForwarder = idMatcher(config.forwarderIds, trustDomain);
  const view = stack.use(createRegistryView(own.registries, clock, log));
  const calls = stack.use(createHops({ pool, minter, name, log }));
  const hops = stack.use(repeatCloses(calls, { clock, log }));
  if (links !== undefined)
    stack.use(
      links.hub.listen({ up: ({ domain }) => calls.isBack(linkUrl(domain)), gone: () => Promise.resolve() }),
    );
  return createProxyChain({
    name,
    minter,
    clock,
    store,
    log,
    hops,
    exports: own.exports,
    side: { remote, peers, isProxy, isManager, isForwarder, refusedAddresses },
    select: {
      view,
      clock,
      log,
      isManager,
      isProxy: () => false, // nobody is led through this domain to a third one
      refusedAddresses,
    },
    reach: createReach({ probe: calls.probe, clock, log }),
    onSilent: ({ url }) => pool.end(url), // what is said next begins anew, and waits for nothing that is lost
    tunnelMtuBytes: config.tunnelMtuBytes,
    outerAddress: createOuterAddress(own.outerAddresses, links?.hub.observedAddress),
    clusterInfo,
    unencryptedDomains: config.unencryptedDomains,
    links: links?.hub,
  });
}

function openOperatorsServer({ config, log, mesh, known, own, links }: Passing): Promise<GrpcServer> {
  return openAdmin(config, mesh, log, (add) => {
    add(Exports, exportsHandlers({ store: own.saved, ofRegistry: own.ofRegistry, log }));
    add(
      LinksService,
      links === undefined
        ? noLinkAdmin()
        : linkAdmin(links, offersOf(own.exports), (domain) => noteOfLink(known, domain)),
    );
  });
}
