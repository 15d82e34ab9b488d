/** The manager's variables. */
import {
  address,
  addressList,
  commonTable,
  duration,
  optionalText,
  path,
  policies,
  text,
} from "../sdk/config.ts";
import type { ConfigOf, Table } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { refusedAddresses } from "../sdk/endpoint-url.ts";
import { idPatterns } from "../sdk/peer-ids.ts";

export const table = {
  name: text("NSM_NAME", Defaults.nameOf("nsmgr"), "own path segment name, unique in the mesh"),
  listenOn: addressList(
    "NSM_LISTEN_ON",
    `${Defaults.managerSocket},${Defaults.managerPort}`,
    "unix socket for this node's workloads and TCP address for other nodes; the first TCP one is published",
  ),
  registryUrl: address("NSM_REGISTRY_URL", Defaults.registryUrl, "registry of the mesh"),
  dialTimeoutMs: duration(
    "NSM_DIAL_TIMEOUT",
    "750ms",
    "longest wait for a session with forwarder or registry",
  ),
  forwarderService: text(
    "NSM_FORWARDER_NETWORK_SERVICE_NAME",
    Defaults.forwarderService,
    "network service under which forwarders register",
  ),
  forwarderIds: idPatterns("NSM_FORWARDER_IDS", Defaults.forwarderIds, "who may register as forwarder"),
  proxyIds: idPatterns("NSM_PROXY_IDS", Defaults.proxyIds, "who may pass on Requests of other domains"),
  registryIds: idPatterns("NSM_REGISTRY_IDS", Defaults.registryIds, "who may answer as registry"),
  operatorIds: idPatterns(
    "NSM_OPERATOR_IDS",
    Defaults.operatorIds,
    "who may look at everybody's wires, without their tokens; none: nobody",
  ),
  refusedAddresses: refusedAddresses(),
  registryServerPolicies: policies("NSM_REGISTRY_SERVER_POLICIES", "server"),
  registryClientPolicies: policies("NSM_REGISTRY_CLIENT_POLICIES", "client"),
  excludedPrefixesPath: path(
    "NSM_EXCLUDED_PREFIXES_PATH",
    "/var/lib/networkservicemesh/config/excluded_prefixes.yaml",
    "file with prefixes that endpoints must not give out (prefixes: [10.96.0.0/12]), read again when it changes",
  ),
  failbackDelayMs: duration(
    "NSM_FAILBACK_DELAY",
    "30s",
    "how long an endpoint of a better tier must have been back before wires return to it",
  ),
  clientGraceMs: duration(
    "NSM_CLIENT_GRACE",
    "1s",
    "how long the wires of a client that was killed wait for it to be started again",
  ),
  forwarderGraceMs: duration(
    "NSM_FORWARDER_GRACE",
    "5s",
    "how long the wires of a forwarder that ended wait for it to be started again, where another one of the node could have them",
  ),
  nodeName: optionalText("NODE_NAME", "", "label nodeName of clients and endpoints of this node"),
  podName: optionalText("POD_NAME", "", "label podName where a workload has none of its own"),
  zoneName: optionalText("ZONE_NAME", "", "label zoneName of clients and endpoints of this node"),
  clusterName: optionalText("CLUSTER_NAME", "", "label clusterName of clients and endpoints"),
  ...commonTable,
} as const satisfies Table;

export type ManagerConfig = ConfigOf<typeof table>;
