/** The links of a proxy as its configuration says them, and what the rest of the proxy sees of them. */
import type { Exports } from "../../sdk/domains/exports.ts";
import type { DomainResolver } from "../../sdk/domains/resolver.ts";
import { checkTcpUrl } from "../../sdk/endpoint-url.ts";
import type { RefusedAddresses } from "../../sdk/endpoint-url.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { Runtime } from "../../sdk/daemon.ts";
import type { Mesh } from "../../sdk/mesh.ts";
import type { Home } from "../home.ts";
import { linkUrl } from "./hub.ts";
import type { Hub, Offers } from "./hub.ts";
import { createLinks } from "./links.ts";
import type { Links } from "./links.ts";
import { openLinkStore } from "./store.ts";
import { openTrust } from "./trust.ts";

export interface LinksConfig {
  /** NSM_DOMAIN; undefined: nobody can link this domain. */
  readonly domain: string | undefined;
  readonly stateDir: string;
  readonly spiffeSocket: string;
  readonly linkPendingMs: number;
  readonly refusedAddresses: RefusedAddresses;
  /** NSM_EXTERNAL_URL */
  readonly externalUrl: string | undefined;
}

/**
 * Undefined without NSM_DOMAIN. Throws as `openLinkStore` and `openTrust`.
 */
export async function openLinks(
  config: LinksConfig,
  mesh: Mesh,
  { log, signal }: Pick<Runtime, "log" | "signal">,
  home: Pick<Home, "exports" | "url">,
): Promise<Links | undefined> {
  const { domain, stateDir, spiffeSocket, refusedAddresses } = config;
  if (domain === undefined) return undefined;
  await using stack = new AsyncDisposableStack();
  const { clock, source, pool, trustDomain, spiffeId: proxyId } = mesh;
  const store = await openLinkStore(stateDir);
  const trust = stack.use(await openTrust({ source, socket: spiffeSocket, clock, log, signal }));
  const links = stack.use(
    createLinks({
      own: { domain, trustDomain, proxyId },
      store,
      trust,
      clock,
      source,
      pool,
      log,
      offers: offersOf(home.exports),
      directory: stateDir,
      // What an operator has named is right, also a name; what was found may be of this host alone.
      addresses: () =>
        [home.url()].filter((url) => config.externalUrl !== undefined || isDialable(url, refusedAddresses)),
      dialable: (urls) => urls.filter((url) => isDialable(url, refusedAddresses)),
      pendingMs: config.linkPendingMs,
    }),
  );
  const resources = stack.move();
  return { ...links, [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

/** Linked domains before all others: their registry and their proxy are one, behind the link. */
export function resolveByLinks(hub: Hub, others: DomainResolver): DomainResolver {
  const linked = (domain: string) => (hub.byDomain(domain)?.state === "linked" ? linkUrl(domain) : undefined);
  return {
    registryOf: async (domain, signal) => linked(domain) ?? (await others.registryOf(domain, signal)),
    proxyOf: async (domain, signal) => linked(domain) ?? (await others.proxyOf(domain, signal)),
  };
}

/** Services by name, each once. */
export function offersOf(exports: Exports): Offers {
  const isFor = (service: string, domain: string) => exports.isExported(service, domain);
  return {
    to(domain) {
      const services = new Set(exports.list().map(({ service }) => service));
      return [...services].filter((service) => isFor(service, domain)).sort();
    },
    onChange: (listener) => exports.onChange(listener),
  };
}

function isDialable(url: string, refused: RefusedAddresses): boolean {
  try {
    checkTcpUrl(url, refused, "a linked domain");
    return true;
  } catch (error) {
    if (error instanceof NsmError) return false;
    throw error;
  }
}
