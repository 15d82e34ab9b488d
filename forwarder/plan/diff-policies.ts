/** From wanted policies and what a pod has of rules and tables to the changes that make them equal, in order: pure. */
import { formatPrefix } from "../../sdk/prefix.ts";
import type { Family } from "../../sdk/prefix.ts";
import { NSM_PROTOCOL } from "../../sdk/netlink/route.ts";
import type { FoundRoute, Route } from "../../sdk/netlink/route.ts";
import type { FoundRule, Rule } from "../../sdk/netlink/rule.ts";
import { selectorText } from "./plan-policies.ts";
import type { Policy } from "./plan-policies.ts";

/** All rules and routes of a namespace, of any table and device. */
export interface FoundTables {
  readonly rules: readonly FoundRule[];
  readonly routes: readonly FoundRoute[];
}

export type PolicyChange =
  | { readonly do: "add-rule" | "delete-rule"; readonly rule: Rule }
  | { readonly do: "add-route" | "delete-route"; readonly route: Route };

/** Unspecified, compat, default, main and local: never ours (linux/rtnetlink.h, enum rt_class_t). */
const RESERVED_TABLES = [0, 252, 253, 254, 255];
/** Priority of the kernel's own rule for the main table. */
const MAIN_PRIORITY = 32766;

/**
 * `past`: a device of the wire that `ifindex` takes the place of; its tables are led over route by route, its rules stay.
 *
 * Each policy has the lowest table that nobody uses, and a rule before the main table's, later tables first: as the Go forwarders
 * number them. A rule is this device's when its table has a route of ours through the device; it is left over when the table is
 * empty, because routes go with their device and rules do not. Both that are not wanted are removed.
 */
export function diffPolicies(
  wanted: readonly Policy[],
  found: FoundTables,
  ifindex: number,
  past?: number,
): readonly PolicyChange[] {
  const ours = found.rules.filter(({ protocol }) => protocol === NSM_PROTOCOL);
  const contentOf = ({ family, table }: Rule) =>
    found.routes.filter((route) => route.table === table && route.prefix.family === family);
  const isMine = (route: FoundRoute) =>
    route.protocol === NSM_PROTOCOL && route.ifindex !== undefined && [ifindex, past].includes(route.ifindex);
  // What leads through the device of before goes with it.
  const isHere = (route: FoundRoute) => route.ifindex === ifindex && route.protocol === NSM_PROTOCOL;
  const mine = ours.filter((rule) => contentOf(rule).some(isMine));
  const leftOver = ours.filter((rule) => contentOf(rule).length === 0);
  const taken = new Set<number | undefined>([
    ...RESERVED_TABLES,
    ...found.rules.map(({ table }) => table),
    ...found.routes.map(({ table }) => table),
  ]);
  for (const { table } of leftOver) taken.delete(table);

  const kept = new Set<FoundRule>();
  const changes: PolicyChange[] = [];
  for (const policy of wanted) {
    const known = mine.filter(
      (rule) => selectorText(rule) === selectorText(policy.selector) && !kept.has(rule),
    );
    const table = known[0]?.table ?? freeTable(taken, policy.table);
    taken.add(table);
    for (const family of policy.families) {
      const rule = known.find((each) => each.family === family && each.table === table);
      if (rule) kept.add(rule);
      const before = rule ? contentOf(rule).filter(isHere) : [];
      changes.push(...diffTable(policy, family, table, before));
      if (!rule)
        changes.push({
          do: "add-rule",
          rule: { ...policy.selector, family, table, priority: Math.max(1, MAIN_PRIORITY - table) },
        });
    }
  }
  const stale = mine.filter((rule) => !kept.has(rule));
  return [
    ...[...stale, ...leftOver].map((rule): PolicyChange => ({ do: "delete-rule", rule })),
    ...stale.flatMap((rule) => contentOf(rule).filter(isHere)).map(deletion),
    ...changes,
  ];
}

/** What the device's rules and tables say, as policies: to bring them back. */
export function policiesOf(found: FoundTables, ifindex: number): readonly Policy[] {
  const policies = new Map<string, Policy>();
  for (const { protocol, family, table, ...rule } of found.rules) {
    const routes = found.routes.filter(
      (route) => route.table === table && route.prefix.family === family && route.ifindex === ifindex,
    );
    if (protocol !== NSM_PROTOCOL || table === undefined || routes.length === 0) continue;
    const { source, ipProtocol, sourcePorts, destinationPorts } = rule;
    const selector = { source, ipProtocol, sourcePorts, destinationPorts };
    const known = policies.get(selectorText(selector));
    policies.set(selectorText(selector), {
      selector,
      families: [...(known?.families ?? []), family],
      routes: [...(known?.routes ?? []), ...routes],
      table,
    });
  }
  return [...policies.values()];
}

/** A route that only changes is replaced in one step; there is always one, so that the rule stays recognisable. */
function diffTable(
  { routes }: Policy,
  family: Family,
  table: number,
  before: readonly FoundRoute[],
): PolicyChange[] {
  const wanted = routes.filter(({ prefix }) => prefix.family === family);
  const text = ({ prefix, gateway }: Route) => `${formatPrefix(prefix)} ${gateway ?? ""}`;
  const prefixes = new Set(wanted.map(({ prefix }) => formatPrefix(prefix)));
  const there = new Set(before.map(text));
  return [
    ...wanted
      .filter((route) => !there.has(text(route)))
      .map((route): PolicyChange => ({ do: "add-route", route: { ...route, table } })),
    ...before.filter(({ prefix }) => !prefixes.has(formatPrefix(prefix))).map(deletion),
  ];
}

function deletion(route: Route): PolicyChange {
  return { do: "delete-route", route };
}

function freeTable(taken: ReadonlySet<number | undefined>, past: number | undefined): number {
  if (past !== undefined && !taken.has(past)) return past;
  for (let table = 1; ; table++) if (!taken.has(table)) return table;
}
