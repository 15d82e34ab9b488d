/** rtnetlink messages of links (linux/if_link.h): create in a namespace, change, delete, read. */
import { be16, bytes, decodeAttributes, encodeAttributes, nest, text, u32, u8 } from "./attribute.ts";
import type { Attribute, AttributeMap } from "./attribute.ts";
import { ipBytes, ipText, macBytes, macText } from "./ip.ts";
import { NLM_F } from "./message.ts";
import type { Message, Request } from "./message.ts";
import { decodeCounters } from "./stats.ts";
import type { LinkCounters } from "./stats.ts";

export const RTM_LINK = { NEW: 16, DEL: 17, GET: 18, SET: 19 } as const;

const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  LINKINFO: 18,
  IFALIAS: 20,
  STATS64: 23,
  AF_SPEC: 26,
  GROUP: 27,
  NET_NS_FD: 28,
  EXT_MASK: 29,
  NUM_TX_QUEUES: 31,
  NUM_RX_QUEUES: 32,
  LINK_NETNSID: 37,
  NEW_IFINDEX: 49,
} as const;
const IFLA_INFO = { KIND: 1, DATA: 2 } as const;
const VETH_INFO_PEER = 1;
const IFLA_BR_MCAST_SNOOPING = 23;
const IFLA_VXLAN = {
  ID: 1,
  GROUP: 2,
  LOCAL: 4,
  LEARNING: 7,
  PORT: 15,
  GROUP6: 16,
  LOCAL6: 17,
} as const;
const AF_INET6 = 10;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;
const RTEXT_FILTER_SKIP_STATS = 8;
const IFF_UP = 1;
const IFF_RUNNING = 0x40;

/** Where and how a device is born. Alias and address generation are ignored at creation: see `setLink`. */
export interface NewDevice {
  readonly name: string;
  /** Chosen by the caller, so that later messages need not ask for it. */
  readonly ifindex: number;
  /** Namespace that it is born in; the sending socket's namespace keeps the tunnel's UDP socket. */
  readonly netnsFd: number;
  readonly group: number;
  /** 0 leaves the driver's default. */
  readonly mtu: number;
  readonly mac: string | undefined;
}

export interface VxlanShape {
  readonly vni: number;
  readonly localIp: string;
  readonly remoteIp: string;
  readonly port: number;
}

/** One message for both ends; a fault at either end leaves nothing behind. One queue each: the default is one a CPU. */
export function newVeth(device: NewDevice, peer: NewDevice): Request {
  const queues = [u32(IFLA.NUM_TX_QUEUES, 1), u32(IFLA.NUM_RX_QUEUES, 1)];
  const peerInfo = Buffer.concat([
    ifinfomsg(peer.ifindex),
    encodeAttributes([...deviceAttributes(peer), ...queues]),
  ]);
  return newDevice(
    device,
    [...queues, linkInfo("veth", [bytes(VETH_INFO_PEER | 0x8000, peerInfo)])],
    `new veth ${device.name}, peer ${peer.name}`,
  );
}

/** Point to point: one remote, no learning, no lower device (which would take the tunnel down with it). */
export function newVxlan(device: NewDevice, shape: VxlanShape): Request {
  const v6 = shape.remoteIp.includes(":");
  const data = [
    u32(IFLA_VXLAN.ID, shape.vni),
    bytes(v6 ? IFLA_VXLAN.GROUP6 : IFLA_VXLAN.GROUP, ipBytes(shape.remoteIp)),
    bytes(v6 ? IFLA_VXLAN.LOCAL6 : IFLA_VXLAN.LOCAL, ipBytes(shape.localIp)),
    u8(IFLA_VXLAN.LEARNING, 0),
    be16(IFLA_VXLAN.PORT, shape.port),
  ];
  return newDevice(device, [linkInfo("vxlan", data)], `new vxlan ${device.name}, vni ${shape.vni}`);
}

export function newWireguard(device: NewDevice): Request {
  return newDevice(device, [linkInfo("wireguard")], `new wireguard ${device.name}`);
}

/** In the own namespace. Forwards at once, learns, and treats multicast as broadcast: a cable with two ends. */
export function newBridge(name: string): Request {
  return newLink(`new bridge ${name}`, [
    text(IFLA.IFNAME, name),
    linkInfo("bridge", [u8(IFLA_BR_MCAST_SNOOPING, 0)]),
  ]);
}

/** Makes nothing: a kernel that knows the kind refuses the (negative) MTU, one that does not says ENOTSUP. */
export function probeKind(kind: string): Request {
  return newLink(`probe ${kind}`, [
    text(IFLA.IFNAME, "nsm-probe"),
    u32(IFLA.MTU, 0xffffffff),
    linkInfo(kind),
  ]);
}

export interface LinkChange {
  readonly ifindex: number;
  readonly alias?: string;
  readonly group?: number;
  readonly mtu?: number;
  readonly mac?: string;
  /** Of a device that is up only since Linux 6.2. */
  readonly name?: string;
  readonly up?: boolean;
  /** Index of the bridge that it becomes a port of. */
  readonly master?: number;
  /** No IPv6 link-local address, hence no router solicitations and no duplicate address detection. */
  readonly noAddressGeneration?: boolean;
  /** Moves the device, under a new name and index. */
  readonly move?: { readonly netnsFd: number; readonly name: string; readonly ifindex: number };
}

export function setLink(change: LinkChange): Request {
  const { ifindex, alias, group, mtu, mac, name, up, master, noAddressGeneration, move } = change;
  const attributes: Attribute[] = [];
  if (move) {
    attributes.push(u32(IFLA.NET_NS_FD, move.netnsFd), text(IFLA.IFNAME, move.name));
    attributes.push(u32(IFLA.NEW_IFINDEX, move.ifindex));
  }
  if (name !== undefined) attributes.push(text(IFLA.IFNAME, name));
  if (alias !== undefined) attributes.push(bytes(IFLA.IFALIAS, Buffer.from(alias)));
  if (group !== undefined) attributes.push(u32(IFLA.GROUP, group));
  if (mtu !== undefined) attributes.push(u32(IFLA.MTU, mtu));
  if (mac !== undefined) attributes.push(bytes(IFLA.ADDRESS, macBytes(mac)));
  if (master !== undefined) attributes.push(u32(IFLA.MASTER, master));
  if (noAddressGeneration === true) {
    const mode = u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    attributes.push(nest(IFLA.AF_SPEC, [nest(AF_INET6, [mode])]));
  }
  const flags = up === undefined ? 0 : IFF_UP;
  return {
    doing: `set link ${ifindex}`,
    type: RTM_LINK.SET,
    flags: 0,
    body: Buffer.concat([ifinfomsg(ifindex, up === true ? IFF_UP : 0, flags), encodeAttributes(attributes)]),
  };
}

export function deleteLink(ifindex: number): Request {
  return { doing: `delete link ${ifindex}`, type: RTM_LINK.DEL, flags: 0, body: ifinfomsg(ifindex) };
}

/** One link by index or name, with its counters or, cheaper, without. */
export function getLink(which: { ifindex: number } | { name: string }, counters = false): Request {
  const byName = "name" in which;
  const attributes = counters ? [] : [u32(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS)];
  if (byName) attributes.push(text(IFLA.IFNAME, which.name));
  return {
    doing: `get link ${byName ? which.name : which.ifindex}`,
    type: RTM_LINK.GET,
    flags: 0,
    body: Buffer.concat([ifinfomsg(byName ? 0 : which.ifindex), encodeAttributes(attributes)]),
  };
}

export function dumpLinks(): Request {
  const body = Buffer.concat([ifinfomsg(0), encodeAttributes([u32(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS)])]);
  return { doing: "dump links", type: RTM_LINK.GET, flags: NLM_F.DUMP, body };
}

export interface Link {
  readonly ifindex: number;
  readonly name: string;
  readonly up: boolean;
  /** Up at both ends and ready to send. */
  readonly running: boolean;
  readonly mtu: number;
  readonly mac: string | undefined;
  readonly group: number;
  readonly alias: string;
  /** `veth`, `vxlan`, `wireguard`, `tun`, ...; empty for hardware and loopback. */
  readonly kind: string;
  /** Index of the other end of a veth pair, in that end's namespace. */
  readonly peerIfindex: number | undefined;
  /** Number that this namespace gives to the one of the other end, or of the tunnel's socket. */
  readonly linkNetnsId: number | undefined;
  readonly noAddressGeneration: boolean;
  readonly vxlan: Partial<VxlanShape> | undefined;
  /** Where they were asked for. */
  readonly counters?: LinkCounters;
}

/** Of an RTM_NEWLINK message. */
export function decodeLink({ body }: Message): Link {
  const attributes = decodeAttributes(body.subarray(16));
  const info = attributes.nest(IFLA.LINKINFO);
  const flags = body.readUInt32LE(8);
  const kind = info.text(IFLA_INFO.KIND) ?? "";
  const stats = attributes.bytes(IFLA.STATS64);
  const mac = attributes.bytes(IFLA.ADDRESS);
  return {
    ifindex: body.readInt32LE(4),
    name: attributes.text(IFLA.IFNAME) ?? "",
    up: (flags & IFF_UP) !== 0,
    running: (flags & IFF_RUNNING) !== 0,
    mtu: attributes.u32(IFLA.MTU) ?? 0,
    mac: mac?.length === 6 ? macText(mac) : undefined,
    group: attributes.u32(IFLA.GROUP) ?? 0,
    alias: attributes.text(IFLA.IFALIAS) ?? "",
    kind,
    peerIfindex: attributes.u32(IFLA.LINK),
    linkNetnsId: attributes.s32(IFLA.LINK_NETNSID),
    noAddressGeneration:
      attributes.nest(IFLA.AF_SPEC).nest(AF_INET6).u8(IFLA_INET6_ADDR_GEN_MODE) === IN6_ADDR_GEN_MODE_NONE,
    vxlan: kind === "vxlan" ? decodeVxlan(info.nest(IFLA_INFO.DATA)) : undefined,
    ...(stats && { counters: decodeCounters(stats) }),
  };
}

function decodeVxlan(data: AttributeMap): Partial<VxlanShape> {
  const vni = data.u32(IFLA_VXLAN.ID);
  const port = data.be16(IFLA_VXLAN.PORT);
  const remote = data.bytes(IFLA_VXLAN.GROUP) ?? data.bytes(IFLA_VXLAN.GROUP6);
  const local = data.bytes(IFLA_VXLAN.LOCAL) ?? data.bytes(IFLA_VXLAN.LOCAL6);
  return {
    ...(vni !== undefined && { vni }),
    ...(port !== undefined && { port }),
    ...(remote !== undefined && { remoteIp: ipText(remote) }),
    ...(local !== undefined && { localIp: ipText(local) }),
  };
}

function newDevice(device: NewDevice, more: readonly Attribute[], doing: string): Request {
  return newLink(doing, [...deviceAttributes(device), ...more], device.ifindex);
}

/** The kernel chooses the index when it is 0. */
function newLink(doing: string, attributes: readonly Attribute[], ifindex = 0): Request {
  return {
    doing,
    type: RTM_LINK.NEW,
    flags: NLM_F.CREATE | NLM_F.EXCL,
    body: Buffer.concat([ifinfomsg(ifindex), encodeAttributes(attributes)]),
  };
}

function deviceAttributes({ name, netnsFd, group, mtu, mac }: NewDevice): Attribute[] {
  const attributes = [text(IFLA.IFNAME, name), u32(IFLA.NET_NS_FD, netnsFd), u32(IFLA.GROUP, group)];
  if (mtu > 0) attributes.push(u32(IFLA.MTU, mtu));
  if (mac !== undefined) attributes.push(bytes(IFLA.ADDRESS, macBytes(mac)));
  return attributes;
}

function linkInfo(kind: string, data: readonly Attribute[] = []): Attribute {
  return nest(IFLA.LINKINFO, [
    text(IFLA_INFO.KIND, kind),
    ...(data.length > 0 ? [nest(IFLA_INFO.DATA, data)] : []),
  ]);
}

/** struct ifinfomsg */
function ifinfomsg(ifindex: number, flags = 0, change = 0): Buffer {
  const header = Buffer.alloc(16);
  header.writeInt32LE(ifindex, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(change, 12);
  return header;
}
