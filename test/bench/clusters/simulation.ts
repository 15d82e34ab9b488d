/** 1,000 exported services in each of ten other domains, simulated in one process: how soon one is found, and what each costs to know. */
import { fork } from "node:child_process";
import { once } from "node:events";
import type { Section } from "../sections.ts";
import { latencyOf } from "../setup.ts";
import { round } from "../statistics.ts";
import type { Simulated } from "./simulation-process.ts";

export const simulation: Section = {
  name: "clusters.registry",
  async run(_launch, figures, say) {
    const { elsewhereMs, homeMs, failed, foundBytes, importedBytes } = await simulated();
    if (failed.length > 0) throw new Error(`${failed.length} of the finds failed: ${failed[0]}`);
    const [elsewhere, home] = [latencyOf(elsewhereMs), latencyOf(homeMs)];
    say(`find p50 ${elsewhere.p50Ms} ms; of the own domain p50 ${home.p50Ms}, p99 ${home.p99Ms} ms`);
    figures.clusters.registry = {
      findP50Ms: elsewhere.p50Ms,
      findP99Ms: elsewhere.p99Ms,
      foundKiB: round(foundBytes / 1024),
      importedKiB: round(importedBytes / 1024),
    };
  },
};

async function simulated(): Promise<Simulated> {
  const child = fork(new URL("simulation-process.ts", import.meta.url), { execArgv: ["--expose-gc"] });
  try {
    const ended = once(child, "exit").then(() => {
      throw new Error("the process of the simulation has ended");
    });
    const [result]: Simulated[] = await Promise.race([once(child, "message"), ended]);
    if (result === undefined) throw new Error("the process of the simulation said nothing");
    return result;
  } finally {
    child.kill("SIGKILL");
  }
}
