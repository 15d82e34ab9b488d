/** The processes of a run: daemons of its sites, endpoints and clients, with their environment. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { NsmError } from "../../sdk/errors.ts";
import {
  identityUrl,
  managerUrl,
  metricsSocket,
  outside,
  proxyAdminUrl,
  registrationsFile,
  runFolder,
  sitesOf,
  underlay,
} from "./topology.ts";
import type { Layout, NodeName, Part, Site, Topology } from "./topology.ts";

type Environment = Readonly<Record<string, string>>;

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

type MakePart = (
  role: Part["role"],
  name: string,
  place: string,
  spiffePath: string | undefined,
  env: Environment,
) => Part;

/** Makes the parts of one run. */
export interface Parts {
  /** The run's. */
  readonly folder: string;
  readonly sites: readonly Site[];
  /** Of all nodes, and what they share; the authorities first. */
  readonly daemons: readonly Part[];
  /** Contents of files that they read, by name below the run's folder. */
  readonly files: Readonly<Record<string, string>>;
  endpoint(spec: EndpointSpec): Part;
  client(spec: ClientSpec): Part;
}

export interface PartsOptions {
  readonly layout: Layout;
  readonly logLevel: string;
  /** Whether the parts serve their metrics: in a run that nobody looks at they only cost. */
  readonly metrics: boolean;
  /** How long somebody better must have been back before wires return; default that of the managers. */
  readonly failbackDelay?: string;
  /** Manifests of network services for a site's registry. */
  readonly services?: (site: Site) => string | undefined;
  /** Domains that the proxies know beside the clusters, as NSM_DOMAINS_PATH has them. */
  readonly domains?: Readonly<Record<string, { readonly registry: string; readonly proxy?: string }>>;
}

export function createParts(run: string, options: PartsOptions): Parts {
  const { layout, logLevel, metrics, services = () => undefined } = options;
  const folder = runFolder(run);
  const sites = sitesOf(layout);
  const makeIn =
    (site: Site): MakePart =>
    (role, name, place, spiffePath, env) => ({
      role,
      name,
      place,
      site,
      spiffePath,
      gid: GID[role],
      env: {
        NSM_LOG_LEVEL: logLevel,
        ...(metrics && { NSM_METRICS_LISTEN_ON: `unix://${metricsSocket(folder, name)}` }),
        ...(role !== "identity" && { SPIFFE_ENDPOINT_SOCKET: identityUrl(folder, site.authority) }),
        ...env,
      },
    });
  const siteOf = (node: NodeName): Site => {
    const site = sites.find(({ nodes }) => nodes.includes(node));
    if (site === undefined) throw new NsmError("INTERNAL", "no-such-node", `the run has no ${node}`);
    return site;
  };
  const workload = (
    role: "nse" | "nsc",
    { name, node = "node1", env }: WorkloadSpec,
    more: Environment,
  ): Part =>
    makeIn(siteOf(node))(role, name, `pod-${name}`, `${role}/${name}`, {
      NSM_NAME: name,
      NSM_CONNECT_TO: managerUrl(folder, node),
      NODE_NAME: node,
      POD_NAME: name,
      ...more,
      ...env,
    });
  const authorities = new Map(sites.map((site) => [site.authority, site]));
  return {
    folder,
    sites,
    daemons: [
      ...[...authorities].map(([name, site]) =>
        makeIn(site)("identity", name, name, undefined, {
          NSM_IDENTITY_TRUST_DOMAIN: site.trustDomain,
          NSM_IDENTITY_LISTEN_ON: identityUrl(folder, name),
          NSM_IDENTITY_STATE_DIR: join(folder, name),
          NSM_IDENTITY_REGISTRATIONS: registrationsFile(folder, name),
        }),
      ),
      ...sites.flatMap((site) => [
        ...commonDaemons(site, services(site) !== undefined, folder, makeIn(site)),
        ...nodeDaemons(site, folder, makeIn(site), options),
      ]),
    ],
    files: Object.fromEntries(
      sites.flatMap((site) => {
        const content = services(site);
        return [
          ...(content === undefined ? [] : [[servicesFile(site), content] as const]),
          ...domainFiles(site, sites, options.domains ?? {}),
        ];
      }),
    ),
    endpoint(spec) {
      const { kind, prefixes } = spec;
      const endpoint = workload("nse", spec, {
        NSM_LISTEN_ON: `unix://${join(folder, "pods", `${spec.name}.sock`)}`,
        NSM_SERVICE_NAMES: spec.service,
        NSM_PAYLOAD: spec.payload ?? "IP",
        ...(prefixes !== undefined && { NSM_CIDR_PREFIX: prefixes }),
      });
      if (kind === undefined) {
        const policies = join(folder, "pods", `${spec.name}-policy-routes.yaml`);
        return { ...endpoint, env: { NSM_PBR_CONFIG_PATH: policies, ...endpoint.env } };
      }
      // Who passes packets on changes the routes of its own namespace.
      return { ...endpoint, command: ["nse", kind], capabilities: kind === "supplier" ? [] : ["net_admin"] };
    },
    client: (spec) => workload("nsc", spec, { NSM_NETWORK_SERVICES: spec.services }),
  };
}

/** A registry, and the door to other clusters. */
function commonDaemons(site: Site, hasServices: boolean, folder: string, make: MakePart): readonly Part[] {
  const {
    cluster,
    nodes: [first],
  } = site;
  const registryUrl = registryAt(underlay[first]);
  const directory = {
    NSM_LISTEN_ON: registryUrl,
    ...(hasServices && { NSM_NETWORK_SERVICES_PATH: join(folder, servicesFile(site)) }),
  };
  if (cluster === undefined) return [make("registry", "registry", first, "registry", directory)];
  const proxyUrl = proxyAt(underlay[first]);
  return [
    make("registry", `registry-${cluster}`, first, `registry/${cluster}`, {
      ...directory,
      NSM_PROXY_REGISTRY_URL: proxyUrl,
    }),
    make("proxy", `proxy-${cluster}`, first, `proxy/${cluster}`, {
      NSM_NAME: `proxy-${cluster}`,
      NSM_DOMAIN: cluster,
      NSM_LISTEN_ON: proxyUrl,
      NSM_REGISTRY_URL: registryUrl,
      NSM_DOMAINS_PATH: join(folder, cluster, DOMAINS_FILE),
      NSM_MAP_IP_FILE_PATH: join(folder, cluster, OUTSIDE_FILE),
      NSM_PROXY_STATE_DIR: join(folder, cluster, "proxy"),
      NSM_PROXY_ADMIN_LISTEN_ON: proxyAdminUrl(folder, cluster),
    }),
  ];
}

function nodeDaemons(
  { nodes }: Site,
  folder: string,
  make: MakePart,
  { failbackDelay }: PartsOptions,
): readonly Part[] {
  const registryUrl = registryAt(underlay[nodes[0]]);
  return [
    ...nodes.map((node) =>
      make("nsmgr", `nsmgr-${node}`, node, `nsmgr/${node}`, {
        NSM_NAME: `nsmgr-${node}`,
        NSM_LISTEN_ON: `${managerUrl(folder, node)},tcp://${underlay[node]}:5001`,
        NSM_REGISTRY_URL: registryUrl,
        // Not the machine's.
        NSM_EXCLUDED_PREFIXES_PATH: join(folder, node, "excluded_prefixes.yaml"),
        NODE_NAME: node,
        ...(failbackDelay !== undefined && { NSM_FAILBACK_DELAY: failbackDelay }),
      }),
    ),
    ...nodes.map((node) =>
      make("forwarder", `forwarder-${node}`, node, `forwarder/${node}`, {
        NSM_NAME: `forwarder-${node}`,
        NSM_CONNECT_TO: managerUrl(folder, node),
        NSM_LISTEN_ON: `unix://${join(folder, node, "forwarder.sock")}`,
        NSM_TUNNEL_IP: underlay[node],
        NODE_NAME: node,
      }),
    ),
  ];
}

/** Of a cluster, in its folder. */
const DOMAINS_FILE = "domains.yaml";
const OUTSIDE_FILE = "outside.yaml";

/** Below the run's folder. */
function servicesFile({ cluster }: Site): string {
  return join(cluster ?? "", "network-services.yaml");
}

/** Tell a proxy where the others are that it need not be linked with, and which addresses the own nodes have outside. */
function domainFiles(
  { cluster, nodes, trustDomain }: Site,
  sites: readonly Site[],
  more: PartsOptions["domains"],
): readonly (readonly [string, string])[] {
  if (cluster === undefined) return [];
  const others = sites
    .filter((site) => site.cluster !== cluster && site.trustDomain === trustDomain)
    .map(({ cluster: name, nodes: [first] }) => [
      name,
      { registry: registryAt(outside[first]), proxy: proxyAt(outside[first]) },
    ]);
  const domains: unknown = { ...Object.fromEntries(others), ...more };
  const addresses = Object.fromEntries(nodes.map((node) => [underlay[node], outside[node]]));
  return [
    [join(cluster, DOMAINS_FILE), `${JSON.stringify({ domains })}\n`], // JSON is YAML
    [join(cluster, OUTSIDE_FILE), `${JSON.stringify(addresses)}\n`],
  ];
}

/** Its folders are there. */
export function writeFiles({ folder, files }: Topology): void {
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
}

function registryAt(address: string): string {
  return `tcp://${address}:5002`;
}

function proxyAt(address: string): string {
  return `tcp://${address}:5004`;
}
