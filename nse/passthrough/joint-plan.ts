/** What the kernel needs so that two devices are one way: names, tables, rules and routes. Pure. */
import type { Route } from "../../sdk/netlink/route.ts";
import type { Mark, Rule } from "../../sdk/netlink/rule.ts";
import { formatAddress, parsePrefix, prefixOf } from "../../sdk/prefix.ts";
import type { Family } from "../../sdk/prefix.ts";
import type { Joint } from "./joints.ts";

/** Protocol of rules and routes that a pass-through endpoint installs: tells them from the forwarder's and everybody else's. */
export const PASSTHROUGH_PROTOCOL = 158;
/** Protocol of rules that keep packets of a device from going on. */
export const BARRIER_PROTOCOL = 159;

/** First routing table; each connection has two, one a direction. Far from those that people and container runtimes use. */
const FIRST_TABLE = 0x6e736d00;
/** Before the table of local addresses, which moves behind it: what passes is for others, whatever addresses this namespace has. */
export const JOINT_PRIORITY = 10;
export const LOCAL_PRIORITY = 20;
/** Between the two: what no joint takes on. */
export const BARRIER_PRIORITY = 15;

/** On bridges of ours. */
export const BRIDGE_ALIAS = "nsm:pass-through";

export function bridgeName(slot: number): string {
  return `nsm-join-${slot}`;
}

/** From client to service, and back. */
export function tablesOf(slot: number): readonly [number, number] {
  return [FIRST_TABLE + 2 * slot, FIRST_TABLE + 2 * slot + 1];
}

export function devicesOf({ up, down }: Joint): readonly [string, string] {
  return [up, down];
}

/** `mark`: what packets need for it, else any will do. */
export function rulesOf(joint: Joint, slot: number, mark: Mark | undefined): readonly Rule[] {
  const tables = tablesOf(slot);
  return ([4, 6] as const).flatMap((family) =>
    devicesOf(joint).map((iif, i): Rule => ({
      family,
      priority: JOINT_PRIORITY,
      table: tables[i] ?? 0,
      iif,
      mark,
      protocol: PASSTHROUGH_PROTOCOL,
    })),
  );
}

/** A route, and what may stand for it where the kernel refuses a gateway that is an address of the own namespace, too. */
export interface Way {
  readonly ifindex: number;
  readonly route: Route;
  readonly instead: Route;
}

/** Behind every other route. */
const LAST_METRIC = 1_000_000;

/** What has no way (yet) goes nowhere. */
export function dropRoute(family: Family, table: number): Route {
  return { ...defaultRoute(family, table), metric: LAST_METRIC, isBlackhole: true };
}

/** Everything of the table goes by it. */
function defaultRoute(family: Family, table: number): Route {
  return {
    prefix: prefixOf(family === 4 ? "0.0.0.0/0" : "::/0"),
    gateway: undefined,
    scope: "universe",
    table,
    protocol: PASSTHROUGH_PROTOCOL,
  };
}

/** Routes through the devices that are there: the far end of each wire is the gateway, whose hardware address the forwarder has put in. */
export function forwardingOf(
  { clientAddresses, serviceAddresses }: Joint,
  slot: number,
  up: number | undefined,
  down: number | undefined,
): readonly Way[] {
  const [toService, toClient] = tablesOf(slot);
  return [...through(toService, down, serviceAddresses), ...through(toClient, up, clientAddresses)];
}

function through(table: number, ifindex: number | undefined, addresses: readonly string[]): readonly Way[] {
  if (ifindex === undefined) return [];
  return ([4, 6] as const).flatMap((family) => {
    const gateway = firstOf(addresses, family);
    if (gateway === undefined) return [];
    const route = defaultRoute(family, table);
    // Without a gateway each destination is its own neighbour.
    return [{ ifindex, route: { ...route, gateway }, instead: { ...route, scope: "link" } }];
  });
}

function firstOf(addresses: readonly string[], family: Family): string | undefined {
  const first = addresses.map(parsePrefix).find((prefix) => prefix?.family === family);
  return first && formatAddress(first);
}
