/** The forwarder's variables. */
import {
  address,
  addresses,
  bool,
  commonTable,
  duration,
  integer,
  kindOf,
  list,
  map,
  only,
  optionalIp,
  optionalText,
  policies,
  text,
} from "../sdk/config.ts";
import type { ConfigOf, Table } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { refusedAddresses } from "../sdk/endpoint-url.ts";
import { idPatterns } from "../sdk/peer-ids.ts";

const portRange = kindOf("port range", (value) => {
  const [, first, last] = /^(\d{1,5})-(\d{1,5})$/.exec(value) ?? [];
  const range = { first: Number(first), last: Number(last) };
  if (first === undefined || range.first === 0 || range.last > 65535 || range.first > range.last)
    throw new Error("expected two ports, such as 51820-52843");
  return range;
});

const NO_SRIOV = "SR-IOV devices are not supported";

export const table = {
  name: text(
    "NSM_NAME",
    Defaults.nameOf("forwarder"),
    "own path segment and registration name, unique in the mesh",
  ),
  labels: map("NSM_LABELS", "p2p:true", "labels that NetworkService matches select forwarders by"),
  service: text("NSM_NSNAME", Defaults.forwarderService, "network service to register under"),
  connectTo: address("NSM_CONNECT_TO", Defaults.managerSocket, "the manager of this node"),
  listenOn: address("NSM_LISTEN_ON", Defaults.forwarderSocket, "unix socket that the manager reaches"),
  proxyIds: idPatterns("NSM_PROXY_IDS", Defaults.proxyIds, "who may answer for endpoints of other domains"),
  managerIds: idPatterns(
    "NSM_MANAGER_IDS",
    Defaults.managerIds,
    "who may answer as manager, here and on other nodes",
  ),
  dialTimeoutMs: duration(
    "NSM_DIAL_TIMEOUT",
    "750ms",
    "longest wait for a session with a manager or endpoint",
  ),
  tunnelIp: optionalText("NSM_TUNNEL_IP", "", "own underlay address; unset takes the default route's"),
  externalIp: optionalIp(
    "NSM_EXTERNAL_IP",
    "",
    "address by which other domains reach this node, where it is another than NSM_TUNNEL_IP; the proxy's file of addresses is for many nodes",
  ),
  vxlanPort: integer(
    "NSM_VXLAN_PORT",
    "0",
    `UDP port of VXLAN wires, the same on every node; 0 means ${Defaults.vxlanPort}`,
  ),
  vxlanUnfiltered: bool(
    "NSM_VXLAN_UNFILTERED",
    "false",
    "make VXLAN wires without nftables: whoever reaches the node's port can then send into them",
  ),
  wireguardPorts: portRange(
    "NSM_WIREGUARD_PORTS",
    Defaults.wireguardPorts,
    "UDP ports of WireGuard wires, one each; open them between nodes",
  ),
  acceptDefaultRoute: bool(
    "NSM_ACCEPT_DEFAULT_ROUTE",
    "false",
    "let endpoints give any client of this node a default route; a client can accept one for itself",
  ),
  protectedAddresses: addresses(
    "NSM_PROTECTED_ADDRESSES",
    "",
    "addresses that every client of this node keeps on its own network, whatever routes its wires have, as metadata services always are: name the servers of the cluster where clients do not say them (Go's)",
  ),
  mechanismPriority: list("NSM_MECHANISM_PRIORITY", "", "mechanisms to prefer, first is best"),
  refusedAddresses: refusedAddresses(),
  registryClientPolicies: policies("NSM_REGISTRY_CLIENT_POLICIES", "client"),
  nodeName: optionalText("NODE_NAME", "", "label nodeName of the registration"),
  podName: optionalText("POD_NAME", "", "label podName of the registration"),
  zoneName: optionalText("ZONE_NAME", "", "label zoneName of the registration"),
  clusterName: optionalText("CLUSTER_NAME", "", "label clusterName of the registration"),
  sriovConfig: only("NSM_SRIOV_CONFIG_FILE", [""], NO_SRIOV),
  vppMinOperationTimeout: optionalText(
    "NSM_VPP_MIN_OPERATION_TIMEOUT",
    "",
    "read for compatibility; there is no VPP",
  ),
  vppApiSocket: optionalText("NSM_VPP_API_SOCKET", "", "read for compatibility; there is no VPP"),
  ...commonTable,
} as const satisfies Table;

export type ForwarderConfig = ConfigOf<typeof table>;
