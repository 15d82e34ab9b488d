/** What a link between two clusters costs while nobody uses it: bytes at the router, processor time of both proxies. */
import { delay } from "../../../sdk/clock.ts";
import type { Mesh } from "../../support/mesh.ts";
import { startHealMesh } from "../heal/mesh.ts";
import { cpuTimes } from "../proc.ts";
import type { Section } from "../sections.ts";
import { round } from "../statistics.ts";

/** What belongs to the start is over by then. */
const SETTLED_AFTER_MS = 5000;
const FOR_MS = 20_000;
const PROXIES = ["proxy-east", "proxy-west"];

export const linkAtRest: Section = {
  name: "clusters.link",
  async run(launch, figures, say) {
    await using heal = await startHealMesh(launch, { clusters: true, nodes: 1 });
    const { mesh } = heal;
    await delay(SETTLED_AFTER_MS);
    const [traffic, cpuMs, startMs] = [trafficOf(mesh), cpuOf(mesh), performance.now()];
    await delay(FOR_MS);
    const [now, cpuNowMs, seconds] = [trafficOf(mesh), cpuOf(mesh), (performance.now() - startMs) / 1000];
    const each = (before: number, after: number) => (after - before) / seconds;
    say(`${round(each(traffic.packets, now.packets))} packets a second, both directions`);
    figures.clusters.link = {
      bytesPerSecond: round(each(traffic.bytes, now.bytes), 0),
      cpuMsPerSecond: round(each(cpuMs, cpuNowMs)),
    };
  },
};

/** Of both proxies so far. */
function cpuOf(mesh: Mesh): number {
  return cpuTimes(PROXIES.map((name) => mesh.daemon(name)))
    .values()
    .reduce((sum, ms) => sum + ms, 0);
}

/** What the router has received from both clusters so far (proc_pid_net(5)). */
function trafficOf(mesh: Mesh): { readonly bytes: number; readonly packets: number } {
  const lines = mesh.namespace("router").exec("cat", "/proc/net/dev").split("\n");
  const counts = lines.flatMap((line) => {
    const [device = "", bytes, packets] = line.trim().split(/[\s:]+/);
    return ["east", "west"].includes(device) ? [{ bytes: Number(bytes), packets: Number(packets) }] : [];
  });
  if (counts.length !== 2) throw new Error("the router has not the devices east and west");
  return counts.reduce((a, b) => ({ bytes: a.bytes + b.bytes, packets: a.packets + b.packets }));
}
