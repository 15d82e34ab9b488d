/** What the other end of a wire may put into a pod, and what not: pure (docs/protocol.md, "What an answer may ask for"). */
import { kindOf } from "../../sdk/address-kind.ts";
import type { AddressKind } from "../../sdk/address-kind.ts";
import { NsmError } from "../../sdk/errors.ts";
import { mergePrefixes } from "../../sdk/excluded-prefixes.ts";
import type { Address, FoundRoute, Route } from "../../sdk/netlink/route.ts";
import {
  bitsOf,
  formatAddress,
  formatPrefix,
  isInside,
  isSameAddress,
  networkOf,
  parseIpAsWritten,
  prefixOf,
} from "../../sdk/prefix.ts";
import type { Family, IpAddress, Prefix } from "../../sdk/prefix.ts";
import type { Policy } from "./plan-policies.ts";
import type { Wanted, WantedEnd } from "./plan.ts";
import { isMetadataNetwork, isMetadataServer, sparing } from "./spare.ts";
import { WIRE_IFINDEX } from "../wire.ts";

/** What a pod has beside the device in question: addresses, and routes of the main table. */
export interface Surroundings {
  readonly addresses: readonly Address[];
  readonly routes: readonly FoundRoute[];
}

/** Shorter prefixes are a default route in parts: a private network of either family is longer (RFC 1918, RFC 4193). */
const SHORTEST: Readonly<Record<Family, number>> = { 4: 8, 6: 7 };
/** Together without consent: four private networks of IPv4, a two hundredth of the IPv6 internet. Unique local addresses do not count. */
const MOST_ADDRESSES: Readonly<Record<Family, bigint>> = { 4: 4n << 24n, 6: 1n << 119n };
/** Of policies that send everything to these ports by the wire. */
const MOST_PORTS = 1024;
const NAT64 = prefixOf("64:ff9b::/96");
const NOBODYS: readonly AddressKind[] = ["loopback", "multicast", "unspecified", "broadcast", "linkLocal"];
const DNS_PORT = 53;
const PROTECTED =
  "the pod keeps that address to its own network, as its name server or API server; its owner can give it up (NSM_PROTECTED_ADDRESSES)";
/** The kernel's for IPv6 routes that name none (linux/ipv6_route.h, IP6_RT_PRIO_USER). */
const IPV6_METRIC = 1024;

/** What can be said without looking at the pods. Throws PERMISSION_DENIED `route-not-allowed`, `policy-not-allowed` or `address-not-allowed`. */
export function checkWanted({ ends }: Wanted): void {
  for (const end of ends) {
    for (const address of end.addresses) checkWireAddress(address, end);
    for (const { prefix } of end.routes) checkPrefix(prefix, end);
    for (const policy of end.policies) checkPolicy(policy, end);
    if (!end.acceptsDefaultRoute) checkTogether(end);
  }
}

/**
 * What goes well with the pod as it is: its addresses, gateways and networks stay its own, and its routes in force. A default
 * route that the pod's owner accepts becomes two halves when the pod has one already: that one stays for when the wire goes. Smaller ones
 * lead around metadata services and what the owner protects.
 * Throws PERMISSION_DENIED `address-not-allowed`, `route-not-allowed`.
 */
export function fitIn(end: WantedEnd, around: Surroundings): WantedEnd {
  const isPods = ({ ifindex = 0 }: { ifindex: number | undefined }) => ifindex < WIRE_IFINDEX.first;
  const addresses = around.addresses.filter(isPods);
  const routes = around.routes.filter(isPods);
  const gateways = routes
    .map(({ gateway }) => (gateway === undefined ? undefined : parseIpAsWritten(gateway)))
    .filter((gateway) => gateway !== undefined);
  for (const address of end.addresses)
    if ([...addresses, ...gateways].some((own) => isSameAddress(own, address)))
      throw refused("address", formatAddress(address), end, "the pod's own network has that address");
  const fitting = end.routes.flatMap((route) => halved(route, routes));
  for (const { prefix } of [...fitting, ...end.addresses.map((prefix) => ({ prefix: networkOf(prefix) }))])
    checkTaken(prefix, end, addresses, routes, gateways);
  for (const { prefix } of end.policies.filter(isOfPod).flatMap((policy) => policy.routes))
    if (!isNearlyEverything(prefix)) checkTaken(prefix, end, addresses, routes, gateways);
  const spared = sparing(
    { ...end, routes: fitting },
    (prefix) => end.acceptsDefaultRoute && isNearlyEverything(prefix),
  );
  return { ...spared, routes: spared.routes.map((route) => withMetric(route, around.routes)) };
}

type Configured = Pick<WantedEnd, "addresses" | "routes">;

/** What is asked of an endpoint's pod that a request brought, and that is not there yet: `found` was taken earlier. */
function newsIn(end: WantedEnd, found: Configured = { addresses: [], routes: [] }): Configured {
  const brought = new Set(end.brought);
  const routes = found.routes.map(({ prefix }) => prefix);
  const there = new Set([...found.addresses, ...routes].map(formatPrefix));
  const isNews = (prefix: Prefix) =>
    brought.has(formatPrefix(networkOf(prefix))) && !there.has(formatPrefix(prefix));
  return {
    addresses: end.addresses.filter(isNews),
    routes: end.routes.filter(({ prefix }) => isNews(prefix)),
  };
}

/** False where `checkBrought` has nothing to check, whatever else is in the pod. */
export function bringsNews(end: WantedEnd, found?: Configured): boolean {
  const { addresses, routes } = newsIn(end, found);
  return addresses.length + routes.length > 0;
}

/**
 * The endpoint's word on its own pod is its affair, and the client's is not: many endpoints leave in their answer what a request
 * brings. What is there already, `found`, was taken earlier. Throws as `fitIn`.
 */
export function checkBrought(end: WantedEnd, around: Surroundings, found?: Configured): void {
  const { addresses, routes } = newsIn(end, found);
  const there = new Set(around.addresses.map(formatAddress));
  // That a pod has an address already is no harm to it.
  const others = addresses.filter((each) => !there.has(formatAddress(each)));
  fitIn({ ...end, addresses: others, routes }, around);
}

function checkWireAddress(address: Prefix, end: WantedEnd): void {
  if (isMetadataServer(address))
    throw refused("address", formatPrefix(address), end, "it is a metadata service's");
  if (end.protectedAddresses.some((each) => isSameAddress(each, address)))
    throw refused("address", formatPrefix(address), end, PROTECTED);
  if (address.length < bitsOf(address.family)) checkPrefix(networkOf(address), end);
}

function checkPrefix(prefix: Prefix, end: WantedEnd): void {
  const text = formatPrefix(prefix);
  if (isNearlyEverything(prefix) && !end.acceptsDefaultRoute)
    throw refused(
      "route",
      text,
      end,
      "it is for nearly everything; its owner can accept it (NSM_ACCEPT_DEFAULT_ROUTE)",
    );
  const kind = kindOf(prefix);
  // Of IPv4, link-local addresses are the usual pool of wires.
  const isNobodys = NOBODYS.includes(kind) && !(kind === "linkLocal" && prefix.family === 4);
  if (isNobodys && prefix.length >= SHORTEST[prefix.family])
    throw refused("route", text, end, `${kind} addresses are never routed to a wire`);
  if (isMetadataNetwork(prefix)) throw refused("route", text, end, "it leads to a metadata service");
  if (end.protectedAddresses.some((each) => formatPrefix(each) === text))
    throw refused("route", text, end, PROTECTED);
}

/** By an address of the wire's own, or by ports: else it is a default route in disguise. */
function checkPolicy({ selector, routes }: Policy, end: WantedEnd): void {
  const { source, sourcePorts, destinationPorts } = selector;
  for (const { prefix } of routes) checkPrefix(prefix, { ...end, acceptsDefaultRoute: true });
  if (source !== undefined) {
    const isWhole = source.length === bitsOf(source.family);
    const isOwn = end.addresses.some(
      (own) => isSameAddress(own, source) || (!isWhole && covers(own, source)),
    );
    if (!isOwn) throw refused("policy", formatPrefix(source), end, "it is no address of the wire");
    return;
  }
  if (end.acceptsDefaultRoute) return;
  const why = "without a source address of the wire";
  const remedy = "its owner can accept it (NSM_ACCEPT_DEFAULT_ROUTE)";
  if (sourcePorts === undefined && destinationPorts === undefined)
    throw refused("policy", "from all", end, `${why} it needs a port; ${remedy}`);
  if (destinationPorts === undefined && routes.some(({ prefix }) => isNearlyEverything(prefix)))
    throw refused(
      "policy",
      `from port ${sourcePorts?.from ?? 0}`,
      end,
      `${why} it needs a destination: a port, or routes that are not for nearly everything; ${remedy}`,
    );
  if (destinationPorts && destinationPorts.from <= DNS_PORT && DNS_PORT <= destinationPorts.to)
    throw refused(
      "policy",
      `to port ${DNS_PORT}`,
      end,
      `${why} it may not take the pod's name queries; ${remedy}`,
    );
}

/** What one by one is allowed, and in sum a default route. */
function checkTogether(end: WantedEnd): void {
  const ofPod = end.policies.filter(isOfPod);
  const prefixes = [
    ...end.addresses.map(networkOf),
    ...[end, ...ofPod].flatMap(({ routes }) => routes.map(({ prefix }) => prefix)),
  ].filter((prefix) => !isNearlyEverything(prefix) && kindOf(prefix) !== "uniqueLocal");
  for (const family of [4, 6] as const) {
    const texts = prefixes.filter((prefix) => prefix.family === family).map(formatPrefix);
    const bits = BigInt(bitsOf(family));
    const sizes = mergePrefixes(texts).map((text) => 1n << (bits - BigInt(text.split("/")[1] ?? 0)));
    if (sizes.reduce((sum, size) => sum + size, 0n) > MOST_ADDRESSES[family])
      throw refused(
        "route",
        `${texts[0]} and ${texts.length - 1} more`,
        end,
        "together they are for a large part of all addresses; its owner can accept it (NSM_ACCEPT_DEFAULT_ROUTE)",
      );
  }
  const ports = ofPod
    .filter(({ routes }) => routes.some(({ prefix }) => isNearlyEverything(prefix)))
    .map(({ selector: { destinationPorts: range } }) => (range ? range.to - range.from + 1 : 0));
  if (ports.reduce((sum, count) => sum + count, 0) > MOST_PORTS)
    throw refused(
      "policy",
      `for ${ports.length} ranges of ports`,
      end,
      `they hold more than ${MOST_PORTS} ports; its owner can accept it (NSM_ACCEPT_DEFAULT_ROUTE)`,
    );
}

/** It is about packets that are not the wire's by their source. */
function isOfPod({ selector }: Policy): boolean {
  return selector.source === undefined;
}

function isNearlyEverything(prefix: Prefix): boolean {
  return prefix.length < SHORTEST[prefix.family] || isNearlyAllOfIpv4(prefix);
}

/** Of pods without IPv4 addresses all traffic to the IPv4 internet goes to these (RFC 6052 §2.1). */
function isNearlyAllOfIpv4(prefix: Prefix): boolean {
  return prefix.length < NAT64.length + SHORTEST[4] && (isInside(prefix, NAT64) || isInside(NAT64, prefix));
}

/** `own` with its length is the network `source`, or wider. */
function covers(own: Prefix, source: Prefix): boolean {
  return own.length <= source.length && isInside(source, own);
}

/** Refuses a route that would be used for an address or a gateway of the pod, or instead of one of its networks. */
function checkTaken(
  prefix: Prefix,
  end: WantedEnd,
  addresses: readonly Prefix[],
  routes: readonly FoundRoute[],
  gateways: readonly IpAddress[],
): void {
  const text = formatPrefix(prefix);
  const networks = addresses.map(networkOf);
  const specific = routes.map((route) => route.prefix).filter(({ length }) => length > 0);
  const into = networks.find((network) => prefix.length >= network.length && isInside(prefix, network));
  if (into) throw refused("route", text, end, `${formatPrefix(into)} is the pod's own network`);
  for (const gateway of gateways.filter((each) => isInside(each, prefix))) {
    const best = Math.max(
      -1,
      ...specific.filter((own) => isInside(gateway, own)).map(({ length }) => length),
    );
    if (best < prefix.length)
      throw refused("route", text, end, `${formatAddress(gateway)} is the pod's gateway`);
  }
  if (prefix.length > 0 && specific.some((own) => formatPrefix(own) === text))
    throw refused("route", text, end, "the pod has a route of its own there");
}

function halved(route: Route, routes: readonly FoundRoute[]): readonly Route[] {
  const { family, length } = route.prefix;
  const hasDefault = routes.some(({ prefix }) => prefix.length === 0 && prefix.family === family);
  if (length > 0 || !hasDefault) return [route];
  const halves = family === 4 ? ["0.0.0.0/1", "128.0.0.0/1"] : ["::/1", "8000::/1"];
  return halves.map((half) => ({ ...route, prefix: prefixOf(half) }));
}

/** IPv6 routes of one prefix and metric replace one another or share the traffic; ours goes behind those that are there. */
function withMetric(route: Route, routes: readonly FoundRoute[]): Route {
  if (route.prefix.family === 4) return route;
  const text = formatPrefix(route.prefix);
  const others = routes
    .filter(({ prefix }) => formatPrefix(prefix) === text)
    .map(({ metric = 0 }) => metric + 1);
  const metric = Math.max(IPV6_METRIC, ...others);
  return metric === IPV6_METRIC ? route : { ...route, metric };
}

function refused(
  what: "address" | "policy" | "route",
  value: string,
  { name, side }: WantedEnd,
  why: string,
): NsmError {
  return new NsmError(
    "PERMISSION_DENIED",
    `${what}-not-allowed`,
    `${what} ${value} is not allowed on interface ${name} of the ${side}: ${why}`,
  );
}
