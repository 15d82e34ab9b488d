/**
 * How long a Request takes whose endpoint is in the other cluster, beside one whose endpoint is on the other node of its own:
 * both by WireGuard, so that what differs are the two proxies and what they ask.
 *
 *     client ─ node1 ┬ node2 ─ near
 *                    └ proxy-east ── gates, router ── proxy-west ─ node3 ─ far
 */
import { gidOfWorkload } from "../../support/mesh-topology.ts";
import type { MeshOptions } from "../../support/mesh-topology.ts";
import type { Mesh } from "../../support/mesh.ts";
import { startClient } from "../clients.ts";
import type { BenchClient } from "../clients.ts";
import { startHealMesh } from "../heal/mesh.ts";
import { costOf, cpuTimes } from "../proc.ts";
import type { Section } from "../sections.ts";
import { latencyOf, pairs } from "../setup.ts";
import { median, round } from "../statistics.ts";

const REQUESTS = 200;
/** Pairs before the measurement: sessions, views and compiled code are there, as in a mesh that has been up for a while. */
const WARM_UP = 100;
/** So many in a row of each kind, in turn: what the machine does besides meets both alike. */
const IN_A_ROW = 50;

const OPTIONS: MeshOptions = {
  clusters: true,
  networkServices: { west: "kind: NetworkService\nmetadata: { name: far }\nspec: { exportTo: [east] }\n" },
  endpoints: [
    { name: "near", node: "node2", service: "near", prefixes: "172.16.0.0/16" },
    {
      name: "far",
      node: "node3",
      service: "far",
      prefixes: "172.17.0.0/16",
      env: { NSM_REGISTER_SERVICE: "false" },
    },
  ],
  workloads: ["client"],
  pods: ["pod-client"],
};

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
    const services = { across: "far@west", within: "near" };
    for (const service of Object.values(services)) await pairs(client, service, WARM_UP);
    const requestMs = { across: [] as number[], within: [] as number[] };
    const closeMs: number[] = [];
    const parts = PARTS.map((name) => mesh.daemon(name));
    const cpuMs = new Map<string, number>();
    for (let done = 0; done < REQUESTS; done += IN_A_ROW) {
      requestMs.within.push(...(await pairs(client, services.within, IN_A_ROW)).requestMs);
      const before = cpuTimes(parts);
      const timings = await pairs(client, services.across, IN_A_ROW);
      for (const [name, ms] of cpuTimes(parts))
        cpuMs.set(name, (cpuMs.get(name) ?? 0) + ms - (before.get(name) ?? 0));
      requestMs.across.push(...timings.requestMs);
      closeMs.push(...timings.closeMs);
    }
    const cost = costOf(new Map(), cpuMs, REQUESTS);
    const across = latencyOf(requestMs.across);
    const within = latencyOf(requestMs.within);
    say(
      `in one cluster p50 ${within.p50Ms}, p99 ${within.p99Ms} ms; close across p50 ${round(median(closeMs))} ms`,
    );
    say(`processor time of a pair across ${round(cost.total)} ms: ${cost.text}`);
    figures.clusters.setup = { ...across, toOneCluster: round(across.p50Ms / within.p50Ms) };
  },
};

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
