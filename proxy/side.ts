/**
 * Which way a Request goes through a proxy (docs/protocol.md, "Domains"): out, from a forwarder of this domain to the proxy of
 * another, or in, from the proxy of another to an endpoint of this domain, which here has a name without domain.
 */
import type { Connection } from "../api/gen/connection_pb.js";
import type { CallContext, Element } from "../sdk/chain.ts";
import { hasDomain, joinDomain, splitDomain } from "../sdk/domains/name.ts";
import type { PeerDomains } from "../sdk/domains/peers.ts";
import type { NextHop } from "../sdk/elements/target.ts";
import { checkTcpUrl } from "../sdk/endpoint-url.ts";
import type { RefusedAddresses } from "../sdk/endpoint-url.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { NsmError } from "../sdk/errors.ts";
import { linkUrl } from "./link/hub.ts";
import type { RemoteEndpoints } from "./remote-endpoints.ts";

export interface WithSide {
  /** Undefined on the way in to an endpoint that the registry of this domain knows. */
  readonly way: NextHop | undefined;
  /** The other domain, to which `way` leads; undefined where it is a manager of this one. */
  readonly domain?: string | undefined;
  /** `way` leads to some of that domain's endpoints, not to all. */
  readonly isSpread?: boolean;
}

export interface SideOptions {
  readonly remote: RemoteEndpoints;
  /** Who speaks for which other domain. */
  readonly peers: PeerDomains;
  /** Ids of proxies, of any domain that this one trusts. */
  readonly isProxy: (spiffeId: string) => boolean;
  /** Ids of this domain's forwarders. */
  readonly isForwarder: (spiffeId: string) => boolean;
  /** Ids of this domain's managers. */
  readonly isManager: (spiffeId: string) => boolean;
  /** Networks that no URL of another domain may lead to: its registry writes what it likes. */
  readonly refusedAddresses: RefusedAddresses;
}

/** State: one entry a connection that another domain asked for, dropped on close. */
export function chooseSide(options: SideOptions): Element<unknown, WithSide> {
  const inward = new Set<string>();
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      const { id } = connection;
      const side = await wayOf(connection, ctx, inward.has(id), options);
      const asked = side.way === undefined ? stripNames(connection) : completeService(connection);
      const response = await next.request(request, { ...ctx, ...side });
      joinNames(response, asked);
      if (ctx.peer !== undefined && isOfAnother(ctx.peer.spiffeId, options)) inward.add(id);
      return response;
    },
    async close(connection, ctx) {
      const side = await wayOf(connection, ctx, inward.delete(connection.id), options);
      if (side.way === undefined) stripNames(connection);
      else completeService(connection);
      await next.close(connection, { ...ctx, ...side });
    },
  });
}

/** By its id; a forwarder of this domain is no other's, whatever it is called. */
function isOfAnother(spiffeId: string, { peers, isForwarder }: SideOptions): boolean {
  return peers.domainOf(spiffeId) !== undefined || !isForwarder(spiffeId);
}

/** `isInward`: what this proxy does by itself goes where the Request went. */
async function wayOf(
  connection: Connection,
  { peer, signal }: CallContext,
  isInward: boolean,
  options: SideOptions,
): Promise<WithSide> {
  const { remote, peers, isManager, isProxy, refusedAddresses } = options;
  const name = connection.networkServiceEndpointName;
  const isOther = peer === undefined ? isInward : peers.domainOf(peer.spiffeId) !== undefined;
  const comesFromHere = peer === undefined ? !isInward : !isOfAnother(peer.spiffeId, options);
  if (peer !== undefined && !comesFromHere && !isOther && !isProxy(peer.spiffeId))
    throw new NsmError(
      "PERMISSION_DENIED",
      "not-a-proxy",
      `${peer.spiffeId} may not ask this proxy: forwarders of this domain do for endpoints of others (NSM_FORWARDER_IDS), and proxies of other domains for those of this one (NSM_PROXY_IDS)`,
    );
  const home = remote.registered(name);
  if (home !== undefined && (!isOther || home.services.includes(connection.networkService))) {
    if (comesFromHere && hasComeBack(connection))
      throw new NsmError(
        "UNAVAILABLE",
        "endpoint-not-here",
        `endpoint ${name} has not registered at its manager again since that was restarted (${home.url}): try again`,
      );
    return { way: { url: home.url, expect: isManager } };
  }
  const url = comesFromHere && hasDomain(name) ? await remote.find(name, signal) : undefined;
  if (url === undefined) return { way: undefined };
  const { domain } = splitDomain(name);
  // A link of its own domain, which only the proxy knows the way of; nobody is led over another one.
  if (url !== linkUrl(domain)) checkTcpUrl(url, refusedAddresses, `endpoint ${name}`);
  return { way: { url, expect: isProxy }, domain, isSpread: remote.isSpread(domain) };
}

/**
 * True where the manager to which this proxy passed the Request, and its forwarder, know no other way than back: with an endpoint
 * between them it would be another link of a chain.
 */
function hasComeBack({ path }: Connection): boolean {
  const [segments = [], own = 0] = [path?.pathSegments, path?.index];
  return own >= 3 && segments[own - 3]?.name === segments[own]?.name;
}

type Names = Pick<Connection, "networkService" | "networkServiceEndpointName">;

/** A service of this domain that has endpoints in others, too: there it is known as theirs. Returns the names as they were asked for. */
function completeService(connection: Connection): Names {
  const { networkService, networkServiceEndpointName } = connection;
  if (!hasDomain(networkService) && hasDomain(networkServiceEndpointName))
    connection.networkService = joinDomain(networkService, splitDomain(networkServiceEndpointName).domain);
  return { networkService, networkServiceEndpointName };
}

/** Returns the names as they were asked for. */
function stripNames(connection: Connection): Names {
  const { networkService, networkServiceEndpointName } = connection;
  connection.networkService = splitDomain(networkService).target;
  connection.networkServiceEndpointName = splitDomain(networkServiceEndpointName).target;
  return { networkService, networkServiceEndpointName };
}

/** An endpoint that was chosen here is of the domain that the service was asked in. */
function joinNames(response: Connection, { networkService, networkServiceEndpointName }: Names): void {
  response.networkService = networkService;
  if (networkServiceEndpointName !== "") response.networkServiceEndpointName = networkServiceEndpointName;
  else if (hasDomain(networkService))
    response.networkServiceEndpointName += networkService.slice(networkService.indexOf("@"));
}
