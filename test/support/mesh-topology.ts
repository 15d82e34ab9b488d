/** What a mesh of a test consists of: the demo's daemons, with endpoints, clients and lifetimes of the test's choice. */
import { topologyOf, wantedWires } from "../../cli/demo/topology.ts";
import type { NodeName, Part, Topology } from "../../cli/demo/topology.ts";

type Environment = Readonly<Record<string, string>>;

interface WorkloadOptions {
  /** Unique in the mesh; its namespace is `pod-<name>`. */
  readonly name: string;
  /** Default node1. */
  readonly node?: NodeName;
  /** Variables beside those that every part of its role has. */
  readonly env?: Environment;
  /** False: the test starts it later. */
  readonly started?: boolean;
}

export interface EndpointOptions extends WorkloadOptions {
  readonly service: string;
  /** Default IP. */
  readonly payload?: "IP" | "ETHERNET";
  readonly prefixes: string;
}

export interface ClientOptions extends WorkloadOptions {
  /** NSM_NETWORK_SERVICES. */
  readonly services: string;
}

export interface MeshOptions {
  /** 1: no daemons on node2. Default 2. */
  readonly nodes?: 1 | 2;
  readonly endpoints?: readonly EndpointOptions[];
  readonly clients?: readonly ClientOptions[];
  /** Names of hand-made workloads (test/support/workload.ts) with an identity `/workload/<name>` in any namespace. */
  readonly workloads?: readonly string[];
  /** Namespaces without a daemon, for workloads. */
  readonly pods?: readonly string[];
  /** Life of certificates; default an hour. */
  readonly svidLifetime?: string;
  /** Longest life of tokens; default ten minutes. */
  readonly tokenLifetime?: string;
  /** For every daemon. */
  readonly env?: Environment;
}

/** First group of hand-made workloads, beyond those of the demo's roles. */
const FIRST_WORKLOAD_GID = 64500;

export function gidOfWorkload(options: MeshOptions, name: string): number {
  const index = options.workloads?.indexOf(name) ?? -1;
  if (index < 0) throw new Error(`workload ${name} is not among those of the mesh`);
  return FIRST_WORKLOAD_GID + index;
}

/** Parts in the order in which they start; also those that the test starts later. */
export function meshTopology(run: string, options: MeshOptions): Topology {
  const { nodes = 2, endpoints = [], clients = [], pods = [] } = options;
  const demo = topologyOf(run, wantedWires, "INFO");
  const daemons = demo.parts.filter(({ role }) => role !== "nse" && role !== "nsc");
  const parts = [
    ...daemons.filter(({ place }) => nodes === 2 || place !== "node2"),
    ...endpoints.map((endpoint) => endpointPart(demo, endpoint)),
    ...clients.map((client) => clientPart(demo, client)),
  ];
  const ofPods = parts.filter(({ place }) => place.startsWith("pod-")).map(({ place }) => place);
  return {
    ...demo,
    places: [...new Set(["identity", "node1", "node2", ...ofPods, ...pods])],
    parts: parts.map((part) => ({
      ...part,
      env: { ...part.env, ...lifetimes(part, options), ...options.env },
    })),
  };
}

function lifetimes({ role }: Part, { svidLifetime, tokenLifetime }: MeshOptions): Environment {
  if (role === "identity")
    return svidLifetime === undefined ? {} : { NSM_IDENTITY_SVID_LIFETIME: svidLifetime };
  return tokenLifetime === undefined ? {} : { NSM_MAX_TOKEN_LIFETIME: tokenLifetime };
}

function endpointPart(demo: Topology, endpoint: EndpointOptions): Part {
  const { name, service, payload = "IP", prefixes } = endpoint;
  const part = workloadPart(demo, "nse", endpoint);
  const env = {
    NSM_LISTEN_ON: `unix://${demo.folder}/pods/${name}.sock`,
    NSM_SERVICE_NAMES: service,
    NSM_PAYLOAD: payload,
    NSM_CIDR_PREFIX: prefixes,
  };
  return { ...part, env: { ...part.env, ...env, ...endpoint.env } };
}

function clientPart(demo: Topology, client: ClientOptions): Part {
  const part = workloadPart(demo, "nsc", client);
  return { ...part, env: { ...part.env, NSM_NETWORK_SERVICES: client.services, ...client.env } };
}

/** Like the demo's part of that role, with another name and place. */
function workloadPart(demo: Topology, role: "nse" | "nsc", { name, node = "node1" }: WorkloadOptions): Part {
  const part = demo.parts.find((each) => each.role === role);
  if (part === undefined) throw new Error(`the demo has no part ${role}`);
  const env = {
    NSM_NAME: name,
    NSM_CONNECT_TO: `unix://${demo.folder}/${node}/nsmgr.sock`,
    NODE_NAME: node,
    POD_NAME: name,
  };
  return { ...part, name, place: `pod-${name}`, spiffePath: `${role}/${name}`, env: { ...part.env, ...env } };
}
