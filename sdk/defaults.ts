/**
 * Where the daemons of one node meet when nobody says otherwise: one table, so that nothing collides and nothing lies in `/`.
 * The Go programs share port 5001 between manager and registry, and keep sockets in the root directory.
 */
import { hostname } from "node:os";

export const Defaults = {
  /** The manager's socket for workloads; the same as in the Go programs, pods mount its directory. */
  managerSocket: "unix:///var/lib/networkservicemesh/nsm.io.sock",
  /** The manager for other nodes. */
  managerPort: "tcp://:5001",
  registryListen: "tcp://:5002",
  registryUrl: "tcp://localhost:5002",
  /** The proxy for this domain's registry and forwarders, and for other domains. */
  proxyListen: "tcp://:5004",
  /** Of the proxy, for operators on its node. */
  proxyAdmin: "unix:///run/nsm/proxy.sock",
  registryProxyListen: "tcp://:5005",
  forwarderSocket: "unix:///run/nsm/forwarder.sock",
  identitySocket: "unix:///run/nsm/identity.sock",
  identityStateDir: "/var/lib/nsm/identity",
  forwarderService: "forwarder",
  /** Streams that one session may have open at a manager or registry: each endpoint of a node watches its own records there. */
  watchStreams: 1000,
  vxlanPort: 4789,
  wireguardPorts: "51820-52843",
  /** Path segment names must differ along a path, so they carry the host's. */
  nameOf: (role: string) => `${role}-${hostname()}`,
  /** Ids of the daemons in the own trust domain: this project's scheme, and that of the pods in the Kubernetes manifests of the Go programs. */
  managerIds: "/nsmgr/*,/ns/nsm-system/pod/*",
  forwarderIds: "/forwarder/*,/ns/nsm-system/pod/*",
  registryIds: "/registry,/registry/*,/ns/nsm-system/pod/*",
  proxyIds: "/nsmgr-proxy/*,/registry-proxy/*,/proxy/*,/ns/nsm-system/pod/*",
  /** People and tools that look at wires of others. The pods of the Go manifests have four segments, so none of them is one by chance. */
  operatorIds: "/operator/*",
} as const;
