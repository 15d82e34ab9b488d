/** The client's variables. */
import { address, bool, commonTable, duration, kindOf, only, optionalText, text } from "../sdk/config.ts";
import type { ConfigOf, Table } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { parseAwarenessGroups, parseServiceUrls } from "../sdk/ns-url.ts";
import { idPatterns } from "../sdk/peer-ids.ts";

const awarenessGroups = kindOf("groups of service URLs", parseAwarenessGroups);
const serviceUrls = kindOf("service URL list", parseServiceUrls);

export const table = {
  name: text("NSM_NAME", Defaults.nameOf("nsc"), "own path segment name and start of the connection ids"),
  connectTo: address("NSM_CONNECT_TO", Defaults.managerSocket, "the manager of this node"),
  managerIds: idPatterns("NSM_MANAGER_IDS", Defaults.managerIds, "who may answer as manager"),
  dialTimeoutMs: duration("NSM_DIAL_TIMEOUT", "5s", "longest wait for a session with the manager"),
  requestTimeoutMs: duration("NSM_REQUEST_TIMEOUT", "15s", "for one Request or Close"),
  services: serviceUrls(
    "NSM_NETWORK_SERVICES",
    undefined,
    "wires to keep: kernel://service[@domain][/interface][?label=value&…], comma-separated",
  ),
  awarenessGroups: awarenessGroups(
    "NSM_AWARENESS_GROUPS",
    "",
    "wires that may share addresses: [url,url],[url] of service URLs",
  ),
  labels: optionalText("NSM_LABELS", "", "read for compatibility; labels come from the service URLs"),
  mechanism: only("NSM_MECHANISM", ["kernel", "KERNEL"], "clients use kernel interfaces"),
  localDnsServerEnabled: bool(
    "NSM_LOCAL_DNS_SERVER_ENABLED",
    "false",
    "read for compatibility; names of wires are not resolved yet",
  ),
  localDnsServerAddress: optionalText("NSM_LOCAL_DNS_SERVER_ADDRESS", "", "read for compatibility"),
  livenessCheckEnabled: bool(
    "NSM_LIVENESS_CHECK_ENABLED",
    "false",
    "read for compatibility; wires are not probed yet",
  ),
  livenessCheckIntervalMs: duration("NSM_LIVENESS_CHECK_INTERVAL", "200ms", "read for compatibility"),
  livenessCheckTimeoutMs: duration("NSM_LIVENESS_CHECK_TIMEOUT", "1s", "read for compatibility"),
  nodeName: optionalText("NODE_NAME", "", "label nodeName of the connections"),
  podName: optionalText("POD_NAME", "", "label podName of the connections"),
  zoneName: optionalText("ZONE_NAME", "", "label zoneName of the connections"),
  clusterName: optionalText("CLUSTER_NAME", "", "label clusterName of the connections"),
  ...commonTable,
} as const satisfies Table;

export type ClientConfig = ConfigOf<typeof table>;
