/** Policy routes in a pod: the only code that touches its routing rules. */
import { diffPolicies, policiesOf } from "./diff-policies.ts";
import type { FoundTables, PolicyChange } from "./diff-policies.ts";
import { isKernelError } from "../sdk/netlink/message.ts";
import type { Family } from "../sdk/prefix.ts";
import type { KernelError, Request } from "../sdk/netlink/message.ts";
import { NSM_PROTOCOL, decodeRoute, deleteRoute, dumpAllRoutes, newRoute } from "../sdk/netlink/route.ts";
import type { FoundRoute } from "../sdk/netlink/route.ts";
import { decodeRule, deleteRule, dumpRules, newRule } from "../sdk/netlink/rule.ts";
import type { FoundRule } from "../sdk/netlink/rule.ts";
import type { NetlinkSocket } from "../sdk/netlink/socket.ts";
import type { Policy } from "./plan-policies.ts";
import { createTurns } from "./turns.ts";

/** Two wires of one pod do not choose the same table. */
const turn = createTurns();

/**
 * Makes the policies of a device as wanted, and removes rules of devices that are gone. When the kernel refuses one, it throws
 * KernelError, and those that were there come back. `place` names the namespace, `past` a device whose place this one takes.
 */
export async function setPolicies(
  socket: NetlinkSocket,
  place: string,
  ifindex: number,
  wanted: readonly Policy[],
  past?: number,
): Promise<void> {
  await turn(place, async () => {
    const before = await readTables(socket, wanted.length > 0);
    const refusal = await make(socket, ifindex, diffPolicies(wanted, before, ifindex, past));
    if (!refusal) return;
    const earlier = policiesOf(before, ifindex);
    await make(socket, ifindex, diffPolicies(earlier, await readTables(socket), ifindex));
    throw refusal;
  });
}

/** As they are. */
export async function readPolicies(socket: NetlinkSocket, ifindex: number): Promise<readonly Policy[]> {
  return policiesOf(await readTables(socket), ifindex);
}

/** Without rules of ours there is nothing to compare, unless some are wanted: `always` says so. */
async function readTables(socket: NetlinkSocket, always = false): Promise<FoundTables> {
  const rules = [...(await rulesOf(socket, 4)), ...(await rulesOf(socket, 6))];
  if (!always && !rules.some(({ protocol }) => protocol === NSM_PROTOCOL)) return { rules, routes: [] };
  return { rules, routes: [...(await routesOf(socket, 4)), ...(await routesOf(socket, 6))] };
}

/** A kernel without policy routing, or without IPv6, has none. */
async function rulesOf(socket: NetlinkSocket, family: Family): Promise<FoundRule[]> {
  try {
    const rules = (await socket.dump(dumpRules(family))).map(decodeRule);
    return rules.filter((rule) => rule?.family === family).filter((rule) => rule !== undefined);
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
