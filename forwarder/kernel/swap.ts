/** A wire whose other end is elsewhere now: the new device is ready before the old one is left. */
import { randomBytes } from "node:crypto";
import type { Pod } from "./configure.ts";
import { createWire } from "./create.ts";
import type { ApplyOptions } from "./create.ts";
import { at, devicesOf, removeDevices } from "./device.ts";
import type { Device } from "./device.ts";
import { setLink } from "../../sdk/netlink/link.ts";
import type { Link } from "../../sdk/netlink/link.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import { deleteRoute } from "../../sdk/netlink/route.ts";
import type { Route } from "../../sdk/netlink/route.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";
import { observeEnd } from "./observe.ts";
import type { Wanted } from "../plan/plan.ts";
import { readPolicies, setPolicies } from "./policies.ts";
import { leaveTunnel } from "./tunnel-device.ts";

/** An end that stays where it is, under its name, with the link that it has now. */
export type Staying = ReadonlyMap<Pod, Link>;

/**
 * Makes the new devices beside the old ones, those of staying ends under other names. Their routes go behind the old ones and
 * come into force when those are removed, together with the exchange of names: one message to the kernel, which deletes the old
 * devices afterwards. Undefined when the kernel did not take the names. Throws like `createWire`; the old wire is as it was then.
 */
export async function swapWire(
  options: ApplyOptions,
  wanted: Wanted,
  pods: readonly Pod[],
  staying: Staying,
  known: readonly Device[],
  signal: AbortSignal,
): Promise<readonly Device[] | undefined> {
  const fresh = pods.map((pod): Pod => {
    if (!staying.has(pod)) return pod;
    return { ...pod, wanted: { ...pod.wanted, name: passingName(), policies: [] } };
  });
  const before = [...staying.values()][0];
  const aside: Wanted = { ...wanted, ends: fresh.map((pod) => pod.wanted) };
  const made = await createWire(options, aside, fresh, signal, () =>
    leaveTunnel(options.drivers, wanted, before),
  );
  try {
    for (const [i, pod] of pods.entries()) await leadPolicies(pod, at(made, i).ifindex, staying.get(pod));
    let taken = true;
    for (const [i, pod] of pods.entries()) {
      const past = staying.get(pod);
      if (past) taken = (await takePlace(pod, at(made, i).ifindex, past)) && taken;
    }
    if (!taken) {
      await removeDevices(made);
      return undefined;
    }
  } catch (error) {
    await removeDevices(made);
    await leaveTunnel(options.drivers, wanted, before);
    throw error;
  }
  await removeDevices(known);
  return devicesOf(
    wanted,
    made.map(({ ifindex }) => ifindex),
  );
}

function passingName(): string {
  return `nsm-${randomBytes(5).toString("hex")}`;
}

/** Rules stay, tables lead through the new device; when the kernel refuses one, all lead through the old one again. */
async function leadPolicies({ wanted, socket }: Pod, ifindex: number, past: Link | undefined): Promise<void> {
  if (wanted.side !== "client" || past === undefined) return;
  const before = await readPolicies(socket, past.ifindex);
  try {
    await setPolicies(socket, ifindex, wanted.policies, past.ifindex);
  } catch (error) {
    await setPolicies(socket, past.ifindex, before, ifindex);
    throw error;
  }
}

/** False when the kernel refuses one of the names. The old device may go by itself meanwhile, with the pod of its other end. */
async function takePlace({ wanted, socket }: Pod, ifindex: number, past: Link): Promise<boolean> {
  const routes = await routesOn(socket, past);
  const results = await socket.batch([
    ...routes.map((route) => deleteRoute(past.ifindex, route)),
    setLink({ ifindex: past.ifindex, name: passingName() }),
    setLink({ ifindex, name: wanted.name }),
  ]);
  return (
    results.every((error) => error === undefined || isKernelError(error, "ESRCH", "ENODEV")) &&
    results.at(-1) === undefined
  );
}

async function routesOn(socket: NetlinkSocket, link: Link): Promise<readonly Route[]> {
  try {
    return (await observeEnd(socket, link)).routes;
  } catch (error) {
    if (isKernelError(error, "ENODEV")) return [];
    throw error;
  }
}
