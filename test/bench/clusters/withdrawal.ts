/** An export that is withdrawn under a wire: how long until the endpoint's device is gone. */
import { runNsmIn } from "../../support/link-commands.ts";
import { fresh } from "../../support/mesh.ts";
import type { Mesh } from "../../support/mesh.ts";
import { healingOf, startHealMesh, timeUntil, wireDevices } from "../heal/mesh.ts";
import type { Section } from "../sections.ts";

const RUNS = 5;
const WITHIN_MS = 10_000;
const SERVICE = "far";

export const withdrawal: Section = {
  name: "clusters.withdrawal",
  async run(launch, figures, say) {
    await using heal = await startHealMesh(launch, {
      clusters: true,
      nodes: 1,
      exports: { west: [SERVICE] },
      endpoints: [{ name: SERVICE, node: "node3", service: SERVICE, prefixes: "172.16.0.0/24" }],
      clients: [{ name: "client", services: `kernel://${SERVICE}@west/nsm-1` }],
      workloads: ["operator"],
      env: (part): Readonly<Record<string, string>> =>
        part.startsWith("proxy-") ? { NSM_OPERATOR_IDS: "/workload/operator,/operator/*" } : {},
    });
    const { mesh } = heal;
    await mesh.established("client", "nsm-1");
    const eachMs: number[] = [];
    for (let run = 0; run < RUNS; run++) {
      eachMs.push(await withdrawOnce(mesh));
      const again = fresh(mesh.daemon("client"))("wire established", 60_000);
      await inWest(mesh, "export", SERVICE, "--to", "east");
      await again;
    }
    say(`each run, ms: ${eachMs.map((ms) => ms.toFixed(0)).join(" ")}`);
    const { p50Ms, p99Ms } = healingOf(eachMs, 0);
    figures.clusters.withdrawal = { p50Ms, p99Ms };
  },
};

/** From when the proxy has heard of it: the command itself is mostly the start of a program. */
async function withdrawOnce(mesh: Mesh): Promise<number> {
  const heard = fresh(mesh.daemon("proxy-west"))("no longer exported").then(() => performance.now());
  await Promise.all([heard, inWest(mesh, "unexport", SERVICE, "--from", "east")]);
  const isGone = () => wireDevices(mesh, `pod-${SERVICE}`) === 0;
  return await timeUntil("the end of the wire", await heard, WITHIN_MS, isGone);
}

async function inWest(mesh: Mesh, ...args: readonly string[]): Promise<void> {
  const { code, stderr } = await runNsmIn(mesh, "west", ...args);
  if (code !== 0) throw new Error(`nsm ${args.join(" ")}: ${stderr}`);
}
