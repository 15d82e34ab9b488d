/** A daemon of ours starts with the environment of its Go counterpart: every variable is read, translated or refused. */
import { expect, test } from "vitest";
import { table as forwarder } from "../../forwarder/config.ts";
import { table as nsc } from "../../nsc/config.ts";
import { table as nse } from "../../nse/config.ts";
import { table as nsmgr } from "../../nsmgr/config.ts";
import { managerProxyTable, registryProxyTable } from "../../proxy/config.ts";
import { table as registry } from "../../registry/config.ts";
import { readConfig } from "../../sdk/config.ts";
import type { Table } from "../../sdk/config.ts";
import { NsmError } from "../../sdk/errors.ts";

const SERVER_POLICIES = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/server/.*.rego";
const CLIENT_POLICIES = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/client/.*.rego";

/** The variables of the Go programs with their defaults, or a value where there is none. */
const COMMON = {
  NSM_LOG_LEVEL: "INFO",
  NSM_MAX_TOKEN_LIFETIME: "10m",
  NSM_OPEN_TELEMETRY_ENDPOINT: "otel-collector.observability.svc.cluster.local:4317",
  NSM_METRICS_EXPORT_INTERVAL: "10s",
  NSM_PPROF_ENABLED: "false",
  NSM_PPROF_LISTEN_ON: "localhost:6060",
  SPIFFE_ENDPOINT_SOCKET: "unix:///run/spire/sockets/agent.sock",
  NODE_NAME: "node-1",
  POD_NAME: "pod-1",
  CLUSTER_NAME: "cluster-1",
};

const PROGRAMS: readonly (readonly [string, Table, Readonly<Record<string, string>>])[] = [
  [
    "nsmgr",
    nsmgr,
    {
      NSM_NAME: "nmgr",
      NSM_LISTEN_ON: "unix:///var/lib/networkservicemesh/nsm.io.sock,tcp://:5001",
      NSM_REGISTRY_URL: "registry:5002",
      NSM_REGISTRY_SERVER_POLICIES: SERVER_POLICIES,
      NSM_REGISTRY_CLIENT_POLICIES: CLIENT_POLICIES,
      NSM_DIAL_TIMEOUT: "750ms",
      NSM_FORWARDER_NETWORK_SERVICE_NAME: "forwarder",
    },
  ],
  [
    "nsc",
    nsc,
    {
      NSM_NAME: "nsc",
      NSM_CONNECT_TO: "unix:///var/lib/networkservicemesh/nsm.io.sock",
      NSM_DIAL_TIMEOUT: "5s",
      NSM_REQUEST_TIMEOUT: "15s",
      NSM_NETWORK_SERVICES: "kernel://my-service/nsm-1?app=foo",
      NSM_AWARENESS_GROUPS: "[kernel://my-service/nsm-1?app=foo]",
      NSM_LABELS: "",
      NSM_MECHANISM: "kernel",
      NSM_LOCAL_DNS_SERVER_ENABLED: "true",
      NSM_LOCAL_DNS_SERVER_ADDRESS: "127.0.0.1:53",
      NSM_LIVENESS_CHECK_ENABLED: "true",
      NSM_LIVENESS_CHECK_INTERVAL: "200ms",
      NSM_LIVENESS_CHECK_TIMEOUT: "1s",
    },
  ],
  [
    "nse",
    nse,
    {
      NSM_NAME: "icmp-server",
      NSM_BASE_DIR: "./",
      NSM_CONNECT_TO: "unix:///var/lib/networkservicemesh/nsm.io.sock",
      NSM_REGISTRY_CLIENT_POLICIES: CLIENT_POLICIES,
      NSM_IPAM_POLICY: "polite",
      NSM_SERVICE_NAMES: "icmp-responder",
      NSM_PAYLOAD: "ETHERNET",
      NSM_LABELS: "app:icmp,zone:a",
      NSM_DNS_CONFIGS: '[{"dns_server_ips":["172.16.1.2"],"search_domains":["my.coredns.service"]}]',
      NSM_CIDR_PREFIX: "172.16.1.100/31,2001:db8::/116",
      NSM_IDLE_TIMEOUT: "30s",
      NSM_REGISTER_SERVICE: "true",
      NSM_UNREGISTER_ITSELF: "false",
      NSM_PBR_CONFIG_PATH: "/etc/policy-based-routing/config.yaml",
    },
  ],
  [
    "registry",
    registry,
    {
      NSM_LISTEN_ON: "tcp://:5002",
      NSM_REGISTRY_SERVER_POLICIES: SERVER_POLICIES,
      NSM_REGISTRY_CLIENT_POLICIES: CLIENT_POLICIES,
      NSM_PROXY_REGISTRY_URL: "nsmgr-proxy:5004",
      NSM_EXPIRE_PERIOD: "1s",
    },
  ],
  [
    "nsmgr-proxy",
    managerProxyTable,
    {
      NSM_NAME: "nsmgr-proxy",
      NSM_LISTEN_ON: "tcp://:5004",
      NSM_MAP_IP_FILE_PATH: "map-ip.yaml",
      NSM_REGISTRY_PROXY_URL: "registry-proxy:5005",
      NSM_REGISTRY_URL: "registry:5002",
      NSM_REGISTRY_SERVER_POLICIES: SERVER_POLICIES,
      NSM_REGISTRY_CLIENT_POLICIES: CLIENT_POLICIES,
    },
  ],
  [
    "registry-proxy",
    registryProxyTable,
    {
      NSM_LISTEN_ON: "tcp://:5005",
      NSM_REGISTRY_SERVER_POLICIES: SERVER_POLICIES,
      NSM_REGISTRY_CLIENT_POLICIES: CLIENT_POLICIES,
    },
  ],
  [
    "forwarder",
    forwarder,
    {
      NSM_NAME: "forwarder",
      NSM_LABELS: "p2p:true",
      NSM_NSNAME: "forwarder",
      NSM_CONNECT_TO: "unix:///connect.to.socket",
      NSM_LISTEN_ON: "unix:///listen.on.socket",
      NSM_REGISTRY_CLIENT_POLICIES: CLIENT_POLICIES,
      NSM_DIAL_TIMEOUT: "750ms",
      NSM_TUNNEL_IP: "172.18.0.3",
      NSM_VXLAN_PORT: "0",
      NSM_MECHANISM_PRIORITY: "",
      NSM_VPP_MIN_OPERATION_TIMEOUT: "2s",
    },
  ],
];

test.each(PROGRAMS)(
  "%s starts with the environment of its Go counterpart, and knows all of it",
  (_, table, own) => {
    const warnings: string[] = [];
    expect(() => readConfig(table, { ...COMMON, ...own }, (line) => warnings.push(line))).not.toThrow();
    expect(warnings).toEqual([]);
  },
);

test.each([
  ["nsmgr", nsmgr, { NSM_REGISTRY_SERVER_POLICIES: "/etc/own/.*.rego" }],
  ["nsmgr", nsmgr, { NSM_REGISTRY_CLIENT_POLICIES: "/etc/own/.*.rego" }],
  ["registry", registry, { NSM_REGISTRY_SERVER_POLICIES: SERVER_POLICIES + ",x.rego" }],
  ["nse", nse, { NSM_DNS_CONFIGS: '[{"dns_server_ips":["ns.example"]}]' }],
  ["nsc", nsc, { NSM_NETWORK_SERVICES: "kernel://a", NSM_AWARENESS_GROUPS: "[kernel://a],[" }],
  ["nsc", nsc, { NSM_NETWORK_SERVICES: "kernel://a", NSM_MECHANISM: "vfio" }],
] as const)("%s refuses to start with what it would have to ignore: %#", (_, table, env) => {
  const [name] = Object.keys(env).slice(-1);
  expect(() => readConfig(table, env, () => undefined)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", message: expect.stringContaining(name ?? "") }),
  );
});

test("every fault of an environment is reported at once", () => {
  const env = { NSM_NETWORK_SERVICES: "vfio://a", NSM_REQUEST_TIMEOUT: "soon", NSM_CONNECT_TO: "http://x" };
  const fault = () => readConfig(nsc, env, () => undefined);
  expect(fault).toThrow(NsmError);
  for (const name of Object.keys(env)) expect(fault).toThrow(new RegExp(name));
});
