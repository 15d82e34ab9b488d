/**
 * What a run of the demo consists of, by name: one mesh alone, or two clusters that know each other.
 *
 *     alone:     node1 ── underlay 192.0.2.0/24 ── node2                                 identity, registry
 *
 *     clusters:  node1, node2 ── gate-east ── router ── gate-west ── node3, node4        each its own identity, registry, proxy
 *                  192.0.2.0/24   198.51.100.0/24   203.0.113.0/24    192.0.2.0/24
 *
 * Both clusters use the same addresses inside; their gates give each node one outside (cli/demo/border.ts).
 */
import { join } from "node:path";

export const RUNS_FOLDER = "/run/nsm-demo";
/** Of a mesh that is alone. */
export const TRUST_DOMAIN = "demo.nsm";

export type MechanismName = "KERNEL" | "WIREGUARD" | "VXLAN";

export type NodeName = "node1" | "node2" | "node3" | "node4";
export type ClusterName = "east" | "west";

/** Addresses of the nodes inside their cluster. */
export const underlay: Readonly<Record<NodeName, string>> = {
  node1: "192.0.2.1",
  node2: "192.0.2.2",
  node3: "192.0.2.1",
  node4: "192.0.2.2",
};

/** Those by which the other cluster reaches them. */
export const outside: Readonly<Record<NodeName, string>> = {
  node1: "198.51.100.1",
  node2: "198.51.100.2",
  node3: "203.0.113.1",
  node4: "203.0.113.2",
};

/** Nodes with a registry of their own. */
export interface Site {
  /** What others call it; undefined of a mesh that is alone. */
  readonly cluster: ClusterName | undefined;
  /** The first one has the registry and the proxy. */
  readonly nodes: readonly [NodeName, NodeName];
  readonly trustDomain: string;
  /** Name of the part that says who is who here. */
  readonly authority: string;
}

const ALONE: Site = {
  cluster: undefined,
  nodes: ["node1", "node2"],
  trustDomain: TRUST_DOMAIN,
  authority: "identity",
};

export const CLUSTERS: readonly ClusterName[] = ["east", "west"];
export const NODES_OF: Readonly<Record<ClusterName, readonly [NodeName, NodeName]>> = {
  east: ["node1", "node2"],
  west: ["node3", "node4"],
};

/** `alone`: one mesh; `unified`: two clusters in one trust domain, with one authority; `clusters`: each has its own. */
export type Layout = "alone" | "unified" | "clusters";

export function sitesOf(layout: Layout): readonly Site[] {
  if (layout === "alone") return [ALONE];
  return CLUSTERS.map((cluster) => ({
    cluster,
    nodes: NODES_OF[cluster],
    trustDomain: layout === "unified" ? TRUST_DOMAIN : `${cluster}.nsm`,
    authority: layout === "unified" ? "identity" : `identity-${cluster}`,
  }));
}

export function clusterOf(node: NodeName): ClusterName {
  return NODES_OF.east.includes(node) ? "east" : "west";
}

type Environment = Readonly<Record<string, string>>;

/** One process of the mesh. */
export interface Part {
  /** Unique in the run; names its log and its SPIFFE id (`nsmgr-node1`). */
  readonly name: string;
  readonly role: "identity" | "registry" | "proxy" | "nsmgr" | "forwarder" | "nse" | "nsc";
  /** Words after `nsm` that start it, when they are others than its role. */
  readonly command?: readonly string[];
  /** Capabilities beside those of its role. */
  readonly capabilities?: readonly string[];
  /** Short name of the namespace that it runs in. */
  readonly place: string;
  readonly site: Site;
  /** The group that tells the identity authority which role this process has. */
  readonly gid: number;
  /** Path of its SPIFFE id; undefined for the authority itself. */
  readonly spiffePath: string | undefined;
  readonly env: Environment;
}

export interface Topology {
  readonly run: string;
  readonly folder: string;
  readonly sites: readonly Site[];
  /** Short names of the namespaces (`node1`, `pod-client`). */
  readonly places: readonly string[];
  /** In the order in which they start. */
  readonly parts: readonly Part[];
  /** Contents of files below the folder that are there before the parts start. */
  readonly files: Readonly<Record<string, string>>;
}

/** Full name of a namespace of a run. */
export function namespaceOf(run: string, place: string): string {
  return `nsm-${run}-${place}`;
}

export function runFolder(run: string): string {
  return join(RUNS_FOLDER, run);
}

/** Folders below the run's own, made before the processes start. */
export function foldersOf(sites: readonly Site[]): readonly string[] {
  const own = sites.flatMap(({ authority, nodes, cluster = [] }) => [authority, ...nodes].concat(cluster));
  return [...new Set([...own, "pods", "logs", "metrics"])];
}

/** Short names of all namespaces: those that the parts run in, and what joins the nodes. */
export function placesOf(sites: readonly Site[], parts: readonly Part[]): readonly string[] {
  const joints = sites.flatMap(({ cluster }) => (cluster === undefined ? [] : ["router", gateOf(cluster)]));
  const nodes = sites.flatMap((site) => site.nodes);
  return [...new Set([...joints, ...nodes, ...parts.map(({ place }) => place)])];
}

/** The place where what leaves a cluster gets its outer address. */
export function gateOf(cluster: ClusterName): string {
  return `gate-${cluster}`;
}

/** Where a part of a run that is kept serves its metrics. */
export function metricsSocket(folder: string, name: string): string {
  return join(folder, "metrics", `${name}.sock`);
}

export function identityUrl(folder: string, authority = ALONE.authority): string {
  return `unix://${join(folder, `${authority}.sock`)}`;
}

/** The file with an authority's registrations. */
export function registrationsFile(folder: string, authority: string): string {
  return join(folder, `${authority.replace("identity", "registrations")}.yaml`);
}

/** Socket of a node's manager. */
export function managerUrl(folder: string, node: NodeName): string {
  return `unix://${join(folder, node, "nsmgr.sock")}`;
}

/** Where the operators of a cluster reach its proxy. */
export function proxyAdminUrl(folder: string, cluster: ClusterName): string {
  return `unix://${join(folder, cluster, "proxy.sock")}`;
}
