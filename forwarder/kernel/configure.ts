/** What is configured on one device of a wire: made as wanted, read before, and brought back after a failure. */
import { diffEnd } from "../plan/diff.ts";
import type { Change, FoundEnd } from "../plan/diff.ts";
import { setLink } from "../../sdk/netlink/link.ts";
import type { Link } from "../../sdk/netlink/link.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import type { KernelError, Request } from "../../sdk/netlink/message.ts";
import {
  deleteAddress,
  deleteNeighbor,
  deleteRoute,
  newAddress,
  newNeighbor,
  newRoute,
} from "../../sdk/netlink/route.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";
import type { Netns } from "./netns.ts";
import { observeEnd, readLink } from "./observe.ts";
import type { Policy } from "../plan/plan-policies.ts";
import type { WantedEnd } from "../plan/plan.ts";
import { readPolicies, setPolicies } from "./policies.ts";

/** One end of a wire with its open namespace. */
export interface Pod {
  readonly wanted: WantedEnd;
  readonly netns: Netns;
  readonly socket: NetlinkSocket;
  /** What its device has, if this operation has read it. */
  readonly found?: FoundEnd;
}

/** A device as it was, with the policies that lead to it. */
export interface Past {
  readonly found: FoundEnd;
  readonly policies: readonly Policy[];
}

export async function readPast({ wanted, socket, found: read }: Pod, link: Link): Promise<Past> {
  const found = read?.link.ifindex === link.ifindex ? read : await observeEnd(socket, link);
  const policies = wanted.side === "client" ? await readPolicies(socket, link.ifindex) : [];
  return { found, policies };
}

/** Throws KernelError for the first change that the kernel refuses; those before it are made. */
export async function configure(pod: Pod, found: FoundEnd): Promise<void> {
  const { wanted, socket } = pod;
  const changes = diffEnd(wanted, found);
  const results = await socket.batch(changes.map((item) => requestOf(item, found.link.ifindex)));
  const refusal = results.find((error, i) => error && !isAlreadySo(changes[i], error));
  if (refusal) throw refusal;
  if (wanted.side === "client") await setPolicies(socket, found.link.ifindex, wanted.policies);
}

/** Best effort on the way out of a failure: the failure is what the caller must hear of. */
export async function restore(pod: Pod, { found: before, policies }: Past): Promise<void> {
  const link = await readLink(pod.socket, { ifindex: before.link.ifindex });
  if (link === undefined) return;
  const { alias, mtu, mac } = before.link;
  const past: WantedEnd = { ...pod.wanted, ...before, alias, mtu, mac, noAddressGeneration: false };
  const changes = diffEnd(past, await observeEnd(pod.socket, link));
  await pod.socket.batch(changes.map((item) => requestOf(item, link.ifindex)));
  if (pod.wanted.side === "client")
    await setPolicies(pod.socket, link.ifindex, policies).catch(() => undefined);
}

function isAlreadySo(change: Change | undefined, error: KernelError): boolean {
  if (change?.do === "add-route") return isKernelError(error, "EEXIST");
  return (
    change?.do.startsWith("delete-") === true && isKernelError(error, "ESRCH", "ENOENT", "EADDRNOTAVAIL")
  );
}

function requestOf(change: Change, ifindex: number): Request {
  switch (change.do) {
    case "set-link":
      return setLink({ ...change.link, ifindex });
    case "add-address":
      return newAddress(ifindex, change.prefix);
    case "delete-address":
      return deleteAddress(ifindex, change.prefix);
    case "add-route":
      return newRoute(ifindex, change.route);
    case "delete-route":
      return deleteRoute(ifindex, change.route);
    case "add-neighbor":
      return newNeighbor(ifindex, change.neighbor);
    case "delete-neighbor":
    default:
      return deleteNeighbor(ifindex, change.neighbor.ip);
  }
}
