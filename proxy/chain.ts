/** The proxy's chain: forwarder -> proxy -> proxy of another domain, and from there to a manager of that domain. */
import type { Element, NetworkService } from "../sdk/chain.ts";
import { connect, followNextHop } from "../sdk/elements/next-hop.ts";
import type { Hops } from "../sdk/elements/next-hop.ts";
import { closeOldHalf } from "../sdk/elements/old-half.ts";
import { selectEndpoint } from "../sdk/elements/select-endpoint.ts";
import type { SelectOptions } from "../sdk/elements/select-endpoint.ts";
import { serverChain } from "../sdk/elements/server-chain.ts";
import type { ServerChainOptions } from "../sdk/elements/server-chain.ts";
import type { NextHop, WithNextHop } from "../sdk/elements/target.ts";
import type { Reach } from "../sdk/reach.ts";
import { clusterInfo } from "./cluster-info.ts";
import type { ClusterInfo } from "./cluster-info.ts";
import { encryptedOnly } from "./encrypted-only.ts";
import type { EncryptedOnlyOptions } from "./encrypted-only.ts";
import { letInExported } from "./exports/let-in.ts";
import type { LetInOptions } from "./exports/let-in.ts";
import { endWithLink } from "./link/end-with-link.ts";
import type { LinksOfWires } from "./link/end-with-link.ts";
import { chooseSide } from "./side.ts";
import type { SideOptions, WithSide } from "./side.ts";
import { refuseSilent } from "./silent-domains.ts";
import { swapAddresses } from "./swap-addresses.ts";
import type { OuterAddress } from "./swap-addresses.ts";

export interface ProxyChainOptions extends ServerChainOptions {
  readonly hops: Hops;
  readonly side: SideOptions;
  readonly exports: LetInOptions["exports"];
  readonly select: Omit<SelectOptions<unknown>, "isChosen" | "holdsWire" | "hasOthers" | "reach">;
  /** Which managers, and which proxies of other domains, answer. */
  readonly reach: Reach;
  /** The proxy of another domain has not answered. */
  readonly onSilent?: (way: NextHop) => void;
  readonly outerAddress: OuterAddress;
  /** Of tunnels to other domains, at most. */
  readonly tunnelMtuBytes: number;
  /** Labels of clients of this cluster in other domains. Default none. */
  readonly clusterInfo?: () => ClusterInfo;
  /** Undefined without links. */
  readonly links?: LinksOfWires | undefined;
  /** Domains with which wires may be unencrypted. Default none. */
  readonly unencryptedDomains?: EncryptedOnlyOptions["unencryptedDomains"];
}

const NO_LINKS: LinksOfWires = { links: () => [], listen: () => new DisposableStack() };

export function createProxyChain(options: ProxyChainOptions): NetworkService {
  return serverChain({ ...options, closeUnknown: true })
    .use("chooseSide", chooseSide(options.side)) // the names by which all that follows goes
    .use("clusterInfo", clusterInfo(options.clusterInfo ?? (() => ({})))) // before another domain sees the labels
    .use("endWithLink", endWithLink(options.links ?? NO_LINKS)) // with the way that was chosen
    .use("encryptedOnly", encryptedOnly({ ...options, unencryptedDomains: options.unencryptedDomains ?? [] })) // before anybody of the other domain is asked
    .use("letInExported", letInExported({ ...options, ...options.side, ...options.select })) // by the names here, before anything is looked up
    .use("refuseSilent", refuseSilent(options.reach, options.onSilent)) // before it is waited for
    .use("findWay", findWay(options)) // out to where the endpoint was found, or in to one of this domain
    .use("closeOldHalf", closeOldHalf(options.hops, options.log)) // when the new half is there
    .use("swapAddresses", swapAddresses(options.outerAddress, options.side.peers, options.tunnelMtuBytes)) // for the next hop alone
    .use("followNextHop", followNextHop(options.hops, options.store)) // after the choice, before the call
    .end(connect(options.hops));
}

/** The registry is asked for endpoints of this domain alone; the service's rules hold for clients of others, too. */
function findWay({ select, reach }: ProxyChainOptions): Element<WithSide, WithNextHop> {
  const element = selectEndpoint<WithSide>({
    ...select,
    reach,
    isChosen: () => false,
    holdsWire: () => false,
    hasOthers: true, // another domain's forwarder, maybe in that very domain
  });
  return (next) => {
    const inward = element(next);
    return {
      request: (request, ctx) =>
        ctx.way === undefined
          ? inward.request(request, ctx)
          : next.request(request, { ...ctx, nextHop: ctx.way }),
      close: (connection, ctx) =>
        ctx.way === undefined
          ? inward.close(connection, ctx)
          : next.close(connection, { ...ctx, nextHop: ctx.way }),
    };
  };
}
