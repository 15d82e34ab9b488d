/** A wire as text for people. Pure. */
import type { ClosedWire, Counters, DescribedWire } from "./describe-wire.ts";
import { labelText } from "./get-registry.ts";
import { printable } from "./printable.ts";
import { formatTable } from "./table.ts";

const INDENT = "  ";

/** Ends with a line break. `nowMs`: wall clock, for how long ago and how long still; `width`: columns of the terminal. */
export function describeText(wire: DescribedWire | ClosedWire, nowMs: number, width = Infinity): string {
  const table: TableOf = (rows, columns) => formatRows(rows, columns, width - INDENT.length);
  const lines =
    "hops" in wire ? ofWire(wire, nowMs, table) : [fact("Wire", wire.id), fact("State", "closed")];
  return [...lines, ...eventLines(wire.events, nowMs, table), ""].join("\n");
}

function ofWire(wire: DescribedWire, nowMs: number, table: TableOf): string[] {
  const { hops, routes, policies, dns, counters, faults } = wire;
  return [
    fact("Wire", wire.id),
    fact("Client", `${wire.client} (its connection ${hops[0]?.id ?? ""})`),
    fact("Service", wire.service),
    fact("Endpoint", wire.endpoint),
    fact("State", wire.state),
    fact("Mechanism", wire.mechanism || "unknown"),
    fact("Payload", wire.payload),
    fact("MTU", wire.mtu === 0 ? "not decided" : String(wire.mtu)),
    fact("Lease", lease(wire.expires, nowMs)),
    fact("Interface", wire.interface || "unknown here: ask the client's manager"),
    fact("Addresses", wire.addresses.join(", ") || "none"),
    fact("Peer", wire.peerAddresses.join(", ") || "none"),
    fact("Labels", labelText(wire.labels) || "none"),
    fact("Parameters", labelText(wire.mechanismParameters) || "none"),
    ...section(
      "Path",
      table(hops, [
        ["NAME", ({ name }) => name],
        ["TOKEN", ({ expires }) => lease(expires, nowMs)],
        ["CLIENT SIDE", ({ clientInterface }) => clientInterface ?? "-"],
        ["ENDPOINT SIDE", ({ endpointInterface }) => endpointInterface ?? "-"],
        ["ID", ({ id }) => id],
      ]),
    ),
    ...section(
      "Routes",
      table(routes, [
        ["OF", ({ of }) => of],
        ["PREFIX", ({ prefix }) => prefix],
        ["VIA", ({ via }) => via || "the other end"],
      ]),
    ),
    ...section(
      "Policy routes of the client",
      table(policies, [
        ["FROM", ({ from }) => from || "any"],
        ["PROTOCOL", ({ protocol }) => protocol || "any"],
        ["TO PORTS", ({ destinationPorts }) => destinationPorts || "any"],
        ["FROM PORTS", ({ sourcePorts }) => sourcePorts || "any"],
        [
          "ROUTES",
          (policy) => policy.routes.map(({ prefix, via }) => `${prefix} via ${via}`).join(", ") || "default",
        ],
      ]),
    ),
    ...section(
      "DNS",
      table(dns, [
        ["SERVERS", ({ servers }) => servers.join(", ")],
        ["DOMAINS", ({ domains }) => domains.join(", ") || "all"],
      ]),
    ),
    ...section("Counters, as the pod sees them", counterLines(counters, table)),
    ...section("Not known", faults),
  ];
}

function counterLines(counters: readonly Counters[], table: TableOf): readonly string[] {
  const traffic = ({ bytes, packets }: Counters["sent"]) => `${bytes} B, ${packets} packets`;
  const lost = ({ received, sent }: Counters) =>
    `${received.dropped + sent.dropped} dropped, ${received.errors + sent.errors} errors`;
  return table(counters, [
    ["SIDE", ({ side }) => side],
    ["INTERFACE", (each) => each.interface],
    ["RECEIVED", ({ received }) => traffic(received)],
    ["SENT", ({ sent }) => traffic(sent)],
    ["LOST", lost],
    ["FORWARDER", ({ forwarder }) => forwarder],
  ]);
}

function eventLines(events: DescribedWire["events"], nowMs: number, table: TableOf): string[] {
  const lines = table(events, [
    ["AGO", ({ time }) => duration(nowMs - Date.parse(time))],
    ["TIME", ({ time }) => time],
    ["MANAGER", ({ manager }) => manager],
    ["WHAT", ({ what, count }) => (count === 1 ? what : `${what} ×${count}`)],
    ["WHY", ({ why }) => why || "-"],
  ]);
  return section("Last events", lines);
}

function fact(name: string, value: string): string {
  return `${name.padEnd(12)} ${printable(value)}`;
}

/** Nothing when there is nothing to say. */
function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ["", title, ...lines.map((line) => INDENT + printable(line))];
}

type TableOf = <T>(
  rows: readonly T[],
  columns: readonly (readonly [string, (row: T) => string])[],
) => readonly string[];

function formatRows<T>(
  rows: readonly T[],
  columns: readonly (readonly [string, (row: T) => string])[],
  width: number,
): readonly string[] {
  if (rows.length === 0) return [];
  return formatTable(
    rows,
    columns.map(([title, value]) => ({ title, value })),
    [],
    width,
  );
}

function lease(expires: string | null, nowMs: number): string {
  if (expires === null) return "no end";
  const leftMs = Date.parse(expires) - nowMs;
  return leftMs >= 0 ? `${duration(leftMs)} left` : `over for ${duration(-leftMs)}`;
}

/** `4s`, `2m10s`, `3h5m`, `2d4h`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const units = [
    [86_400, "d"],
    [3600, "h"],
    [60, "m"],
    [1, "s"],
  ] as const;
  const first = units.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0s";
  const [size, unit] = units[first] ?? [1, "s"];
  const next = units[first + 1];
  const rest = next === undefined ? 0 : Math.floor((seconds % size) / next[0]);
  return `${Math.floor(seconds / size)}${unit}${rest > 0 ? `${rest}${next?.[1]}` : ""}`;
}
