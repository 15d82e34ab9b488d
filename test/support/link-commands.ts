/** `nsm link …` as the operator of a cluster of a mesh. */
import { join } from "node:path";
import * as z from "zod";
import { identityUrl } from "../../cli/demo/topology.ts";
import type { ClusterName } from "../../cli/demo/topology.ts";
import { gidOfWorkload } from "./mesh-topology.ts";
import type { MeshOptions } from "./mesh-topology.ts";
import type { Mesh } from "./mesh.ts";
import { runNsm } from "./nsm.ts";
import type { NsmResult } from "./nsm.ts";

/** What a mesh needs for these commands: two clusters that know nothing of one another, and somebody who may link them. */
export const LINKING = {
  clusters: true,
  linked: false,
  workloads: ["operator"],
  env: (part): Readonly<Record<string, string>> =>
    part.startsWith("proxy-")
      ? { NSM_DOMAINS_PATH: "", NSM_LINK_PENDING: "20s", NSM_OPERATOR_IDS: "/workload/operator" }
      : {},
} as const satisfies MeshOptions;

type Where = Pick<Mesh, "folder" | "namespace">;

const FIRST_NODE: Readonly<Record<ClusterName, string>> = { east: "node1", west: "node3" };

/** Of the first node of that cluster, with the identity of its authority. */
export function runNsmIn(mesh: Where, cluster: ClusterName, ...args: readonly string[]): Promise<NsmResult> {
  return runNsm({
    netns: mesh.namespace(FIRST_NODE[cluster]).name,
    gid: gidOfWorkload(LINKING, "operator"),
    env: {
      SPIFFE_ENDPOINT_SOCKET: identityUrl(mesh.folder, `identity-${cluster}`),
      NSM_PROXY_ADMIN: `unix://${join(mesh.folder, cluster, "proxy.sock")}`,
    },
    args,
  });
}

const List = z.object({
  links: z.array(
    z.object({
      domain: z.string(),
      state: z.string(),
      way: z.string().optional(),
      rttMs: z.number().optional(),
      bundleHeard: z.string().optional(),
      dialledBy: z.string(),
      offeredToUs: z.array(z.string()),
      offeredByUs: z.array(z.string()),
    }),
  ),
});
export type ListedLink = z.infer<typeof List>["links"][number];

export async function linksOf(mesh: Where, cluster: ClusterName): Promise<readonly ListedLink[]> {
  const { code, stdout, stderr } = await runNsmIn(mesh, cluster, "link", "list", "-o", "json");
  if (code !== 0) throw new Error(`nsm link list in ${cluster}: ${stderr}`);
  return List.parse(JSON.parse(stdout)).links;
}

/** The token of `from`, as one line. */
export async function tokenOf(mesh: Where, from: ClusterName, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runNsmIn(mesh, from, "link", "token", ...args);
  if (code !== 0) throw new Error(`nsm link token in ${from}: ${stderr}`);
  return stdout.trim();
}
