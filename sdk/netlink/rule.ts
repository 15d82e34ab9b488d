/** rtnetlink messages of routing rules (linux/fib_rules.h): which packets are routed by which table. */
import { bytes, decodeAttributes, encodeAttributes, text, u32, u8 } from "./attribute.ts";
import type { Attribute } from "./attribute.ts";
import { formatPrefix } from "../prefix.ts";
import type { Family, Prefix } from "../prefix.ts";
import { AF, addressBytes, addressOf } from "./ip.ts";
import { NLM_F } from "./message.ts";
import type { Message, Request } from "./message.ts";
import { NSM_PROTOCOL } from "./route.ts";

const RTM_RULE = { NEW: 32, DEL: 33, GET: 34 } as const;
const FRA = {
  SRC: 2,
  IIFNAME: 3,
  PRIORITY: 6,
  FWMARK: 10,
  TABLE: 15,
  FWMASK: 16,
  PROTOCOL: 21,
  IP_PROTO: 22,
  SPORT_RANGE: 23,
  DPORT_RANGE: 24,
} as const;
const AF_UNSPEC = 0;
const FR_ACT = { TO_TBL: 1, BLACKHOLE: 6 } as const;

/** 1 to 65535, `from` not above `to`. */
export interface Ports {
  readonly from: number;
  readonly to: number;
}

/** Bits of a packet's mark: those of `mask` have to be as in `value`. */
export interface Mark {
  readonly value: number;
  readonly mask: number;
}

/** Packets of a family that have all of these go by `table`; of several such rules that of the lowest priority counts. */
export interface Rule {
  readonly family: Family;
  readonly priority: number;
  /** Undefined: they are dropped. */
  readonly table: number | undefined;
  readonly source?: Prefix | undefined;
  /** Name of the device that they come in by, which need not be there yet. */
  readonly iif?: string | undefined;
  readonly mark?: Mark | undefined;
  /** IP protocol number. */
  readonly ipProtocol?: number | undefined;
  readonly sourcePorts?: Ports | undefined;
  readonly destinationPorts?: Ports | undefined;
  /** FRA_PROTOCOL, who makes it: the forwarder (NSM_PROTOCOL) when absent. The kernel's own rules have RTPROT_KERNEL. */
  readonly protocol?: number;
}

/** EEXIST for one that is there in all its parts. */
export function newRule(rule: Rule): Request {
  return ruleRequest(RTM_RULE.NEW, NLM_F.CREATE | NLM_F.EXCL, "add", rule);
}

/** Only when all its parts are the same, its protocol too. */
export function deleteRule(rule: Rule): Request {
  return ruleRequest(RTM_RULE.DEL, 0, "delete", rule);
}

/** Of a family, or of all. */
export function dumpRules(family?: Family): Request {
  const body = ruleHeader(family === undefined ? AF_UNSPEC : AF[family], 0, 0, 0);
  return { doing: "dump rules", type: RTM_RULE.GET, flags: NLM_F.DUMP, body };
}

export interface FoundRule extends Rule {
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
    source: source && { ...addressOf(source), length: body.readUInt8(2) },
    iif: attributes.text(FRA.IIFNAME),
    mark: decodeMark(attributes.u32(FRA.FWMARK), attributes.u32(FRA.FWMASK)),
    ipProtocol: attributes.u8(FRA.IP_PROTO),
    sourcePorts: decodePorts(attributes.bytes(FRA.SPORT_RANGE)),
    destinationPorts: decodePorts(attributes.bytes(FRA.DPORT_RANGE)),
    table: body.readUInt8(7) === FR_ACT.TO_TBL ? (attributes.u32(FRA.TABLE) ?? body.readUInt8(4)) : undefined,
    priority: attributes.u32(FRA.PRIORITY) ?? 0,
    protocol: attributes.u8(FRA.PROTOCOL) ?? 0,
  };
}

function ruleRequest(type: number, flags: number, doing: string, rule: Rule): Request {
  const { family, source, iif, mark, ipProtocol, sourcePorts, destinationPorts, table, priority } = rule;
  const attributes: Attribute[] = [];
  if (source) attributes.push(bytes(FRA.SRC, addressBytes(source)));
  if (iif !== undefined) attributes.push(text(FRA.IIFNAME, iif));
  attributes.push(u32(FRA.PRIORITY, priority));
  if (mark) attributes.push(u32(FRA.FWMARK, mark.value), u32(FRA.FWMASK, mark.mask));
  if (table !== undefined) attributes.push(u32(FRA.TABLE, table));
  attributes.push(u8(FRA.PROTOCOL, rule.protocol ?? NSM_PROTOCOL));
  if (ipProtocol !== undefined) attributes.push(u8(FRA.IP_PROTO, ipProtocol));
  if (sourcePorts) attributes.push(bytes(FRA.SPORT_RANGE, encodePorts(sourcePorts)));
  if (destinationPorts) attributes.push(bytes(FRA.DPORT_RANGE, encodePorts(destinationPorts)));
  const shortTable = table !== undefined && table < 256 ? table : 0;
  const action = table === undefined ? FR_ACT.BLACKHOLE : FR_ACT.TO_TBL;
  const header = ruleHeader(AF[family], source?.length ?? 0, shortTable, action);
  return {
    doing: `${doing} rule ${priority}: ${selectorText(rule)} to ${table === undefined ? "nowhere" : `table ${table}`}`,
    type,
    flags,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

/** For people: not all of what a rule may select by. */
function selectorText({ family, source, iif }: Rule): string {
  const from = source ? formatPrefix(source) : `all of IPv${family}`;
  return iif === undefined ? from : `${from} by ${iif}`;
}

/** struct fib_rule_hdr */
function ruleHeader(family: number, sourceLength: number, table: number, action: number): Buffer {
  return Buffer.from([family, 0, sourceLength, 0, table, 0, 0, action, 0, 0, 0, 0]);
}

/** The kernel tells both, or neither. */
function decodeMark(value: number | undefined, mask: number | undefined): Mark | undefined {
  return value === undefined || mask === undefined ? undefined : { value, mask };
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
