/** The domains that this one knows, by links, a file and DNS, and their registries as one. */
import { peersByTrust } from "../sdk/domains/peers.ts";
import type { DomainTrust, PeerDomains } from "../sdk/domains/peers.ts";
import { probe } from "../sdk/hops.ts";
import type { Logger } from "../sdk/log.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { idMatcherOfAnyDomain } from "../sdk/peer-ids.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import { parseSpiffeId } from "../sdk/spiffe/id.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import type { FindingConfig, SharedConfig } from "./config.ts";
import { createDnsResolver } from "./dns-resolver.ts";
import { createDomainRegistries } from "./domain-registries.ts";
import { parseDomains, resolveByTable, trustByTable } from "./domains-file.ts";
import type { DomainTable } from "./domains-file.ts";
import { createHeartbeats, hearing } from "./heartbeats.ts";
import type { Hub } from "./link/hub.ts";
import type { Links } from "./link/links.ts";
import { resolveByLinks } from "./link/open.ts";

export interface KnownDomains {
  readonly trust: DomainTrust;
  readonly table: () => DomainTable;
  /** Calls `listener` after each change of the table, until disposed. */
  readonly onTableChange: (listener: () => void) => Disposable;
  /** Who comes from where. */
  readonly peers: PeerDomains;
}

export async function openKnownDomains(
  config: SharedConfig,
  { clock, trustDomain }: Mesh,
  log: Logger,
  stack: AsyncDisposableStack,
): Promise<KnownDomains> {
  const { domainsPath: path, dnsDomains } = config;
  const file =
    path === undefined
      ? undefined
      : stack.use(
          await openWatchedFile({
            path,
            variable: "NSM_DOMAINS_PATH",
            what: "domains",
            parse: parseDomains,
            log,
            clock,
          }),
        );
  const table = file?.current ?? (() => new Map());
  const trust = trustByTable(table, dnsDomains);
  const peers = peersByTrust(trust, idMatcherOfAnyDomain(config.proxyIds), trustDomain);
  const onTableChange = (listener: () => void) => file?.onChange(listener) ?? new DisposableStack();
  return { trust, table, onTableChange, peers };
}

/** What is to be said of a link by which a domain of the file is hidden; empty for others. */
export function noteOfLink({ table }: Pick<KnownDomains, "table">, domain: string): string {
  if (!table().has(domain)) return "";
  return `the link hides the domain ${domain} of NSM_DOMAINS_PATH: take it out of that file, or remove the link`;
}

/** Says it in the log, once for each such domain, until it is disposed of. */
export function warnOfHidden(
  { links, store }: Pick<Hub, "links" | "store">,
  known: Pick<KnownDomains, "table" | "onTableChange">,
  log: Logger,
): Disposable {
  let warned = new Set<string>();
  const look = () => {
    const hidden = links().flatMap(({ domain, state }) =>
      state === "linked" && known.table().has(domain) ? [domain] : [],
    );
    for (const domain of hidden) if (!warned.has(domain)) log.warn({ domain }, noteOfLink(known, domain));
    warned = new Set(hidden);
  };
  look();
  const stack = new DisposableStack();
  stack.use(store.onChange(look));
  stack.use(known.onTableChange(look));
  return stack;
}

export function registriesOfDomains(
  config: FindingConfig,
  mesh: Mesh,
  { trust, table }: KnownDomains,
  log: Logger,
  links?: Links,
): Registries {
  const { pool = mesh.pool } = links ?? {};
  const named = resolveByTable(table, createDnsResolver({ ...config, clock: mesh.clock }));
  const isRegistry = idMatcherOfAnyDomain([...config.registryIds, ...config.proxyIds]);
  const through = { ...mesh, pool };
  const heartbeats = createHeartbeats({
    probe: (target, signal) => probe(through, target, signal),
    onSilent: ({ url }) => pool.end(url),
    clock: mesh.clock,
    log,
  });
  return createDomainRegistries({
    resolver: links === undefined ? named : resolveByLinks(links.hub, named),
    open: (url, domain) => {
      const isOfDomain = (id: string) =>
        trust.mayAnswer(domain, parseSpiffeId(id).trustDomain, mesh.trustDomain);
      const expect = (id: string) => isRegistry(id) && isOfDomain(id);
      const target = { url, expect, key: `${url} ${domain}` };
      return hearing(createRegistryClient({ ...through, target }), target, heartbeats);
    },
    domains: () =>
      new Set([...(links?.hub.linkedDomains() ?? []), ...table().keys(), ...config.dnsDomains.names]),
    clock: mesh.clock,
    log,
  });
}
