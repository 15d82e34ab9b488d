/** Firewall rules as a script of nft(8): one transaction, and counters that survive it. Pure. */
import type { Mark } from "../../sdk/netlink/rule.ts";
import type { PortRange, Rule, Ruleset } from "./rules.ts";

export const TABLE = "nsm-firewall";
/** Before fragments are put together (NF_IP_PRI_CONNTRACK_DEFRAG, -400), which is done in each zone by itself. */
const BEFORE_FRAGMENTS = -450;
const DEFAULT_COUNTER = "default";

/**
 * Packets between the two sides get it before they are routed, and have a way with it alone: the kernel ends the table of a network namespace that
 * goes before its devices, and would pass on everything meanwhile.
 */
export const JUDGED: Mark = { value: 0x40000000, mask: 0x40000000 };

/** Beginnings of the names of devices towards clients and towards the service. */
export interface Sides {
  readonly client: string;
  readonly service: string;
}

/** Devices of one connection share a zone: the same addresses in two connections are two flows. */
export interface Zone {
  readonly id: number;
  readonly devices: readonly string[];
}

/**
 * The table as a whole. `known`: counters that it has now; those of rules that go are removed, the others keep their numbers.
 * Packets between the two sides alone are judged; nothing else is forwarded here.
 */
export function scriptOf(
  { default: rest, rules }: Ruleset,
  sides: Sides,
  zones: readonly Zone[],
  known: readonly string[],
): string {
  const counters = [...rules.map(counterOf), DEFAULT_COUNTER];
  const forward = [
    "ct state established,related accept",
    "ct state invalid drop",
    ...rules.flatMap((rule) => linesOf(rule, sides)),
    `counter name ${DEFAULT_COUNTER}${rest === "allow" ? ` ${between(sides)} accept` : ""}`,
  ];
  return [
    `table inet ${TABLE} {`,
    ...counters.map((name) => `  counter ${name} { }`),
    "  map zones { typeof iifname : ct zone; }",
    "  chain zones {",
    `    type filter hook prerouting priority ${BEFORE_FRAGMENTS}; policy accept;`,
    "  }",
    "  chain forward {",
    "    type filter hook forward priority filter; policy drop;",
    "  }",
    "}",
    `flush map inet ${TABLE} zones`,
    ...zones.flatMap(({ id, devices }) =>
      devices.map((device) => `add element inet ${TABLE} zones { "${device}" : ${id} }`),
    ),
    `flush chain inet ${TABLE} zones`,
    `add rule inet ${TABLE} zones ${between(sides)} meta mark set meta mark | ${JUDGED.value}`,
    `add rule inet ${TABLE} zones ct zone set iifname map @zones`,
    `flush chain inet ${TABLE} forward`,
    ...forward.map((line) => `add rule inet ${TABLE} forward ${line}`),
    ...known.filter((name) => !counters.includes(name)).map((name) => `delete counter inet ${TABLE} ${name}`),
    "",
  ].join("\n");
}

/** Fine when there is none. */
export const REMOVE = `table inet ${TABLE} { }\ndelete table inet ${TABLE}\n`;

/** A name that nft takes, the same for the same rule. */
export function counterOf({ name }: Pick<Rule, "name">): string {
  return `r_${Buffer.from(name).toString("hex")}`;
}

/** The rule's name; undefined for a counter of no rule. */
export function nameOfCounter(counter: string): string | undefined {
  if (counter === DEFAULT_COUNTER) return DEFAULT_COUNTER;
  return counter.startsWith("r_") ? Buffer.from(counter.slice(2), "hex").toString() : undefined;
}

function linesOf(rule: Rule, sides: Sides): readonly string[] {
  const directions = {
    client: [`iifname "${sides.client}*"`],
    service: [`iifname "${sides.service}*"`],
    both: [between(sides)],
  }[rule.from];
  return directions.map((direction) =>
    [
      direction,
      ...prefixes("saddr", rule.sources, rule.family),
      ...prefixes("daddr", rule.destinations, rule.family),
      ...protocol(rule.protocol),
      ...ports("sport", rule.sourcePorts),
      ...ports("dport", rule.ports),
      `counter name ${counterOf(rule)}`,
      rule.action === "allow" ? "accept" : "drop",
    ].join(" "),
  );
}

function between({ client, service }: Sides): string {
  return `iifname { "${client}*", "${service}*" }`;
}

function prefixes(field: string, list: readonly string[], family: Rule["family"]): readonly string[] {
  return list.length === 0 ? [] : [`${family === 6 ? "ip6" : "ip"} ${field} { ${list.join(", ")} }`];
}

function protocol(number: number | undefined): readonly string[] {
  if (number === undefined) return [];
  return [number === 1 ? "meta l4proto { icmp, icmpv6 }" : `meta l4proto ${number}`];
}

function ports(field: string, ranges: readonly PortRange[]): readonly string[] {
  if (ranges.length === 0) return [];
  const list = ranges.map(({ first, last }) => (first === last ? first : `${first}-${last}`));
  return [`th ${field} { ${list.join(", ")} }`];
}
