/**
 * What a run of the demo consists of: two nodes with their daemons, and the workloads of its scenarios.
 *
 *     node1 ──────────── underlay 192.0.2.0/24 ──────────── node2          identity
 *       registry, nsmgr, forwarder                            nsmgr, forwarder
 *     pod-… (clients and endpoints)                         pod-… (endpoints)
 */
import { join } from "node:path";

export const RUNS_FOLDER = "/run/nsm-demo";
export const TRUST_DOMAIN = "demo.nsm";

export type MechanismName = "KERNEL" | "WIREGUARD" | "VXLAN";

export type NodeName = "node1" | "node2";
export const NODES: readonly NodeName[] = ["node1", "node2"];

export const underlay: Readonly<Record<NodeName, string>> = { node1: "192.0.2.1", node2: "192.0.2.2" };

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
  /** The group that tells the identity authority which role this process has. */
  readonly gid: number;
  /** Path of its SPIFFE id; undefined for the authority itself. */
  readonly spiffePath: string | undefined;
  readonly env: Environment;
}

export interface Topology {
  readonly run: string;
  readonly folder: string;
  /** Short names of the namespaces (`node1`, `pod-client`). */
  readonly places: readonly string[];
  /** In the order in which they start. */
  readonly parts: readonly Part[];
}

/** Full name of a namespace of a run. */
export function namespaceOf(run: string, place: string): string {
  return `nsm-${run}-${place}`;
}

export function runFolder(run: string): string {
  return join(RUNS_FOLDER, run);
}

/** Folders below the run's own, made before the processes start. */
export const FOLDERS: readonly string[] = ["identity", "node1", "node2", "pods", "logs", "metrics"];

/** A group of its own for each role; those of ordinary users end at 60000, those of systemd begin above 65535. */
const GID = {
  identity: 64400,
  registry: 64401,
  nsmgr: 64402,
  forwarder: 64403,
  nse: 64404,
  nsc: 64405,
  proxy: 64406,
};

/** A client or an endpoint. */
export interface WorkloadSpec {
  /** Unique in the run; its namespace is `pod-<name>`. */
  readonly name: string;
  /** Default node1. */
  readonly node?: NodeName;
  /** Variables beside those that every part of its role has. */
  readonly env?: Environment;
}

export interface EndpointSpec extends WorkloadSpec {
  readonly service: string;
  /** Default IP. */
  readonly payload?: "IP" | "ETHERNET";
  /** Address pools of one that does not pass on. */
  readonly prefixes?: string;
  /** `nsm nse <kind>` */
  readonly kind?: "passthrough" | "firewall" | "supplier";
}

export interface ClientSpec extends WorkloadSpec {
  /** NSM_NETWORK_SERVICES. */
  readonly services: string;
}

/** Makes the parts of one run. */
export interface Parts {
  /** The run's. */
  readonly folder: string;
  /** Of both nodes, and what they share; the authority first. */
  readonly daemons: readonly Part[];
  endpoint(spec: EndpointSpec): Part;
  client(spec: ClientSpec): Part;
  /** Another daemon of a node; its SPIFFE id is `/<role>/<name>`. */
  daemon(role: "registry" | "proxy", name: string, node: NodeName, env: Environment): Part;
}

/** Where a part of a run that is kept serves its metrics. */
export function metricsSocket(folder: string, name: string): string {
  return join(folder, "metrics", `${name}.sock`);
}

export interface PartsOptions {
  readonly logLevel: string;
  /** Whether the parts serve their metrics: in a run that nobody looks at they only cost. */
  readonly metrics: boolean;
}

export function createParts(run: string, { logLevel, metrics }: PartsOptions): Parts {
  const folder = runFolder(run);
  const part = (
    role: Part["role"],
    name: string,
    place: string,
    spiffePath: string | undefined,
    env: Environment,
  ): Part => {
    const identity = role === "identity" ? {} : { SPIFFE_ENDPOINT_SOCKET: identityUrl(folder) };
    return {
      role,
      name,
      place,
      spiffePath,
      gid: GID[role],
      env: {
        NSM_LOG_LEVEL: logLevel,
        ...(metrics && { NSM_METRICS_LISTEN_ON: `unix://${metricsSocket(folder, name)}` }),
        ...identity,
        ...env,
      },
    };
  };
  const workload = (
    role: "nse" | "nsc",
    { name, node = "node1", env }: WorkloadSpec,
    more: Environment,
  ): Part =>
    part(role, name, `pod-${name}`, `${role}/${name}`, {
      NSM_NAME: name,
      NSM_CONNECT_TO: managerUrl(folder, node),
      NODE_NAME: node,
      POD_NAME: name,
      ...more,
      ...env,
    });
  const registryUrl = `tcp://${underlay.node1}:5002`;
  return {
    folder,
    daemons: [
      part("identity", "identity", "identity", undefined, {
        NSM_IDENTITY_TRUST_DOMAIN: TRUST_DOMAIN,
        NSM_IDENTITY_LISTEN_ON: identityUrl(folder),
        NSM_IDENTITY_STATE_DIR: join(folder, "identity"),
        NSM_IDENTITY_REGISTRATIONS: join(folder, "registrations.yaml"),
      }),
      part("registry", "registry", "node1", "registry", { NSM_LISTEN_ON: registryUrl }),
      ...NODES.map((node) =>
        part("nsmgr", `nsmgr-${node}`, node, `nsmgr/${node}`, {
          NSM_NAME: `nsmgr-${node}`,
          NSM_LISTEN_ON: `${managerUrl(folder, node)},tcp://${underlay[node]}:5001`,
          NSM_REGISTRY_URL: registryUrl,
          // Not the machine's.
          NSM_EXCLUDED_PREFIXES_PATH: join(folder, node, "excluded_prefixes.yaml"),
          NODE_NAME: node,
        }),
      ),
      ...NODES.map((node) =>
        part("forwarder", `forwarder-${node}`, node, `forwarder/${node}`, {
          NSM_NAME: `forwarder-${node}`,
          NSM_CONNECT_TO: managerUrl(folder, node),
          NSM_LISTEN_ON: `unix://${join(folder, node, "forwarder.sock")}`,
          NSM_TUNNEL_IP: underlay[node],
          NODE_NAME: node,
        }),
      ),
    ],
    endpoint(spec) {
      const { kind, prefixes } = spec;
      const part = workload("nse", spec, {
        NSM_LISTEN_ON: `unix://${join(folder, "pods", `${spec.name}.sock`)}`,
        NSM_SERVICE_NAMES: spec.service,
        NSM_PAYLOAD: spec.payload ?? "IP",
        ...(prefixes !== undefined && { NSM_CIDR_PREFIX: prefixes }),
      });
      if (kind === undefined) {
        const policies = join(folder, "pods", `${spec.name}-policy-routes.yaml`);
        return { ...part, env: { NSM_PBR_CONFIG_PATH: policies, ...part.env } };
      }
      // Who passes packets on changes the routes of its own namespace.
      return { ...part, command: ["nse", kind], capabilities: kind === "supplier" ? [] : ["net_admin"] };
    },
    client: (spec) => workload("nsc", spec, { NSM_NETWORK_SERVICES: spec.services }),
    daemon: (role, name, node, env) => part(role, name, node, `${role}/${name}`, env),
  };
}

/** Short names of all namespaces that the parts run in. */
export function placesOf(parts: readonly Part[]): readonly string[] {
  return [...new Set(["identity", ...NODES, ...parts.map(({ place }) => place)])];
}

export function identityUrl(folder: string): string {
  return `unix://${join(folder, "identity.sock")}`;
}

/** Socket of a node's manager. */
export function managerUrl(folder: string, node: NodeName): string {
  return `unix://${join(folder, node, "nsmgr.sock")}`;
}
