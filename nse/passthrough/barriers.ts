/**
 * Keeps what comes in by the devices of connections from going anywhere but by a joint: not to the other networks of this namespace, nor to its
 * own programs, before two devices are joined, after they have been parted, and after this process was killed (docs/protocol.md, "Chaining").
 */
import { decodeLink, dumpLinks, setLink } from "../../sdk/netlink/link.ts";
import type { Link } from "../../sdk/netlink/link.ts";
import { deleteRule, newRule } from "../../sdk/netlink/rule.ts";
import type { Rule } from "../../sdk/netlink/rule.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";
import { BARRIER_PRIORITY, BARRIER_PROTOCOL, PASSTHROUGH_PROTOCOL } from "./joint-plan.ts";
import { families, readRules, throwUnless } from "./namespace.ts";

export interface Barriers {
  /** Best before the device is there: then not one packet goes astray. */
  raise(...devices: readonly string[]): Promise<void>;
  /** The device is on its way out: its barrier goes when it has gone. */
  release(device: string): void;
  /** False while there are none: then nothing can settle. */
  readonly areUp: boolean;
  /** Takes the barriers away whose devices are gone. */
  settle(links: readonly Link[]): Promise<void>;
  /** Sets devices that are still there down, and takes all barriers away. */
  end(): Promise<void>;
}

/** What an earlier life of an endpoint left is taken over: devices that are still there stay behind a barrier. */
export async function openBarriers(socket: NetlinkSocket): Promise<Barriers> {
  const released = new Map<string, boolean>();
  const raise = async (...devices: readonly string[]) => {
    const missing = devices.filter((device) => !released.has(device));
    for (const refusal of await socket.batch(missing.flatMap(rulesOf).map(newRule)))
      throwUnless(refusal, "EEXIST");
    for (const device of devices) released.set(device, false);
  };
  const lower = async (devices: readonly string[]) => {
    for (const refusal of await socket.batch(devices.flatMap(rulesOf).map(deleteRule)))
      throwUnless(refusal, "ENOENT", "ESRCH");
    for (const device of devices) released.delete(device);
  };
  const readLinks = async () => (await socket.dump(dumpLinks())).map(decodeLink);
  const settle = async (links: readonly Link[]) => {
    const there = new Set(links.map(({ name }) => name));
    const gone = [...released].filter(([device, isReleased]) => isReleased && !there.has(device));
    if (gone.length > 0) await lower(gone.map(([device]) => device));
  };
  const release = (device: string) => {
    if (released.has(device)) released.set(device, true);
  };

  const left = await devicesOfEarlierLife(socket);
  await raise(...left);
  left.forEach(release);
  await settle(await readLinks());
  return {
    raise,
    release,
    settle,
    get areUp() {
      return released.size > 0;
    },
    async end() {
      const there = (await readLinks()).filter(({ name }) => released.has(name));
      const refusals = await socket.batch(there.map(({ ifindex }) => setLink({ ifindex, up: false })));
      for (const refusal of refusals) throwUnless(refusal, "ENODEV");
      await lower([...released.keys()]);
    },
  };
}

function rulesOf(device: string): readonly Rule[] {
  return families.map((family) => ({
    family,
    priority: BARRIER_PRIORITY,
    table: undefined,
    iif: device,
    protocol: BARRIER_PROTOCOL,
  }));
}

async function devicesOfEarlierLife(socket: NetlinkSocket): Promise<readonly string[]> {
  const devices = new Set<string>();
  for (const { iif, protocol } of await readRules(socket))
    if (iif !== undefined && [PASSTHROUGH_PROTOCOL, BARRIER_PROTOCOL].includes(protocol)) devices.add(iif);
  return [...devices];
}
