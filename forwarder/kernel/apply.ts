/** The only code that changes the kernel for a wire: make it as planned, safe to repeat, leave nothing of a failed attempt. */
import { configure, readPast, restore } from "./configure.ts";
import type { Pod } from "./configure.ts";
import { createWire } from "./create.ts";
import type { ApplyOptions } from "./create.ts";
import { at, devicesOf, removeDevices } from "./device.ts";
import type { Device } from "./device.ts";
import { isSameMark } from "../plan/alias.ts";
import { bringsNews, checkBrought, fitIn } from "../plan/guard.ts";
import { explainRefusal } from "./kernel-error.ts";
import type { Link } from "../../sdk/netlink/link.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import { openNetns, requireAlive } from "./netns.ts";
import { observeEnd, observeSurroundings, readLink } from "./observe.ts";
import type { Wanted } from "../plan/plan.ts";
import { swapWire } from "./swap.ts";
import { fitsBeside, tunnelFits, updateTunnel } from "./tunnel-device.ts";

/** The namespaces of a wire's ends, each with a socket in it; `stack` closes them. Throws as `openNetns`. */
export function openPods({ ends }: Wanted, stack: DisposableStack): readonly Pod[] {
  return ends.map((end): Pod => {
    const netns = stack.use(openNetns(end.netns));
    return { wanted: end, netns, socket: stack.use(openNetlink("route", netns.fd)) };
  });
}

/**
 * Makes the kernel as wanted and returns the wire's devices. `known` are those that it may have already: they are kept, with
 * their index and traffic, when their shape fits. Else they are replaced: at an end that stays where it is with the new device
 * ready before. Throws NsmError; what this call created is gone then, and what it changed is as it was.
 */
export async function applyWire(
  options: ApplyOptions,
  wanted: Wanted,
  opened: readonly Pod[],
  known: readonly Device[],
  signal: AbortSignal,
): Promise<readonly Device[]> {
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
    const staying = await stayingEnds(options, wanted, opened, known);
    if (staying.size > 0) {
      // Fitted in with the old device there: routes go behind its own.
      const beside = new Map<Pod, Link>();
      const fresh = await Promise.all(
        opened.map(async (pod) => {
          const fitted = await fit(pod, []);
          const link = staying.get(pod);
          if (link) beside.set(fitted, link);
          return fitted;
        }),
      );
      const swapped = await swapWire(options, wanted, fresh, beside, known, signal);
      if (swapped) return swapped;
    }
    await removeDevices(known);
    return await createWire(options, wanted, pods, signal);
  } catch (error) {
    throw explainRefusal(error, wanted.wireId);
  }
}

/** Ends whose old device is there under the name of the new one; none where the two cannot be there at once. */
async function stayingEnds(
  { liveRename }: ApplyOptions,
  wanted: Wanted,
  pods: readonly Pod[],
  known: readonly Device[],
): Promise<ReadonlyMap<Pod, Link>> {
  const staying = new Map<Pod, Link>();
  if (!liveRename) return staying;
  for (const pod of pods) {
    const { side, netns, name, alias } = pod.wanted;
    const device = known.find(
      (each) => each.side === side && each.netns.inode === netns.inode && each.name === name,
    );
    const link = device && (await readLink(pod.socket, { ifindex: device.ifindex }));
    if (link?.name !== name || !isSameMark(link.alias, alias)) continue;
    if (!fitsBeside(wanted, link)) return new Map();
    staying.set(pod, link);
  }
  return staying;
}

/** The client's end as its pod can have it. What an endpoint says of itself is its own affair, and looked at where it repeats its client. */
async function fit(pod: Pod, known: readonly Device[]): Promise<Pod> {
  const { wanted, socket } = pod;
  const families = new Set(
    [
      ...wanted.addresses,
      ...[wanted, ...wanted.policies].flatMap(({ routes }) => routes.map(({ prefix }) => prefix)),
    ].map(({ family }) => family),
  );
  if (families.size === 0) return pod;
  const own = known.find(({ side }) => side === wanted.side)?.ifindex;
  if (wanted.side === "endpoint") {
    if (wanted.brought.length === 0) return pod;
    const link = own === undefined ? undefined : await readLink(socket, { ifindex: own });
    const found = link && (await observeEnd(socket, link));
    if (bringsNews(wanted, found))
      checkBrought(wanted, await observeSurroundings(socket, own, [...families]), found);
    return found ? { ...pod, found } : pod;
  }
  return { ...pod, wanted: fitIn(wanted, await observeSurroundings(socket, own, [...families])) };
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
    if (link === undefined || link.name !== end.name || !isSameMark(link.alias, end.alias)) return undefined;
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
