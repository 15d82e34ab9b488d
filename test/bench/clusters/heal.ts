/**
 * An endpoint in the other cluster that dies, or whose cluster is cut off, under a client whose own cluster has a spare: how long
 * until the spare answers, and what is lost meanwhile. Then the endpoint is there again, and the wire goes back to it.
 *
 *     pod-client (east) ──► pod-primary-1 (west, tier 0), then pod-primary-2 and so on
 *                  └─ - ──► pod-backup (east, tier 1)
 */
import { delay } from "../../../sdk/clock.ts";
import { fresh } from "../../support/mesh.ts";
import type { Mesh } from "../../support/mesh.ts";
import type { Launch } from "../daemons.ts";
import { healingOf, startHealMesh } from "../heal/mesh.ts";
import type { HealMesh } from "../heal/mesh.ts";
import type { ClusterFigures, Section } from "../sections.ts";

const RUNS = 5;
/** Far above the target: what takes longer counts as not healed. */
const HEALED_WITHIN_MS = 20_000;
/** Until the other cluster is known to be back, and its endpoint is preferred again. */
const BACK_WITHIN_MS = 40_000;
const FAILBACK_DELAY = "500ms";
const BEFORE_MS = 150;
const AFTER_MS = 150;
const BACKUP = "backup";

/** How the endpoint in use is lost, and how there is one again. */
interface Loss {
  readonly name: keyof ClusterFigures["heal"];
  strike(mesh: Mesh, primary: string): Promise<void>;
  /** Returns the name of the endpoint that serves from now on. */
  mend(mesh: Mesh, primary: string): Promise<string>;
}

const LOSSES: readonly Loss[] = [
  {
    name: "endpointKilled",
    strike: (mesh, primary) => mesh.killPod(primary),
    async mend(mesh, primary) {
      const next = primaries[primaries.indexOf(primary) + 1] ?? "";
      await mesh.start(next).waitFor(`endpoint ${next} registered`, 30_000);
      return next;
    },
  },
  {
    name: "clusterCutOff",
    strike: (mesh) => mesh.cut("everything"),
    async mend(mesh, primary) {
      await mesh.mend();
      return primary;
    },
  },
];

const primaries = Array.from({ length: RUNS + 1 }, (_, i) => `primary-${i + 1}`);

export const healAcross: readonly Section[] = LOSSES.map((loss) => ({
  name: `clusters.heal.${loss.name}`,
  async run(launch, figures, say) {
    const { eachMs, lost } = await measure(loss, launch);
    say(`each run, ms: ${eachMs.map((ms) => ms.toFixed(0)).join(" ")}`);
    figures.clusters.heal[loss.name] = healingOf(eachMs, lost);
  },
}));

async function measure(loss: Loss, launch: Launch): Promise<{ eachMs: readonly number[]; lost: number }> {
  const service = (spec: string) => `kind: NetworkService\nmetadata: { name: web }\nspec: { ${spec} }\n`;
  const offer = (name: string, node: "node1" | "node3", tier: number, started: boolean) => ({
    name,
    node,
    service: "web",
    prefixes: "172.16.0.0/24", // all of them alike, so that the address to probe stays
    env: { NSM_LABELS: `nsm.io/tier:${tier}`, NSM_REGISTER_SERVICE: "false" },
    started,
  });
  await using heal = await startHealMesh(launch, {
    clusters: true,
    nodes: 1,
    networkServices: { east: service("importFrom: [west]"), west: service("exportTo: [east]") },
    endpoints: [
      ...primaries.map((name, i) => offer(name, "node3", 0, i === 0)),
      offer(BACKUP, "node1", 1, true),
    ],
    clients: [{ name: "client", services: "kernel://web/nsm-1" }],
    env: { NSM_FAILBACK_DELAY: FAILBACK_DELAY },
  });
  const { mesh } = heal;
  let primary = primaries[0] ?? "";
  await leadsTo(mesh, primary);
  const eachMs: number[] = [];
  let lost = 0;
  for (let run = 0; run < RUNS; run++) {
    const result = await strikeOnce(loss, heal, primary);
    eachMs.push(result.ms);
    lost += result.lost;
    const back = fresh(mesh.daemon("client"));
    primary = await loss.mend(mesh, primary);
    await back(({ nse }) => nse === `${primary}@west`, BACK_WITHIN_MS);
  }
  return { eachMs, lost };
}

/** The wire may have been made before the other cluster was known. */
async function leadsTo(mesh: Mesh, primary: string): Promise<void> {
  await mesh
    .daemon("client")
    .waitFor(({ msg, nse }) => msg === "wire established" && nse === `${primary}@west`, BACK_WITHIN_MS);
}

async function strikeOnce(
  loss: Loss,
  heal: HealMesh,
  primary: string,
): Promise<{ ms: number; lost: number }> {
  const { mesh } = heal;
  await using ends = new AsyncDisposableStack();
  const { peerAddresses } = await mesh.established("client", "nsm-1");
  for (const pod of [primary, BACKUP]) ends.use(await heal.reflect(pod));
  const prober = ends.use(await heal.probe("client", peerAddresses[0]?.split("/")[0] ?? ""));
  await prober.waitFor(({ from }) => from === primary, AbortSignal.timeout(20_000));
  await delay(BEFORE_MS);
  const said = fresh(mesh.daemon("client"));
  await loss.strike(mesh, primary);
  await prober.waitFor(({ from }) => from === BACKUP, AbortSignal.timeout(HEALED_WITHIN_MS));
  await said("wire established");
  await delay(AFTER_MS);
  const { gapMs, lost } = await prober.stop();
  return { ms: gapMs, lost };
}
