/** A client killed with SIGKILL, whose namespace lives on: how long until nothing of its wires is left. */
import type { Section } from "../sections.ts";
import { RUNS, healingOf, startHealMesh, timeUntil, wireDevices } from "./mesh.ts";

/** Above both targets: what takes longer counts as left for good. */
const GONE_WITHIN_MS = 6000;

export const clientKilled: Section = {
  name: "heal.client",
  async run(launch, figures, say) {
    await using heal = await startHealMesh(launch, {
      endpoints: [
        { name: "near", service: "near", prefixes: "172.16.0.0/24" },
        { name: "far", node: "node2", service: "far", payload: "ETHERNET", prefixes: "172.17.0.0/24" },
      ],
      clients: [{ name: "client", services: "kernel://near/nsm-1,kernel://far/nsm-2", started: false }],
    });
    const { mesh } = heal;
    const localMs: number[] = [];
    const remoteMs: number[] = [];
    for (let run = 0; run < RUNS; run++) {
      mesh.start("client");
      for (const name of ["nsm-1", "nsm-2"]) await mesh.established("client", name);
      const start = performance.now();
      await mesh.daemon("client").kill();
      const gone = (pod: string) =>
        timeUntil(`no wire in ${pod}`, start, GONE_WITHIN_MS, () => wireDevices(mesh, `pod-${pod}`) === 0);
      const [near, far, own] = await Promise.all([gone("near"), gone("far"), gone("client")]);
      localMs.push(near);
      remoteMs.push(Math.max(far, own));
    }
    const text = (each: readonly number[]) => each.map((ms) => ms.toFixed(0)).join(" ");
    say(`each run, ms: same node ${text(localMs)}; other node ${text(remoteMs)}`);
    figures.heal["clientLocal"] = healingOf(localMs, 0);
    figures.heal["clientRemote"] = healingOf(remoteMs, 0);
  },
};
