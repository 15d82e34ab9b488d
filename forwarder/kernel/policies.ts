/** Policy routes in a pod: the only code that touches its routing rules. */
import { diffPolicies, policiesOf } from "../plan/diff-policies.ts";
import type { FoundTables, PolicyChange } from "../plan/diff-policies.ts";
import { LruMap } from "../../sdk/lru.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import type { Family } from "../../sdk/prefix.ts";
import type { KernelError, Request } from "../../sdk/netlink/message.ts";
import { NSM_PROTOCOL, decodeRoute, deleteRoute, dumpAllRoutes, newRoute } from "../../sdk/netlink/route.ts";
import type { FoundRoute } from "../../sdk/netlink/route.ts";
import { decodeRule, deleteRule, dumpRules, newRule } from "../../sdk/netlink/rule.ts";
import type { FoundRule } from "../../sdk/netlink/rule.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";
import { oneAtATimeByKey } from "../../sdk/one-at-a-time.ts";
import type { Policy } from "../plan/plan-policies.ts";

/** Two wires of one pod do not choose the same table. */
const turn = oneAtATimeByKey();
/**
 * Namespaces, by their cookie, that had no rule of ours when they were read last: nobody but this process makes one. Most pods
 * never have any, and are not asked at each of their wires.
 */
const withoutRules = new LruMap<bigint, true>(10_000);

/**
 * Makes the policies of a device as wanted, and removes rules of devices that are gone. When the kernel refuses one, it throws
 * KernelError, and those that were there come back. `past` is a device whose place this one takes.
 */
export async function setPolicies(
  socket: NetlinkSocket,
  ifindex: number,
  wanted: readonly Policy[],
  past?: number,
): Promise<void> {
  const cookie = socket.netnsCookie();
  await turn(String(cookie), async () => {
    if (wanted.length === 0 && hasNone(cookie)) return;
    if (cookie !== undefined) withoutRules.delete(cookie);
    const before = await readTables(socket, wanted.length > 0);
    if (wanted.length === 0) remember(cookie, before);
    const refusal = await make(socket, ifindex, diffPolicies(wanted, before, ifindex, past));
    if (!refusal) return;
    const earlier = policiesOf(before, ifindex);
    await make(socket, ifindex, diffPolicies(earlier, await readTables(socket), ifindex));
    throw refusal;
  });
}

/** As they are. */
export async function readPolicies(socket: NetlinkSocket, ifindex: number): Promise<readonly Policy[]> {
  if (hasNone(socket.netnsCookie())) return [];
  return policiesOf(await readTables(socket), ifindex);
}

/** Without rules of ours there is nothing to compare, unless some are wanted: `always` says so. */
async function readTables(socket: NetlinkSocket, always = false): Promise<FoundTables> {
  const rules = await readRules(socket);
  if (!always && !rules.some(isOurs)) return { rules, routes: [] };
  return { rules, routes: [...(await routesOf(socket, 4)), ...(await routesOf(socket, 6))] };
}

function hasNone(cookie: bigint | undefined): boolean {
  return cookie !== undefined && withoutRules.get(cookie) === true;
}

function remember(cookie: bigint | undefined, { rules }: FoundTables): void {
  if (cookie !== undefined && !rules.some(isOurs)) withoutRules.set(cookie, true);
}

function isOurs({ protocol }: FoundRule): boolean {
  return protocol === NSM_PROTOCOL;
}

/** Of both families. A kernel without policy routing has none. */
async function readRules(socket: NetlinkSocket): Promise<FoundRule[]> {
  try {
    return (await socket.dump(dumpRules())).map(decodeRule).filter((rule) => rule !== undefined);
  } catch (error) {
    if (isKernelError(error, "ENOTSUP", "EAFNOSUPPORT")) return [];
    throw error;
  }
}

async function routesOf(socket: NetlinkSocket, family: Family): Promise<FoundRoute[]> {
  const routes = (await socket.dump(dumpAllRoutes(family))).map(decodeRoute);
  return routes.filter((route) => route?.prefix.family === family).filter((route) => route !== undefined);
}

/** The first refusal, if any. */
async function make(
  socket: NetlinkSocket,
  ifindex: number,
  changes: readonly PolicyChange[],
): Promise<KernelError | undefined> {
  const results = await socket.batch(changes.map((change) => requestOf(change, ifindex)));
  return results.find(
    (error, i) => error && !(changes[i]?.do.startsWith("delete-") && isKernelError(error, "ESRCH", "ENOENT")),
  );
}

function requestOf(change: PolicyChange, ifindex: number): Request {
  switch (change.do) {
    case "add-rule":
      return newRule(change.rule);
    case "delete-rule":
      return deleteRule(change.rule);
    case "add-route":
      return newRoute(ifindex, change.route);
    case "delete-route":
    default:
      return deleteRoute(ifindex, change.route);
  }
}
