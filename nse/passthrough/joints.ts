/**
 * Joins the two devices of each connection in the own network namespace: for payload IP by routes of its own, for ETHERNET by a
 * bridge (docs/protocol.md, "Chaining"). The forwarder makes and removes the devices; this follows them.
 */
import { NsmError, messageOf } from "../../sdk/errors.ts";
import type { Logger } from "../../sdk/log.ts";
import { decodeLink, deleteLink, dumpLinks, newBridge, setLink } from "../../sdk/netlink/link.ts";
import type { Link } from "../../sdk/netlink/link.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import type { Request } from "../../sdk/netlink/message.ts";
import { decodeRoute, deleteRoute, dumpAllRoutes, newRoute } from "../../sdk/netlink/route.ts";
import { deleteRule, newRule } from "../../sdk/netlink/rule.ts";
import type { Mark, Rule } from "../../sdk/netlink/rule.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";
import { oneAtATime } from "../../sdk/one-at-a-time.ts";
import { openBarriers } from "./barriers.ts";
import {
  BRIDGE_ALIAS,
  PASSTHROUGH_PROTOCOL,
  bridgeName,
  devicesOf,
  dropRoute,
  forwardingOf,
  rulesOf,
  tablesOf,
} from "./joint-plan.ts";
import { watchLinks } from "./link-watch.ts";
import { families, localRuleFirst, localRuleLast, openSysctls, readRules, throwUnless } from "./namespace.ts";
import type { Sysctls } from "./namespace.ts";

export interface Joint {
  readonly payload: "IP" | "ETHERNET";
  /** Device towards the client. */
  readonly up: string;
  /** Device towards the service. */
  readonly down: string;
  /** With their length, as in the IPContext. */
  readonly clientAddresses: readonly string[];
  readonly serviceAddresses: readonly string[];
}

export interface Joints extends AsyncDisposable {
  /** From now on nothing that comes by this device, there or to come, goes anywhere but by a joint. */
  hold(device: string): Promise<void>;
  /** Holds both devices; packets pass as soon as both are there. */
  join(key: string, joint: Joint): Promise<void>;
  /** The device towards the client is released, the other one goes on being held. */
  part(key: string): Promise<void>;
  /** Held until it is gone. */
  release(device: string): Promise<void>;
}

interface Kept {
  readonly slot: number;
  joint: Joint;
  /** What has been made, as a text. */
  made: string;
}

/**
 * Joints for payload IP are for packets with this mark alone, if there is one. Throws FAILED_PRECONDITION `no-net-admin` when the namespace may not
 * be changed. What an earlier life left is removed.
 */
export async function openJoints(log: Logger, mark?: Mark): Promise<Joints> {
  await using stack = new AsyncDisposableStack();
  const socket = stack.use(openNetlink("route"));
  const sysctls = openSysctls();
  const inTurn = oneAtATime();
  const barriers = await explained(async () => {
    const raised = await openBarriers(socket);
    await clear(socket);
    await localRuleLast(socket);
    return raised;
  });
  stack.defer(async () => {
    await barriers.end();
    await clear(socket);
    await localRuleFirst(socket);
  });
  const kept = new Map<string, Kept>();
  const follow = () =>
    inTurn(async () => {
      if (!barriers.areUp) return;
      const links = (await socket.dump(dumpLinks())).map(decodeLink);
      await barriers.settle(links);
      for (const each of kept.values()) await make(socket, sysctls, each, links).catch(report);
    });
  const report = (err: unknown) => log.warn({ err: messageOf(err) }, "joining two devices failed");
  stack.use(watchLinks(() => void follow().catch(report)));
  const resources = stack.move();
  return {
    async join(key, joint) {
      await inTurn(async () => {
        const known = kept.get(key);
        if (known !== undefined && isSameJoint(known.joint, joint)) return;
        if (known !== undefined) await unmake(socket, known, mark);
        const slot = known?.slot ?? freeSlot(kept);
        kept.delete(key);
        await explained(() => barriers.raise(...heldOf(joint, slot)));
        await explained(() => prepare(socket, joint, slot, mark));
        kept.set(key, { slot, joint, made: "" });
      });
      await follow();
    },
    hold: (device) => inTurn(() => explained(() => barriers.raise(device))),
    async release(device) {
      barriers.release(device);
      await follow();
    },
    async part(key) {
      await inTurn(async () => {
        const known = kept.get(key);
        kept.delete(key);
        if (known === undefined) return;
        await unmake(socket, known, mark);
        for (const device of heldOf(known.joint, known.slot))
          if (device !== known.joint.down) barriers.release(device);
      });
      await follow();
    },
    async [Symbol.asyncDispose]() {
      await inTurn(() => resources.disposeAsync());
    },
  };
}

/** A bridge, too, takes packets in: those for its own hardware address. */
function heldOf(joint: Joint, slot: number): readonly string[] {
  return [...devicesOf(joint), ...(joint.payload === "ETHERNET" ? [bridgeName(slot)] : [])];
}

/** Rules before devices: a packet that comes before its way is ready is dropped, not routed elsewhere. */
async function prepare(
  socket: NetlinkSocket,
  joint: Joint,
  slot: number,
  mark: Mark | undefined,
): Promise<void> {
  if (joint.payload === "ETHERNET") {
    await socket.execute(newBridge(bridgeName(slot)));
    return;
  }
  const drops = families.flatMap((family) => tablesOf(slot).map((table) => dropRoute(family, table)));
  await socket.execute(
    ...drops.map((route) => newRoute(0, route)),
    ...rulesFor(joint, slot, mark).map(newRule),
  );
}

async function make(
  socket: NetlinkSocket,
  sysctls: Sysctls,
  kept: Kept,
  links: readonly Link[],
): Promise<void> {
  const [up, down] = devicesOf(kept.joint).map((name) => links.find((link) => link.name === name && link.up));
  const text = [up, down].map((link) => link?.ifindex ?? "").join(" ");
  if (text === kept.made) return;
  if (kept.joint.payload === "ETHERNET") {
    const bridge = links.find(({ name }) => name === bridgeName(kept.slot));
    if (bridge === undefined) throw new Error(`bridge ${bridgeName(kept.slot)} is gone`);
    if (!bridge.up) {
      sysctls.noAddresses(bridge.name);
      await socket.execute(
        setLink({ ifindex: bridge.ifindex, alias: BRIDGE_ALIAS, noAddressGeneration: true, up: true }),
      );
    }
    for (const port of [up, down].filter((link) => link !== undefined)) {
      sysctls.noAddresses(port.name);
      await socket.execute(setLink({ ifindex: port.ifindex, master: bridge.ifindex }));
    }
  } else {
    for (const { ifindex, route, instead } of forwardingOf(
      kept.joint,
      kept.slot,
      up?.ifindex,
      down?.ifindex,
    )) {
      const [refusal] = await socket.batch([newRoute(ifindex, route)]);
      if (isKernelError(refusal, "EINVAL")) await socket.execute(newRoute(ifindex, instead));
      else throwUnless(refusal);
    }
    // Both ways are known before the first packet may pass.
    if (up !== undefined && down !== undefined) for (const { name } of [up, down]) sysctls.forward(name);
  }
  kept.made = text;
}

async function unmake(socket: NetlinkSocket, { joint, slot }: Kept, mark: Mark | undefined): Promise<void> {
  if (joint.payload === "ETHERNET") {
    const links = (await socket.dump(dumpLinks())).map(decodeLink);
    const bridge = links.find(({ name }) => name === bridgeName(slot));
    if (bridge !== undefined) await remove(socket, [deleteLink(bridge.ifindex)]);
    return;
  }
  const tables = new Set(tablesOf(slot));
  await remove(socket, rulesFor(joint, slot, mark).map(deleteRule));
  await removeRoutes(socket, (table) => tables.has(table));
}

/** What an earlier life of an endpoint left in this namespace, or this one at its end. */
async function clear(socket: NetlinkSocket): Promise<void> {
  const isOurs = ({ iif, protocol }: Rule) => iif !== undefined && protocol === PASSTHROUGH_PROTOCOL;
  await remove(socket, (await readRules(socket)).filter(isOurs).map(deleteRule));
  await removeRoutes(socket, () => true);
  const links = (await socket.dump(dumpLinks())).map(decodeLink);
  const bridges = links.filter(({ kind, alias }) => kind === "bridge" && alias === BRIDGE_ALIAS);
  await remove(
    socket,
    bridges.map(({ ifindex }) => deleteLink(ifindex)),
  );
}

async function removeRoutes(socket: NetlinkSocket, isOf: (table: number) => boolean): Promise<void> {
  for (const family of families) {
    const routes = (await socket.dump(dumpAllRoutes(family))).map(decodeRoute);
    const ours = routes
      .filter((route) => route !== undefined)
      .filter(({ protocol, table }) => protocol === PASSTHROUGH_PROTOCOL && isOf(table));
    await remove(
      socket,
      ours.map((route) => deleteRoute(route.ifindex ?? 0, route)),
    );
  }
}

function rulesFor(joint: Joint, slot: number, mark: Mark | undefined): readonly Rule[] {
  return rulesOf(joint, slot, mark).filter(({ family }) => families.includes(family));
}

/** What is gone already is fine: the kernel removes routes with their device. */
async function remove(socket: NetlinkSocket, requests: readonly Request[]): Promise<void> {
  const refusals = await socket.batch(requests);
  for (const refusal of refusals) throwUnless(refusal, "ENOENT", "ESRCH", "ENODEV");
}

function freeSlot(kept: ReadonlyMap<string, Kept>): number {
  const taken = new Set([...kept.values()].map(({ slot }) => slot));
  for (let slot = 0; ; slot++) if (!taken.has(slot)) return slot;
}

function isSameJoint(a: Joint, b: Joint): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

async function explained<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!isKernelError(error, "EPERM")) throw error;
    throw new NsmError(
      "FAILED_PRECONDITION",
      "no-net-admin",
      "this endpoint joins devices in its network namespace: give it the capability NET_ADMIN there",
      error,
    );
  }
}
