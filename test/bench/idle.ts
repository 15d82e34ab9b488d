/** Memory of each daemon 10 s after its start, without a wire. */
import { delay } from "../../sdk/clock.ts";
import { startMesh } from "./mesh.ts";
import { rssMiB } from "./proc.ts";
import type { Section } from "./sections.ts";
import { LOCAL } from "./setup.ts";
import { round } from "./statistics.ts";

const AFTER_MS = 10_000;

export const idle: Section = {
  name: "rss",
  async run(launch, figures) {
    await using mesh = await startMesh(launch, { nodes: 1, endpoints: [LOCAL], clients: 0, withNsc: true });
    await delay(AFTER_MS);
    figures.rssMiB = Object.fromEntries(mesh.servers.map(({ role, pid }) => [role, round(rssMiB(pid), 1)]));
  },
};
