/** What a refresh that changes nothing costs: processor time of all servers, and messages to the kernel. */
import type { BenchClient } from "./clients.ts";
import { countNetlink } from "./netlink-count.ts";
import { startMesh, wishFor } from "./mesh.ts";
import type { BenchMesh, MeshOptions } from "./mesh.ts";
import { costOf, cpuTimes } from "./proc.ts";
import type { Launch } from "./daemons.ts";
import type { Section } from "./sections.ts";
import { LOCAL, REMOTE } from "./setup.ts";
import { median, round } from "./statistics.ts";

const WIRES = 10;
const WARM_UP = 300;
/** Processor time is counted in steps of 10 ms: with so many the error is below 0.1 ms a refresh. */
const REFRESHES = 1000;
/** Under strace(1), where everything is slow. */
const TRACED = 50;

interface Cost {
  readonly cpuMs: number;
  /** Null where strace cannot be used. */
  readonly netlink: number | null;
}

export const refreshLocal: Section = {
  name: "refresh.local",
  async run(launch, figures, say) {
    const cost = await costOfRefresh(launch, { nodes: 1, endpoints: [LOCAL], clients: 1 }, say);
    figures.refresh.localCpuMs = cost.cpuMs;
    figures.refresh.localNetlink = cost.netlink;
  },
};

export const refreshRemote: Section = {
  name: "refresh.remote",
  async run(launch, figures, say) {
    const cost = await costOfRefresh(launch, { nodes: 2, endpoints: [REMOTE], clients: 1 }, say);
    figures.refresh.remoteCpuMs = cost.cpuMs;
    figures.refresh.remoteNetlink = cost.netlink;
  },
};

async function costOfRefresh(
  launch: Launch,
  options: MeshOptions,
  say: (line: string) => void,
): Promise<Cost> {
  await using mesh = await startMesh(launch, options);
  const [client] = mesh.clients;
  if (client === undefined) throw new Error("a mesh without clients");
  const wish = wishFor(options.endpoints[0]?.service ?? "");
  refuseFailures(await client.call("hold", wish, WIRES, 2));
  refuseFailures(await client.call("refresh", WARM_UP));
  const before = cpuTimes(mesh.servers);
  const { requestMs, failed } = await client.call("refresh", REFRESHES);
  refuseFailures({ failed });
  const cost = costOf(before, cpuTimes(mesh.servers), REFRESHES);
  say(`p50 ${round(median(requestMs))} ms; processor time ${round(cost.total)} ms: ${cost.text}`);
  const netlink = await messagesPerRefresh(mesh, client, say);
  refuseFailures(await client.call("release", 4));
  return { cpuMs: round(cost.total), netlink };
}

/** The largest count of any forwarder. */
async function messagesPerRefresh(
  mesh: BenchMesh,
  client: BenchClient,
  say: (line: string) => void,
): Promise<number | null> {
  const counts: number[] = [];
  for (const { pid } of mesh.servers.filter(({ role }) => role === "forwarder")) {
    const count = await countNetlink(pid, async () => refuseFailures(await client.call("refresh", TRACED)));
    if (count === undefined) {
      say("netlink messages are not counted: strace is missing or may not trace");
      return null;
    }
    counts.push(count / TRACED);
  }
  return round(Math.max(...counts));
}

function refuseFailures({ failed }: { readonly failed: readonly string[] }): void {
  if (failed.length > 0) throw new Error(`${failed.length} failed: ${failed[0]}`);
}
