/**
 * Tunnel addresses inside and outside of a cluster (docs/protocol.md, "Domains"). A forwarder knows the address that its node has inside;
 * the other cluster reaches the node by the outer one. `orig_src_ip` says that the asking cluster's proxy has been passed.
 */
import type { Mechanism } from "../api/gen/connection_pb.js";
import type { CallContext, Element } from "../sdk/chain.ts";
import type { PeerDomains } from "../sdk/domains/peers.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { getParameter, setParameter } from "../sdk/mechanisms/parameters.ts";
import { TUNNEL } from "../sdk/mechanisms/tunnel.ts";
import type { OuterAddress } from "./outer-addresses.ts";
import type { WithSide } from "./side.ts";

export type { OuterAddress } from "./outer-addresses.ts";

const SRC = TUNNEL.srcIp.key;
const DST = TUNNEL.dstIp.key;
const INNER_SRC = "orig_src_ip";
const INNER_DST = "orig_dst_ip";

/**
 * `peers`: whom a proxy that asks speaks for. `mtuBytes`: of tunnels to other domains, at most; nodes know their own links alone,
 * which may be wider than what is between.
 */
export function swapAddresses(outer: OuterAddress, peers: PeerDomains, mtuBytes: number): Element<WithSide> {
  return (next) => ({
    async request(request, ctx) {
      const mechanisms = [connectionOf(request).mechanism, ...request.mechanismPreferences].filter(isTunnel);
      const arrives = mechanisms.some(hasLeft);
      const domain = otherDomain(ctx, peers);
      const own = arrives ? undefined : mechanisms.map(externalOf).find((ip) => ip !== undefined);
      for (const mechanism of mechanisms) {
        lowerMtu(mechanism, mtuBytes);
        if (arrives) forgetServingEnd(mechanism);
        else showAskingEnd(mechanism, outer, domain);
      }
      const response = await next.request(request, ctx);
      if (isTunnel(response.mechanism)) {
        if (arrives) showServingEnd(response.mechanism, outer, domain);
        else restoreAskingEnd(response.mechanism, own);
      }
      return response;
    },
    // A Close goes by its ids: nobody looks at the addresses.
    close: (connection, ctx) => next.close(connection, ctx),
  });
}

function otherDomain({ peer, domain }: CallContext & WithSide, peers: PeerDomains): string | undefined {
  return domain ?? (peer && peers.domainOf(peer.spiffeId));
}

function isTunnel(mechanism: Mechanism | undefined): mechanism is Mechanism {
  return mechanism?.cls === "REMOTE" && mechanism.parameters[SRC] !== undefined;
}

function hasLeft({ parameters }: Mechanism): boolean {
  return (parameters[INNER_SRC] ?? "") !== "";
}

function showAskingEnd(mechanism: Mechanism, outer: OuterAddress, domain: string | undefined): void {
  const { parameters } = mechanism;
  const inner = parameters[SRC] ?? "";
  parameters[INNER_SRC] = inner;
  parameters[SRC] = takeParameter(mechanism, TUNNEL.srcExternalIp) ?? outer(inner, domain);
}

/** The serving forwarder takes the smaller one of this and its own. */
function lowerMtu({ parameters }: Mechanism, mtuBytes: number): void {
  if (getParameter(parameters, TUNNEL.mtuBytes) > mtuBytes)
    parameters[TUNNEL.mtuBytes.key] = String(mtuBytes);
}

function externalOf({ parameters }: Mechanism): string | undefined {
  return getParameter(parameters, TUNNEL.srcExternalIp);
}

/** `external`: what the forwarder said, who comes with this answer at the next refresh. */
function restoreAskingEnd({ parameters }: Mechanism, external: string | undefined): void {
  setParameter(parameters, TUNNEL.srcExternalIp, external);
  parameters[SRC] = parameters[INNER_SRC] ?? parameters[SRC] ?? "";
  parameters[INNER_SRC] = "";
}

/** The forwarder here answers with the inner one, at each Request. */
function forgetServingEnd(mechanism: Mechanism): void {
  mechanism.parameters[DST] = "";
  mechanism.parameters[INNER_DST] = "";
  takeParameter(mechanism, TUNNEL.dstExternalIp);
}

function showServingEnd(mechanism: Mechanism, outer: OuterAddress, domain: string | undefined): void {
  const { parameters } = mechanism;
  const inner = parameters[DST] ?? "";
  parameters[INNER_DST] = inner;
  parameters[DST] = takeParameter(mechanism, TUNNEL.dstExternalIp) ?? outer(inner, domain);
}

/** What a forwarder says to this proxy, and to nobody else. */
function takeParameter(
  { parameters }: Mechanism,
  parameter: typeof TUNNEL.srcExternalIp,
): string | undefined {
  const value = getParameter(parameters, parameter);
  delete parameters[parameter.key];
  return value;
}
