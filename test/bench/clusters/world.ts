/**
 * Many domains in one process, over real sessions: what a client of one of them asks for in another goes the way of real daemons.
 *
 *     client ──► registry ──► proxy ──► proxy of d0 ──► registry of d0
 *               (home)       (home)  └► proxy of d1 ──► …
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
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
import { makeAuthority } from "../../support/certificates.ts";
import type { TestAuthority } from "../../support/certificates.ts";
import { makeSource } from "../../support/identity.ts";

export const HOME = "home";
const MAX_STREAMS = 1000;
/** Of the proxies; nobody dials it. */
const PROXY_URL = "tcp://192.0.2.1:5004";

export interface World extends AsyncDisposable {
  /** As a client at home has them. */
  readonly client: Registries;
  /** As the proxy at home has them. */
  readonly elsewhere: Registries;
  /** Of the registry at home. */
  readonly home: MemoryRegistries;
  /** Again within a minute, or the endpoints are gone. */
  register(): Promise<void>;
}

/** Domains `d0`, `d1` and so on, each with services `service-0`, … that are exported to `home`, and an endpoint `nse-<i>` of each. */
export async function openWorld(domains: number, services: number): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.adopt(mkdtempSync(join(tmpdir(), "nsm-world-")), (path) =>
    rmSync(path, { recursive: true }),
  );
  const names = Array.from({ length: domains }, (_, i) => `d${i}`);
  const authorities = new Map<string, TestAuthority>();
  for (const name of [HOME, ...names]) authorities.set(name, await makeAuthority(`${name}.nsm`));
  const bundles = new Map([...authorities.values()].flatMap((authority) => [...authority.bundles]));
  const url = (name: string) => `unix://${folder}/${name}.sock`;

  /** Somebody of a domain, with sessions of their own. */
  const open = async (domain: string, role: string) => {
    const authority = authorities.get(domain);
    if (authority === undefined) throw new Error(`there is no domain ${domain}`);
    const source = stack.use(await makeSource(authority, `/${role}/${domain}`, { bundles }));
    const pool = stack.use(createSessionPool({ source, verify, log, clock }));
    const minter = createTokenMinter({ clock });
    const serve = {
      minter,
      clock,
      ownersOfService: () => undefined,
      ownersOfEndpoint: () => undefined,
      mayRelay: () => true,
    };
    return {
      serve,
      registriesAt: (at: string) => createRegistryClient({ pool, minter, clock, target: { url: at } }),
      async listen(at: string, handlers: RegistryHandlers) {
        const limits = { maxConcurrentStreams: MAX_STREAMS };
        const options = { source, verify, log, clock, listen: [at], limits, isNeighbour: () => true };
        stack.use(
          await openServer(options, (add) => {
            add(NetworkServiceRegistry, handlers.services);
            add(NetworkServiceEndpointRegistry, handlers.endpoints);
          }),
        );
      },
    };
  };

  const exported = Array.from({ length: services }, (_, i) => ({
    service: `service-${i}`,
    domain: HOME,
    acceptEndpoints: false,
  }));
  const exports = exportsOf(
    () => exported,
    () => ({ [Symbol.dispose]: () => undefined }),
  );
  const peers = {
    domainOf: (id: string) => (parseSpiffeId(id).trustDomain === `${HOME}.nsm` ? HOME : undefined),
  };
  const memories: MemoryRegistries[] = [];
  for (const name of names) {
    const memory = stack.use(createMemoryRegistries(clock));
    memories.push(memory);
    const registry = await open(name, "registry");
    await registry.listen(url(`registry-${name}`), handlersOf(memory, registry.serve));
    const proxy = await open(name, "proxy");
    const { serve } = proxy;
    const home = proxy.registriesAt(url(`registry-${name}`));
    const own = handlersOf(home, serve);
    const handlers = handlersByDomain({ peers, exports, homeFor: () => home, own, serve });
    await proxy.listen(url(name), handlers);
  }

  const proxy = await open(HOME, "proxy");
  const found = createDomainRegistries({
    resolver: {
      registryOf: (domain) => Promise.resolve(url(domain)),
      proxyOf: () => Promise.resolve(PROXY_URL),
    },
    open: (at) => proxy.registriesAt(at),
    clock,
    log,
  });
  const { registry: endpoints } = rememberEndpoints(found.endpoints, {
    here: PROXY_URL,
    elsewhere: () => PROXY_URL,
  });
  const elsewhere = { services: found.services, endpoints };
  await proxy.listen(url("proxy"), handlersOf(elsewhere, proxy.serve));
  const registry = await open(HOME, "registry");
  const home = stack.use(createMemoryRegistries(clock));
  const routed = routeByDomain(home, registry.registriesAt(url("proxy")));
  await registry.listen(url("registry"), handlersOf(routed, registry.serve));
  const client = (await open(HOME, "client")).registriesAt(url("registry"));
  const resources = stack.move();
  return {
    client,
    elsewhere,
    home,
    async register() {
      for (const memory of [home, ...memories]) for (const i of exported.keys()) await registerOne(memory, i);
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

async function registerOne({ services, endpoints }: Registries, i: number): Promise<void> {
  const name = `service-${i}`;
  await services.register(create(NetworkServiceSchema, { name, payload: "IP" }), contextOf());
  const endpoint = create(NetworkServiceEndpointSchema, {
    name: `nse-${i}`,
    networkServiceNames: [name],
    networkServiceLabels: { [name]: { labels: { app: "bench", nodeName: `node-${i % 10}` } } },
    url: "tcp://192.0.2.1:5001",
  });
  await endpoints.register(endpoint, contextOf());
}

function contextOf(): RegistryContext {
  return {
    signal: new AbortController().signal,
    deadlineMs: undefined,
    peer: undefined,
    registration: { path: EMPTY_PATH },
  };
}
