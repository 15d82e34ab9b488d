/** The endpoint's variables. */
import {
  address,
  bool,
  commonTable,
  duration,
  kindOf,
  list,
  map,
  oneOf,
  optionalText,
  path,
  policies,
  text,
} from "../sdk/config.ts";
import type { ConfigOf, Table } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { parsePrefixGroups } from "../sdk/ipam/group.ts";
import { idPatterns } from "../sdk/peer-ids.ts";
import { parseDnsOffers } from "./dns-context.ts";

const dnsOffers = kindOf("JSON", parseDnsOffers);
const prefixGroups = kindOf("prefix groups", parsePrefixGroups);

/** Of every endpoint. */
export const endpointTable = {
  name: text("NSM_NAME", Defaults.nameOf("nse"), "registration and path segment name, unique in the mesh"),
  connectTo: address("NSM_CONNECT_TO", Defaults.managerSocket, "the manager of this node"),
  managerIds: idPatterns("NSM_MANAGER_IDS", Defaults.managerIds, "who may answer as manager"),
  forwarderIds: idPatterns(
    "NSM_FORWARDER_IDS",
    Defaults.forwarderIds,
    "who may ask for wires: the forwarder of this node",
  ),
  listenOn: optionalText(
    "NSM_LISTEN_ON",
    "",
    "unix:///path of the own socket; unset makes one in a private directory",
  ),
  serviceNames: list("NSM_SERVICE_NAMES", "icmp-responder", "network services that the endpoint offers"),
  labels: map("NSM_LABELS", "", "labels of the endpoint for each service"),
  registerService: bool("NSM_REGISTER_SERVICE", "true", "register the network services, too"),
  unregisterItself: bool(
    "NSM_UNREGISTER_ITSELF",
    "false",
    "unregister at the end; with an idle timeout it always does",
  ),
  registryClientPolicies: policies("NSM_REGISTRY_CLIENT_POLICIES", "client"),
  idleTimeoutMs: duration(
    "NSM_IDLE_TIMEOUT",
    "0",
    "unregister and stop (exit code 0) after this long without a connection; 0 = never",
  ),
  nodeName: optionalText("NODE_NAME", "", "label nodeName of the endpoint"),
  podName: optionalText("POD_NAME", "", "label podName of the endpoint"),
  zoneName: optionalText("ZONE_NAME", "", "label zoneName of the endpoint"),
  clusterName: optionalText("CLUSTER_NAME", "", "label clusterName of the endpoint"),
  ...commonTable,
} as const satisfies Table;

export const table = {
  ...endpointTable,
  payload: oneOf("IP", "ETHERNET")(
    "NSM_PAYLOAD",
    "ETHERNET",
    "payload of the network services that it registers",
  ),
  cidrPrefix: prefixGroups(
    "NSM_CIDR_PREFIX",
    "169.254.0.0/16",
    "address pools: one address pair per group, [a,b] are alternatives",
  ),
  ipamPolicy: oneOf("polite", "strict")(
    "NSM_IPAM_POLICY",
    "polite",
    "strict drops addresses that a client brings from elsewhere",
  ),
  dnsConfigs: dnsOffers(
    "NSM_DNS_CONFIGS",
    "[]",
    'name servers for the clients: [{"dns_server_ips":["10.0.0.1"],"search_domains":["my.domain"]}]; without domains, for all names',
  ),
  pbrConfigPath: path(
    "NSM_PBR_CONFIG_PATH",
    "/etc/policy-based-routing/config.yaml",
    "file with policy routes for the clients, read again when it changes; it may be absent",
  ),
  baseDir: optionalText("NSM_BASE_DIR", "", "read for compatibility"),
} as const satisfies Table;

export type EndpointConfig = ConfigOf<typeof table>;
