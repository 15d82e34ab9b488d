/** What follows from an IP context: addresses, routes to the peer, next hops, port ranges (docs/protocol.md, "Mechanisms"). */
import { create } from "@bufbuild/protobuf";
import { RouteSchema } from "../api/gen/connectioncontext_pb.js";
import type { IPContext, Route } from "../api/gen/connectioncontext_pb.js";
import { NsmError } from "./errors.ts";
import { contains, formatAddress, formatPrefix, parseIp, parsePrefix, rangeOf } from "./prefix.ts";
import type { Prefix } from "./prefix.ts";

/** One end of a wire, seen from the end itself. */
export type Side = "src" | "dst";

/** The addresses of one end, with prefix length; texts that are none are left out. */
export function addressesOf(context: IPContext, side: Side): readonly Prefix[] {
  const texts = side === "src" ? context.srcIpAddrs : context.dstIpAddrs;
  return texts.map((text) => parsePrefix(text)).filter((prefix) => prefix !== undefined);
}

/** Routes that an end needs to reach the addresses of `peer`: those that none of its own networks holds. */
export function routesToPeer(context: IPContext, peer: Side): readonly Route[] {
  const own = addressesOf(context, peer === "src" ? "dst" : "src").map(rangeOf);
  return addressesOf(context, peer)
    .filter((address) => !own.some((network) => contains(network, address)))
    .map((address) => create(RouteSchema, { prefix: formatPrefix(address) }));
}

/**
 * The routes of one end with their next hops: a route without a readable one goes by the peer's first address of the same
 * family, except into a network of the peer itself.
 */
export function routesWithNextHop(context: IPContext, side: Side): readonly Route[] {
  const peer = addressesOf(context, side === "src" ? "dst" : "src");
  const routes = side === "src" ? context.srcRoutes : context.dstRoutes;
  return routes.map((route) => {
    const prefix = parsePrefix(route.prefix);
    if (prefix === undefined || parseIp(route.nextHop) !== undefined) return route;
    const first = peer.find(({ family }) => family === prefix.family);
    if (first === undefined || peer.some((network) => contains(rangeOf(network), prefix))) return route;
    return create(RouteSchema, { prefix: route.prefix, nextHop: formatAddress(first) });
  });
}

/** Both ends included; a range may be written backwards. */
export interface PortRange {
  readonly from: number;
  readonly to: number;
}

/** `80` or `80-90`; empty text (any port) is undefined. Throws INVALID_ARGUMENT `bad-port-range`. */
export function parsePortRange(text: string): PortRange | undefined {
  if (text === "") return undefined;
  const [, from, to = from] = /^([0-9]+)(?:-([0-9]+))?$/.exec(text) ?? [];
  if (from === undefined || Number(from) > 65535 || Number(to) > 65535)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-port-range",
      `port range ${JSON.stringify(text.slice(0, 40))}: expected 80 or 80-90, up to 65535`,
    );
  return { from: Number(from), to: Number(to) };
}
