/** Daemons killed and started again at once under 50 wires: what is lost, and how long until the new process serves the wires. */
import { delay } from "../../../sdk/clock.ts";
import type { Mesh } from "../../support/mesh.ts";
import { refreshOf, wishFor } from "../../support/wishes.ts";
import type { Workload } from "../../support/workload.ts";
import { devicesIn } from "../../support/wires.ts";
import type { Launch } from "../daemons.ts";
import type { Figures, Section } from "../sections.ts";
import { RUNS, healingOf, startHealMesh, timeUntil } from "./mesh.ts";

const CLIENTS = ["client-1", "client-2", "client-3", "client-4", "client-5"];
const WIRES_EACH = 10;
const WIRES = CLIENTS.length * WIRES_EACH;
/** Clients over whose first wire probes go. */
const PROBED = ["client-1", "client-5"];
const SERVED_WITHIN_MS = 20_000;
const TRY_MS = 1000;
const AFTER_MS = 200;

/** Resolves when the new process knows what the old one knew. */
type Served = (mesh: Mesh, observer: Workload) => boolean | Promise<boolean>;

/** A wire that was there before is refreshed by the new process. */
function refreshes(connection: Awaited<ReturnType<Workload["request"]>>): Served {
  return (_mesh, observer) =>
    observer.request(refreshOf(connection), { timeoutMs: TRY_MS }).then(
      () => true,
      () => false,
    );
}

const adoptsAll: Served = (mesh) =>
  mesh.daemon("forwarder-node1").log.filter(({ msg }) => msg === "wire adopted").length >= WIRES;

/** Whoever was registered has registered again. */
const knowsEndpoints: Served = (_mesh, observer) =>
  observer.findEndpoints({}, { timeoutMs: TRY_MS }).then(
    (found) => ["near", "forwarder-node1"].every((name) => found.some((each) => each.name === name)),
    () => false,
  );

const VICTIMS = ["forwarder", "nsmgr", "registry"] as const;

export const restartSections: readonly Section[] = VICTIMS.map((victim) => ({
  name: `heal.${victim}`,
  run: (launch, figures, say) => measure(victim, launch, figures, say),
}));

async function measure(
  victim: (typeof VICTIMS)[number],
  launch: Launch,
  figures: Figures,
  say: (line: string) => void,
): Promise<void> {
  const services = Array.from({ length: WIRES_EACH }, (_, i) => `kernel://near/nsm-${i + 1}`).join(",");
  await using heal = await startHealMesh(launch, {
    nodes: 1,
    endpoints: [{ name: "near", service: "near", prefixes: "172.16.0.0/24" }],
    clients: CLIENTS.map((name) => ({ name, services })),
    workloads: ["observer"],
    pods: ["pod-observer"],
  });
  const { mesh } = heal;
  const observer = await mesh.workload("observer", "pod-observer");
  const own = await observer.request(
    wishFor(observer, { service: "near", name: "observer", id: "observer-0" }),
  );
  const served: Readonly<Record<typeof victim, readonly Served[]>> = {
    forwarder: [adoptsAll, refreshes(own)],
    nsmgr: [refreshes(own)],
    registry: [knowsEndpoints],
  };
  await using ends = new AsyncDisposableStack();
  ends.use(await heal.reflect("near"));
  const devicesNow = () => CLIENTS.flatMap((name) => devicesIn(mesh.namespace(`pod-${name}`)));
  const devices = devicesNow();
  if (devices.length !== WIRES) throw new Error(`the clients have ${devices.length} devices, not ${WIRES}`);
  const part = victim === "registry" ? victim : `${victim}-node1`;
  const eachMs: number[] = [];
  let lost = 0;
  for (let run = 0; run < RUNS; run++) {
    const probers = [];
    for (const client of PROBED) {
      const { peerAddresses } = await mesh.established(client, "nsm-1");
      probers.push(ends.use(await heal.probe(client, peerAddresses[0]?.split("/")[0] ?? "")));
    }
    for (const prober of probers) await prober.waitFor(() => true, AbortSignal.timeout(SERVED_WITHIN_MS));
    const start = performance.now();
    await mesh.restart(part);
    for (const each of served[victim])
      await timeUntil(`the new ${victim}`, start, SERVED_WITHIN_MS, () => each(mesh, observer));
    eachMs.push(performance.now() - start);
    await delay(AFTER_MS);
    for (const prober of probers) lost += (await prober.stop()).lost;
  }
  if (JSON.stringify(devicesNow()) !== JSON.stringify(devices)) throw new Error("devices have changed");
  say(`each run, ms: ${eachMs.map((ms) => ms.toFixed(0)).join(" ")}`);
  figures.heal[victim] = healingOf(eachMs, lost);
}
