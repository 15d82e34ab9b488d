/** A path that loses 5 % of all packets each way for a minute: no wire may be taken for dead. */
import { delay } from "../../../sdk/clock.ts";
import type { Section } from "../sections.ts";
import { startHealMesh } from "./mesh.ts";

const WIRES = 10;
const FOR_MS = 60_000;
/** Both ways, as the client's namespace sees them. */
const LOSSY = `
table inet loss {
  chain in { type filter hook input priority 0; iifname "nsm-*" numgen random mod 100 < 5 drop; }
  chain out { type filter hook output priority 0; oifname "nsm-*" numgen random mod 100 < 5 drop; }
}`;

export const lossyWires: Section = {
  name: "heal.loss5",
  async run(launch, figures, say) {
    const services = Array.from({ length: WIRES }, (_, i) => `kernel://near/nsm-${i + 1}`).join(",");
    await using heal = await startHealMesh(launch, {
      nodes: 1,
      endpoints: [
        { name: "near", service: "near", prefixes: "172.16.0.0/24" },
        { name: "spare", service: "near", prefixes: "172.16.0.0/24" },
      ],
      clients: [{ name: "client", services }],
    });
    const { mesh } = heal;
    await using ends = new AsyncDisposableStack();
    for (const pod of ["near", "spare"]) ends.use(await heal.reflect(pod));
    const { peerAddresses } = await mesh.established("client", "nsm-1");
    mesh.namespace("pod-client").exec("nft", LOSSY);
    const prober = ends.use(await heal.probe("client", peerAddresses[0]?.split("/")[0] ?? ""));
    await delay(FOR_MS);
    const { sent, lost, gapMs } = await prober.stop();
    const healed = mesh.daemon("client").log.filter(({ msg }) => msg === "wire established").length - WIRES;
    const share = (100 * lost) / sent;
    say(`${share.toFixed(1)} % of ${sent} probes lost, longest gap ${gapMs.toFixed(0)} ms`);
    if (share < 5)
      throw new Error(`only ${share.toFixed(1)} % of the probes were lost: the path was not lossy`);
    figures.heal["loss5"] = { p50Ms: null, p99Ms: null, packetsLost: lost, runs: WIRES, falseHeals: healed };
  },
};
