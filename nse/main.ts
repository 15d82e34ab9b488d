/** The endpoint daemon: a kernel responder that gives each client an address pair and a device in its own namespace. */
import { defineDaemon } from "../sdk/daemon.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import { createIpam } from "../sdk/ipam/group.ts";
import { generateInterfaceName } from "../sdk/mechanisms/kernel.ts";
import { managerTarget } from "../sdk/manager-client.ts";
import { openMesh } from "../sdk/mesh.ts";
import { netnsUrl } from "../sdk/netns-url.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import { createEndpointChain } from "./chain.ts";
import { table } from "./config.ts";
import { createIdle } from "./on-idle.ts";
import { requestRefresh } from "./policy-routes.ts";
import { serveEndpoint } from "./serve.ts";

export const daemon = defineDaemon({
  name: "nse",
  summary: "endpoint: serves a network service from its network namespace",
  about:
    "An endpoint. It offers network services through the manager of its node and gives each client an interface in the network namespace that it runs in, with addresses of its own pools. What the namespace does with the packets (answer, route, filter) is the namespace's affair.",
  table,
  async open(config, runtime, stack) {
    const { log } = runtime;
    const mesh = stack.use(await openMesh(config, runtime));
    const store = createMonitorStore();
    const policies = stack.use(
      await openWatchedFile({
        path: config.pbrConfigPath,
        variable: "NSM_PBR_CONFIG_PATH",
        what: "policy routes",
        // Loaded when there is a file: most endpoints have none, and need no reader of YAML.
        parse: async (text) => (await import("./policy-routes-file.ts")).parsePolicyRoutes(text),
        missing: [],
        log,
        clock: mesh.clock,
      }),
    );
    stack.use(policies.onChange(() => requestRefresh(store)));
    const chain = createEndpointChain({
      ...mesh,
      name: config.name,
      store,
      log,
      idle: stack.use(createIdle({ timeoutMs: config.idleTimeoutMs, clock: mesh.clock, stop: runtime.stop })),
      ipam: createIpam(config.cidrPrefix, config.ipamPolicy),
      dns: config.dnsConfigs,
      policies: policies.current,
      netnsUrl: netnsUrl(),
      interfaceName: generateInterfaceName,
    });
    const registries = createRegistryClient({ ...mesh, target: managerTarget(config, mesh) });
    stack.use(await serveEndpoint({ config, mesh, runtime, chain, store, registries }));
  },
});
