/** What one network namespace holds, as lines without indexes, counters, handles and lifetimes. */
import { spawn } from "node:child_process";
import { z } from "zod";
import type { FoundNamespace } from "./inventory-namespaces.ts";

/** A section: the command whose output it is, and how that becomes lines. */
interface Section {
  readonly name: string;
  readonly command: string;
  readonly lines: (output: string) => readonly string[];
}

const CONF = "/proc/sys/net/ipv4/conf";
const CONF6 = "/proc/sys/net/ipv6/conf";
const SECTIONS: readonly Section[] = [
  { name: "links", command: "ip -j -details link show", lines: jsonLines },
  { name: "addresses", command: "ip -j address show", lines: jsonLines },
  { name: "routes4", command: "ip -j -4 route show table all", lines: jsonLines },
  { name: "routes6", command: "ip -j -6 route show table all", lines: jsonLines },
  { name: "rules4", command: "ip -j -4 rule show", lines: jsonLines },
  { name: "rules6", command: "ip -j -6 rule show", lines: jsonLines },
  { name: "neighbours", command: "ip -j neighbour show nud permanent", lines: jsonLines },
  { name: "forwarding", command: "bridge -j fdb show", lines: jsonLines },
  { name: "nexthops", command: "ip -j nexthop show", lines: jsonLines },
  { name: "qdiscs", command: "tc -j qdisc show", lines: jsonLines },
  { name: "nft", command: "nft --stateless list ruleset", lines: nftLines },
  { name: "sockets", command: "ss -HnatuwlO; ss -HnauwO; ss -HnlxO", lines: socketLines },
  {
    name: "sysctls",
    command: `grep -r . ${CONF}/all ${CONF}/default ${CONF6}/all ${CONF6}/default /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range`,
    lines: textLines,
  },
];
const MARK = "----8<----";

/** One shell in the namespace runs all commands; MARK separates their outputs. */
export async function namespaceLines(
  namespace: FoundNamespace,
): Promise<readonly (readonly [string, readonly string[]])[]> {
  const script = SECTIONS.map(({ command }) => `{ ${command}; } 2>/dev/null`).join(`; echo '${MARK}'; `);
  const output = await run("nsenter", [`--net=${namespace.path}`, "sh", "-c", script]);
  const parts = output.split(`${MARK}\n`);
  return SECTIONS.map(({ name, lines }, index) => [
    `${name} of ${namespace.label}`,
    lines(parts[index] ?? ""),
  ]);
}

function textLines(text: string): readonly string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** Facts that differ from one look to the next, or that name the same thing in another way. */
const VOLATILE = new Set([
  "ifindex",
  "link_index",
  "link_netnsid",
  "valid_life_time",
  "preferred_life_time",
  "tentative",
  "age",
  "handle",
  "expires",
  "num_rx_queues",
  "num_tx_queues",
  "inet6_addr_gen_mode",
  "operstate",
  "cache",
  "gc_timer",
  "forward_delay_timer",
]);

/** One line an object: `key=value …`, the kernel's order of keys. */
function jsonLines(text: string): readonly string[] {
  if (text.trim() === "") return [];
  const rows = z.array(z.record(z.string(), z.unknown())).parse(JSON.parse(text));
  return rows.filter((row) => Object.keys(row).length > 0).map((row) => describe(row));
}

function describe(row: Readonly<Record<string, unknown>>): string {
  return Object.entries(row)
    .filter(([key]) => !VOLATILE.has(key))
    .map(([key, value]) => `${key}=${plain(value)}`)
    .join(" ");
}

function plain(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(plain).join(", ")}]`;
  if (typeof value === "object" && value !== null)
    return `{${describe(Object.fromEntries(Object.entries(value)))}}`;
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Each rule with the table and chain around it. */
function nftLines(text: string): readonly string[] {
  const around: string[] = [];
  const lines: string[] = [];
  for (const line of text.split("\n").map((raw) => raw.trim())) {
    if (line === "") continue;
    if (line === "}") around.pop();
    else {
      lines.push([...around, line].join(" "));
      if (line.endsWith("{")) around.push(line.slice(0, -2));
    }
  }
  return lines;
}

function socketLines(text: string): readonly string[] {
  return [...new Set(textLines(text).map(socketLine))];
}

/** `udp UNCONN 0.0.0.0:4789`; ports of the ephemeral range and inode numbers differ each time. */
function socketLine(line: string): string {
  const [kind = "", state = "", , , local = "", port = ""] = line.trim().split(/\s+/);
  if (kind.startsWith("u_")) return `${kind} ${state} ${local}`;
  const number = Number(/:(\d+)$/.exec(local)?.[1] ?? port);
  return `${kind} ${state} ${number >= 32768 && number < 61000 ? local.replace(/:\d+$/, ":ephemeral") : local}`;
}

function run(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "ignore"] });
    const chunks: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.on("error", reject);
    child.on("close", () => resolve(Buffer.concat(chunks).toString()));
  });
}
