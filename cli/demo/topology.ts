/**
 * What a run of the demo consists of, derived from its name alone.
 *
 *     node1 ──────────── underlay 192.0.2.0/24 ──────────── node2          identity
 *       registry, nsmgr, forwarder                            nsmgr, forwarder
 *     pod-client   pod-nse-1                                pod-nse-2, pod-nse-3
 *          └─ nsm-1 ───┘ (KERNEL)                               │          │
 *          └─ nsm-2 ──────────────── (WIREGUARD) ───────────────┘          │
 *          └─ nsm-3 ──────────────── (VXLAN) ──────────────────────────────┘
 */
import { join } from "node:path";

export const RUNS_FOLDER = "/run/nsm-demo";
export const TRUST_DOMAIN = "demo.nsm";
export const CLIENT = "client";

export type MechanismName = "KERNEL" | "WIREGUARD" | "VXLAN";

/** One wire that the client asks for. */
export interface WantedWire {
  readonly mechanism: MechanismName;
  readonly interface: string;
  readonly service: string;
  readonly endpoint: string;
  readonly node: NodeName;
  readonly payload: "IP" | "ETHERNET";
  readonly prefixes: string;
}

export type NodeName = "node1" | "node2";

export const underlay: Readonly<Record<NodeName, string>> = { node1: "192.0.2.1", node2: "192.0.2.2" };

export const wantedWires: readonly WantedWire[] = [
  {
    mechanism: "KERNEL",
    interface: "nsm-1",
    service: "same-node",
    endpoint: "nse-1",
    node: "node1",
    payload: "IP",
    prefixes: "172.16.1.0/24",
  },
  {
    mechanism: "WIREGUARD",
    interface: "nsm-2",
    service: "other-node",
    endpoint: "nse-2",
    node: "node2",
    payload: "IP",
    prefixes: "172.16.2.0/24",
  },
  {
    mechanism: "VXLAN",
    interface: "nsm-3",
    service: "other-lan",
    endpoint: "nse-3",
    node: "node2",
    payload: "ETHERNET",
    prefixes: "172.16.3.0/24",
  },
];

/** One process of the mesh. */
export interface Part {
  /** Unique in the run; names its log and its SPIFFE id (`nsmgr-node1`). */
  readonly name: string;
  readonly role: "identity" | "registry" | "nsmgr" | "forwarder" | "nse" | "nsc";
  /** Short name of the namespace that it runs in. */
  readonly place: string;
  /** The group that tells the identity authority which role this process has. */
  readonly gid: number;
  /** Path of its SPIFFE id; undefined for the authority itself. */
  readonly spiffePath: string | undefined;
  readonly env: Readonly<Record<string, string>>;
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

/** Short names of the namespaces that the wires need. */
function placesOf(wires: readonly WantedWire[]): readonly string[] {
  return ["identity", "node1", "node2", `pod-${CLIENT}`, ...wires.map((wire) => `pod-${wire.endpoint}`)];
}

/** Folders below the run's own, made before the processes start. */
export const FOLDERS: readonly string[] = ["identity", "node1", "node2", "pods", "logs"];

/** A group of its own for each role; those of ordinary users end at 60000, those of systemd begin above 65535. */
const GID = { identity: 64400, registry: 64401, nsmgr: 64402, forwarder: 64403, nse: 64404, nsc: 64405 };

/** The processes that make the given wires. */
export function topologyOf(run: string, wires: readonly WantedWire[], logLevel: string): Topology {
  const folder = runFolder(run);
  const socket = (...words: string[]) => `unix://${join(folder, ...words)}`;
  const identity = (role: Part["role"]) => ({
    NSM_LOG_LEVEL: logLevel,
    ...(role !== "identity" && { SPIFFE_ENDPOINT_SOCKET: socket("identity.sock") }),
  });
  const part = (
    role: Part["role"],
    name: string,
    place: string,
    spiffePath: string | undefined,
    env: Part["env"],
  ): Part => ({ role, name, place, spiffePath, gid: GID[role], env: { ...identity(role), ...env } });

  const nodes: readonly NodeName[] = ["node1", "node2"];
  const registryUrl = `tcp://${underlay.node1}:5002`;
  const managerOf = (node: NodeName) => socket(node, "nsmgr.sock");

  return {
    run,
    folder,
    places: placesOf(wires),
    parts: [
      part("identity", "identity", "identity", undefined, {
        NSM_IDENTITY_TRUST_DOMAIN: TRUST_DOMAIN,
        NSM_IDENTITY_LISTEN_ON: socket("identity.sock"),
        NSM_IDENTITY_STATE_DIR: join(folder, "identity"),
        NSM_IDENTITY_REGISTRATIONS: join(folder, "registrations.yaml"),
      }),
      part("registry", "registry", "node1", "registry", { NSM_LISTEN_ON: registryUrl }),
      ...nodes.map((node) =>
        part("nsmgr", `nsmgr-${node}`, node, `nsmgr/${node}`, {
          NSM_NAME: `nsmgr-${node}`,
          NSM_LISTEN_ON: `${managerOf(node)},tcp://${underlay[node]}:5001`,
          NSM_REGISTRY_URL: registryUrl,
          NODE_NAME: node,
        }),
      ),
      ...nodes.map((node) =>
        part("forwarder", `forwarder-${node}`, node, `forwarder/${node}`, {
          NSM_NAME: `forwarder-${node}`,
          NSM_CONNECT_TO: managerOf(node),
          NSM_LISTEN_ON: socket(node, "forwarder.sock"),
          NSM_TUNNEL_IP: underlay[node],
          NODE_NAME: node,
        }),
      ),
      ...wires.map((wire) =>
        part("nse", wire.endpoint, `pod-${wire.endpoint}`, `nse/${wire.endpoint}`, {
          NSM_NAME: wire.endpoint,
          NSM_CONNECT_TO: managerOf(wire.node),
          NSM_LISTEN_ON: socket("pods", `${wire.endpoint}.sock`),
          NSM_SERVICE_NAMES: wire.service,
          NSM_PAYLOAD: wire.payload,
          NSM_CIDR_PREFIX: wire.prefixes,
          NODE_NAME: wire.node,
          POD_NAME: wire.endpoint,
        }),
      ),
      part("nsc", CLIENT, `pod-${CLIENT}`, `nsc/${CLIENT}`, {
        NSM_NAME: CLIENT,
        NSM_CONNECT_TO: managerOf("node1"),
        NSM_NETWORK_SERVICES: wires.map((wire) => `kernel://${wire.service}/${wire.interface}`).join(","),
        NODE_NAME: "node1",
        POD_NAME: CLIENT,
      }),
    ],
  };
}
