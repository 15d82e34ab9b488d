/** The proxies of a domain: what a domain's clients ask of others goes out through them, what others ask comes in. */
import { MonitorConnection } from "../api/gen/connection_pb.js";
import { Exports } from "../api/gen/exports_pb.js";
import { Link, Links as LinksService } from "../api/gen/link_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../api/gen/registry_pb.js";
import { defineDaemon } from "../sdk/daemon.ts";
import type { Runtime } from "../sdk/daemon.ts";
import { Defaults } from "../sdk/defaults.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../sdk/elements/serve.ts";
import { NsmError } from "../sdk/errors.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { handlersByDomain, handlersOf } from "../sdk/domains/serve-by-domain.ts";
import { firstOf } from "../sdk/domains/peers.ts";
import { createHops } from "../sdk/hops.ts";
import { openMesh } from "../sdk/mesh.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { trackStore } from "../sdk/metrics/wires.ts";
import { idMatcher, idMatcherOfAnyDomain } from "../sdk/peer-ids.ts";
import { createReach } from "../sdk/reach.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import { createRegistryView } from "../sdk/registry/view.ts";
import { repeatCloses } from "../sdk/repeat-closes.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import { openAdmin } from "./admin.ts";
import { parseClusterInfo, registerWith } from "./cluster-info.ts";
import { createProxyChain } from "./chain.ts";
import { managerProxyTable, proxyTable, registryProxyTable } from "./config.ts";
import type { PassingConfig, SharedConfig } from "./config.ts";
import { exportsHandlers } from "./exports/admin.ts";
import { openHome } from "./home.ts";
import type { Home } from "./home.ts";
import { openKnownDomains, registriesOfDomains } from "./known-domains.ts";
import type { KnownDomains } from "./known-domains.ts";
import { linkAdmin, noLinkAdmin } from "./link/admin.ts";
import { linkUrl } from "./link/hub.ts";
import type { Links } from "./link/links.ts";
import { offersOf, openLinks } from "./link/open.ts";
import { createOuterAddress } from "./outer-addresses.ts";
import { rememberEndpoints } from "./remote-endpoints.ts";

export const proxy = defineDaemon({
  name: "proxy",
  summary: "joins this domain to others: finds their services and passes Requests through",
  about:
    "The door of a domain. Registries ask it for names of other domains (service@domain), forwarders send it their Requests for endpoints that it found there, and the proxies of other domains come here for endpoints of this one. Both roles of a domain's proxies in one process; nsm nsmgr-proxy and nsm registry-proxy run one each. It needs no privileges.",
  table: proxyTable,
  async open(config, runtime, stack) {
    const mesh = stack.use(await openMesh(config, runtime));
    const known = await openKnownDomains(config, mesh, runtime.log, stack);
    const own = await openHome(config, mesh, runtime.log, stack);
    const links = await openLinks(config, mesh, runtime, own);
    if (links !== undefined) stack.use(links);
    const elsewhere = registriesOfDomains(config, mesh, known, runtime.log, links);
    stack.use(await servePassing(config, runtime, mesh, known, own, elsewhere, links));
  },
});

export const managerProxy = defineDaemon({
  name: "nsmgr-proxy",
  summary: "the part of nsm proxy that passes Requests from and to other domains",
  about:
    "Passes Requests between this domain and others. It finds endpoints of other domains by a registry proxy (NSM_REGISTRY_PROXY_URL). It needs no privileges.",
  table: managerProxyTable,
  async open(config, runtime, stack) {
    const url = config.registryProxyUrl;
    if (url === undefined)
      throw new NsmError(
        "INVALID_ARGUMENT",
        "no-registry-proxy",
        "NSM_REGISTRY_PROXY_URL is not set: name the registry proxy, or run nsm proxy, which is both",
      );
    const mesh = stack.use(await openMesh(config, runtime));
    const expect = idMatcher([...config.registryIds, ...config.proxyIds], mesh.trustDomain);
    const elsewhere = createRegistryClient({ ...mesh, target: { url, expect } });
    const known = await openKnownDomains(config, mesh, runtime.log, stack);
    const own = await openHome(config, mesh, runtime.log, stack);
    stack.use(await servePassing(config, runtime, mesh, known, own, elsewhere));
  },
});

export const registryProxy = defineDaemon({
  name: "registry-proxy",
  summary: "the part of nsm proxy that asks registries of other domains",
  about: "Asks the registries of other domains, which it finds by a file or by DNS. It needs no privileges.",
  table: registryProxyTable,
  async open(config, runtime, stack) {
    const mesh = stack.use(await openMesh(config, runtime));
    const known = await openKnownDomains(config, mesh, runtime.log, stack);
    const handlers = handlersOf(registriesOfDomains(config, mesh, known, runtime.log), relayed(config, mesh));
    const server = stack.use(
      await openServer({ ...mesh, log: runtime.log, listen: config.listenOn, limits }, (add) => {
        add(NetworkServiceRegistry, handlers.services);
        add(NetworkServiceEndpointRegistry, handlers.endpoints);
      }),
    );
    runtime.log.info({ addresses: server.addresses }, "registry proxy serves");
  },
});

const limits = { maxConcurrentStreams: Defaults.watchStreams };

/** What passes through is the caller's: the registry that keeps it knows whose it is. */
function relayed({ registryIds, proxyIds }: SharedConfig, mesh: Mesh) {
  return {
    ...mesh,
    ownersOfService: () => undefined,
    ownersOfEndpoint: () => undefined,
    mayRelay: idMatcher([...registryIds, ...proxyIds], mesh.trustDomain),
  };
}

async function servePassing(
  config: PassingConfig,
  { log }: Runtime,
  mesh: Mesh,
  known: KnownDomains,
  own: Home,
  elsewhere: Registries,
  links?: Links,
): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const { clock, minter, trustDomain } = mesh;
  const { pool = mesh.pool } = links ?? {};
  const peers = links === undefined ? known.peers : firstOf(links.hub.peers, known.peers);
  const { name } = config;
  const { here, outerAddresses, registries: home, exports } = own;
  const cluster = stack.use(
    await openWatchedFile({
      path: config.clusterInfoPath,
      variable: "NSM_CLUSTER_INFO_PATH",
      what: "labels of the cluster",
      parse: parseClusterInfo,
      missing: {},
      log,
      clock,
    }),
  );
  const { registry: endpoints, remote } = rememberEndpoints(
    registerWith(elsewhere.endpoints, cluster.current),
    { here, elsewhere: own.url },
  );
  const view = stack.use(createRegistryView(home, clock, log));
  const store = createMonitorStore();
  stack.use(trackStore(store));
  const isProxy = idMatcherOfAnyDomain(config.proxyIds);
  const isManager = idMatcher(config.managerIds, trustDomain);
  const calls = stack.use(createHops({ pool, minter, name, log }));
  const hops = stack.use(repeatCloses(calls, { clock, log }));
  if (links !== undefined)
    stack.use(
      links.hub.listen({ up: ({ domain }) => calls.isBack(linkUrl(domain)), gone: () => Promise.resolve() }),
    );
  const chain = createProxyChain({
    name,
    minter,
    clock,
    store,
    log,
    hops,
    exports,
    side: {
      remote,
      peers,
      isProxy,
      isManager,
      isForwarder: idMatcher(config.forwarderIds, trustDomain),
      refusedAddresses: config.refusedAddresses,
    },
    select: {
      view,
      clock,
      log,
      isManager,
      isProxy: () => false, // nobody is led through this domain to a third one
      refusedAddresses: config.refusedAddresses,
    },
    reach: createReach({ probe: calls.probe, clock, log }),
    onSilent: ({ url }) => pool.end(url), // what is said next begins anew, and waits for nothing that is lost
    tunnelMtuBytes: config.tunnelMtuBytes,
    outerAddress: createOuterAddress(outerAddresses, links?.hub.observedAddress),
    clusterInfo: cluster.current,
    unencryptedDomains: config.unencryptedDomains,
    links: links?.hub,
  });
  const serve = relayed(config, mesh);
  const registries = handlersByDomain({
    peers,
    exports,
    homeFor: own.registriesFor,
    own: handlersOf({ services: elsewhere.services, endpoints }, serve),
    serve,
  });
  stack.use(
    await openAdmin(config, mesh, log, (add) => {
      add(Exports, exportsHandlers({ store: own.saved, ofRegistry: own.ofRegistry, log }));
      add(LinksService, links === undefined ? noLinkAdmin() : linkAdmin(links, offersOf(exports)));
    }),
  );
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
  await links?.start(server.addresses.find((url) => url.startsWith("tcp:")) ?? server.addresses[0] ?? "");
  log.info({ addresses: server.addresses, published: here }, "proxy serves");
  return stack.move();
}
