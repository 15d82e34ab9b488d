/** The table of a run: each figure beside what it has to reach. */
import type { Figures, Healing } from "./sections.ts";
import { round } from "./statistics.ts";

interface Row {
  readonly what: string;
  readonly value: number | undefined;
  readonly unit: string;
  /** Undefined for figures without a target. */
  readonly target?: { readonly text: string; readonly met: (value: number) => boolean };
}

/** `isPart`: only some of the sections were run, and figures of the others are not missed. */
export function printReport(figures: Figures, failures: ReadonlyMap<string, string>, isPart: boolean): void {
  const rows = rowsOf(figures).filter(({ value }) => !isPart || value !== undefined);
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

function rowsOf(figures: Figures): Row[] {
  const { yardstick, setup, refresh, wires500, registry10k, throughput, rssMiB } = figures;
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
    ...healRows(figures.heal),
    ...clusterRows(figures.clusters),
  ];
}

function clusterRows({ setup, heal, link, withdrawal, silent, registry }: Figures["clusters"]): Row[] {
  return [
    { what: "set-up in the other cluster p50", value: setup?.p50Ms, unit: "ms", target: atMost(35) },
    { what: "set-up in the other cluster p99", value: setup?.p99Ms, unit: "ms" },
    { what: "set-up in the other cluster, to one cluster", value: setup?.toOneCluster, unit: "" },
    { what: "the same by VXLAN, p50", value: setup?.vxlan.p50Ms, unit: "ms" },
    { what: "the same by VXLAN, to one cluster", value: setup?.vxlan.toOneCluster, unit: "" },
    ...clusterHealRows("endpoint killed in the other cluster", heal.endpointKilled),
    ...clusterHealRows("other cluster cut off", heal.clusterCutOff),
    { what: "link at rest, traffic", value: link?.bytesPerSecond, unit: "bytes/s" },
    { what: "link at rest, CPU of both proxies", value: link?.cpuMsPerSecond, unit: "ms/s" },
    {
      what: "export withdrawn, wire gone p50",
      value: withdrawal?.p50Ms ?? undefined,
      unit: "ms",
      target: atMost(1000),
    },
    { what: "export withdrawn, wire gone p99", value: withdrawal?.p99Ms ?? undefined, unit: "ms" },
    { what: "64 look-ups hang, local Request p99", value: silent?.p99Ms, unit: "ms" },
    { what: "64 look-ups hang, to none", value: silent?.toAlone, unit: "", target: atMost(1.2) },
    {
      what: "10 x 1,000 services elsewhere, Find p99",
      value: registry?.findP99Ms,
      unit: "ms",
      target: atMost(5),
    },
    { what: "the same, to a call that does nothing (p99)", value: registry?.toEcho, unit: "" },
    { what: "memory for an endpoint elsewhere, found", value: registry?.foundKiB, unit: "KiB" },
    { what: "memory for an endpoint elsewhere, imported", value: registry?.importedKiB, unit: "KiB" },
  ];
}

function clusterHealRows(what: string, measured: Healing | null): Row[] {
  const [p50Ms, p99Ms] = [measured?.p50Ms ?? undefined, measured?.p99Ms ?? undefined];
  return [
    { what: `${what}, p50`, value: p50Ms, unit: "ms", target: atMost(1225) }, // 225 ms until three probes are missed (nsc/detector.ts), then a second
    { what: `${what}, p99`, value: p99Ms, unit: "ms" },
    { what: `${what}, lost`, value: measured?.packetsLost, unit: "probes" },
  ];
}

/** What the p50 has to reach, and whether nothing may be lost. */
const HEAL_TARGETS: Readonly<Record<string, { what: string; p50Ms?: number; lossless?: true }>> = {
  nseLocal: { what: "endpoint killed with its namespace, same node", p50Ms: 300 },
  nseRemote: { what: "endpoint killed with its namespace, other node", p50Ms: 500 },
  nseProcess: { what: "endpoint's process killed", p50Ms: 500 },
  nseFrozen: { what: "endpoint frozen", p50Ms: 500 },
  forwarder: { what: "forwarder restarted, 50 wires", p50Ms: 1000, lossless: true },
  nsmgr: { what: "manager restarted, 50 wires", p50Ms: 1000, lossless: true },
  registry: { what: "registry restarted, 50 wires", p50Ms: 1000, lossless: true },
  clientLocal: { what: "client killed, all gone, same node", p50Ms: 2000 },
  clientRemote: { what: "client killed, all gone, other node", p50Ms: 3000 },
  loss5: { what: "5 % loss for a minute" },
};

function healRows(heal: Figures["heal"]): Row[] {
  return Object.entries(HEAL_TARGETS).flatMap(([name, { what, p50Ms, lossless }]): Row[] => {
    const measured = heal[name];
    if (name === "loss5")
      return [{ what: `${what}, false heals`, value: measured?.falseHeals, unit: "", target: atMost(0) }];
    const target = p50Ms === undefined ? {} : { target: atMost(p50Ms) };
    const lost = { what: `${what}, lost`, value: measured?.packetsLost, unit: "probes" };
    return [
      { what: `${what}, p50`, value: measured?.p50Ms ?? undefined, unit: "ms", ...target },
      { what: `${what}, p99`, value: measured?.p99Ms ?? undefined, unit: "ms" },
      ...(name.startsWith("client") ? [] : [lossless === true ? { ...lost, target: atMost(0) } : lost]),
    ];
  });
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
