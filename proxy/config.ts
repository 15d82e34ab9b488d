/** The proxies' variables. */
import {
  addressList,
  address,
  commonTable,
  duration,
  integer,
  kindOf,
  optionalAddress,
  optionalIp,
  optionalText,
  path,
  policies,
  splitList,
  text,
} from "../sdk/config.ts";
import type { ConfigOf, Table, Variable } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { dnsDomains } from "../sdk/domains/dns-domains.ts";
import { refusedAddresses } from "../sdk/endpoint-url.ts";
import { idPatterns } from "../sdk/peer-ids.ts";
import { isDomainName } from "./link/token.ts";

const shared = {
  dialTimeoutMs: duration("NSM_DIAL_TIMEOUT", "750ms", "longest wait for a session"),
  registryIds: idPatterns(
    "NSM_REGISTRY_IDS",
    Defaults.registryIds,
    "who may answer as registry, here and in other domains",
  ),
  proxyIds: idPatterns(
    "NSM_PROXY_IDS",
    Defaults.proxyIds,
    "ids of proxies, in each domain's own trust domain",
  ),
  domainsPath: optionalText(
    "NSM_DOMAINS_PATH",
    "",
    "file with domains that are neither linked nor looked up in DNS (domains: { west: { registry: tcp://address:port, proxy: tcp://address:port, trustDomain: west.nsm } }), read again when it changes",
  ),
  dnsDomains: dnsDomains(
    "domains that are looked up in DNS, and the trust domains of the proxies that come from them",
  ),
  refusedAddresses: refusedAddresses(),
  registryServerPolicies: policies("NSM_REGISTRY_SERVER_POLICIES", "server"),
  registryClientPolicies: policies("NSM_REGISTRY_CLIENT_POLICIES", "client"),
  ...commonTable,
} as const satisfies Table;

/** How domains are found. */
const finding = {
  registryService: text(
    "NSM_REGISTRY_SERVICE",
    "registry.nsm-system",
    "name of a domain's registry, in front of the domain (DNS: SRV and A or AAAA)",
  ),
  proxyService: text(
    "NSM_NSMGR_PROXY_SERVICE",
    "nsmgr-proxy.nsm-system",
    "name of a domain's manager proxy, in front of the domain",
  ),
} as const satisfies Table;

const TUNNEL_MTU = { least: 576, most: 65_535 };

/** 1500, which any network lets through, less what WireGuard adds over IPv6. */
const tunnelMtuBytes: Variable<number> = {
  ...integer(
    "NSM_TUNNEL_MTU",
    "1420",
    "largest MTU of wires to other domains, in bytes: what the way between passes on, less 60 (WireGuard over IPv4) or 80 (over IPv6). Lower it where that way is narrow, raise it where it is wide; the smaller one of both domains counts, and wires with IPv6 addresses need 1280",
  ),
  parse(value) {
    const bytes = Number(value);
    if (/^\d+$/.test(value) && bytes >= TUNNEL_MTU.least && bytes <= TUNNEL_MTU.most) return bytes;
    throw new Error(`expected a whole number from ${TUNNEL_MTU.least} to ${TUNNEL_MTU.most}`);
  },
};

/** Names of either kind, or `*`. */
const domainNames = kindOf("list of domains", (value) => {
  const names = splitList(value);
  const bad = names.find((name) => name !== "*" && !/^[\w.-]+$/.test(name));
  if (bad !== undefined) throw new Error(`${JSON.stringify(bad)} is no domain`);
  return names;
});

const passing = {
  name: text("NSM_NAME", Defaults.nameOf("nsmgr-proxy"), "own path segment name, unique in all domains"),
  registryUrl: address("NSM_REGISTRY_URL", Defaults.registryUrl, "registry of this domain"),
  externalUrl: optionalAddress(
    "NSM_EXTERNAL_URL",
    "",
    "address by which other domains reach this proxy; else the published one, as the map of addresses has it",
  ),
  mapIpFilePath: optionalText(
    "NSM_MAP_IP_FILE_PATH",
    "",
    "file with the address that each node has for other domains (172.18.0.2: 203.0.113.2), or each network of them (192.0.2.0/24: 198.51.100.0/24), one a line, read again when it changes",
  ),
  externalIp: optionalIp(
    "NSM_EXTERNAL_IP",
    "",
    "address that nodes have for other domains which neither say one themselves nor stand in the file: for a cluster of one node",
  ),
  tunnelMtuBytes,
  clusterInfoPath: text(
    "NSM_CLUSTER_INFO_PATH",
    "/etc/clusterinfo/config.yaml",
    "file with labels that this cluster's clients and endpoints have in other domains (clusterName: east), read again when it changes; there need be none",
  ),
  unencryptedDomains: domainNames(
    "NSM_ALLOW_UNENCRYPTED_DOMAINS",
    "",
    "domains (or trust domains) with which wires may go unencrypted, by VXLAN: only where the network between is trusted; * for all",
  ),
  managerIds: idPatterns("NSM_MANAGER_IDS", Defaults.managerIds, "who may answer as manager of this domain"),
  forwarderIds: idPatterns(
    "NSM_FORWARDER_IDS",
    Defaults.forwarderIds,
    "who may ask for endpoints of other domains",
  ),
} as const satisfies Table;

/** A name, or none. */
const domain: Variable<string | undefined> = {
  ...optionalText(
    "NSM_DOMAIN",
    "",
    "name of this domain, by which linked domains know it (service@domain); without it there are no links",
  ),
  type: "domain",
  parse(value) {
    if (value === "" || isDomainName(value)) return value || undefined;
    throw new Error("expected lower-case letters, digits, dots and dashes, at most 63");
  },
};

const linking = {
  domain,
  linkPendingMs: duration(
    "NSM_LINK_PENDING",
    "1m",
    "how long a link may be half made; then both sides take it back",
  ),
} as const satisfies Table;

const admin = {
  stateDir: path(
    "NSM_PROXY_STATE_DIR",
    "/var/lib/nsm/proxy",
    "directory for what operators have said to this proxy",
  ),
  adminListenOn: addressList(
    "NSM_PROXY_ADMIN_LISTEN_ON",
    Defaults.proxyAdmin,
    "where operators reach this proxy (nsm export, nsm link)",
  ),
  operatorIds: idPatterns("NSM_OPERATOR_IDS", Defaults.operatorIds, "who may do so"),
} as const satisfies Table;

const listenOn = addressList(
  "NSM_LISTEN_ON",
  Defaults.proxyListen,
  "where the proxy serves; the first TCP address is published",
);

/** Both roles in one process. */
export const proxyTable = {
  ...linking,
  ...passing,
  ...admin,
  listenOn,
  ...finding,
  ...shared,
} as const satisfies Table;

export const managerProxyTable = {
  ...passing,
  ...admin,
  listenOn,
  registryProxyUrl: optionalAddress("NSM_REGISTRY_PROXY_URL", "", "registry proxy of this domain"),
  ...shared,
} as const satisfies Table;

export const registryProxyTable = {
  listenOn: addressList("NSM_LISTEN_ON", Defaults.registryProxyListen, "where the registry proxy serves"),
  ...finding,
  ...shared,
} as const satisfies Table;

export type SharedConfig = ConfigOf<typeof shared>;
export type FindingConfig = ConfigOf<typeof finding> & SharedConfig;
export type AdminConfig = ConfigOf<typeof admin>;
export type PassingConfig = ConfigOf<typeof passing> &
  AdminConfig &
  SharedConfig & { readonly listenOn: readonly string[] };
