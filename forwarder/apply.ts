/** The only code that changes the kernel for a wire: make it as planned, safe to repeat, leave nothing of a failed attempt. */
import { delay, systemClock } from "../sdk/clock.ts";
import { NsmError } from "../sdk/errors.ts";
import { parseAlias } from "./alias.ts";
import { configure, readPast, restore } from "./configure.ts";
import type { Pod } from "./configure.ts";
import { freshEnd } from "./diff.ts";
import { fitIn } from "./guard.ts";
import { explainRefusal } from "./kernel-error.ts";
import { deleteLink, newVeth } from "./netlink/link.ts";
import type { Link, NewDevice } from "./netlink/link.ts";
import { isKernelError } from "./netlink/message.ts";
import type { KernelError } from "./netlink/message.ts";
import { openNetlink } from "./netlink/socket.ts";
import { findNetns, openNetns, requireAlive } from "./netns.ts";
import type { NetnsRef } from "./netns.ts";
import { observeSurroundings, readLink } from "./observe.ts";
import type { Wanted, WantedEnd } from "./plan.ts";
import { setPolicies } from "./policies.ts";
import { prepareSysctls } from "./sysctl.ts";
import {
  admitPeer,
  createTunnel,
  forgetTunnel,
  readyTunnel,
  tunnelFits,
  updateTunnel,
} from "./tunnel-device.ts";
import type { TunnelDrivers } from "./tunnel-device.ts";
import type { Side } from "./wire.ts";

/** A device that this forwarder made, by its place in the kernel. */
export interface Device {
  readonly wireId: string;
  readonly side: Side;
  readonly netns: NetnsRef;
  readonly name: string;
  readonly ifindex: number;
  readonly alias: string;
}

export interface ApplyOptions {
  /** Link group of all devices of this forwarder: tells a half-made device from a stranger's. */
  readonly group: number;
  readonly drivers: TunnelDrivers;
  /** A fresh interface index. */
  readonly newIfindex: () => number;
}

const CREATE_TRIES = 4;
/** Usually it takes less than a millisecond. */
const RUNNING_MS = 1000;

/**
 * Makes the kernel as wanted and returns the wire's devices. `known` are those that it may have already: they are kept, with
 * their index and traffic, when their shape fits, else replaced. Throws NsmError; what this call created is gone then, and
 * what it changed is as it was.
 */
export async function applyWire(
  options: ApplyOptions,
  wanted: Wanted,
  known: readonly Device[],
  signal: AbortSignal,
): Promise<readonly Device[]> {
  using stack = new DisposableStack();
  const opened = wanted.ends.map((end): Pod => {
    const netns = stack.use(openNetns(end.netns));
    return { wanted: end, netns, socket: stack.use(openNetlink("route", netns.fd)) };
  });
  signal.throwIfAborted();
  try {
    const pods = await Promise.all(opened.map((pod) => fit(pod, known)));
    const links = await fittingLinks(options, wanted, pods, known);
    if (links !== undefined) {
      await update(options, wanted, pods, links);
      return devicesOf(
        wanted,
        links.map(({ ifindex }) => ifindex),
      );
    }
    await removeDevices(known);
    return await createWire(options, wanted, pods, signal);
  } catch (error) {
    throw explainRefusal(error, wanted.wireId);
  }
}

/** The client's end as its pod can have it: what an endpoint says of itself is its own affair. */
async function fit(pod: Pod, known: readonly Device[]): Promise<Pod> {
  const { wanted, socket } = pod;
  const families = new Set(
    [...wanted.addresses, ...wanted.routes.map(({ prefix }) => prefix)].map(({ family }) => family),
  );
  if (wanted.side === "endpoint" || families.size === 0) return pod;
  const own = known.find(({ side }) => side === "client")?.ifindex;
  return { ...pod, wanted: fitIn(wanted, await observeSurroundings(socket, own, [...families])) };
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
    if (device.side !== "endpoint") await setPolicies(socket, String(netns.inode), device.ifindex, []);
    const link = await readLink(socket, { ifindex: device.ifindex });
    if (link === undefined || (link.alias !== device.alias && link.name !== device.name)) continue;
    const [refusal] = await socket.batch([deleteLink(device.ifindex)]);
    if (refusal && !isKernelError(refusal, "ENODEV")) throw explainRefusal(refusal, device.wireId);
  }
}

/** False when the device, or its whole namespace, is no more. */
export async function exists(device: Device): Promise<boolean> {
  using netns = findNetns(device.netns);
  if (netns === undefined) return false;
  using socket = openNetlink("route", netns.fd);
  const link = await readLink(socket, { ifindex: device.ifindex });
  return link?.alias === device.alias;
}

/** The existing links, in the order of `pods`, when all are there in the wanted shape; else undefined. */
async function fittingLinks(
  { drivers }: ApplyOptions,
  wanted: Wanted,
  pods: readonly Pod[],
  known: readonly Device[],
): Promise<readonly Link[] | undefined> {
  const links: Link[] = [];
  for (const { wanted: end, socket } of pods) {
    const device = known.find(
      ({ side, netns, name }) => side === end.side && netns.inode === end.netns.inode && name === end.name,
    );
    const link = device && (await readLink(socket, { ifindex: device.ifindex }));
    if (link === undefined || link.name !== end.name || link.alias !== end.alias) return undefined;
    links.push(link);
  }
  if (known.length > links.length) return undefined;
  const [first, second] = links;
  const [pod] = pods;
  if (wanted.link.kind !== "veth")
    return first && pod && (await tunnelFits(drivers, wanted, pod.netns, first)) ? links : undefined;
  const paired = first?.peerIfindex === second?.ifindex && second?.peerIfindex === first?.ifindex;
  return paired && first?.kind === "veth" ? links : undefined;
}

/** Changes what differs; when a change is refused, what was there before comes back. */
async function update(
  options: ApplyOptions,
  wanted: Wanted,
  pods: readonly Pod[],
  links: readonly Link[],
): Promise<void> {
  const before = await Promise.all(pods.map((pod, i) => readPast(pod, at(links, i))));
  try {
    for (const [i, pod] of pods.entries()) await configure(pod, at(before, i).found);
    for (const [i, { netns }] of pods.entries())
      await updateTunnel(options.drivers, wanted, netns, at(links, i).ifindex);
    for (const { wanted: end } of pods) requireAlive(end.netns);
  } catch (error) {
    for (const [i, pod] of pods.entries()) await restore(pod, at(before, i));
    throw error;
  }
}

async function createWire(
  options: ApplyOptions,
  wanted: Wanted,
  pods: readonly Pod[],
  signal: AbortSignal,
): Promise<readonly Device[]> {
  const indexes = await createDevices(options, wanted, pods);
  const devices = devicesOf(wanted, indexes);
  try {
    for (const { wanted: end, netns } of pods) prepareSysctls(netns.fd, end.name, wantsIpv6(end));
    await admitPeer(options.drivers, wanted);
    await Promise.all(pods.map((pod, i) => configure(pod, freshEnd(at(indexes, i), pod.wanted))));
    if (wanted.link.kind === "veth") await waitUntilRunning(pods, indexes);
    else await readyTunnel(options.drivers, wanted, signal);
    for (const { wanted: end } of pods) requireAlive(end.netns);
    signal.throwIfAborted();
    return devices;
  } catch (error) {
    await removeDevices(devices);
    await forgetTunnel(options.drivers, wanted.wireId);
    throw error;
  }
}

/** The end that was up first gets its queue a moment after the second is up; what it sends before that is lost. */
async function waitUntilRunning(pods: readonly Pod[], indexes: readonly number[]): Promise<void> {
  const endMs = systemClock.monotonic() + RUNNING_MS;
  for (const [i, { socket }] of pods.entries())
    while ((await readLink(socket, { ifindex: at(indexes, i) }))?.running === false) {
      if (systemClock.monotonic() > endMs) return;
      await delay(1);
    }
}

/** One message makes both ends or none. Interface indexes are ours to choose, so nothing needs to be asked afterwards. */
async function createDevices(
  options: ApplyOptions,
  wanted: Wanted,
  pods: readonly Pod[],
): Promise<readonly number[]> {
  for (let tries = 1; ; tries++) {
    const devices = pods.map(({ wanted: end, netns }): NewDevice => ({
      name: end.name,
      ifindex: options.newIfindex(),
      netnsFd: netns.fd,
      group: options.group,
      mtu: end.mtu,
      mac: end.mac,
    }));
    try {
      const [client, endpoint] = devices;
      if (client === undefined) throw new Error("a wire without ends");
      if (endpoint === undefined) await createTunnel(options.drivers, wanted, client);
      else {
        using node = openNetlink("route");
        await node.execute(newVeth(client, endpoint));
      }
      return devices.map(({ ifindex }) => ifindex);
    } catch (error) {
      if (!isKernelError(error, "EEXIST") || tries === CREATE_TRIES) throw error;
      await clearTheWay(options, wanted, pods, error);
    }
  }
}

/**
 * Something has the name, the VNI or the index that we want. A device of ours that was left half made is removed, and one of the same
 * path up to us by another forwarder of this node; anybody else's is never touched: ALREADY_EXISTS `vni-taken` or `interface-name-taken`. A taken index needs just another try.
 */
async function clearTheWay(
  { group }: ApplyOptions,
  wanted: Wanted,
  pods: readonly Pod[],
  refusal: KernelError,
): Promise<void> {
  if (wanted.link.kind === "vxlan" && /\bVNI\b/.test(refusal.said))
    throw new NsmError(
      "ALREADY_EXISTS",
      "vni-taken",
      `VNI ${wanted.link.vni} on port ${wanted.link.port} is in use on this node: request again to get another one`,
      refusal,
    );
  for (const { wanted: end, socket } of pods) {
    const link = await readLink(socket, { name: end.name });
    if (link === undefined) continue;
    const mark = parseAlias(link.alias);
    const ours = link.group === group && (link.alias === "" || mark?.binding === end.binding);
    if (!ours)
      throw new NsmError(
        "ALREADY_EXISTS",
        "interface-name-taken",
        `interface name ${end.name} is taken in network namespace ${end.netns.inode} (${link.kind || "device"} ${link.ifindex}): ask for another name or remove that interface`,
        refusal,
      );
    await socket.execute(deleteLink(link.ifindex));
  }
}

function wantsIpv6({ addresses, neighbors }: WantedEnd): boolean {
  return addresses.some(({ family }) => family === 6) || neighbors.some(({ ip }) => ip.includes(":"));
}

function devicesOf({ wireId, ends }: Wanted, indexes: readonly number[]): Device[] {
  return ends.map(({ side, netns, name, alias }, i) => ({
    wireId,
    side,
    netns,
    name,
    ifindex: at(indexes, i),
    alias,
  }));
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`no item ${index} of ${items.length}`);
  return item;
}
