/** A registry that knows 10,000 names: how fast they are registered again, and how soon a service is found. */
import { startMesh } from "./mesh.ts";
import { costOf, cpuTimes } from "./proc.ts";
import type { RegistryTimings } from "./commands.ts";
import type { Section } from "./sections.ts";
import { median, percentile, round } from "./statistics.ts";

const NAMES = 10_000;
const PER_SERVICE = 20;
const SERVICES = NAMES / PER_SERVICE;
const PARALLEL = 16;
const FINDS = 2000;

export const registry10k: Section = {
  name: "registry10k",
  async run(launch, figures, say) {
    await using mesh = await startMesh(launch, { nodes: 1, endpoints: [], clients: 1, clientsOnNode: true });
    const [client] = mesh.clients;
    if (client === undefined) throw new Error("a mesh without clients");
    const url = mesh.registryUrl;
    const registry = [mesh.server("registry")];
    const all = { from: 0, to: NAMES, perService: PER_SERVICE };
    const first = checked(await client.call("register", url, all, PARALLEL));
    say(`first registration ${round((NAMES / first.totalMs) * 1000, 0)}/s`);
    const before = cpuTimes(registry);
    const again = checked(await client.call("register", url, all, PARALLEL));
    const cost = costOf(before, cpuTimes(registry), NAMES);
    say(
      `register p50 ${round(median(again.eachMs))} ms, ${PARALLEL} at once; processor time ${cost.text} ms`,
    );
    const alone = checked(await client.call("find", url, SERVICES, PER_SERVICE, FINDS, 1));
    const crowd = checked(await client.call("find", url, SERVICES, PER_SERVICE, FINDS, PARALLEL));
    say(`find p50 ${round(median(alone.eachMs))}; ${PARALLEL} at once: ${latencies(crowd)}`);
    figures.registry10k = {
      registersPerSecond: round((NAMES / again.totalMs) * 1000, 0),
      findP99Ms: round(percentile(alone.eachMs, 0.99)),
    };
  },
};

function latencies({ eachMs, totalMs }: RegistryTimings): string {
  const perSecond = round((eachMs.length / totalMs) * 1000, 0);
  return `${perSecond}/s, p50 ${round(median(eachMs))}, p99 ${round(percentile(eachMs, 0.99))} ms`;
}

function checked(timings: RegistryTimings): RegistryTimings {
  const [failure] = timings.failed;
  if (failure !== undefined) throw new Error(`${timings.failed.length} calls failed: ${failure}`);
  return timings;
}
