/** The sections of the bench and what each of them measures, as it stands in the JSON. */
import type { Launch } from "./daemons.ts";

export interface Latency {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface Throughput {
  /** Gbit/s. */
  readonly wire: number;
  readonly bare: number;
  /** Medians of the pairs' ratios: wire to bare, and second bare to bare. */
  readonly ratio: number;
  readonly null: number;
}

/** How the mesh behaves when a part of it dies; null where a figure has no meaning. */
export interface Healing {
  /** Of the runs: the gap, or the time until the wire is served again, or until nothing is left of it. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  /** Probes, one each millisecond, of all runs. */
  readonly packetsLost: number;
  readonly runs: number;
  /** Wires made anew though nobody had died. */
  readonly falseHeals?: number;
}

/** Figures of one run; null where a section failed or was left out. */
export interface Figures {
  yardstick: { freshMs: number; warmMs: number } | null;
  setup: {
    local: Latency | null;
    vxlan: Latency | null;
    local16: (Latency & { pairsPerSecond: number; failed: number }) | null;
  };
  refresh: {
    localCpuMs: number | null;
    remoteCpuMs: number | null;
    localNetlink: number | null;
    remoteNetlink: number | null;
  };
  wires500: { nsmgrRssMiB: number; descriptors: number } | null;
  registry10k: { registersPerSecond: number; findP99Ms: number } | null;
  throughput: { veth: Throughput | null; vxlan: Throughput | null; wireguard: Throughput | null };
  rssMiB: Readonly<Record<string, number>> | null;
  /** Of the sections that were run and did not fail. */
  heal: Record<string, Healing>;
  clusters: ClusterFigures;
}

export interface LatencyAcross extends Latency {
  /** Times the p50 of a wire between two nodes of one cluster, by the same mechanism. */
  readonly toOneCluster: number;
}

/** Of two clusters, `east` and `west`. */
export interface ClusterFigures {
  /** By WireGuard. */
  setup: (LatencyAcross & { vxlan: LatencyAcross }) | null;
  /** Of a client in `east`, which has a spare there. */
  heal: { endpointKilled: Healing | null; clusterCutOff: Healing | null };
  /** At rest, both directions and both proxies together. */
  link: { bytesPerSecond: number; cpuMsPerSecond: number } | null;
  /** From when the proxy hears that an export is withdrawn until the device of a wire that it bore is gone. */
  withdrawal: { p50Ms: number | null; p99Ms: number | null } | null;
  /** Requests inside a cluster while 64 look-ups hang at domains that do not answer, and times their p99 without those. */
  silent: { p99Ms: number; toAlone: number } | null;
  /**
   * 1,000 services in each of ten other domains: finding one of them, beside a call to the registry that does nothing. Memory of registry
   * and proxy for each endpoint that the proxy has passed on; and for one that the registry has taken in, alone of its service: with the
   * watch for it.
   */
  registry: {
    findP50Ms: number;
    findP99Ms: number;
    echoP50Ms: number;
    echoP99Ms: number;
    toEcho: number;
    foundKiB: number;
    importedKiB: number;
  } | null;
}

export interface Section {
  /** As `--only` names it. */
  readonly name: string;
  /** Measures and writes its figures. */
  run(launch: Launch, figures: Figures, say: (line: string) => void): Promise<void>;
}

export function noFigures(): Figures {
  return {
    yardstick: null,
    setup: { local: null, vxlan: null, local16: null },
    refresh: { localCpuMs: null, remoteCpuMs: null, localNetlink: null, remoteNetlink: null },
    wires500: null,
    registry10k: null,
    throughput: { veth: null, vxlan: null, wireguard: null },
    rssMiB: null,
    heal: {},
    clusters: {
      setup: null,
      heal: { endpointKilled: null, clusterCutOff: null },
      link: null,
      withdrawal: null,
      silent: null,
      registry: null,
    },
  };
}
