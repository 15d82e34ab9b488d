/** The device of a wire that leaves the node: born in the pod, its UDP socket in the node's namespace. */
import { NsmError } from "../../sdk/errors.ts";
import { newVxlan } from "../../sdk/netlink/link.ts";
import type { Link, NewDevice } from "../../sdk/netlink/link.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import type { Netns } from "./netns.ts";
import type { Wanted, WireguardShape } from "../plan/plan.ts";
import type { VxlanFilter } from "./vxlan-filter.ts";
import type { WireguardDriver, WireguardState } from "./wireguard/driver.ts";

export interface TunnelDrivers {
  /** Undefined where the operator chose to do without. */
  readonly filter: VxlanFilter | undefined;
  readonly wireguard: WireguardDriver | undefined;
}

/** Down and configured. */
export async function createTunnel(
  { wireguard }: TunnelDrivers,
  { wireId, link }: Wanted,
  device: NewDevice,
): Promise<void> {
  switch (link.kind) {
    case "veth":
      throw new Error("a veth pair is no tunnel");
    case "vxlan": {
      using node = openNetlink("route");
      await node.execute(newVxlan(device, link));
      break;
    }
    case "wireguard":
      await required(wireguard).create(wireId, device, link);
  }
}

/** Between creation, which proves that the VNI is ours, and up: the filter knows the peer before the device can hear anybody. */
export async function admitPeer({ filter }: TunnelDrivers, { wireId, link }: Wanted): Promise<void> {
  if (link.kind === "vxlan") await filter?.allow(wireId, link);
}

/** True when an existing link is the wanted tunnel, or can become it without being made anew. */
export async function tunnelFits(
  { wireguard }: TunnelDrivers,
  { wireId, link }: Wanted,
  netns: Netns,
  found: Link,
): Promise<boolean> {
  switch (link.kind) {
    case "veth":
      return false;
    case "vxlan":
      return (
        found.vxlan?.vni === link.vni &&
        found.vxlan.port === link.port &&
        found.vxlan.remoteIp === link.remoteIp &&
        found.vxlan.localIp === link.localIp
      );
    case "wireguard":
    default: {
      const driver = required(wireguard);
      const state =
        found.kind === driver.linkKind ? await driver.read(wireId, netns, found.ifindex) : undefined;
      return state?.port === link.localPort;
    }
  }
}

/** Makes an existing, fitting tunnel equal to what is wanted. */
export async function updateTunnel(
  drivers: TunnelDrivers,
  wanted: Wanted,
  netns: Netns,
  ifindex: number,
): Promise<void> {
  const { wireId, link } = wanted;
  await admitPeer(drivers, wanted);
  if (link.kind !== "wireguard") return;
  const driver = required(drivers.wireguard);
  const state = await driver.read(wireId, netns, ifindex);
  if (state === undefined || !isConfigured(state, link)) await driver.configure(wireId, netns, ifindex, link);
  else if (hasMoved(state, wanted.peerBefore, link)) await driver.movePeer(wireId, netns, ifindex, link);
}

export async function readyTunnel(
  { wireguard }: TunnelDrivers,
  { wireId, link }: Wanted,
  signal: AbortSignal,
): Promise<void> {
  if (link.kind === "wireguard") await required(wireguard).ready(wireId, link, signal);
}

/** What a device of another kind left of the wire, which is of this kind now. */
export async function forgetOtherTunnel(
  { filter, wireguard }: TunnelDrivers,
  { wireId, link }: Wanted,
): Promise<void> {
  if (link.kind !== "vxlan") await filter?.forget(wireId);
  if (link.kind !== "wireguard") await wireguard?.forget(wireId);
}

/** After a new device could not be made, or was left, beside `before`: whose peer is in force again. */
export async function leaveTunnel(
  { filter, wireguard }: TunnelDrivers,
  { wireId, link }: Wanted,
  before: Link | undefined,
): Promise<void> {
  if (link.kind === "wireguard") await wireguard?.forget(wireId);
  const { vni, port, remoteIp } = before?.vxlan ?? {};
  if (link.kind !== "vxlan") return;
  if (vni === undefined || port === undefined || remoteIp === undefined) await filter?.forget(wireId);
  else await filter?.allow(wireId, { vni, port, remoteIp });
}

/** True when both may exist at once: no two of a wire's tunnels use the same number or port. */
export function fitsBeside({ link }: Wanted, before: Link): boolean {
  if (link.kind === "vxlan") return before.vxlan?.vni !== link.vni;
  return link.kind === "veth" || before.kind === "veth" || before.kind === "vxlan";
}

/** After the device is gone. */
export async function forgetTunnel({ filter, wireguard }: TunnelDrivers, wireId: string): Promise<void> {
  await filter?.forget(wireId);
  await wireguard?.forget(wireId);
}

/** The peer's address is not compared while the peer is the same: it may have roamed, and WireGuard follows it by itself. See `hasMoved`. */
function isConfigured(state: WireguardState, shape: WireguardShape): boolean {
  const same = (a: Uint8Array | undefined, b: Uint8Array) => a !== undefined && Buffer.compare(a, b) === 0;
  return same(state.privateKey, shape.privateKey) && same(state.remotePublicKey, shape.remotePublicKey);
}

/** The connection says another place than before, and the peer was where it said: one that has roamed is not where it says. */
function hasMoved(state: WireguardState, before: Wanted["peerBefore"], told: WireguardShape): boolean {
  const isAt = ({ remoteIp, remotePort }: Pick<WireguardState, "remoteIp" | "remotePort">) =>
    before?.remoteIp === remoteIp && before?.remotePort === remotePort;
  return before !== undefined && isAt(state) && !isAt(told);
}

function required(wireguard: WireguardDriver | undefined): WireguardDriver {
  if (wireguard !== undefined) return wireguard;
  throw new NsmError("FAILED_PRECONDITION", "no-wireguard", "WireGuard is not available on this node");
}
