/** Requests inside a cluster while 64 look-ups hang at domains that do not answer, beside the same Requests without them. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { NetworkServiceRegistry } from "../../../api/gen/registry_pb.js";
import type { Workload } from "../../support/workload.ts";
import { wishFor } from "../../support/wishes.ts";
import { startHealMesh } from "../heal/mesh.ts";
import type { Section } from "../sections.ts";
import { latencyOf } from "../setup.ts";
import { round } from "../statistics.ts";

const DOMAINS = Array.from({ length: 64 }, (_, i) => `hangs-${i}`);
const ROUNDS = 40;
/** So few that the look-ups still hang at the last of them. */
const IN_A_ROW = 10;
const WARM_UP = 50;

export const silentDomains: Section = {
  name: "clusters.silent",
  async run(launch, figures, say) {
    const file = join(launch.folder, "silent-domains.json");
    // Nobody has these addresses of the node's own network: who dials them waits.
    const domains = DOMAINS.map((name, i) => {
      const url = `tcp://192.0.2.${100 + i}:5002`;
      return [name, { registry: url, proxy: url }] as const;
    });
    writeFileSync(file, JSON.stringify({ domains: Object.fromEntries(domains) }));
    await using heal = await startHealMesh(launch, {
      clusters: "unified",
      nodes: 1,
      endpoints: [{ name: "other", node: "node1", service: "other", prefixes: "172.16.7.0/24" }],
      workloads: ["asker", "neighbour"],
      pods: ["pod-asker", "pod-neighbour"],
      env: (part): Readonly<Record<string, string>> =>
        part === "proxy-east" ? { NSM_DOMAINS_PATH: file } : {},
    });
    await using asker = await heal.mesh.workload("asker", "pod-asker");
    await using neighbour = await heal.mesh.workload("neighbour", "pod-neighbour");
    await requests(neighbour, WARM_UP);
    const [alone, beside]: [number[], number[]] = [[], []];
    let hungOn = 0;
    for (let turn = 0; turn < ROUNDS; turn++) {
      alone.push(...(await requests(neighbour, IN_A_ROW)));
      const hanging = await Promise.all(DOMAINS.map((domain) => lookUp(asker, domain)));
      beside.push(...(await requests(neighbour, IN_A_ROW)));
      hungOn += hanging.filter(({ end }) => end === undefined).length;
      await Promise.all(hanging.map((each) => each.refused()));
    }
    const [without, meanwhile] = [latencyOf(alone), latencyOf(beside)];
    say(`${round((100 * hungOn) / (ROUNDS * DOMAINS.length), 0)} % of the look-ups hung to the end`);
    say(`without them p50 ${without.p50Ms}, p99 ${without.p99Ms} ms; p50 ${meanwhile.p50Ms} ms with them`);
    figures.clusters.silent = {
      p99Ms: meanwhile.p99Ms,
      toAlone: round(meanwhile.p99Ms / without.p99Ms),
    };
  },
};

async function lookUp(asker: Workload, domain: string) {
  const query = { networkService: { name: `service@${domain}` } };
  return await asker.stream(NetworkServiceRegistry.method.find, query);
}

async function requests(neighbour: Workload, count: number): Promise<readonly number[]> {
  const wish = wishFor(neighbour, { service: "other" });
  const eachMs: number[] = [];
  for (let i = 0; i < count; i++) {
    const startMs = performance.now();
    const connection = await neighbour.request(wish);
    eachMs.push(performance.now() - startMs);
    await neighbour.close(connection);
  }
  return eachMs;
}
