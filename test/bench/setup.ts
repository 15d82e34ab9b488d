/** How long a Request takes with everything that it makes in the kernel, and how many pairs of Request and Close fit into a second. */
import type { BenchClient } from "./clients.ts";
import type { Timings } from "./commands.ts";
import type { Launch } from "./daemons.ts";
import { startMesh, wishFor } from "./mesh.ts";
import type { MeshOptions } from "./mesh.ts";
import { costOf, cpuTimes } from "./proc.ts";
import type { Latency, Section } from "./sections.ts";
import { median, percentile, round } from "./statistics.ts";

const REQUESTS = 200;
/** Pairs before the measurement: sessions, views and compiled code are there, as in a mesh that has been up for a while. */
const WARM_UP = 150;
const CLIENTS = 16;
const PAIRS_EACH = 60;

export const LOCAL = { service: "local", node: 1, payload: "IP", prefix: "172.16.0.0/16" } as const;
export const REMOTE = { service: "remote", node: 2, payload: "ETHERNET", prefix: "172.17.0.0/16" } as const;

export const setupLocal: Section = {
  name: "setup.local",
  async run(launch, figures, say) {
    figures.setup.local = await oneClient(launch, { nodes: 1, endpoints: [LOCAL], clients: 1 }, say);
  },
};

export const setupVxlan: Section = {
  name: "setup.vxlan",
  async run(launch, figures, say) {
    figures.setup.vxlan = await oneClient(launch, { nodes: 2, endpoints: [REMOTE], clients: 1 }, say);
  },
};

export const setupLocal16: Section = {
  name: "setup.local16",
  async run(launch, figures, say) {
    await using mesh = await startMesh(launch, { nodes: 1, endpoints: [LOCAL], clients: CLIENTS });
    const all = (count: number) =>
      Promise.all(mesh.clients.map((client) => client.call("pairs", wishFor(LOCAL.service), count)));
    await all(5);
    const before = cpuTimes(mesh.servers);
    const start = performance.now();
    const timings = await all(PAIRS_EACH);
    const cost = costOf(before, cpuTimes(mesh.servers), CLIENTS * PAIRS_EACH);
    const seconds = (performance.now() - start) / 1000;
    const failed = timings.flatMap((each) => each.failed);
    const closed = timings.flatMap((each) => each.closeMs);
    if (failed.length > 0) say(`failed: ${[...new Set(failed)].slice(0, 3).join("; ")}`);
    say(`close p50 ${round(median(closed))} ms`);
    say(`processor time of a pair ${round(cost.total)} ms: ${cost.text}`);
    figures.setup.local16 = {
      ...latencyOf(timings.flatMap((each) => each.requestMs)),
      pairsPerSecond: round(closed.length / seconds, 1),
      failed: failed.length,
    };
  },
};

async function oneClient(
  launch: Launch,
  options: MeshOptions,
  say: (line: string) => void,
): Promise<Latency> {
  await using mesh = await startMesh(launch, options);
  const [client] = mesh.clients;
  if (client === undefined) throw new Error("a mesh without clients");
  const service = options.endpoints[0]?.service ?? "";
  await pairs(client, service, WARM_UP);
  const before = cpuTimes(mesh.servers);
  const { requestMs, closeMs } = await pairs(client, service, REQUESTS);
  const cost = costOf(before, cpuTimes(mesh.servers), REQUESTS);
  say(`close p50 ${round(median(closeMs))}, p99 ${round(percentile(closeMs, 0.99))} ms`);
  say(`processor time of a pair ${round(cost.total)} ms: ${cost.text}`);
  return latencyOf(requestMs);
}

/** Throws unless all of them worked. */
export async function pairs(client: BenchClient, service: string, count: number): Promise<Timings> {
  const timings = await client.call("pairs", wishFor(service), count);
  const [failure] = timings.failed;
  if (failure !== undefined) throw new Error(`${timings.failed.length} of ${count} pairs failed: ${failure}`);
  return timings;
}

export function latencyOf(requestMs: readonly number[]): Latency {
  return { p50Ms: round(median(requestMs)), p99Ms: round(percentile(requestMs, 0.99)) };
}
