/** rtnetlink messages of routing rules (linux/fib_rules.h): which packets are routed by which table. */
import { bytes, decodeAttributes, encodeAttributes, u32, u8 } from "./attribute.ts";
import type { Attribute } from "./attribute.ts";
import { formatPrefix, ipBytes, ipText } from "./ip.ts";
import type { Family, Prefix } from "./ip.ts";
import { NLM_F } from "./message.ts";
import type { Message, Request } from "./message.ts";
import { NSM_PROTOCOL } from "./route.ts";

const RTM_RULE = { NEW: 32, DEL: 33, GET: 34 } as const;
const AF = { 4: 2, 6: 10 } as const;
const FRA = {
  SRC: 2,
  PRIORITY: 6,
  TABLE: 15,
  PROTOCOL: 21,
  IP_PROTO: 22,
  SPORT_RANGE: 23,
  DPORT_RANGE: 24,
} as const;
const FR_ACT_TO_TBL = 1;

/** 1 to 65535, `from` not above `to`. */
export interface Ports {
  readonly from: number;
  readonly to: number;
}

/** Packets of a family that have all of these go by `table`; of several such rules that of the lowest priority counts. */
export interface Rule {
  readonly family: Family;
  readonly source: Prefix | undefined;
  /** IP protocol number. */
  readonly ipProtocol: number | undefined;
  readonly sourcePorts: Ports | undefined;
  readonly destinationPorts: Ports | undefined;
  readonly table: number;
  readonly priority: number;
}

/** Marked with our protocol number. EEXIST for one that is there in all its parts. */
export function newRule(rule: Rule): Request {
  return ruleRequest(RTM_RULE.NEW, NLM_F.CREATE | NLM_F.EXCL, "add", rule);
}

/** Ours only, and only when all its parts are the same. */
export function deleteRule(rule: Rule): Request {
  return ruleRequest(RTM_RULE.DEL, 0, "delete", rule);
}

export function dumpRules(family: Family): Request {
  return { doing: "dump rules", type: RTM_RULE.GET, flags: NLM_F.DUMP, body: ruleHeader(family, 0, 0, 0) };
}

export interface FoundRule extends Rule {
  /** Who made it: NSM_PROTOCOL for ours. */
  readonly protocol: number;
}

/** Undefined for other families. */
export function decodeRule({ body }: Message): FoundRule | undefined {
  const family = body.readUInt8(0) === AF[4] ? 4 : body.readUInt8(0) === AF[6] ? 6 : undefined;
  if (family === undefined) return undefined;
  const attributes = decodeAttributes(body.subarray(12));
  const source = attributes.bytes(FRA.SRC);
  return {
    family,
    source: source && { family, address: ipText(source), length: body.readUInt8(2) },
    ipProtocol: attributes.u8(FRA.IP_PROTO),
    sourcePorts: decodePorts(attributes.bytes(FRA.SPORT_RANGE)),
    destinationPorts: decodePorts(attributes.bytes(FRA.DPORT_RANGE)),
    table: attributes.u32(FRA.TABLE) ?? body.readUInt8(4),
    priority: attributes.u32(FRA.PRIORITY) ?? 0,
    protocol: attributes.u8(FRA.PROTOCOL) ?? 0,
  };
}

function ruleRequest(type: number, flags: number, doing: string, rule: Rule): Request {
  const { family, source, ipProtocol, sourcePorts, destinationPorts, table, priority } = rule;
  const attributes: Attribute[] = [];
  if (source) attributes.push(bytes(FRA.SRC, ipBytes(source.address)));
  attributes.push(u32(FRA.PRIORITY, priority), u32(FRA.TABLE, table), u8(FRA.PROTOCOL, NSM_PROTOCOL));
  if (ipProtocol !== undefined) attributes.push(u8(FRA.IP_PROTO, ipProtocol));
  if (sourcePorts) attributes.push(bytes(FRA.SPORT_RANGE, encodePorts(sourcePorts)));
  if (destinationPorts) attributes.push(bytes(FRA.DPORT_RANGE, encodePorts(destinationPorts)));
  const header = ruleHeader(family, source?.length ?? 0, table < 256 ? table : 0, FR_ACT_TO_TBL);
  return {
    doing: `${doing} rule ${priority}: from ${source ? formatPrefix(source) : "all"} to table ${table}`,
    type,
    flags,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

/** struct fib_rule_hdr */
function ruleHeader(family: Family, sourceLength: number, table: number, action: number): Buffer {
  return Buffer.from([AF[family], 0, sourceLength, 0, table, 0, 0, action, 0, 0, 0, 0]);
}

/** struct fib_rule_port_range, in the byte order of the host. */
function encodePorts({ from, to }: Ports): Buffer {
  const range = Buffer.alloc(4);
  range.writeUInt16LE(from, 0);
  range.writeUInt16LE(to, 2);
  return range;
}

function decodePorts(range: Buffer | undefined): Ports | undefined {
  if (range === undefined || range.length < 4) return undefined;
  return { from: range.readUInt16LE(0), to: range.readUInt16LE(2) };
}
