/** What a mesh of a test consists of: the demo's daemons, with endpoints, clients and lifetimes of the test's choice. */
import { createParts } from "../../cli/demo/parts.ts";
import type { ClientSpec, EndpointSpec } from "../../cli/demo/parts.ts";
import { placesOf } from "../../cli/demo/topology.ts";
import type { ClusterName, Layout, Part, Topology } from "../../cli/demo/topology.ts";
import { FLOATING, FLOATING_SERVICES_FILE, floatingDomain, floatingRegistry } from "./floating.ts";

type Environment = Readonly<Record<string, string>>;

interface Start {
  /** False: the test starts it later. */
  readonly started?: boolean;
}

export type EndpointOptions = EndpointSpec & Start;
export type ClientOptions = ClientSpec &
  Start & {
    /** An endpoint in whose pod it lives; default one of its own. */
    readonly beside?: string;
  };

export interface MeshOptions {
  /**
   * Two clusters, with node1 and node2 in `east`, node3 and node4 in `west`: each with its own trust domain, and linked; `unified`:
   * in one trust domain, known to each other by NSM_DOMAINS_PATH. Default: one mesh.
   */
  readonly clusters?: boolean | "unified";
  /** False: clusters with trust domains of their own know nothing of one another yet. */
  readonly linked?: boolean;
  /** Services of linked clusters that the other one may use, beside those whose manifests say so. */
  readonly exports?: Readonly<Partial<Record<ClusterName, readonly string[]>>>;
  /** Beside unified clusters a third domain, `floating`, which is a registry alone. */
  readonly floating?: boolean;
  /** 1: daemons on the first node alone, of each cluster. Default 2. */
  readonly nodes?: 1 | 2;
  readonly endpoints?: readonly EndpointOptions[];
  readonly clients?: readonly ClientOptions[];
  /** A second forwarder on node1, `forwarder-spare`. */
  readonly spareForwarder?: boolean;
  /** Names of hand-made workloads (test/support/workload.ts) with an identity `/workload/<name>` in any namespace. */
  readonly workloads?: readonly string[];
  /** Namespaces without a daemon, for workloads. */
  readonly pods?: readonly string[];
  /** Life of certificates; default an hour. */
  readonly svidLifetime?: string;
  /** Longest life of tokens; default ten minutes. */
  readonly tokenLifetime?: string;
  /** Manifests of network services, for the registry, or for those of the clusters and of the floating domain. */
  readonly networkServices?: string | Readonly<Partial<Record<ClusterName | typeof FLOATING, string>>>;
  /** How long the wires of a killed client wait for its restart; default a second. */
  readonly clientGrace?: string;
  /** For every daemon, or by its name. */
  readonly env?: Environment | ((part: string) => Environment);
  /** The words that start `nsm`; default those of this checkout. */
  readonly nsm?: readonly string[];
  /** A file of test/support that is run in place of `nsm identity`. */
  readonly authority?: string;
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
  const make = createParts(run, {
    layout: layoutOf(options),
    logLevel: "INFO",
    metrics: false,
    services: ({ cluster }) => servicesOf(cluster, options),
    ...(options.floating === true && { domains: floatingDomain }),
  });
  const { folder, sites } = make;
  const floatingServices = servicesOf(FLOATING, options);
  const parts = [
    ...make.daemons.filter(({ place }) => nodes === 2 || !sites.some((site) => site.nodes[1] === place)),
    ...(options.floating === true ? [floatingRegistry(make, floatingServices)] : []),
    ...(options.spareForwarder === true ? spareOf(make.daemons) : []),
    ...endpoints.map((endpoint) => make.endpoint(endpoint)),
    ...clients.map((client) => {
      const part = make.client(client);
      return client.beside === undefined ? part : { ...part, place: `pod-${client.beside}` };
    }),
  ];
  return {
    run,
    folder,
    sites,
    files: {
      ...make.files,
      ...(floatingServices !== undefined && { [FLOATING_SERVICES_FILE]: floatingServices }),
    },
    places: [...new Set([...placesOf(sites, parts), ...pods])],
    parts: parts.map((part) => ({
      ...part,
      env: {
        ...part.env,
        ...lifetimes(part, options),
        ...envOf(part, options),
      },
    })),
  };
}

function layoutOf({ clusters = false }: MeshOptions): Layout {
  if (clusters === "unified") return "unified";
  return clusters ? "clusters" : "alone";
}

/** Whether the mesh links its clusters. */
export function isLinked({ clusters, linked = true }: MeshOptions): boolean {
  return clusters === true && linked;
}

function spareOf(parts: readonly Part[]): readonly Part[] {
  const name = "forwarder-spare";
  return parts
    .filter(({ role, place }) => role === "forwarder" && place === "node1")
    .map((part) => ({
      ...part,
      name,
      spiffePath: undefined, // of the same group and namespace, it is known as the other one is
      env: {
        ...part.env,
        NSM_NAME: name,
        NSM_LISTEN_ON: (part.env["NSM_LISTEN_ON"] ?? "").replace("forwarder.sock", `${name}.sock`),
      },
    }));
}

function servicesOf(
  domain: ClusterName | typeof FLOATING | undefined,
  { networkServices }: MeshOptions,
): string | undefined {
  if (typeof networkServices !== "object") return networkServices;
  return domain === undefined ? undefined : networkServices[domain];
}

function envOf({ name }: Part, { env = {} }: MeshOptions): Environment {
  return typeof env === "function" ? env(name) : env;
}

function lifetimes({ role }: Part, { svidLifetime, tokenLifetime, clientGrace }: MeshOptions): Environment {
  if (role === "identity")
    return svidLifetime === undefined ? {} : { NSM_IDENTITY_SVID_LIFETIME: svidLifetime };
  return {
    ...(tokenLifetime !== undefined && { NSM_MAX_TOKEN_LIFETIME: tokenLifetime }),
    ...(role === "nsmgr" && clientGrace !== undefined && { NSM_CLIENT_GRACE: clientGrace }),
  };
}
