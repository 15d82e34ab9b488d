/**
 * The parts of many domains over real sessions: what a client of one of them asks for in another goes the way of real daemons.
 *
 *     client ──► registry ──► proxy ──► proxy of d0 ──► registry of d0
 *               (home)       (home)  └► proxy of d1 ──► …
 */
import { create } from "@bufbuild/protobuf";
import { Health, HealthCheckRequestSchema } from "../../../api/gen/health_pb.js";
import {
  NetworkServiceEndpointRegistry,
  NetworkServiceEndpointSchema,
  NetworkServiceRegistry,
  NetworkServiceSchema,
} from "../../../api/gen/registry_pb.js";
import { createDomainRegistries } from "../../../proxy/domain-registries.ts";
import { rememberEndpoints } from "../../../proxy/remote-endpoints.ts";
import { createMemoryRegistries } from "../../../registry/memory.ts";
import type { MemoryRegistries } from "../../../registry/memory.ts";
import { systemClock as clock } from "../../../sdk/clock.ts";
import { exportsOf } from "../../../sdk/domains/exports.ts";
import { keepImports } from "../../../sdk/domains/imports.ts";
import { routeByDomain } from "../../../sdk/domains/route.ts";
import { handlersByDomain, handlersOf } from "../../../sdk/domains/serve-by-domain.ts";
import type { RegistryHandlers } from "../../../sdk/domains/serve-by-domain.ts";
import { openServer } from "../../../sdk/grpc/server.ts";
import { createSessionPool } from "../../../sdk/grpc/sessions.ts";
import { silentLogger as log } from "../../../sdk/log.ts";
import { EMPTY_PATH } from "../../../sdk/registry-path.ts";
import { createRegistryClient } from "../../../sdk/registry/client.ts";
import type { Registries, RegistryContext } from "../../../sdk/registry/registry.ts";
import { parseSpiffeId } from "../../../sdk/spiffe/id.ts";
import { verifySvid as verify } from "../../../sdk/spiffe/verify.ts";
import { createTokenMinter } from "../../../sdk/token.ts";
import { sourceOf } from "./identities.ts";
import type { Identity } from "./identities.ts";

export const HOME = "home";
const MAX_STREAMS = 1000;
/** Of the proxies; nobody dials it. */
const PROXY_URL = "tcp://192.0.2.1:5004";
const FOREVER = new AbortController().signal;
/** As managers do it: after two thirds of a lease of a minute. */
const RENEWED_EACH_MS = 40_000;
const RENEWAL_TICK_MS = 20;

/** Where everybody's socket is. */
const urlOf = (folder: string, role: string, domain: string) => `unix://${folder}/${role}-${domain}.sock`;

/** What each process opens, and keeps until it ends. */
function openMember(identity: Identity) {
  const source = sourceOf(identity);
  const pool = createSessionPool({ source, verify, log, clock });
  const minter = createTokenMinter({ clock });
  const serve = {
    minter,
    clock,
    ownersOfService: () => undefined,
    ownersOfEndpoint: () => undefined,
    mayRelay: () => true,
  };
  return {
    pool,
    serve,
    registriesAt: (url: string) => createRegistryClient({ pool, minter, clock, target: { url } }),
    listen: async (url: string, handlers: RegistryHandlers) => {
      const limits = { maxConcurrentStreams: MAX_STREAMS };
      const options = { source, verify, log, clock, listen: [url], limits, isNeighbour: () => true };
      await openServer(options, (add) => {
        add(NetworkServiceRegistry, handlers.services);
        add(NetworkServiceEndpointRegistry, handlers.endpoints);
      });
    },
  };
}

/** A domain that exports services `service-0`, … to `home`, each with an endpoint `nse-<i>` that is renewed in time. */
export async function openDomain(
  folder: string,
  domain: string,
  services: number,
  { registry: registryId, proxy: proxyId }: { readonly registry: Identity; readonly proxy: Identity },
): Promise<void> {
  const memory = createMemoryRegistries(clock);
  await registerAll(memory, services);
  keepRenewed(memory, services);
  const url = urlOf(folder, "registry", domain);
  const registry = openMember(registryId);
  await registry.listen(url, handlersOf(memory, registry.serve));
  const { registriesAt, listen, serve } = openMember(proxyId);
  const exported = Array.from({ length: services }, (_, i) => ({
    service: `service-${i}`,
    domain: HOME,
    acceptEndpoints: false,
  }));
  const peers = {
    domainOf: (id: string) => (parseSpiffeId(id).trustDomain === `${HOME}.nsm` ? HOME : undefined),
  };
  const exports = exportsOf(
    () => exported,
    () => ({ [Symbol.dispose]: () => undefined }),
  );
  const home = registriesAt(url);
  const own = handlersOf(home, serve);
  const handlers = handlersByDomain({ peers, exports, homeFor: () => home, own, serve });
  await listen(urlOf(folder, "proxy", domain), handlers);
}

/** That of `home`, which knows the other domains. */
export async function openHomeProxy(folder: string, identity: Identity): Promise<void> {
  const { registriesAt, listen, serve } = openMember(identity);
  const found = createDomainRegistries({
    resolver: {
      registryOf: (domain) => Promise.resolve(urlOf(folder, "proxy", domain)),
      proxyOf: () => Promise.resolve(PROXY_URL),
    },
    open: registriesAt,
    clock,
    log,
  });
  const elsewhere = { here: PROXY_URL, elsewhere: () => PROXY_URL };
  const { registry: endpoints } = rememberEndpoints(found.endpoints, elsewhere);
  await listen(urlOf(folder, "proxy", HOME), handlersOf({ services: found.services, endpoints }, serve));
}

/** That of `home`, with services of its own, whose `importFrom` it follows. */
export async function openHomeRegistry(
  folder: string,
  services: number,
  identity: Identity,
): Promise<MemoryRegistries> {
  const { registriesAt, listen, serve } = openMember(identity);
  const registries = createMemoryRegistries(clock);
  await registerAll(registries, services);
  keepRenewed(registries, services);
  const elsewhere = registriesAt(urlOf(folder, "proxy", HOME));
  keepImports({ registries, elsewhere, clock, log });
  await listen(urlOf(folder, "registry", HOME), handlersOf(routeByDomain(registries, elsewhere), serve));
  return registries;
}

export interface HomeClient {
  readonly registries: Registries;
  /** The same way to the registry, which does nothing at all. */
  readonly echo: () => Promise<unknown>;
}

export function openHomeClient(folder: string, identity: Identity): HomeClient {
  const { registriesAt, pool } = openMember(identity);
  const url = urlOf(folder, "registry", HOME);
  return {
    registries: registriesAt(url),
    echo: () => pool.unary({ url }, Health.method.check, create(HealthCheckRequestSchema)),
  };
}

/** `importFrom`: only what runs the registry says this. */
export async function registerService(
  { services }: Registries,
  i: number,
  importFrom: readonly string[] = [],
): Promise<void> {
  const service = create(NetworkServiceSchema, {
    name: `service-${i}`,
    payload: "IP",
    importFrom: [...importFrom],
  });
  await services.register(service, contextOf());
}

async function registerAll(registries: Registries, services: number): Promise<void> {
  for (let i = 0; i < services; i++) {
    await registerService(registries, i);
    await registerEndpoint(registries, i);
  }
}

async function registerEndpoint({ endpoints }: Registries, i: number): Promise<void> {
  const service = `service-${i}`;
  const endpoint = create(NetworkServiceEndpointSchema, {
    name: `nse-${i}`,
    networkServiceNames: [service],
    networkServiceLabels: { [service]: { labels: { app: "bench", nodeName: `node-${i % 10}` } } },
    url: "tcp://192.0.2.1:5001",
  });
  await endpoints.register(endpoint, contextOf());
}

/** Evenly, as if each had a manager of its own. */
function keepRenewed(registries: Registries, count: number): void {
  const startMs = clock.monotonic();
  let renewed = 0;
  const renew = async () => {
    const due = ((clock.monotonic() - startMs) / RENEWED_EACH_MS) * count;
    for (; renewed < due; renewed++) await registerEndpoint(registries, renewed % count);
    clock.timer(RENEWAL_TICK_MS, () => void renew());
  };
  void renew();
}

function contextOf(): RegistryContext {
  return { signal: FOREVER, deadlineMs: undefined, peer: undefined, registration: { path: EMPTY_PATH } };
}
