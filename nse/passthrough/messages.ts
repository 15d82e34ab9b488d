/** rtnetlink messages of policy rules, of routes in tables of their own, and of bridges (linux/fib_rules.h, rtnetlink.h, if_link.h). Pure. */
import {
  bytes,
  decodeAttributes,
  encodeAttributes,
  nest,
  text,
  u32,
  u8,
} from "../../sdk/netlink/attribute.ts";
import type { Attribute } from "../../sdk/netlink/attribute.ts";
import { ipBytes } from "../../sdk/netlink/ip.ts";
import type { Family } from "../../sdk/netlink/ip.ts";
import { NLM_F } from "../../sdk/netlink/message.ts";
import type { Message, Request } from "../../sdk/netlink/message.ts";
import { SCOPE } from "../../sdk/netlink/route.ts";

const RTM = {
  NEWLINK: 16,
  SETLINK: 19,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWRULE: 32,
  DELRULE: 33,
  GETRULE: 34,
} as const;
const AF = { 4: 2, 6: 10 } as const;

/** FRA_PROTOCOL and rtm_protocol of what a pass-through endpoint installs: tells it from the forwarder's and everybody else's. */
export const PASSTHROUGH_PROTOCOL = 158;

/** FRA_PROTOCOL of rules that keep packets of a device from going on. */
export const BARRIER_PROTOCOL = 159;

const FRA = { IIFNAME: 3, PRIORITY: 6, TABLE: 15, PROTOCOL: 21 } as const;
const FR_ACT_TO_TBL = 1;
const FR_ACT_BLACKHOLE = 6;
export const RT_TABLE_LOCAL = 255;

export interface Rule {
  readonly family: Family;
  readonly priority: number;
  /** Undefined: what matches is dropped. */
  readonly table: number | undefined;
  /** Matches what came in by this device; undefined matches everything. */
  readonly iif: string | undefined;
  /** Who installed it; the kernel's own rules have 2. */
  readonly protocol: number;
}

export function newRule(rule: Rule): Request {
  return ruleRequest(RTM.NEWRULE, NLM_F.CREATE | NLM_F.EXCL, "add rule", rule);
}

export function deleteRule(rule: Rule): Request {
  return ruleRequest(RTM.DELRULE, 0, "delete rule", rule);
}

export function dumpRules(family: Family): Request {
  const body = Buffer.alloc(12);
  body.writeUInt8(AF[family], 0);
  return { doing: "dump rules", type: RTM.GETRULE, flags: NLM_F.DUMP, body };
}

export function decodeRule({ body }: Message): Rule {
  const attributes = decodeAttributes(body.subarray(12));
  return {
    family: body.readUInt8(0) === AF[4] ? 4 : 6,
    priority: attributes.u32(FRA.PRIORITY) ?? 0,
    table: body.readUInt8(7) === FR_ACT_TO_TBL ? (attributes.u32(FRA.TABLE) ?? body.readUInt8(4)) : undefined,
    iif: attributes.text(FRA.IIFNAME),
    protocol: attributes.u8(FRA.PROTOCOL) ?? 0,
  };
}

function ruleRequest(type: number, flags: number, doing: string, rule: Rule): Request {
  const { family, priority, table, iif, protocol } = rule;
  const header = Buffer.alloc(12);
  header.writeUInt8(AF[family], 0);
  header.writeUInt8(table === undefined ? FR_ACT_BLACKHOLE : FR_ACT_TO_TBL, 7);
  const attributes = [u32(FRA.PRIORITY, priority), u8(FRA.PROTOCOL, protocol)];
  if (table !== undefined) attributes.push(u32(FRA.TABLE, table));
  if (iif !== undefined) attributes.push(text(FRA.IIFNAME, iif));
  return {
    doing: `${doing} ${priority} (IPv${family}${iif === undefined ? "" : `, from ${iif}`}) to ${table === undefined ? "nowhere" : `table ${table}`}`,
    type,
    flags,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

const RTA = { OIF: 4, GATEWAY: 5, PRIORITY: 6, TABLE: 15 } as const;
const RTN = { UNICAST: 1, BLACKHOLE: 6 } as const;
const RTM_F_ONLINK = 4;
/** Behind every other route. */
const LAST_METRIC = 1_000_000;

/** Everything of the table goes through one device, to one neighbour there; without a gateway each destination is one. `dropRoute` catches the rest. */
export function defaultRoute(
  family: Family,
  table: number,
  ifindex: number,
  gateway: string | undefined,
): Request {
  const attributes = [u32(RTA.OIF, ifindex), u32(RTA.TABLE, table)];
  if (gateway !== undefined) attributes.push(bytes(RTA.GATEWAY, ipBytes(gateway)));
  const flags = gateway === undefined ? 0 : RTM_F_ONLINK;
  const scope = gateway === undefined && family === 4 ? SCOPE.LINK : SCOPE.UNIVERSE;
  return routeRequest(RTM.NEWROUTE, { family, type: RTN.UNICAST, flags, scope }, attributes);
}

export function dropRoute(family: Family, table: number): Request {
  const attributes = [u32(RTA.PRIORITY, LAST_METRIC), u32(RTA.TABLE, table)];
  return routeRequest(
    RTM.NEWROUTE,
    { family, type: RTN.BLACKHOLE, flags: 0, scope: SCOPE.UNIVERSE },
    attributes,
  );
}

export interface TableRoute {
  readonly family: Family;
  readonly table: number;
  readonly protocol: number;
  readonly type: number;
  readonly metric: number | undefined;
}

export function deleteTableRoute({ family, table, type, metric }: TableRoute): Request {
  const attributes = [u32(RTA.TABLE, table)];
  if (metric !== undefined) attributes.push(u32(RTA.PRIORITY, metric));
  return routeRequest(RTM.DELROUTE, { family, type, flags: 0, scope: SCOPE.NOWHERE }, attributes);
}

export function dumpAllRoutes(family: Family): Request {
  const body = Buffer.alloc(12);
  body.writeUInt8(AF[family], 0);
  return { doing: "dump routes", type: RTM.GETROUTE, flags: NLM_F.DUMP, body };
}

export function decodeTableRoute({ body }: Message): TableRoute {
  const attributes = decodeAttributes(body.subarray(12));
  return {
    family: body.readUInt8(0) === AF[4] ? 4 : 6,
    table: attributes.u32(RTA.TABLE) ?? body.readUInt8(4),
    protocol: body.readUInt8(5),
    type: body.readUInt8(7),
    metric: attributes.u32(RTA.PRIORITY),
  };
}

function routeRequest(
  message: number,
  { family, type, flags, scope }: { family: Family; type: number; flags: number; scope: number },
  attributes: readonly Attribute[],
): Request {
  const isDelete = message === RTM.DELROUTE;
  const header = Buffer.alloc(12);
  header.writeUInt8(AF[family], 0);
  header.writeUInt8(PASSTHROUGH_PROTOCOL, 5);
  header.writeUInt8(scope, 6);
  header.writeUInt8(type, 7);
  header.writeUInt32LE(flags, 8);
  return {
    doing: `${isDelete ? "delete" : "add"} default route (IPv${family})`,
    type: message,
    flags: isDelete ? 0 : NLM_F.CREATE | NLM_F.REPLACE,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

const IFLA = { IFNAME: 3, MTU: 4, MASTER: 10, LINKINFO: 18 } as const;
const IFLA_INFO = { KIND: 1, DATA: 2 } as const;
const IFLA_BR_MCAST_SNOOPING = 23;
const AF_BRIDGE_BODY = 16;

/** Forwards at once, learns, and treats multicast as broadcast: a cable with two ends. */
export function newBridge(name: string): Request {
  return {
    doing: `new bridge ${name}`,
    type: RTM.NEWLINK,
    flags: NLM_F.CREATE | NLM_F.EXCL,
    body: Buffer.concat([
      Buffer.alloc(AF_BRIDGE_BODY),
      encodeAttributes([
        text(IFLA.IFNAME, name),
        nest(IFLA.LINKINFO, [
          text(IFLA_INFO.KIND, "bridge"),
          nest(IFLA_INFO.DATA, [u8(IFLA_BR_MCAST_SNOOPING, 0)]),
        ]),
      ]),
    ]),
  };
}

/** Makes a device a port of a bridge. */
export function setMaster(ifindex: number, master: number): Request {
  const header = Buffer.alloc(AF_BRIDGE_BODY);
  header.writeInt32LE(ifindex, 4);
  return {
    doing: `set master of link ${ifindex}`,
    type: RTM.SETLINK,
    flags: 0,
    body: Buffer.concat([header, encodeAttributes([u32(IFLA.MASTER, master)])]),
  };
}
