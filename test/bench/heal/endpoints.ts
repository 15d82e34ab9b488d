/**
 * Endpoints that die under a client, a spare being registered: how long until the spare answers, and what is lost meanwhile.
 *
 *     pod-client ──► pod-e-1 (in use), pod-e-2 (spare); then e-2 is in use and e-3 its spare, and so on
 */
import type { NodeName } from "../../../cli/demo/topology.ts";
import { monotonicMs } from "../../../cli/probe/main.ts";
import type { Reflector } from "../../../cli/probe/start.ts";
import { delay } from "../../../sdk/clock.ts";
import { fresh } from "../../support/mesh.ts";
import type { Mesh } from "../../support/mesh.ts";
import type { Launch } from "../daemons.ts";
import type { Figures, Section } from "../sections.ts";
import { RUNS, healingOf, startHealMesh } from "./mesh.ts";
import type { HealMesh } from "./mesh.ts";

/** Far above the target: what takes longer counts as not healed. */
const HEALED_WITHIN_MS = 8000;
const BEFORE_MS = 150;
const AFTER_MS = 150;
/** Of the endpoint, woken after the healing: nothing may come from it. */
const AWAKE_MS = 300;

interface Death {
  readonly name: string;
  readonly node: NodeName;
  /** What happens to the endpoint in use. */
  strike(mesh: Mesh, endpoint: string): Promise<void>;
  /** After the healing, before the next run. */
  after?(mesh: Mesh, endpoint: string): Promise<void>;
  /** The wire is silent from the death to the healing; otherwise the old endpoint's kernel goes on answering. */
  readonly silent: boolean;
}

const DEATHS: readonly Death[] = [
  { name: "nseLocal", node: "node1", silent: true, strike: (mesh, name) => mesh.killPod(name) },
  { name: "nseRemote", node: "node2", silent: true, strike: (mesh, name) => mesh.killPod(name) },
  {
    name: "nseProcess",
    node: "node1",
    silent: false,
    strike: (mesh, name) => mesh.daemon(name).kill(),
  },
  {
    name: "nseFrozen",
    node: "node1",
    silent: false,
    strike: async (mesh, name) => mesh.daemon(name).signal("SIGSTOP"),
    async after(mesh, name) {
      mesh.daemon(name).signal("SIGCONT");
      await delay(AWAKE_MS);
      await mesh.daemon(name).kill(); // or it would serve again
    },
  },
];

export const endpointSections: readonly Section[] = DEATHS.map((death) => ({
  name: `heal.${death.name}`,
  run: (launch, figures, say) => measure(death, launch, figures, say),
}));

async function measure(
  death: Death,
  launch: Launch,
  figures: Figures,
  say: (line: string) => void,
): Promise<void> {
  const names = Array.from({ length: RUNS + 1 }, (_, i) => `e-${i + 1}`);
  await using heal = await startHealMesh(launch, {
    nodes: death.node === "node1" ? 1 : 2,
    endpoints: names.map((name, i) => ({
      name,
      node: death.node,
      service: "healing",
      payload: death.node === "node1" ? "IP" : "ETHERNET",
      prefixes: "172.16.0.0/24", // all of them alike, so that the address to probe stays
      started: i === 0,
    })),
    clients: [{ name: "client", services: "kernel://healing/nsm-1" }],
  });
  const eachMs: number[] = [];
  let lost = 0;
  for (const [i, victim] of names.slice(0, -1).entries()) {
    const result = await strikeOnce(death, heal, victim, names[i + 1] ?? "");
    eachMs.push(result.ms);
    lost += result.lost;
  }
  say(`each run, ms: ${eachMs.map((ms) => ms.toFixed(0)).join(" ")}`);
  figures.heal[death.name] = healingOf(eachMs, lost);
}

async function strikeOnce(
  death: Death,
  heal: HealMesh,
  victim: string,
  spare: string,
): Promise<{ ms: number; lost: number }> {
  const { mesh } = heal;
  await using ends = new AsyncDisposableStack();
  const { peerAddresses } = await mesh.established("client", "nsm-1");
  const reflectors: Promise<Reflector>[] = [victim, spare].map((pod) => heal.reflect(pod));
  for (const reflector of reflectors) ends.use(await reflector);
  const registered = mesh.start(spare).waitFor(`endpoint ${spare} registered`, 30_000);
  const prober = ends.use(await heal.probe("client", peerAddresses[0]?.split("/")[0] ?? ""));
  await Promise.all([registered, prober.waitFor(({ from }) => from === victim, AbortSignal.timeout(20_000))]);
  await delay(BEFORE_MS);

  const said = fresh(mesh.daemon("client"));
  const struckMs = monotonicMs();
  await death.strike(mesh, victim);
  const late = AbortSignal.timeout(HEALED_WITHIN_MS);
  const { atMs } = await prober.waitFor(({ from }) => from === spare, late);
  await said("wire established");
  await delay(AFTER_MS);
  await death.after?.(mesh, victim);
  const report = await prober.stop();
  const ghosts = Object.entries(report.from).filter(([name, { lastMs }]) => name === victim && lastMs > atMs);
  if (ghosts.length > 0) throw new Error(`${victim} answered after ${spare} had taken over`);
  return { ms: death.silent ? report.gapMs : atMs - struckMs, lost: report.lost };
}
