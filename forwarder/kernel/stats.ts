/** What the wires have carried, as the kernel counts it at their devices. */
import type { Device } from "./device.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import { decodeStats, dumpStats, getStats } from "../../sdk/netlink/stats.ts";
import type { LinkCounters } from "../../sdk/netlink/stats.ts";
import { findNetns } from "./netns.ts";
import type { Side } from "../wire.ts";

export type { LinkCounters } from "../../sdk/netlink/stats.ts";

/** One end of a wire on this node. `rx` is what its pod received, `tx` what it sent. */
export interface EndStats extends LinkCounters {
  readonly side: Side;
  readonly interfaceName: string;
}

/**
 * Counters of devices, by wire id; a device that is gone is left out. A namespace with several of them is asked once, so many
 * wires of few pods cost few messages.
 */
export async function readStats(
  devices: readonly Device[],
): Promise<ReadonlyMap<string, readonly EndStats[]>> {
  const found = new Map<string, EndStats[]>();
  const places = Map.groupBy(devices, ({ netns }) => netns.identity ?? netns.inode);
  for (const inThere of places.values()) {
    const counters = await countersIn(inThere);
    for (const { wireId, side, name, ifindex } of inThere) {
      const counted = counters.get(ifindex);
      if (counted === undefined) continue;
      const ends = found.get(wireId) ?? [];
      ends.push({ side, interfaceName: name, ...counted });
      found.set(wireId, ends);
    }
  }
  return found;
}

/** Both ends of a wire by the counters of its first: what one end of a veth pair sends the other receives. */
export function endsOf(devices: readonly Device[], counters: LinkCounters | undefined): readonly EndStats[] {
  if (counters === undefined) return [];
  const mirrored: LinkCounters = {
    rxPackets: counters.txPackets,
    txPackets: counters.rxPackets,
    rxBytes: counters.txBytes,
    txBytes: counters.rxBytes,
    rxErrors: counters.txErrors,
    txErrors: counters.rxErrors,
    rxDropped: counters.txDropped,
    txDropped: counters.rxDropped,
  };
  return devices.map(({ side, name }, i) => ({
    side,
    interfaceName: name,
    ...(i === 0 ? counters : mirrored),
  }));
}

/** By interface index; those of other devices of the namespace may be among them. */
async function countersIn(devices: readonly Device[]): Promise<ReadonlyMap<number, LinkCounters>> {
  const [device] = devices;
  using netns = device && findNetns(device.netns);
  if (device === undefined || netns === undefined) return new Map();
  using socket = openNetlink("route", netns.fd);
  try {
    const messages =
      devices.length === 1 ? [await socket.get(getStats(device.ifindex))] : await socket.dump(dumpStats());
    return new Map(
      messages
        .map(decodeStats)
        .filter((found) => found !== undefined)
        .map(({ ifindex, counters }) => [ifindex, counters]),
    );
  } catch (error) {
    if (isKernelError(error, "ENODEV")) return new Map();
    throw error;
  }
}
