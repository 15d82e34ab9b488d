/** The firewall's file: rules as people write them (docs/firewall.md). Pure. */
import * as z from "zod";
import { NsmError } from "../../sdk/errors.ts";
import { parsePrefix } from "../../sdk/prefix.ts";
import { readYaml, schemaFaults } from "../../sdk/yaml.ts";

/** IP protocols by name (IANA); `icmp` is that of either family. */
const PROTOCOLS = { tcp: 6, udp: 17, sctp: 132, gre: 47, esp: 50, icmp: 1 } as const;
const WITH_PORTS: ReadonlySet<number> = new Set([6, 17, 132]);
const MOST_RULES = 1000;

export type Family = 4 | 6;

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

export interface Rule {
  /** Unique in the file; its counter goes by it. */
  readonly name: string;
  readonly action: "allow" | "deny";
  /** Whose packets: `client` sends towards the service. */
  readonly from: "client" | "service" | "both";
  /** Undefined = any; 1 = ICMP of either family. */
  readonly protocol: number | undefined;
  /** Any when empty; families are not mixed. */
  readonly sources: readonly string[];
  readonly destinations: readonly string[];
  /** Undefined = both. */
  readonly family: Family | undefined;
  readonly sourcePorts: readonly PortRange[];
  readonly ports: readonly PortRange[];
}

export interface Ruleset {
  /** What happens to packets that no rule fits. */
  readonly default: "allow" | "deny";
  /** The first that fits decides. */
  readonly rules: readonly Rule[];
}

const listOf = <T extends z.ZodType>(item: T) =>
  z.union([item.transform((value): z.output<T>[] => [value]), z.array(item).min(1)]);

const prefix = z
  .string()
  .refine((text) => familyOf(text) !== undefined, "expected an address or prefix: 10.0.0.0/8, 2001:db8::/32");
const ports = listOf(
  z
    .union([z.number(), z.string()])
    .refine((value) => portsOf(value) !== undefined, "expected a port or a range: 80, 8000-8080"),
);
const protocol = z
  .union([z.number().int().min(0).max(255), z.enum(["tcp", "udp", "sctp", "gre", "esp", "icmp"])])
  .transform((value) => (typeof value === "number" ? value : PROTOCOLS[value]));

const File = z.strictObject({
  default: z.enum(["allow", "deny"]).default("deny"),
  rules: z
    .array(
      z.strictObject({
        name: z
          .string()
          .regex(
            /^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$/,
            "expected letters, digits, blanks, dots and dashes, 63 at most",
          )
          .optional(),
        action: z.enum(["allow", "deny"]),
        from: z.enum(["client", "service", "both"]).default("client"),
        protocol: protocol.optional(),
        source: listOf(prefix).optional(),
        destination: listOf(prefix).optional(),
        sourcePorts: ports.optional(),
        ports: ports.optional(),
      }),
    )
    .max(MOST_RULES)
    .default([]),
});

type Written = z.infer<typeof File>["rules"][number];

/** Throws INVALID_ARGUMENT `bad-firewall-rules` that names line and column of every fault. An empty file denies everything. */
export function parseRules(text: string): Ruleset {
  const [document, more] = readYaml(text);
  const faults = (document?.faults ?? []).map(({ place, message }) => `${place}: ${message}`);
  if (more !== undefined) faults.push("it holds more than one YAML document");
  if (faults.length > 0) throw bad(faults);
  const read = File.safeParse(document?.value ?? {});
  const at = (path: readonly PropertyKey[]) => document?.placeOf(path) ?? "file";
  if (!read.success) throw bad(schemaFaults(document, read.error.issues));
  const rules = read.data.rules.map(ruleOf);
  const names = new Map<string, number>();
  for (const [i, rule] of rules.entries()) {
    const fault =
      faultOf(rule, read.data.rules[i]) ??
      (names.has(rule.name)
        ? `name ${rule.name} is taken by rule ${(names.get(rule.name) ?? 0) + 1}`
        : undefined);
    if (fault !== undefined) faults.push(`${at(["rules", i])}: rule ${i + 1} ${fault}`);
    names.set(rule.name, i);
  }
  if (faults.length > 0) throw bad(faults);
  return { default: read.data.default, rules };
}

function ruleOf(written: Written, i: number): Rule {
  const sources = written.source ?? [];
  const destinations = written.destination ?? [];
  return {
    name: written.name ?? `rule ${i + 1}`,
    action: written.action,
    from: written.from,
    protocol: written.protocol,
    sources,
    destinations,
    family: [...sources, ...destinations].map(familyOf).find((family) => family !== undefined),
    sourcePorts: (written.sourcePorts ?? []).flatMap((value) => portsOf(value) ?? []),
    ports: (written.ports ?? []).flatMap((value) => portsOf(value) ?? []),
  };
}

function faultOf(
  { protocol: number, family, sources, destinations }: Rule,
  written: Written | undefined,
): string | undefined {
  const hasPorts = written?.ports !== undefined || written?.sourcePorts !== undefined;
  if (hasPorts && (number === undefined || !WITH_PORTS.has(number)))
    return "has ports: set protocol to tcp, udp or sctp";
  if ([...sources, ...destinations].some((text) => familyOf(text) !== family))
    return "mixes IPv4 and IPv6: write a rule for each";
  return undefined;
}

function familyOf(text: string): Family | undefined {
  return parsePrefix(text)?.family ?? parsePrefix(`${text}/${text.includes(":") ? 128 : 32}`)?.family;
}

function portsOf(value: number | string): PortRange | undefined {
  const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(String(value)) ?? [];
  if (first === undefined || last === undefined) return undefined;
  const range = { first: Number(first), last: Number(last) };
  return range.last <= 65535 && range.first <= range.last ? range : undefined;
}

function bad(faults: readonly string[]): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-firewall-rules", `firewall rules: ${faults.join("; ")}`);
}
