/** What the manager needs for 500 local wires that are held at the same time. */
import { startMesh, wishFor } from "./mesh.ts";
import { descriptors, rssMiB } from "./proc.ts";
import type { Section } from "./sections.ts";
import { LOCAL } from "./setup.ts";
import { median, round } from "./statistics.ts";

const WIRES = 500;
const PARALLEL = 8;

export const wires500: Section = {
  name: "wires500",
  async run(launch, figures, say) {
    await using mesh = await startMesh(launch, { nodes: 1, endpoints: [LOCAL], clients: 1 });
    const [client] = mesh.clients;
    if (client === undefined) throw new Error("a mesh without clients");
    const sizes = () => mesh.servers.map(({ name, pid }) => [name, rssMiB(pid), descriptors(pid)] as const);
    const before = new Map(sizes().map(([name, , count]) => [name, count]));
    const start = performance.now();
    const { failed, requestMs } = await client.call("hold", wishFor(LOCAL.service), WIRES, PARALLEL);
    if (failed.length > 0) throw new Error(`${failed.length} of ${WIRES} wires failed: ${failed[0]}`);
    const seconds = (performance.now() - start) / 1000;
    say(
      `${round(WIRES / seconds, 1)} wires a second, ${PARALLEL} at once, p50 ${round(median(requestMs))} ms`,
    );
    for (const [name, mib, count] of sizes())
      say(`${name}: ${mib.toFixed(1)} MiB, ${count} descriptors (${before.get(name)} before)`);
    const { pid } = mesh.server("nsmgr1");
    figures.wires500 = { nsmgrRssMiB: round(rssMiB(pid), 1), descriptors: descriptors(pid) };
    const closed = await client.call("release", 16);
    if (closed.failed.length > 0)
      throw new Error(`${closed.failed.length} closes failed: ${closed.failed[0]}`);
  },
};
