/** What an earlier life of this forwarder left in the kernel: every namespace of the machine is looked through once, at start. */
import { listNetns, netnsIdentity, ownNetnsInode, tryOpen } from "./netns.ts";
import type { Netns } from "./netns.ts";
import { parseAlias } from "../plan/alias.ts";
import { decodeLink, dumpLinks } from "../../sdk/netlink/link.ts";
import type { Link } from "../../sdk/netlink/link.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import type { FoundDevice, NetnsRef } from "../wire.ts";
import type { WireguardDriver } from "./wireguard/driver.ts";

export interface Scan {
  readonly devices: FoundDevice[];
  /** Ours by their group, but not marked yet when the earlier life ended. */
  readonly halfMade: Pick<FoundDevice, "netns" | "interfaceName" | "ifindex">[];
  /** VNIs of all VXLAN devices that are not ours. */
  readonly foreignVnis: Set<number>;
}

/** First byte of the link group of every device of every forwarder. */
const GROUP_MARK = 0x4e;

/**
 * Link group of this node's devices: a mark and the low bits of the inode of the node's namespace, so that two forwarders on one
 * machine, each with a namespace of its own as its node, leave one another's devices alone.
 */
export function ownGroup(): number {
  return GROUP_MARK * 2 ** 24 + Number(ownNetnsInode() & 0xffffffn);
}

export async function scan(group: number, wireguard: WireguardDriver | undefined): Promise<Scan> {
  const devices: FoundDevice[] = [];
  const halfMade: Scan["halfMade"] = [];
  const foreignVnis = new Set<number>();
  for (const link of await readLinks()) noteVni(link, foreignVnis);
  for (const { ref, path } of listNetns()) {
    using netns = tryOpen(path);
    if (netns?.inode !== ref.inode) continue;
    const links = await readLinks(netns.fd);
    for (const link of links) if (link.group !== group) noteVni(link, foreignVnis);
    const ours = links.filter((link) => link.group === group);
    if (ours.length === 0) continue;
    const place = { ...ref, identity: netnsIdentity(netns) };
    for (const link of ours) {
      const device = await describe(link, place, netns, wireguard);
      if (device !== undefined) devices.push(device);
      else if (link.alias === "")
        halfMade.push({ netns: place, interfaceName: link.name, ifindex: link.ifindex });
    }
  }
  return { devices, halfMade, foreignVnis };
}

async function readLinks(netnsFd?: number): Promise<Link[]> {
  using socket = openNetlink("route", netnsFd);
  return (await socket.dump(dumpLinks())).map(decodeLink);
}

function noteVni({ vxlan }: Link, vnis: Set<number>): void {
  if (vxlan?.vni !== undefined) vnis.add(vxlan.vni);
}

/** Undefined for a device without our mark. */
async function describe(
  link: Link,
  netns: NetnsRef,
  open: Netns,
  wireguard: WireguardDriver | undefined,
): Promise<FoundDevice | undefined> {
  const mark = parseAlias(link.alias);
  const { kind, ifindex, name: interfaceName, vxlan } = link;
  if (mark === undefined) return undefined;
  const common = { ...mark, netns, interfaceName, ifindex };
  switch (kind) {
    case "veth":
      return { ...common, kind };
    case "vxlan": {
      const { vni, remoteIp, port } = vxlan ?? {};
      return {
        ...common,
        kind,
        ...(vni !== undefined && { vni }),
        ...(remoteIp !== undefined && { remoteIp }),
        ...(port !== undefined && { port }),
      };
    }
    case "wireguard":
    case "tun": {
      const state = await wireguard?.read(mark.wireId, open, ifindex);
      return {
        ...common,
        kind,
        ...(state && { port: state.port, privateKey: state.privateKey, publicKey: state.publicKey }),
        ...(state?.remotePublicKey && { remotePublicKey: state.remotePublicKey }),
        ...(state?.remoteIp !== undefined && { remoteIp: state.remoteIp }),
        ...(state?.remotePort !== undefined && { remotePort: state.remotePort }),
      };
    }
    default:
      return undefined;
  }
}
