/**
 * How long a Request takes whose endpoint is in the other cluster, beside one whose endpoint is on the other node of its own, by the
 * same mechanism: what differs are the two proxies and what they ask. By WireGuard, as wires between clusters are, and by VXLAN,
 * which both proxies let pass here: what the mesh itself costs where WireGuard is a program that is started for each wire.
 *
 *     client ─ node1 ┬ node2 ─ near, near-vxlan
 *                    └ proxy-east ── gates, router ── proxy-west ─ node3 ─ far, far-vxlan
 */
import { gidOfWorkload } from "../../support/mesh-topology.ts";
import type { MeshOptions } from "../../support/mesh-topology.ts";
import type { Mesh } from "../../support/mesh.ts";
import { startClient } from "../clients.ts";
import type { BenchClient } from "../clients.ts";
import { startHealMesh } from "../heal/mesh.ts";
import { costOf, cpuTimes } from "../proc.ts";
import type { CpuTimes } from "../proc.ts";
import type { Section } from "../sections.ts";
import { latencyOf, pairs } from "../setup.ts";
import { median, round } from "../statistics.ts";

const REQUESTS = 100;
/** Pairs before the measurement: sessions, views and compiled code are there, as in a mesh that has been up for a while. */
const WARM_UP = 50;
/** So many in a row of each kind, in turn: what the machine does besides meets all alike. */
const IN_A_ROW = 50;

const endpoint = (name: string, node: "node2" | "node3", payload: "IP" | "ETHERNET", subnet: number) => ({
  name,
  node,
  payload,
  service: name,
  prefixes: `172.${subnet}.0.0/16`,
});

const OPTIONS: MeshOptions = {
  clusters: true,
  exports: { west: ["far", "far-vxlan"] },
  endpoints: [
    endpoint("near", "node2", "IP", 16),
    endpoint("near-vxlan", "node2", "ETHERNET", 17),
    endpoint("far", "node3", "IP", 18),
    endpoint("far-vxlan", "node3", "ETHERNET", 19),
  ],
  workloads: ["client"],
  pods: ["pod-client"],
  env: (part) => (part.startsWith("proxy-") ? { NSM_ALLOW_UNENCRYPTED_DOMAINS: "*" } : {}),
};

const SERVICES = {
  within: "near",
  across: "far@west",
  withinByVxlan: "near-vxlan",
  acrossByVxlan: "far-vxlan@west",
} as const;

/** Whom a wire across takes. */
const PARTS = [
  "nsmgr-node1",
  "forwarder-node1",
  "proxy-east",
  "registry-east",
  "proxy-west",
  "registry-west",
  "nsmgr-node3",
  "forwarder-node3",
  "far",
];

export const setupAcross: Section = {
  name: "clusters.setup",
  async run(launch, figures, say) {
    await using heal = await startHealMesh(launch, OPTIONS);
    const { mesh } = heal;
    await using client = clientIn(mesh);
    await client.ready;
    for (const service of Object.values(SERVICES)) await pairs(client, service, WARM_UP);
    const { within, across, withinByVxlan, acrossByVxlan } = await inTurn(mesh, client);
    const one = { wireguard: latencyOf(within.requestMs), vxlan: latencyOf(withinByVxlan.requestMs) };
    const two = { wireguard: latencyOf(across.requestMs), vxlan: latencyOf(acrossByVxlan.requestMs) };
    say(
      `in one cluster p50 ${one.wireguard.p50Ms}, p99 ${one.wireguard.p99Ms} ms; VXLAN p50 ${one.vxlan.p50Ms} ms`,
    );
    for (const { what, closeMs, cpu } of [
      { what: "WireGuard", ...across },
      { what: "VXLAN", ...acrossByVxlan },
    ]) {
      const { total, text } = costOf(new Map(), cpu, REQUESTS);
      say(
        `across by ${what}: close p50 ${round(median(closeMs))} ms, processor time of a pair ${round(total)} ms: ${text}`,
      );
    }
    figures.clusters.setup = {
      ...two.wireguard,
      toOneCluster: round(two.wireguard.p50Ms / one.wireguard.p50Ms),
      vxlan: { ...two.vxlan, toOneCluster: round(two.vxlan.p50Ms / one.vxlan.p50Ms) },
    };
  },
};

interface Measured {
  readonly requestMs: number[];
  readonly closeMs: number[];
  /** Of all pairs. */
  readonly cpu: Map<string, number>;
}

async function inTurn(mesh: Mesh, client: BenchClient) {
  const nothing = (): Measured => ({ requestMs: [], closeMs: [], cpu: new Map() });
  const all = { within: nothing(), across: nothing(), withinByVxlan: nothing(), acrossByVxlan: nothing() };
  const parts = PARTS.map((name) => mesh.daemon(name));
  for (let done = 0; done < REQUESTS; done += IN_A_ROW) {
    for (const kind of ["within", "across", "withinByVxlan", "acrossByVxlan"] as const) {
      const before = cpuTimes(parts);
      const { requestMs, closeMs } = await pairs(client, SERVICES[kind], IN_A_ROW);
      addTimes(all[kind].cpu, before, cpuTimes(parts));
      all[kind].requestMs.push(...requestMs);
      all[kind].closeMs.push(...closeMs);
    }
  }
  return all;
}

function addTimes(sum: Map<string, number>, before: CpuTimes, after: CpuTimes): void {
  for (const [name, ms] of after) sum.set(name, (sum.get(name) ?? 0) + ms - (before.get(name) ?? 0));
}

function clientIn(mesh: Mesh): BenchClient {
  const name = "client";
  return startClient({
    name,
    ns: mesh.namespace(`pod-${name}`),
    gid: gidOfWorkload(OPTIONS, name),
    spiffeSocket: mesh.identityUrl(),
    managerUrl: mesh.managerUrl(),
  });
}
