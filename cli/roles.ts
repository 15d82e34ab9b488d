/** The daemons that `nsm` can run. Each is imported only when it is asked for. */
import type { Daemon } from "../sdk/daemon.ts";

export interface Role {
  readonly name: string;
  /** One line of `nsm --help`. */
  readonly summary: string;
  readonly load: () => Promise<Daemon>;
  /** Its other kinds: `nsm nse firewall`. */
  readonly kinds?: readonly Role[];
}

export const roles: readonly Role[] = [
  {
    name: "nsmgr",
    summary: "manager of one node: authenticates clients, finds forwarders and endpoints",
    load: async () => (await import("../nsmgr/main.ts")).daemon,
  },
  {
    name: "forwarder",
    summary: "data plane of one node: makes the wires in the kernel",
    load: async () => (await import("../forwarder/main.ts")).daemon,
  },
  {
    name: "registry",
    summary: "directory of network services and endpoints",
    load: async () => (await import("../registry/main.ts")).daemon,
  },
  {
    name: "proxy",
    summary: "joins this domain to others: finds their services and passes Requests through",
    load: async () => (await import("../proxy/main.ts")).proxy,
  },
  {
    name: "nsmgr-proxy",
    summary: "the part of nsm proxy that passes Requests from and to other domains",
    load: async () => (await import("../proxy/main.ts")).managerProxy,
  },
  {
    name: "registry-proxy",
    summary: "the part of nsm proxy that asks registries of other domains",
    load: async () => (await import("../proxy/main.ts")).registryProxy,
  },
  {
    name: "identity",
    summary: "built-in SPIFFE authority with a Workload API",
    load: async () => (await import("../identity/main.ts")).daemon,
  },
  {
    name: "nsc",
    summary: "client: requests wires for its network namespace and keeps them",
    load: async () => (await import("../nsc/main.ts")).daemon,
  },
  {
    name: "nse",
    summary: "endpoint: serves a network service from its network namespace",
    load: async () => (await import("../nse/main.ts")).daemon,
    kinds: [
      {
        name: "passthrough",
        summary: "hands each wire on to the next endpoint of the same service",
        load: async () => (await import("../nse/passthrough/main.ts")).daemon,
      },
      {
        name: "firewall",
        summary: "hands on what its rules allow",
        load: async () => (await import("../nse/firewall/main.ts")).daemon,
      },
      {
        name: "supplier",
        summary: "starts an endpoint when somebody asks for one",
        load: async () => (await import("../nse/supplier/main.ts")).daemon,
      },
    ],
  },
];
