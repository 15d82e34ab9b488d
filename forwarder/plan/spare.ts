/**
 * Routes around what stays the pod's own affair: pure (docs/protocol.md, "What an answer may ask for").
 *
 * A network that holds such an address is written as the networks beside it. So packets to the address go where they went, by the pod's own
 * routes, and there is nothing to be kept, adopted or removed but the wire's routes, which go with its device.
 */
import type { Route } from "../../sdk/netlink/route.ts";
import {
  bitsOf,
  formatPrefix,
  isInside,
  networkOf,
  prefixOf,
  prefixesOf,
  rangeOf,
} from "../../sdk/prefix.ts";
import type { IpAddress, Prefix } from "../../sdk/prefix.ts";
import type { WantedEnd } from "./plan.ts";

/** Where clouds keep the credentials of machines and pods. Networks shorter than `from` may be somebody's pool. */
const METADATA = [
  { servers: ["169.254.169.254/32"], from: 24, spared: "169.254.169.240/28" },
  { servers: ["169.254.170.2/32", "169.254.170.23/32"], from: 24, spared: "169.254.170.0/27" },
  { servers: ["100.100.100.200/32"], from: 32, spared: "100.100.100.200/32" },
  { servers: ["fd00:ec2::254/128", "fd00:ec2::23/128"], from: 64, spared: "fd00:ec2::/64" },
].map(({ servers, from, spared }) => ({ servers: servers.map(prefixOf), from, spared: prefixOf(spared) }));

export function isMetadataServer(address: IpAddress): boolean {
  return METADATA.some(({ servers }) => servers.some((server) => isInside(address, server)));
}

/** True for a network that is hardly there for anything but a metadata service in it. */
export function isMetadataNetwork(prefix: Prefix): boolean {
  return METADATA.some(
    ({ servers, from }) => prefix.length >= from && servers.some((server) => isInside(server, prefix)),
  );
}

/**
 * The end with routes around the metadata services and what its owner protects. An address whose network would hold them is one without
 * network, with routes instead. `isConsented` says of which routes the owner has agreed that they are for everything.
 */
export function sparing(end: WantedEnd, isConsented: (prefix: Prefix) => boolean): WantedEnd {
  const spared = [...METADATA.map((each) => each.spared), ...end.protectedAddresses];
  const split = (route: Route): readonly Route[] =>
    isConsented(route.prefix)
      ? [route]
      : around(route.prefix, spared).map((prefix) =>
          prefix === route.prefix ? route : { ...route, prefix },
        );
  const ofNetworks = end.addresses.map(networkOf).flatMap((prefix): readonly Route[] => {
    if (prefix.length === bitsOf(prefix.family)) return [];
    const beside = split({ prefix, gateway: undefined, scope: "link" });
    return beside.some((route) => route.prefix === prefix) ? [] : beside;
  });
  const routes = [...ofNetworks, ...end.routes.flatMap(split)];
  const isSplit = (address: Prefix) =>
    ofNetworks.some(({ prefix }) => isInside(prefix, address) && prefix.length > address.length);
  return {
    ...end,
    addresses: end.addresses.map((each) => (isSplit(each) ? { ...each, length: bitsOf(each.family) } : each)),
    // Those on the link stay before those through a gateway; the last of a prefix counts.
    routes: [...new Map(routes.map((route) => [formatPrefix(route.prefix), route])).values()],
    policies: end.policies.map((policy) =>
      policy.selector.source === undefined ? { ...policy, routes: policy.routes.flatMap(split) } : policy,
    ),
  };
}

/** The fewest networks that together are `prefix` without `spared`; `prefix` itself where it holds none of them, or is one. */
export function around(prefix: Prefix, spared: readonly Prefix[]): readonly Prefix[] {
  const { family } = prefix;
  const holes = spared.filter((each) => isInside(each, prefix) && each.length > prefix.length).map(rangeOf);
  if (holes.length === 0) return [prefix];
  const { first, last } = rangeOf(prefix);
  const parts: Prefix[] = [];
  let next = first;
  for (const hole of holes.toSorted((a, b) => (a.first < b.first ? -1 : 1))) {
    parts.push(...prefixesOf({ family, first: next, last: hole.first - 1n }));
    if (hole.last >= next) next = hole.last + 1n;
  }
  return [...parts, ...prefixesOf({ family, first: next, last })];
}
