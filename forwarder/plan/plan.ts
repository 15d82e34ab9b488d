/** From a wire to the kernel state that it needs: pure, and the gate where a peer's texts are checked (docs/protocol.md, "Wires"). */
import { createHash } from "node:crypto";
import { NsmError } from "../../sdk/errors.ts";
import { checkInterfaceName } from "../../sdk/interface-name.ts";
import { formatAlias } from "./alias.ts";
import {
  bad,
  checkAddress,
  checkIp,
  checkMac,
  checkMtu,
  checkPort,
  checkTunnelIp,
  readPrefix,
} from "./checks.ts";
import type { VxlanShape } from "../../sdk/netlink/link.ts";
import type { Neighbor, Route } from "../../sdk/netlink/route.ts";
import { formatAddress, formatPrefix, isInside, networkOf, hostPrefix } from "../../sdk/prefix.ts";
import type { IpAddress, Prefix } from "../../sdk/prefix.ts";
import { planPolicies, planRoute, withGatewayRouted } from "./plan-policies.ts";
import type { Policy } from "./plan-policies.ts";
import type { KernelSide, NetnsRef, Side, VxlanSide, Wire, WireRoute, WireguardSide } from "../wire.ts";

/** One device in one pod. */
export interface WantedEnd {
  readonly side: Side;
  readonly netns: NetnsRef;
  readonly name: string;
  readonly binding: string;
  readonly alias: string;
  /** Undefined for devices without one. */
  readonly mac: string | undefined;
  /** 0 = the driver's default, whatever it is. */
  readonly mtu: number;
  /** No IPv6 link-local address: an IP wire has the addresses that it was given and no others. */
  readonly noAddressGeneration: boolean;
  readonly addresses: readonly Prefix[];
  /** In the order to install: those on the link before those through a gateway. */
  readonly routes: readonly Route[];
  readonly neighbors: readonly Neighbor[];
  /** The client's end only. */
  readonly policies: readonly Policy[];
  /** Networks among its addresses and routes that are not the word of its owner; of the endpoint's end only. */
  readonly brought: readonly string[];
  /** Its owner agreed to routes for (nearly) everything. */
  readonly acceptsDefaultRoute: boolean;
  /** Whole addresses that stay on the pod's own network. */
  readonly protectedAddresses: readonly Prefix[];
}

export interface WireguardShape {
  readonly remoteIp: string;
  readonly localPort: number;
  readonly remotePort: number;
  readonly privateKey: Uint8Array;
  readonly remotePublicKey: Uint8Array;
}

export type WantedLink =
  | { readonly kind: "veth" }
  | ({ readonly kind: "vxlan" } & VxlanShape)
  | ({ readonly kind: "wireguard" } & WireguardShape);

/** `ends`: client and endpoint for a veth pair, the one pod for a tunnel. */
export interface Wanted {
  readonly wireId: string;
  readonly link: WantedLink;
  readonly ends: readonly WantedEnd[];
  /** Of a WireGuard tunnel: where the last Request said that the peer is. */
  readonly peerBefore?: Pick<WireguardShape, "remoteIp" | "remotePort"> | undefined;
}

/** Throws INVALID_ARGUMENT that names the faulty value: `bad-interface-name`, `bad-prefix`, `bad-address`, `bad-mac`, `bad-mtu`, `bad-policy`, `bad-tunnel`, `bad-wire`. */
export function planWire(wire: Wire): Wanted {
  const { client, endpoint } = wire;
  if (client.kind === "kernel" && endpoint.kind === "kernel") {
    if (client.netns.inode === endpoint.netns.inode && client.interfaceName === endpoint.interfaceName)
      throw new NsmError(
        "ALREADY_EXISTS",
        "interface-name-taken",
        `both ends of the wire would be ${client.interfaceName} in one network namespace: choose another name for one of them`,
      );
    const ends = [planEnd(wire, "client", client), planEnd(wire, "endpoint", endpoint)];
    return { wireId: wire.id, link: { kind: "veth" }, ends };
  }
  if (client.kind === "kernel" && endpoint.kind !== "kernel")
    return { wireId: wire.id, link: planTunnel(endpoint), ends: [planEnd(wire, "client", client)] };
  if (client.kind !== "kernel" && endpoint.kind === "kernel")
    return { wireId: wire.id, link: planTunnel(client), ends: [planEnd(wire, "endpoint", endpoint)] };
  throw bad("wire", wire.id, "at least one side is an interface of a pod on this node");
}

function planTunnel(side: VxlanSide | WireguardSide): WantedLink {
  const [local, remote] = [checkTunnelIp(side.localIp), checkTunnelIp(side.remoteIp)];
  const [localIp, remoteIp] = [formatAddress(local), formatAddress(remote)];
  if (side.kind === "vxlan") {
    // A WireGuard device has sockets of both, and chooses its own address.
    if (local.family !== remote.family)
      throw bad("tunnel", `${localIp} to ${remoteIp}`, "both ends have the same address family");
    if (!Number.isInteger(side.vni) || side.vni < 1 || side.vni > 0xffffff)
      throw bad("tunnel", side.vni, "a VNI is 1 to 16777215");
    return { kind: "vxlan", localIp, remoteIp, port: checkPort(side.port), vni: side.vni };
  }
  const { privateKey, remotePublicKey } = side;
  if (privateKey.length !== 32 || remotePublicKey.length !== 32)
    throw bad("tunnel", `key of ${remotePublicKey.length} bytes`, "a WireGuard key has 32");
  const localPort = checkPort(side.localPort);
  const remotePort = checkPort(side.remotePort);
  return { kind: "wireguard", remoteIp, localPort, remotePort, privateKey, remotePublicKey };
}

function planEnd(wire: Wire, side: Side, kernel: KernelSide): WantedEnd {
  const { ip } = wire;
  const own = (side === "client" ? ip.srcAddresses : ip.dstAddresses).map(checkAddress);
  const peer = (side === "client" ? ip.dstAddresses : ip.srcAddresses).map(checkAddress);
  const routes = side === "client" ? ip.srcRoutes : ip.dstRoutes;
  const hasMac = wire.client.kind !== "wireguard" && wire.endpoint.kind !== "wireguard";
  const ipv6 = [...own, ...peer].some(({ family }) => family === 6);
  const planned = withGatewayRouted(planRoutes(own, peer, routes), own);
  const policies =
    side === "client"
      ? planPolicies(ip.policies, own, peer).map((policy) => ({
          ...policy,
          routes: withGatewayRouted(policy.routes, own, planned),
        }))
      : [];
  const ofPolicies = policies.flatMap((policy) => policy.routes);
  const isBare = kernel.isBare === true;
  return {
    side,
    netns: kernel.netns,
    name: checkInterfaceName(kernel.interfaceName),
    binding: kernel.binding,
    alias: formatAlias({
      wireId: wire.id,
      side,
      binding: kernel.binding,
      ...(kernel.owner !== undefined && { owner: kernel.owner }),
    }),
    mac: hasMac ? macOf(wire, side) : undefined,
    mtu: checkMtu(wire.mtu, ipv6),
    noAddressGeneration: wire.payload === "IP",
    // Checked all the same: a fault in them is the same fault at every wire of a chain.
    addresses: isBare ? [] : unique(own, formatPrefix),
    routes: isBare ? [] : planned,
    neighbors: hasMac ? planNeighbors(wire, side, own, peer, [...planned, ...ofPolicies]) : [],
    policies: isBare ? [] : policies,
    brought: side === "client" ? [] : networksOf(ip.brought),
    acceptsDefaultRoute: kernel.acceptsDefaultRoute ?? false,
    protectedAddresses: (kernel.protectedAddresses ?? []).map(checkIp).map(hostPrefix),
  };
}

/**
 * Each address of the peer that lies in none of our own prefixes is on the link. Then the routes asked for: through their next
 * hop, else through the peer's first address of the family, else straight (a prefix that holds the peer itself).
 */
function planRoutes(
  own: readonly Prefix[],
  peer: readonly Prefix[],
  asked: readonly WireRoute[],
): readonly Route[] {
  const onLink = peer
    .filter((address) => !own.some((prefix) => isInside(address, prefix)))
    .map((prefix): Route => ({ prefix: networkOf(prefix), gateway: undefined, scope: "link" }));
  const routes = asked.map((route) => planRoute(route, peer));
  // The last one wins, as when the kernel is told to replace; those without a gateway first, the others may need them.
  const last = [
    ...new Map([...onLink, ...routes].map((route) => [formatPrefix(route.prefix), route])).values(),
  ];
  return [
    ...last.filter(({ gateway }) => gateway === undefined),
    ...last.filter(({ gateway }) => gateway !== undefined),
  ];
}

/**
 * IP payload between two pods: each knows the other's MAC, nobody asks. Entries of the context go before. They are one list for
 * both ends: each takes its peer, its next hops and what is on its networks, and neither itself nor anybody else.
 */
function planNeighbors(
  wire: Wire,
  side: Side,
  own: readonly Prefix[],
  peer: readonly Prefix[],
  routes: readonly Route[],
): readonly Neighbor[] {
  const onLink = [
    ...own,
    ...routes.filter(({ gateway }) => gateway === undefined).map(({ prefix }) => prefix),
  ];
  const itself = new Set(own.map(formatAddress));
  const known = new Set([...peer.map(formatAddress), ...routes.map(({ gateway }) => gateway)]);
  const isNeighbor = (address: IpAddress) => {
    const text = formatAddress(address);
    return !itself.has(text) && (known.has(text) || onLink.some((prefix) => isInside(address, prefix)));
  };
  const given = wire.ip.neighbors
    .map(({ ip, mac }) => ({ address: checkIp(ip), mac: checkMac(mac) }))
    .filter(({ address }) => isNeighbor(address))
    .map(({ address, mac }): Neighbor => ({ ip: formatAddress(address), mac }));
  const direct = wire.payload === "IP" && wire.client.kind === "kernel" && wire.endpoint.kind === "kernel";
  const mac = macOf(wire, side === "client" ? "endpoint" : "client");
  const derived = direct ? peer.map((address) => ({ ip: formatAddress(address), mac })) : [];
  return [...new Map([...derived, ...given].map((neighbor) => [neighbor.ip, neighbor])).values()];
}

/** As the context says, else locally administered and the same at every call. */
function macOf(wire: Wire, side: Side): string {
  const given = side === "client" ? wire.srcMac : wire.dstMac;
  if (given !== undefined && given !== "") return checkMac(given);
  const hash = createHash("sha256").update(`${side}:${wire.id}`).digest("hex");
  return `02:${(hash.slice(0, 10).match(/../g) ?? []).join(":")}`;
}

/** What is no prefix is left out: `checkAddress` has said so where it counts. */
function networksOf(texts: readonly string[] = []): readonly string[] {
  const prefixes = texts.map(readPrefix).filter((prefix) => prefix !== undefined);
  return unique(prefixes.map(networkOf).map(formatPrefix), (text) => text);
}

function unique<T>(items: readonly T[], key: (item: T) => string): T[] {
  return [...new Map(items.map((item) => [key(item), item])).values()];
}
