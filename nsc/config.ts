/** The client's variables. */
import { address, bool, commonTable, duration, kindOf, only, optionalText, text } from "../sdk/config.ts";
import type { ConfigOf, Table } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { parseDomain } from "../sdk/dns/name.ts";
import { parseAwarenessGroups, parseServiceUrls } from "../sdk/ns-url.ts";
import { idPatterns } from "../sdk/peer-ids.ts";
import { formatAddress, parseIp } from "../sdk/prefix.ts";
import { parseProtectedAddresses } from "./protected-addresses.ts";

const awarenessGroups = kindOf("groups of service URLs", parseAwarenessGroups);
const domains = kindOf("list of domains", parseDomains);
const localAddress = kindOf("address and port", parseLocalAddress);
const protectedAddresses = kindOf("address list", parseProtectedAddresses);
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
  acceptDefaultRoute: bool(
    "NSM_ACCEPT_DEFAULT_ROUTE",
    "false",
    "let endpoints give this workload a default route, or policies that are one",
  ),
  protectedAddresses: protectedAddresses(
    "NSM_PROTECTED_ADDRESSES",
    "auto",
    "addresses that stay on the workload's own network whatever routes its wires have: auto is its name servers and the API server of Kubernetes, none gives them up; comma-separated",
  ),
  apiServer: optionalText(
    "KUBERNETES_SERVICE_HOST",
    "",
    "address of the API server, as Kubernetes sets it: one of those that are protected",
  ),
  mechanism: only("NSM_MECHANISM", ["kernel", "KERNEL"], "clients use kernel interfaces"),
  localDnsServerEnabled: bool(
    "NSM_LOCAL_DNS_SERVER_ENABLED",
    "true",
    "resolve names with the servers that wires offer, while one does",
  ),
  localDnsServerAddress: localAddress(
    "NSM_LOCAL_DNS_SERVER_ADDRESS",
    "127.0.0.1:53",
    "where the resolver listens; programs are told of it only on port 53",
  ),
  resolvConfPath: optionalText(
    "NSM_RESOLV_CONF",
    "",
    "file that tells programs of the resolver, and is put back afterwards; unset: /etc/resolv.conf, unless it may serve other network namespaces",
  ),
  acceptedDomains: domains(
    "NSM_DNS_ACCEPT_DOMAINS",
    "",
    "domains within the workload's own search domains that wires may answer for when they name them; other names there are for its own servers alone",
  ),
  livenessCheckEnabled: bool(
    "NSM_LIVENESS_CHECK_ENABLED",
    "true",
    "probe the wires by ICMP echo; a wire that has answered once and stops doing so is made anew",
  ),
  livenessCheckIntervalMs: duration("NSM_LIVENESS_CHECK_INTERVAL", "50ms", "between two probes of a wire"),
  livenessCheckTimeoutMs: duration(
    "NSM_LIVENESS_CHECK_TIMEOUT",
    "1s",
    "longest wait for an answer to a probe",
  ),
  nodeName: optionalText("NODE_NAME", "", "label nodeName of the connections"),
  podName: optionalText("POD_NAME", "", "label podName of the connections"),
  zoneName: optionalText("ZONE_NAME", "", "label zoneName of the connections"),
  clusterName: optionalText("CLUSTER_NAME", "", "label clusterName of the connections"),
  ...commonTable,
} as const satisfies Table;

export type ClientConfig = ConfigOf<typeof table>;

function parseDomains(value: string): readonly string[] {
  if (value === "") return [];
  return value.split(",").map((text) => {
    const domain = parseDomain(text);
    if (domain === undefined) throw new Error(`${JSON.stringify(text)} is no domain`);
    return domain;
  });
}

/** `127.0.0.1:53` or `[::1]:53`; port 0 is any. */
function parseLocalAddress(value: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(value) ?? [];
  const host = parseIp(bracketed ?? plain ?? "");
  if (host === undefined || Number(digits) > 65535)
    throw new Error("expected an address and a port: 127.0.0.1:53");
  return { host: formatAddress(host), port: Number(digits) };
}
