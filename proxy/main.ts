/** The proxies of a domain: what a domain's clients ask of others goes out through them, what others ask comes in. */
import { MonitorConnection } from "../api/gen/connection_pb.js";
import { Exports } from "../api/gen/exports_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../api/gen/registry_pb.js";
import { defineDaemon } from "../sdk/daemon.ts";
import type { Runtime } from "../sdk/daemon.ts";
import { Defaults } from "../sdk/defaults.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../sdk/elements/serve.ts";
import { NsmError } from "../sdk/errors.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { eitherOf, followExportedServices } from "../sdk/domains/exports.ts";
import { handlersByDomain, handlersOf } from "../sdk/domains/serve-by-domain.ts";
import { peersByTrust } from "../sdk/domains/peers.ts";
import type { DomainTrust, PeerDomains } from "../sdk/domains/peers.ts";
import { createHops, probe } from "../sdk/hops.ts";
import type { Logger } from "../sdk/log.ts";
import { openMesh } from "../sdk/mesh.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { trackStore } from "../sdk/metrics/wires.ts";
import { idMatcher, idMatcherOfAnyDomain } from "../sdk/peer-ids.ts";
import { publishedUrl } from "../sdk/published-url.ts";
import { createReach } from "../sdk/reach.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import { createRegistryView } from "../sdk/registry/view.ts";
import { parseSpiffeId } from "../sdk/spiffe/id.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import { openAdmin } from "./admin.ts";
import { parseClusterInfo, registerWith } from "./cluster-info.ts";
import { createProxyChain } from "./chain.ts";
import { managerProxyTable, proxyTable, registryProxyTable } from "./config.ts";
import type { FindingConfig, PassingConfig, SharedConfig } from "./config.ts";
import { createDnsResolver } from "./dns-resolver.ts";
import { createDomainRegistries } from "./domain-registries.ts";
import { parseDomains, resolveByTable, trustByTable } from "./domains-file.ts";
import type { DomainTable } from "./domains-file.ts";
import { exportsHandlers } from "./exports/admin.ts";
import { openExportStore } from "./exports/store.ts";
import { createHeartbeats, hearing } from "./heartbeats.ts";
import { parseOuterAddresses } from "./outer-addresses.ts";
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
    const elsewhere = registriesOfDomains(config, mesh, known, runtime.log);
    stack.use(await servePassing(config, runtime, mesh, known, elsewhere));
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
    stack.use(await servePassing(config, runtime, mesh, known, elsewhere));
  },
});

export const registryProxy = defineDaemon({
  name: "registry-proxy",
  summary: "the part of nsm proxy that asks registries of other domains",
  about: "Asks the registries of other domains, which it finds by DNS. It needs no privileges.",
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

interface KnownDomains {
  readonly trust: DomainTrust;
  readonly table: () => DomainTable;
  /** Who comes from where. */
  readonly peers: PeerDomains;
}

async function openKnownDomains(
  config: SharedConfig,
  { clock, trustDomain }: Mesh,
  log: Logger,
  stack: AsyncDisposableStack,
): Promise<KnownDomains> {
  const { domainsPath: path, dnsDomains } = config;
  const file =
    path === undefined
      ? undefined
      : stack.use(await openWatchedFile({ path, what: "domains", parse: parseDomains, log, clock }));
  const table = file?.current ?? (() => new Map());
  const trust = trustByTable(table, dnsDomains);
  const peers = peersByTrust(trust, idMatcherOfAnyDomain(config.proxyIds), trustDomain);
  return { trust, table, peers };
}

function registriesOfDomains(
  config: FindingConfig,
  mesh: Mesh,
  { trust, table }: KnownDomains,
  log: Logger,
): Registries {
  const isRegistry = idMatcherOfAnyDomain([...config.registryIds, ...config.proxyIds]);
  const heartbeats = createHeartbeats({
    probe: (target, signal) => probe(mesh, target, signal),
    onSilent: ({ url }) => mesh.pool.end(url),
    clock: mesh.clock,
    log,
  });
  return createDomainRegistries({
    resolver: resolveByTable(table, createDnsResolver({ ...config, clock: mesh.clock })),
    open: (url, domain) => {
      const isOfDomain = (id: string) =>
        trust.mayAnswer(domain, parseSpiffeId(id).trustDomain, mesh.trustDomain);
      const expect = (id: string) => isRegistry(id) && isOfDomain(id);
      const target = { url, expect, key: `${url} ${domain}` };
      return hearing(createRegistryClient({ ...mesh, target }), target, heartbeats);
    },
    domains: () => new Set([...table().keys(), ...config.dnsDomains.names]),
    clock: mesh.clock,
    log,
  });
}

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
  { peers }: KnownDomains,
  elsewhere: Registries,
): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const { clock, pool, minter, trustDomain } = mesh;
  const { name } = config;
  const path = config.mapIpFilePath;
  const file =
    path === undefined
      ? undefined
      : stack.use(
          await openWatchedFile({
            path,
            what: "addresses for other domains",
            parse: parseOuterAddresses,
            missing: new Map<string, string>(), // it may come with the nodes
            log,
            clock,
          }),
        );
  const cluster = stack.use(
    await openWatchedFile({
      path: config.clusterInfoPath,
      what: "labels of the cluster",
      parse: parseClusterInfo,
      missing: {},
      log,
      clock,
    }),
  );
  const outerAddress = (inner: string) => file?.current().get(inner) ?? inner;
  const here = publishedUrl(config.listenOn);
  const { registry: endpoints, remote } = rememberEndpoints(
    registerWith(elsewhere.endpoints, cluster.current),
    {
      here,
      elsewhere: () => config.externalUrl ?? here.replace(/(?<=^tcp:\/\/)[^:]+/, outerAddress),
    },
  );
  const home = createRegistryClient({
    ...mesh,
    target: { url: config.registryUrl, expect: idMatcher(config.registryIds, trustDomain) },
  });
  const view = stack.use(createRegistryView(home, clock, log));
  const ofRegistry = stack.use(followExportedServices(home.services, clock, log));
  const saved = await openExportStore(config.stateDir);
  const exports = eitherOf(saved, ofRegistry);
  const store = createMonitorStore();
  stack.use(trackStore(store));
  const isProxy = idMatcherOfAnyDomain(config.proxyIds);
  const isManager = idMatcher(config.managerIds, trustDomain);
  const hops = stack.use(createHops({ pool, minter, name, log }));
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
    reach: createReach({ probe: hops.probe, clock, log }),
    onSilent: ({ url }) => pool.end(url), // what is said next begins anew, and waits for nothing that is lost
    outerAddress,
    clusterInfo: cluster.current,
    unencryptedDomains: config.unencryptedDomains,
  });
  const serve = relayed(config, mesh);
  const own = handlersOf({ services: elsewhere.services, endpoints }, serve);
  const registries = handlersByDomain({ peers, exports, home, own, serve });
  stack.use(
    await openAdmin(config, mesh, log, (add) => {
      add(Exports, exportsHandlers({ store: saved, ofRegistry, log }));
    }),
  );
  const isNeighbour = (id: string) => peers.domainOf(id) !== undefined;
  const server = stack.use(
    await openServer({ ...mesh, log, listen: config.listenOn, limits, isNeighbour }, (add) => {
      add(NetworkService, networkServiceHandlers(chain));
      add(MonitorConnection, monitorHandlers(store));
      add(NetworkServiceRegistry, registries.services);
      add(NetworkServiceEndpointRegistry, registries.endpoints);
    }),
  );
  log.info({ addresses: server.addresses, published: here }, "proxy serves");
  return stack.move();
}
