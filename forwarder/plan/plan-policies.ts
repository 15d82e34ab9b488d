/** From the policies of an answer to rules and tables of the client's pod: pure (docs/protocol.md, "Policy routes"). */
import { parsePortRange } from "../../sdk/ip-context.ts";
import { bad, checkAddress, checkNextHop, checkRoutePrefix } from "./checks.ts";
import { formatAddress, formatPrefix, isInside, networkOf, parseIpAsWritten } from "../../sdk/prefix.ts";
import type { Family, Prefix } from "../../sdk/prefix.ts";
import type { Route } from "../../sdk/netlink/route.ts";
import type { Ports, Rule } from "../../sdk/netlink/rule.ts";
import type { WirePolicy, WireRoute } from "../wire.ts";

export type Selector = Pick<Rule, "source" | "ipProtocol" | "sourcePorts" | "destinationPorts">;

/** Packets of these families with these properties go by a table of these routes; all families use one table number. */
export interface Policy {
  readonly selector: Selector;
  readonly families: readonly Family[];
  readonly routes: readonly Route[];
  /** Where it was before; taken if it is free. */
  readonly table?: number;
}

const EVERYTHING: Readonly<Record<Family, string>> = { 4: "0.0.0.0/0", 6: "::/0" };

/**
 * In the order given; of policies with the same selector the last counts. The families are those of `from`, else of the routes,
 * else of the client's addresses. Throws INVALID_ARGUMENT `bad-policy`, `bad-prefix`, `bad-address`, `bad-port-range`.
 */
export function planPolicies(
  asked: readonly WirePolicy[] = [],
  own: readonly Prefix[],
  peer: readonly Prefix[],
): readonly Policy[] {
  const policies = asked.map((policy) => planPolicy(policy, own, peer));
  return [...new Map(policies.map((policy) => [selectorText(policy.selector), policy])).values()];
}

/** The same for selectors that select the same. */
export function selectorText({ source, ipProtocol, sourcePorts, destinationPorts }: Selector): string {
  const ports = (range: Ports | undefined) => (range ? `${range.from}-${range.to}` : "");
  const from = source ? formatPrefix(source) : "";
  return `${from};${ipProtocol ?? ""};${ports(sourcePorts)};${ports(destinationPorts)}`;
}

/** Through its next hop, else through the peer's first address of the family, else straight (a prefix that holds the peer itself). */
export function planRoute({ prefix: text, nextHop = "" }: WireRoute, peer: readonly Prefix[]): Route {
  const prefix = checkRoutePrefix(text);
  const gateway = nextHop === "" ? defaultGateway(prefix, peer) : checkNextHop(nextHop, prefix);
  return { prefix, gateway, scope: "universe" };
}

/** Says of IPv6 routes whether one of the routes of the device, or a network of its own, leads to their gateway. */
export function withGatewayRouted(
  routes: readonly Route[],
  own: readonly Prefix[],
  ofDevice: readonly Route[] = routes,
): readonly Route[] {
  const onLink = [
    ...own.filter(({ length }) => length < 128),
    ...ofDevice.filter(({ gateway }) => gateway === undefined).map(({ prefix }) => prefix),
  ];
  return routes.map((route) => {
    const { gateway, prefix } = route;
    if (prefix.family === 4 || gateway === undefined) return route;
    const ip = parseIpAsWritten(gateway);
    return onLink.some((each) => ip !== undefined && isInside(ip, each))
      ? { ...route, isGatewayRouted: true }
      : route;
  });
}

function defaultGateway(prefix: Prefix, peer: readonly Prefix[]): string | undefined {
  if (peer.some((candidate) => isInside(prefix, candidate))) return undefined;
  const first = peer.find(({ family }) => family === prefix.family);
  return first && formatAddress(first);
}

function planPolicy(policy: WirePolicy, own: readonly Prefix[], peer: readonly Prefix[]): Policy {
  const selector: Selector = {
    source: policy.from === "" ? undefined : networkOf(checkAddress(policy.from)),
    ipProtocol: checkProtocol(policy.proto),
    sourcePorts: checkPorts(policy.srcPort),
    destinationPorts: checkPorts(policy.dstPort),
  };
  const given = policy.routes.map((route) => planRoute(route, peer));
  const candidates =
    selector.source !== undefined
      ? [selector.source]
      : given.length > 0
        ? given.map(({ prefix }) => prefix)
        : own;
  const families = [...new Set(candidates.map(({ family }) => family))];
  const strange = given.find(({ prefix }) => !families.includes(prefix.family));
  if (strange)
    throw bad("policy", policy.from, `no route of another family, such as ${formatPrefix(strange.prefix)}`);
  const defaults = families.map((family) => planRoute({ prefix: EVERYTHING[family] }, peer));
  return { selector, families, routes: inOrder(given.length > 0 ? given : defaults) };
}

/** The last of a prefix counts; those without a gateway first, the others may need them. */
function inOrder(routes: readonly Route[]): readonly Route[] {
  const last = [...new Map(routes.map((route) => [formatPrefix(route.prefix), route])).values()];
  return [
    ...last.filter(({ gateway }) => gateway === undefined),
    ...last.filter(({ gateway }) => gateway !== undefined),
  ];
}

function checkProtocol(text: string): number | undefined {
  if (text === "") return undefined;
  const number = Number(text);
  if (!/^\d{1,3}$/.test(text) || number === 0 || number > 255)
    throw bad("policy", text, "an IP protocol is 1 to 255");
  return number;
}

/** The kernel knows no port 0. A range that is written backwards is turned. */
function checkPorts(text: string): Ports | undefined {
  const range = parsePortRange(text);
  if (range === undefined) return undefined;
  const ports = { from: Math.min(range.from, range.to), to: Math.max(range.from, range.to) };
  if (ports.from === 0) throw bad("policy", text, "ports are 1 to 65535");
  return ports;
}
