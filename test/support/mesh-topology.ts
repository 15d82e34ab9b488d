/** What a mesh of a test consists of: the demo's daemons, with endpoints, clients and lifetimes of the test's choice. */
import { join } from "node:path";
import { NODES, createParts, placesOf, runFolder, underlay } from "../../cli/demo/topology.ts";
import type { ClientSpec, EndpointSpec, NodeName, Part, Parts, Topology } from "../../cli/demo/topology.ts";

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
  /** 1: no daemons on node2. Default 2. */
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
  /** Manifests of network services, for the registry. */
  readonly networkServices?: string;
  /** Each node is a domain of its own, `east` and `west`, with a registry and a proxy. */
  readonly domains?: boolean;
  /** Beside those a third domain, `floating`, which is a registry alone. */
  readonly floating?: boolean;
  /** How long the wires of a killed client wait for its restart; default a second. */
  readonly clientGrace?: string;
  /** For every daemon, or by its name. */
  readonly env?: Environment | ((part: string) => Environment);
  /** The words that start `nsm`; default those of this checkout. */
  readonly nsm?: readonly string[];
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
  const make = createParts(run, { logLevel: "INFO", metrics: false });
  const parts = [
    ...(options.domains === true ? domainDaemons(make, options) : make.daemons).filter(
      ({ place }) => nodes === 2 || place !== "node2",
    ),
    ...(options.spareForwarder === true ? spareOf(make.daemons) : []),
    ...endpoints.map((endpoint) => make.endpoint(endpoint)),
    ...clients.map((client) => {
      const part = make.client(client);
      return client.beside === undefined ? part : { ...part, place: `pod-${client.beside}` };
    }),
  ];
  return {
    run,
    folder: runFolder(run),
    places: [...new Set([...placesOf(parts), ...pods])],
    parts: parts.map((part) => ({
      ...part,
      env: {
        ...part.env,
        ...servicesFile(part, run, options),
        ...lifetimes(part, options),
        ...envOf(part, options),
      },
    })),
  };
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

export const DOMAINS_FILE = "domains.yaml";
const DOMAINS = { node1: "east", node2: "west" } as const;

/** Where each domain's registry and proxy are, for the proxies. */
export function domainsFile(): string {
  const lines = NODES.map(
    (node) => `  ${DOMAINS[node]}: { registry: ${registryOf(node)}, proxy: ${proxyOf(node)} }`,
  );
  return ["domains:", ...lines, `  floating: { registry: ${FLOATING_REGISTRY} }`, ""].join("\n");
}

function registryOf(node: NodeName): string {
  return `tcp://${underlay[node]}:5002`;
}

const FLOATING_REGISTRY = `tcp://${underlay.node1}:5012`;

function proxyOf(node: NodeName): string {
  return `tcp://${underlay[node]}:5004`;
}

function domainDaemons(make: Parts, { floating = false }: MeshOptions): readonly Part[] {
  const registries = NODES.map((node) =>
    make.daemon("registry", `registry-${DOMAINS[node]}`, node, {
      NSM_LISTEN_ON: registryOf(node),
      NSM_PROXY_REGISTRY_URL: proxyOf(node),
    }),
  );
  const floatingRegistry = {
    ...make.daemon("registry", "registry-floating", "node1", {
      NSM_LISTEN_ON: FLOATING_REGISTRY,
      NSM_MANAGER_IDS: "/proxy/*", // who brings what others register
    }),
    spiffePath: undefined, // of the same group and namespace, it is known as that of the east is
  };
  const proxies = NODES.map((node) =>
    make.daemon("proxy", `proxy-${DOMAINS[node]}`, node, {
      NSM_NAME: `proxy-${DOMAINS[node]}`,
      NSM_LISTEN_ON: proxyOf(node),
      NSM_REGISTRY_URL: registryOf(node),
      NSM_DOMAINS_PATH: join(make.folder, DOMAINS_FILE),
    }),
  );
  const others = make.daemons
    .filter(({ role }) => role !== "registry")
    .map((part) => {
      const node = NODES.find((name) => name === part.place);
      if (part.role !== "nsmgr" || node === undefined) return part;
      return { ...part, env: { ...part.env, NSM_REGISTRY_URL: registryOf(node) } };
    });
  const authority = others.filter(({ role }) => role === "identity");
  return [
    ...authority,
    ...registries,
    ...(floating ? [floatingRegistry] : []),
    ...proxies,
    ...others.filter((part) => !authority.includes(part)),
  ];
}

export const SERVICES_FILE = "network-services.yaml";

function servicesFile({ role }: Part, run: string, { networkServices }: MeshOptions): Environment {
  if (role !== "registry" || networkServices === undefined) return {};
  return { NSM_NETWORK_SERVICES_PATH: `${runFolder(run)}/${SERVICES_FILE}` };
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
