/** Network namespaces of a run and the underlay between its nodes, made with `ip`. */
import { existsSync, unlinkSync } from "node:fs";
import { errnoOf } from "../../sdk/errors.ts";
import { joinClusters } from "./border.ts";
import { deviceUp, ipBatch, namespaceFile, run } from "./commands.ts";
import { namespaceOf, underlay } from "./topology.ts";
import type { Topology } from "./topology.ts";

/** Makes the namespaces and joins the nodes. The record of the run must name them already. */
export async function makeNamespaces(topology: Topology, env: NodeJS.ProcessEnv): Promise<void> {
  const { places, sites } = topology;
  const name = (place: string) => namespaceOf(topology.run, place);
  await ipBatch(
    places.map((place) => `netns add ${name(place)}`),
    env,
  );
  await Promise.all(places.map((place) => ipBatch(["link set dev lo up"], env, ["-n", name(place)])));
  const [alone] = sites.filter(({ cluster }) => cluster === undefined);
  if (alone === undefined) return await joinClusters(topology, env);
  const [first, second] = alone.nodes;
  await ipBatch(
    [`link add name underlay netns ${name(first)} type veth peer name underlay netns ${name(second)}`],
    env,
  );
  await Promise.all(
    alone.nodes.map((node) => ipBatch(deviceUp("underlay", underlay[node]), env, ["-n", name(node)])),
  );
}

/**
 * Removes the names; the kernel ends a namespace when no process is in it. Names that do not exist are fine, and so is
 * another removal at the same time: the caller looks at what is left.
 */
export async function removeNamespaces(names: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const present = names.filter((name) => existsSync(namespaceFile(name)));
    if (present.length === 0) return;
    const lines = present.map((name) => `netns delete ${name}`).join("\n");
    await run("ip", ["-force", "-batch", "-"], lines, env);
    for (const name of present) removeFile(namespaceFile(name));
  }
}

/** A killed `ip netns add` leaves a file that is no namespace. One that is still mounted is busy. */
function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!["ENOENT", "EBUSY"].includes(errnoOf(error) ?? "")) throw error;
  }
}
