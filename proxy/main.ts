/** The proxies of a domain: what a domain's clients ask of others goes out through them, what others ask comes in. */
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../api/gen/registry_pb.js";
import { defineDaemon } from "../sdk/daemon.ts";
import { handlersOf } from "../sdk/domains/serve-by-domain.ts";
import { NsmError } from "../sdk/errors.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { openMesh } from "../sdk/mesh.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { managerProxyTable, proxyTable, registryProxyTable } from "./config.ts";
import { openHome } from "./home.ts";
import { openKnownDomains, registriesOfDomains } from "./known-domains.ts";
import { openLinks } from "./link/open.ts";
import { limits, relayed, servePassing } from "./passing.ts";

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
    stack.use(await servePassing({ config, log: runtime.log, mesh, known, own, elsewhere, links }));
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
    stack.use(await servePassing({ config, log: runtime.log, mesh, known, own, elsewhere }));
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
