/** A wire's devices from nothing: created where they belong, configured, ready; or gone again. */
import { delay, systemClock } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import { parseAlias } from "../plan/alias.ts";
import { configure } from "./configure.ts";
import type { Pod } from "./configure.ts";
import { at, devicesOf, removeDevices } from "./device.ts";
import type { Device } from "./device.ts";
import { freshEnd } from "../plan/diff.ts";
import { deleteLink, newVeth } from "../../sdk/netlink/link.ts";
import type { NewDevice } from "../../sdk/netlink/link.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import type { KernelError } from "../../sdk/netlink/message.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import { requireAlive } from "./netns.ts";
import { readLink } from "./observe.ts";
import type { Wanted, WantedEnd } from "../plan/plan.ts";
import { allowPing, prepareSysctls } from "./sysctl.ts";
import { admitPeer, createTunnel, forgetTunnel, readyTunnel } from "./tunnel-device.ts";
import type { TunnelDrivers } from "./tunnel-device.ts";

export interface ApplyOptions {
  /** Link group of all devices of this forwarder: tells a half-made device from a stranger's. */
  readonly group: number;
  readonly drivers: TunnelDrivers;
  /** A fresh interface index. */
  readonly newIfindex: () => number;
  /** The kernel gives a device that is up another name. */
  readonly liveRename: boolean;
}

const CREATE_TRIES = 4;
/** Usually it takes less than a millisecond. */
const RUNNING_MS = 1000;

/** What this call made is gone again when it throws; `undo` then forgets what the tunnel had beside its device. */
export async function createWire(
  options: ApplyOptions,
  wanted: Wanted,
  pods: readonly Pod[],
  signal: AbortSignal,
  undo: () => Promise<void> = () => forgetTunnel(options.drivers, wanted.wireId),
): Promise<readonly Device[]> {
  const indexes = await createDevices(options, wanted, pods);
  const devices = devicesOf(wanted, indexes);
  try {
    for (const { wanted: end, netns } of pods) {
      prepareSysctls(netns.fd, end.name, wantsIpv6(end));
      if (end.side === "client") allowPing(netns.fd);
    }
    await admitPeer(options.drivers, wanted);
    await Promise.all(pods.map((pod, i) => configure(pod, freshEnd(at(indexes, i), pod.wanted))));
    if (wanted.link.kind === "veth") await waitUntilRunning(pods, indexes);
    else await readyTunnel(options.drivers, wanted, signal);
    for (const { wanted: end } of pods) requireAlive(end.netns);
    signal.throwIfAborted();
    return devices;
  } catch (error) {
    await removeDevices(devices);
    // A pod that has ended is not found any more, yet we hold it open, and with it the device whose end a tunnel's `undo` waits for.
    for (const [i, { socket }] of pods.entries()) await socket.batch([deleteLink(at(indexes, i))]);
    await undo();
    throw error;
  }
}

/** The end that was up first gets its queue a moment after the second is up; what it sends before that is lost. */
async function waitUntilRunning(pods: readonly Pod[], indexes: readonly number[]): Promise<void> {
  const endMs = systemClock.monotonic() + RUNNING_MS;
  const isWaiting = async ({ socket }: Pod, i: number) =>
    (await readLink(socket, { ifindex: at(indexes, i) }))?.running === false;
  while ((await Promise.all(pods.map(isWaiting))).includes(true)) {
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
