/** The devices of a wire by their places in the kernel. */
import { parseAlias } from "../plan/alias.ts";
import { explainRefusal } from "./kernel-error.ts";
import { decodeLink, deleteLink, dumpLinks } from "../../sdk/netlink/link.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";
import { findNetns } from "./netns.ts";
import { readLink } from "./observe.ts";
import type { Wanted } from "../plan/plan.ts";
import { setPolicies } from "./policies.ts";
import { disallowPing, isPingAllowed } from "./sysctl.ts";
import { WIRE_IFINDEX } from "../wire.ts";
import type { NetnsRef, Side } from "../wire.ts";

/** A device that this forwarder made, by its place in the kernel. */
export interface Device {
  readonly wireId: string;
  readonly side: Side;
  readonly netns: NetnsRef;
  readonly name: string;
  readonly ifindex: number;
  readonly alias: string;
}

/** `indexes`: as the ends. */
export function devicesOf({ wireId, ends }: Wanted, indexes: readonly number[]): Device[] {
  return ends.map(({ side, netns, name, alias }, i) => ({
    wireId,
    side,
    netns,
    name,
    ifindex: at(indexes, i),
    alias,
  }));
}

/** Deletes devices wherever they still are; done when the kernel is. A device or namespace that is gone is fine. */
export async function removeDevices(
  devices: readonly (Omit<Device, "side"> & Partial<Pick<Device, "side">>)[],
): Promise<void> {
  for (const device of devices) {
    using netns = findNetns(device.netns);
    if (netns === undefined) continue;
    using socket = openNetlink("route", netns.fd);
    // Rules outlive their device.
    if (device.side !== "endpoint") await setPolicies(socket, device.ifindex, []);
    const link = await readLink(socket, { ifindex: device.ifindex });
    if (link !== undefined && (link.alias === device.alias || link.name === device.name)) {
      const [refusal] = await socket.batch([deleteLink(device.ifindex)]);
      if (refusal && !isKernelError(refusal, "ENODEV")) throw explainRefusal(refusal, device.wireId);
    }
    if (isPingAllowed(netns.fd) && !(await hasClientEnd(socket))) disallowPing(netns.fd);
  }
}

async function hasClientEnd(socket: NetlinkSocket): Promise<boolean> {
  const links = (await socket.dump(dumpLinks())).map(decodeLink);
  return links.some(
    ({ ifindex, alias }) => ifindex >= WIRE_IFINDEX.first && parseAlias(alias)?.side !== "endpoint",
  );
}

/** False when the device, or its whole namespace, is no more. */
export async function exists(device: Device): Promise<boolean> {
  using netns = findNetns(device.netns);
  if (netns === undefined) return false;
  using socket = openNetlink("route", netns.fd);
  const link = await readLink(socket, { ifindex: device.ifindex });
  return link?.alias === device.alias;
}

/** Throws RangeError where there is none. */
export function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`no item ${index} of ${items.length}`);
  return item;
}
