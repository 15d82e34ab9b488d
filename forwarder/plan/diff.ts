/** From what is wanted and what was found to the changes that make them equal, in order: pure. */
import { formatPrefix } from "../../sdk/prefix.ts";
import type { Prefix } from "../../sdk/prefix.ts";
import type { Link, LinkChange } from "../../sdk/netlink/link.ts";
import type { Neighbor, Route } from "../../sdk/netlink/route.ts";
import type { WantedEnd } from "./plan.ts";

/** What a device has: addresses of global scope; routes and neighbours of our protocol number. */
export interface FoundEnd {
  readonly link: Link;
  readonly addresses: readonly Prefix[];
  readonly routes: readonly Route[];
  readonly neighbors: readonly Neighbor[];
}

export type Change =
  | { readonly do: "set-link"; readonly link: Omit<LinkChange, "ifindex"> }
  | { readonly do: "add-address" | "delete-address"; readonly prefix: Prefix }
  | { readonly do: "add-route" | "delete-route"; readonly route: Route }
  | { readonly do: "add-neighbor" | "delete-neighbor"; readonly neighbor: Neighbor };

/** A device that was just created: it has name, MAC and MTU and nothing else. */
export function freshEnd(ifindex: number, wanted: WantedEnd): FoundEnd {
  const link: Link = {
    ifindex,
    name: wanted.name,
    up: false,
    running: false,
    mtu: wanted.mtu,
    mac: wanted.mac,
    group: 0,
    alias: "",
    kind: "",
    peerIfindex: undefined,
    linkNetnsId: undefined,
    noAddressGeneration: false,
    vxlan: undefined,
  };
  return { link, addresses: [], routes: [], neighbors: [] };
}

/**
 * Stale things go first: two addresses of one subnet depend on their order, and the last address of a device takes the
 * routes with it. So once an address was removed (or the device was down) all addresses and routes are written again.
 * A neighbour or an IPv6 route that only changes is replaced in one step; an IPv4 one is in force until its successor is there.
 */
export function diffEnd(wanted: WantedEnd, found: FoundEnd): Change[] {
  const addresses = compare(wanted.addresses, found.addresses, formatPrefix);
  const routes = compare(wanted.routes, found.routes, routeText);
  const neighbors = compare(wanted.neighbors, found.neighbors, ({ ip, mac }) => `${ip} ${mac}`);
  const routed = new Set(wanted.routes.map(({ prefix }) => formatPrefix(prefix)));
  const known = new Set(wanted.neighbors.map(({ ip }) => ip));
  const rewrite = addresses.stale.length > 0 || !found.link.up;
  return [
    ...neighbors.stale
      .filter(({ ip }) => !known.has(ip))
      .map((neighbor): Change => ({ do: "delete-neighbor", neighbor })),
    ...routes.stale
      .filter(({ prefix }) => !routed.has(formatPrefix(prefix)))
      .map((route): Change => ({ do: "delete-route", route })),
    ...addresses.stale.map((prefix): Change => ({ do: "delete-address", prefix })),
    ...diffLink(wanted, found.link),
    ...(rewrite ? wanted.addresses : addresses.missing).map((prefix): Change => ({
      do: "add-address",
      prefix,
    })),
    ...(rewrite ? wanted.routes : routes.missing).map((route): Change => ({ do: "add-route", route })),
    ...routes.stale
      .filter(({ prefix }) => prefix.family === 4 && routed.has(formatPrefix(prefix)))
      .map((route): Change => ({ do: "delete-route", route })),
    ...(rewrite ? wanted.neighbors : neighbors.missing).map((neighbor): Change => ({
      do: "add-neighbor",
      neighbor,
    })),
  ];
}

function diffLink(wanted: WantedEnd, found: Link): Change[] {
  const link: Omit<LinkChange, "ifindex"> = {
    ...(wanted.alias !== found.alias && { alias: wanted.alias }),
    ...(wanted.mtu !== 0 && wanted.mtu !== found.mtu && { mtu: wanted.mtu }),
    ...(wanted.mac !== undefined && wanted.mac !== found.mac && { mac: wanted.mac }),
    ...(wanted.noAddressGeneration && !found.noAddressGeneration && { noAddressGeneration: true }),
  };
  const changes: Change[] = Object.keys(link).length > 0 ? [{ do: "set-link", link }] : [];
  // A message of its own: the kernel sets a device up before it reads how addresses are to be generated.
  if (!found.up) changes.push({ do: "set-link", link: { up: true } });
  return changes;
}

/** The kernel knows no scope of IPv6 routes. */
function routeText({ prefix, gateway, scope }: Route): string {
  return `${formatPrefix(prefix)} ${gateway ?? ""} ${prefix.family === 4 ? scope : ""}`;
}

function compare<T>(wanted: readonly T[], found: readonly T[], key: (item: T) => string): Comparison<T> {
  const wantedKeys = new Set(wanted.map(key));
  const foundKeys = new Set(found.map(key));
  return {
    missing: wanted.filter((item) => !foundKeys.has(key(item))),
    stale: found.filter((item) => !wantedKeys.has(key(item))),
  };
}

interface Comparison<T> {
  readonly missing: readonly T[];
  readonly stale: readonly T[];
}
