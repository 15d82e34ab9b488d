/** Several domains in one process, each a mesh of its own with a proxy to the others; one trust domain for all. */
import { createProxyChain } from "../../proxy/chain.ts";
import { createDomainRegistries } from "../../proxy/domain-registries.ts";
import { rememberEndpoints } from "../../proxy/remote-endpoints.ts";
import { systemClock as clock } from "../../sdk/clock.ts";
import type { DomainResolver } from "../../sdk/domains/resolver.ts";
import { NO_EXPORTS } from "../../sdk/domains/exports.ts";
import { createMonitorStore } from "../../sdk/elements/monitor.ts";
import { NsmError } from "../../sdk/errors.ts";
import { silentLogger as log } from "../../sdk/log.ts";
import type { Registries } from "../../sdk/registry/registry.ts";
import { createReach } from "../../sdk/reach.ts";
import { createRegistryView } from "../../sdk/registry/view.ts";
import { makeAuthority } from "./certificates.ts";
import { startInProcess } from "./in-process.ts";
import type { InProcessMesh } from "./in-process.ts";
import { createStations } from "./stations.ts";
import type { Station, Stations } from "./stations.ts";

/** The domain that is a registry alone. */
const FLOATING = "floating";

export interface Domain extends InProcessMesh {
  /** Connections at its proxy. */
  readonly proxied: () => ReadonlySet<string>;
  /** Requests for other domains, and from them, fail from now on. */
  killProxy(): void;
  /** A new process, which knows nothing. */
  startProxy(): Promise<void>;
}

export interface Domains<N extends string> extends AsyncDisposable {
  readonly domains: Readonly<Record<N, Domain>>;
}

export async function startDomains<const N extends string>(...names: readonly N[]): Promise<Domains<N>> {
  return await joinDomains(names, createStations(await makeAuthority("example.org")));
}

/** The same where the test decides how messages travel. */
export async function joinDomains<const N extends string>(
  names: readonly N[],
  stations: Stations,
): Promise<Domains<N>> {
  const stack = new AsyncDisposableStack();
  const meshes = new Map<string, Domain>();
  const resolver: DomainResolver = {
    registryOf(domain) {
      if (meshes.has(domain)) return Promise.resolve(domain);
      return Promise.reject(new NsmError("NOT_FOUND", "domain-not-found", `no domain ${domain}`));
    },
    proxyOf: (domain) => Promise.resolve(domain === FLOATING ? undefined : proxyUrl(domain)),
  };
  const open = (domain: string): Registries => {
    const mesh = meshes.get(domain);
    if (mesh === undefined) throw new Error(`no domain ${domain}`);
    return mesh.registries;
  };
  for (const name of names) {
    const elsewhere = createDomainRegistries({ resolver, open, clock, log });
    let remembered = rememberEndpoints(elsewhere.endpoints, ownUrl(name));
    const through: Registries = {
      services: elsewhere.services,
      endpoints: {
        register: (entry, ctx) => remembered.registry.register(entry, ctx),
        find: (query, ctx) => remembered.registry.find(query, ctx),
        unregister: (entry, ctx) => remembered.registry.unregister(entry, ctx),
      },
    };
    const mesh = stack.use(await startInProcess({ stations, elsewhere: through }));
    let station: Station | undefined;
    let store = createMonitorStore();
    const startProxy = async () => {
      remembered = rememberEndpoints(elsewhere.endpoints, ownUrl(name));
      station = stack.use(await openProxy(name, stations));
      store = createMonitorStore();
      const chain = createProxyChain({
        name: station.name,
        minter: station.minter,
        clock,
        store,
        log,
        hops: station.hops,
        exports: NO_EXPORTS,
        side: {
          remote: remembered.remote,
          peers: { domainOf: () => undefined },
          isManager: (id) => id.includes("/nsmgr/"),
          refusedAddresses: [],
          isProxy: (id) => id.includes("/nsmgr-proxy/"),
          isForwarder: (id) => id.includes("/forwarder/"),
        },
        select: {
          view: stack.use(createRegistryView(mesh.registries, clock, log)),
          clock,
          log,
          isManager: (id) => id.includes("/nsmgr/"),
          isProxy: () => false,
          refusedAddresses: [],
        },
        reach: createReach({ probe: station.probe, clock, log }),
        tunnelMtuBytes: 1420,
        outerAddress: (inner) => inner,
      });
      station.serve(chain, store, proxyUrl(name));
    };
    if (name !== FLOATING) await startProxy();
    meshes.set(name, { ...mesh, startProxy, killProxy: () => station?.kill(), proxied: () => store.ids() });
  }
  return {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- one for each name
    domains: Object.fromEntries(meshes) as Record<N, Domain>,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function proxyUrl(domain: string): string {
  return `tcp://proxy-${domain}:5004`;
}

function ownUrl(domain: string) {
  return { here: proxyUrl(domain), elsewhere: () => proxyUrl(domain) };
}

function openProxy(domain: string, stations: Stations): Promise<Station> {
  const name = `nsmgr-proxy-${domain}`;
  return stations.open({ name, path: `/nsmgr-proxy/${domain}`, url: `unix:///${name}.sock` });
}
