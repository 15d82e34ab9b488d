/** rtnetlink messages of addresses, routes and neighbours (linux/if_addr.h, rtnetlink.h, neighbour.h) and namespace ids. */
import { bytes, decodeAttributes, encodeAttributes, u32, u8 } from "./attribute.ts";
import type { Attribute } from "./attribute.ts";
import { formatPrefix } from "../prefix.ts";
import type { Family, Prefix } from "../prefix.ts";
import { AF, addressBytes, addressOf, ipBytes, ipText, macBytes, macText } from "./ip.ts";
import { NLM_F } from "./message.ts";
import type { Message, Request } from "./message.ts";

const RTM = {
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWNEIGH: 28,
  DELNEIGH: 29,
  GETNEIGH: 30,
} as const;
const CREATE_OR_REPLACE = NLM_F.CREATE | NLM_F.REPLACE;

/** rtm_protocol and NDA_PROTOCOL of what we install: tells ours from everybody else's. */
export const NSM_PROTOCOL = 157;

const IFA = { ADDRESS: 1, LOCAL: 2, FLAGS: 8 } as const;
const IFA_F_NODAD = 0x02;

/** An address is usable at once: IPv6 skips duplicate address detection. */
export function newAddress(ifindex: number, prefix: Prefix): Request {
  return addressRequest(RTM.NEWADDR, CREATE_OR_REPLACE, "add address", ifindex, prefix);
}

export function deleteAddress(ifindex: number, prefix: Prefix): Request {
  return addressRequest(RTM.DELADDR, 0, "delete address", ifindex, prefix);
}

/** Of one interface only, or of all (0). */
export function dumpAddresses(ifindex: number): Request {
  return { doing: "dump addresses", type: RTM.GETADDR, flags: NLM_F.DUMP, body: ifaddrmsg(0, 0, ifindex) };
}

export interface Address extends Prefix {
  readonly ifindex: number;
  readonly scope: number;
}

export function decodeAddress({ body }: Message): Address | undefined {
  const attributes = decodeAttributes(body.subarray(8));
  const address = attributes.bytes(IFA.LOCAL) ?? attributes.bytes(IFA.ADDRESS);
  if (address === undefined || familyOf(body) === undefined) return undefined;
  return {
    ...addressOf(address),
    length: body.readUInt8(1),
    scope: body.readUInt8(3),
    ifindex: body.readUInt32LE(4),
  };
}

function addressRequest(
  type: number,
  flags: number,
  doing: string,
  ifindex: number,
  prefix: Prefix,
): Request {
  const address = addressBytes(prefix);
  const attributes = [bytes(IFA.ADDRESS, address)];
  if (prefix.family === 4) attributes.push(bytes(IFA.LOCAL, address));
  if (type === RTM.NEWADDR && prefix.family === 6) attributes.push(u32(IFA.FLAGS, IFA_F_NODAD));
  const header = ifaddrmsg(AF[prefix.family], prefix.length, ifindex);
  return {
    doing: `${doing} ${formatPrefix(prefix)} on link ${ifindex}`,
    type,
    flags,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

function ifaddrmsg(family: number, length: number, ifindex: number): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(family, 0);
  header.writeUInt8(length, 1);
  header.writeUInt32LE(ifindex, 4);
  return header;
}

const RTA = { DST: 1, OIF: 4, GATEWAY: 5, PRIORITY: 6, METRICS: 8, TABLE: 15 } as const;
const RTAX_MTU = 2;
const RTM_F_ONLINK = 4;
export const RT_TABLE_MAIN = 254;
export const RT_TABLE_LOCAL = 255;
export const RTPROT_KERNEL = 2;
const RTN = { UNICAST: 1, BLACKHOLE: 6 } as const;
export const SCOPE = { UNIVERSE: 0, LINK: 253, NOWHERE: 255 } as const;

/** A route through one device, or to nowhere. */
export interface Route {
  readonly prefix: Prefix;
  /** Taken as reachable on the link, whatever the addresses say (onlink), unless `isGatewayRouted`. */
  readonly gateway: string | undefined;
  /**
   * Of IPv6: another route of the device leads to the gateway. The kernel's check of onlink looks at the first route to it, of
   * whatever device, and refuses where two devices have the same peer.
   */
  readonly isGatewayRouted?: boolean;
  /** IPv4 only; the kernel knows no scopes for IPv6. */
  readonly scope: "link" | "universe";
  /** Absent for the main table. */
  readonly table?: number;
  /** Of IPv6, or to nowhere; absent for the kernel's usual one. */
  readonly metric?: number;
  /** What goes by it is dropped; it has no device (0). */
  readonly isBlackhole?: boolean;
  /** rtm_protocol, who makes it: the forwarder (NSM_PROTOCOL) when absent. */
  readonly protocol?: number;
}

/**
 * Of a table of our own, or IPv6: in place of a route of the same prefix (and metric). Of the main table for IPv4: behind those of
 * the same prefix that are there, whosever they are; EEXIST for one that is there already.
 */
export function newRoute(ifindex: number, route: Route): Request {
  const isShared = route.prefix.family === 4 && (route.table ?? RT_TABLE_MAIN) === RT_TABLE_MAIN;
  const flags = isShared ? NLM_F.CREATE | NLM_F.APPEND : CREATE_OR_REPLACE;
  return routeRequest(RTM.NEWROUTE, flags, "add route", ifindex, route);
}

/** Only when its protocol is the same, too. */
export function deleteRoute(ifindex: number, route: Route): Request {
  return routeRequest(RTM.DELROUTE, 0, "delete route", ifindex, route);
}

/** Of the main table, of our protocol, through one interface: the kernel filters. */
export function dumpRoutes(family: Family, ifindex: number): Request {
  const header = rtmsg({ family, length: 0, table: RT_TABLE_MAIN, protocol: NSM_PROTOCOL });
  const attributes = [u32(RTA.OIF, ifindex), u32(RTA.TABLE, RT_TABLE_MAIN)];
  return {
    doing: "dump routes",
    type: RTM.GETROUTE,
    flags: NLM_F.DUMP,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

/** Of all tables and devices, or of one table. */
export function dumpAllRoutes(family: Family, table = 0): Request {
  const attributes = table === 0 ? [] : [u32(RTA.TABLE, table)];
  return {
    doing: "dump all routes",
    type: RTM.GETROUTE,
    flags: NLM_F.DUMP,
    body: Buffer.concat([rtmsg({ family, length: 0 }), encodeAttributes(attributes)]),
  };
}

/** Which way a packet to `address` would go. */
export function getRoute(address: string): Request {
  const destination = ipBytes(address);
  const header = rtmsg({ family: destination.length === 4 ? 4 : 6, length: destination.length * 8 });
  return {
    doing: `get route to ${address}`,
    type: RTM.GETROUTE,
    flags: 0,
    body: Buffer.concat([header, encodeAttributes([bytes(RTA.DST, destination)])]),
  };
}

export interface FoundRoute extends Route {
  /** Undefined for a route without a device, or with several. */
  readonly ifindex: number | undefined;
  readonly table: number;
  readonly protocol: number;
  /** RTAX_MTU: path MTU discovery or a locked metric. */
  readonly mtu: number | undefined;
}

export function decodeRoute({ body }: Message): FoundRoute | undefined {
  const attributes = decodeAttributes(body.subarray(12));
  const family = familyOf(body);
  if (family === undefined) return undefined;
  const destination = attributes.bytes(RTA.DST) ?? Buffer.alloc(family === 4 ? 4 : 16);
  const gateway = attributes.bytes(RTA.GATEWAY);
  const metric = attributes.u32(RTA.PRIORITY);
  return {
    prefix: { ...addressOf(destination), length: body.readUInt8(1) },
    gateway: gateway && ipText(gateway),
    scope: body.readUInt8(6) === SCOPE.LINK ? "link" : "universe",
    ifindex: attributes.u32(RTA.OIF),
    ...(metric !== undefined && { metric }),
    ...(body.readUInt8(7) === RTN.BLACKHOLE && { isBlackhole: true }),
    ...(family === 6 && gateway && (body.readUInt32LE(8) & RTM_F_ONLINK) === 0 && { isGatewayRouted: true }),
    table: attributes.u32(RTA.TABLE) ?? body.readUInt8(4),
    protocol: body.readUInt8(5),
    mtu: attributes.nest(RTA.METRICS).u32(RTAX_MTU),
  };
}

function routeRequest(type: number, flags: number, doing: string, ifindex: number, route: Route): Request {
  const { prefix, gateway, isGatewayRouted, isBlackhole = false, metric, table = RT_TABLE_MAIN } = route;
  const attributes: Attribute[] = [bytes(RTA.DST, addressBytes(prefix))];
  if (!isBlackhole) attributes.push(u32(RTA.OIF, ifindex));
  if (gateway !== undefined) attributes.push(bytes(RTA.GATEWAY, ipBytes(gateway)));
  if (metric !== undefined) attributes.push(u32(RTA.PRIORITY, metric));
  if (table > 255) attributes.push(u32(RTA.TABLE, table));
  // A delete with scope "nowhere" matches any scope.
  const scope = type === RTM.DELROUTE ? SCOPE.NOWHERE : route.scope === "link" ? SCOPE.LINK : SCOPE.UNIVERSE;
  const header = rtmsg({
    family: prefix.family,
    length: prefix.length,
    table: table > 255 ? 0 : table,
    protocol: route.protocol ?? NSM_PROTOCOL,
    scope,
    type: isBlackhole ? RTN.BLACKHOLE : RTN.UNICAST,
    flags: gateway === undefined || isGatewayRouted === true ? 0 : RTM_F_ONLINK,
  });
  return {
    doing: `${doing} ${formatPrefix(prefix)}${gateway === undefined ? "" : ` via ${gateway}`} on ${isBlackhole ? "no link" : `link ${ifindex}`}${table === RT_TABLE_MAIN ? "" : ` in table ${table}`}`,
    type,
    flags,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

/** struct rtmsg */
function rtmsg(fields: {
  family: Family;
  length: number;
  table?: number;
  protocol?: number;
  scope?: number;
  type?: number;
  flags?: number;
}): Buffer {
  const { family, length, table = 0, protocol = 0, scope = 0, type = 0, flags = 0 } = fields;
  const header = Buffer.from([AF[family], length, 0, 0, table, protocol, scope, type, 0, 0, 0, 0]);
  header.writeUInt32LE(flags, 8);
  return header;
}

const NDA = { DST: 1, LLADDR: 2, IFINDEX: 8, PROTOCOL: 12 } as const;
const NUD_PERMANENT = 0x80;

/** A permanent entry: never asked for on the wire, never ages. */
export interface Neighbor {
  readonly ip: string;
  readonly mac: string;
}

export function newNeighbor(ifindex: number, { ip, mac }: Neighbor): Request {
  return {
    doing: `add neighbour ${ip} ${mac} on link ${ifindex}`,
    type: RTM.NEWNEIGH,
    flags: CREATE_OR_REPLACE,
    body: Buffer.concat([
      ndmsg(ip.includes(":") ? 6 : 4, ifindex, NUD_PERMANENT),
      encodeAttributes([
        bytes(NDA.DST, ipBytes(ip)),
        bytes(NDA.LLADDR, macBytes(mac)),
        u8(NDA.PROTOCOL, NSM_PROTOCOL),
      ]),
    ]),
  };
}

export function deleteNeighbor(ifindex: number, ip: string): Request {
  return {
    doing: `delete neighbour ${ip} on link ${ifindex}`,
    type: RTM.DELNEIGH,
    flags: 0,
    body: Buffer.concat([
      ndmsg(ip.includes(":") ? 6 : 4, ifindex, 0),
      encodeAttributes([bytes(NDA.DST, ipBytes(ip))]),
    ]),
  };
}

/** Of one interface: the kernel filters (strict checking allows the index as an attribute, and none in the header). */
export function dumpNeighbors(ifindex: number): Request {
  const body = Buffer.concat([Buffer.alloc(12), encodeAttributes([u32(NDA.IFINDEX, ifindex)])]);
  return { doing: "dump neighbours", type: RTM.GETNEIGH, flags: NLM_F.DUMP, body };
}

export interface FoundNeighbor extends Neighbor {
  readonly ifindex: number;
  readonly protocol: number;
  readonly permanent: boolean;
}

export function decodeNeighbor({ body }: Message): FoundNeighbor | undefined {
  const attributes = decodeAttributes(body.subarray(12));
  const ip = attributes.bytes(NDA.DST);
  const mac = attributes.bytes(NDA.LLADDR);
  if (ip === undefined || mac?.length !== 6 || familyOf(body) === undefined) return undefined;
  return {
    ip: ipText(ip),
    mac: macText(mac),
    ifindex: body.readInt32LE(4),
    protocol: attributes.u8(NDA.PROTOCOL) ?? 0,
    permanent: (body.readUInt16LE(8) & NUD_PERMANENT) !== 0,
  };
}

/** struct ndmsg */
function ndmsg(family: Family, ifindex: number, state: number): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt8(AF[family], 0);
  header.writeInt32LE(ifindex, 4);
  header.writeUInt16LE(state, 8);
  return header;
}

/** The first byte of all these headers. */
function familyOf(body: Buffer): Family | undefined {
  const family = body.readUInt8(0);
  return family === AF[4] ? 4 : family === AF[6] ? 6 : undefined;
}
