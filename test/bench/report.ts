/** The table of a run: each figure beside what it has to reach. */
import type { Figures } from "./sections.ts";
import { round } from "./statistics.ts";

interface Row {
  readonly what: string;
  readonly value: number | undefined;
  readonly unit: string;
  /** Undefined for figures without a target. */
  readonly target?: { readonly text: string; readonly met: (value: number) => boolean };
}

export function printReport(figures: Figures, failures: ReadonlyMap<string, string>): void {
  const rows = rowsOf(figures);
  const texts = rows.map(({ what, value, unit, target }) => {
    const verdict =
      target === undefined ? "" : value === undefined ? "-" : target.met(value) ? "met" : "MISSED";
    return [what, value === undefined ? "-" : `${value} ${unit}`, target?.text ?? "", verdict];
  });
  const table = [["figure", "measured", "target", ""], ...texts];
  const widths = [0, 1, 2].map((column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  console.log("");
  for (const row of table)
    console.log(
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join("  ")
        .trimEnd(),
    );
  for (const [section, why] of failures) console.log(`\n${section} failed: ${why}`);
}

function rowsOf({ yardstick, setup, refresh, wires500, registry10k, throughput, rssMiB }: Figures): Row[] {
  const { local, vxlan, local16 } = setup;
  return [
    { what: "yardstick, fresh channel", value: yardstick?.freshMs, unit: "ms" },
    { what: "yardstick, warm channel", value: yardstick?.warmMs, unit: "ms" },
    { what: "set-up local p50", value: local?.p50Ms, unit: "ms", target: atMost(10) },
    { what: "set-up local p99", value: local?.p99Ms, unit: "ms", target: atMost(30) },
    { what: "set-up remote (VXLAN) p50", value: vxlan?.p50Ms, unit: "ms", target: atMost(20) },
    { what: "set-up remote (VXLAN) p99", value: vxlan?.p99Ms, unit: "ms" },
    { what: "16 clients, Request p50", value: local16?.p50Ms, unit: "ms" },
    { what: "16 clients, Request p99", value: local16?.p99Ms, unit: "ms" },
    { what: "16 clients, pairs a second", value: local16?.pairsPerSecond, unit: "/s", target: atLeast(80) },
    { what: "16 clients, failed pairs", value: local16?.failed, unit: "", target: atMost(0) },
    { what: "refresh local, CPU", value: refresh.localCpuMs ?? undefined, unit: "ms", target: atMost(5) },
    { what: "refresh remote, CPU", value: refresh.remoteCpuMs ?? undefined, unit: "ms", target: atMost(10) },
    {
      what: "refresh local, netlink",
      value: refresh.localNetlink ?? undefined,
      unit: "messages",
      target: atMost(1),
    },
    {
      what: "refresh remote, netlink of a forwarder",
      value: refresh.remoteNetlink ?? undefined,
      unit: "messages",
      target: atMost(1),
    },
    { what: "500 wires, manager", value: wires500?.nsmgrRssMiB, unit: "MiB", target: atMost(150) },
    { what: "500 wires, manager", value: wires500?.descriptors, unit: "descriptors", target: atMost(100) },
    {
      what: "10,000 names, Register",
      value: registry10k?.registersPerSecond,
      unit: "/s",
      target: atLeast(2000),
    },
    { what: "10,000 names, Find p99", value: registry10k?.findP99Ms, unit: "ms", target: atMost(5) },
    ...Object.entries(throughput).flatMap(([kind, measured]) => throughputRows(kind, measured)),
    ...Object.entries(rssMiB ?? {}).map(([role, value]) => ({
      what: `RSS idle, ${role}`,
      value,
      unit: "MiB",
      target: atMost(90),
    })),
  ];
}

function throughputRows(kind: string, measured: Figures["throughput"]["veth"]): Row[] {
  const least = round(Math.min(0.97, (measured?.null ?? 1) - 0.02), 3);
  return [
    { what: `throughput ${kind}`, value: measured?.wire, unit: "Gbit/s" },
    { what: `throughput ${kind}, bare`, value: measured?.bare, unit: "Gbit/s" },
    { what: `throughput ${kind}, null ratio`, value: measured?.null, unit: "" },
    { what: `throughput ${kind}, ratio`, value: measured?.ratio, unit: "", target: atLeast(least) },
  ];
}

function atMost(limit: number) {
  return { text: `<= ${limit}`, met: (value: number) => value <= limit };
}

function atLeast(limit: number) {
  return { text: `>= ${limit}`, met: (value: number) => value >= limit };
}
