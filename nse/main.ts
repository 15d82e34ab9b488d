/** The endpoint daemon: a kernel responder that gives each client an address pair and a device in its own namespace. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MonitorConnection } from "../api/gen/connection_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import { defineDaemon } from "../sdk/daemon.ts";
import { Defaults } from "../sdk/defaults.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../sdk/elements/serve.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { createIpam } from "../sdk/ipam/group.ts";
import { generateInterfaceName } from "../sdk/mechanisms/kernel.ts";
import { openMesh } from "../sdk/mesh.ts";
import { netnsUrl } from "../sdk/netns-url.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import { createEndpointChain } from "./chain.ts";
import { table } from "./config.ts";
import { parsePolicyRoutes, requestRefresh } from "./policy-routes.ts";
import { registerAll } from "./register.ts";

export const daemon = defineDaemon({
  name: "nse",
  summary: "endpoint: serves a network service from its network namespace",
  about:
    "An endpoint. It offers network services through the manager of its node and gives each client an interface in the network namespace that it runs in, with addresses of its own pools. What the namespace does with the packets (answer, route, filter) is the namespace's affair.",
  table,
  async start(config, runtime) {
    const { log } = runtime;
    await using stack = new AsyncDisposableStack();
    const mesh = stack.use(await openMesh(config, runtime));
    const listenOn = config.listenOn ?? privateSocket(stack);
    const store = createMonitorStore();
    const policies = stack.use(
      await openWatchedFile({
        path: config.pbrConfigPath,
        what: "policy routes",
        parse: parsePolicyRoutes,
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
      ipam: createIpam(config.cidrPrefix, config.ipamPolicy),
      dns: config.dnsConfigs,
      policies: policies.current,
      netnsUrl: netnsUrl(),
      interfaceName: generateInterfaceName,
    });
    const isForwarder = idMatcher(config.forwarderIds, mesh.trustDomain);
    const limits = { maxConcurrentStreams: Defaults.watchStreams };
    const server = stack.use(
      await openServer({ ...mesh, log, listen: [listenOn], limits }, (add) => {
        add(NetworkService, networkServiceHandlers(chain), ({ spiffeId }) => isForwarder(spiffeId));
        add(MonitorConnection, monitorHandlers(store), ({ spiffeId }) => isForwarder(spiffeId));
      }),
    );
    log.info({ addresses: server.addresses }, "endpoint serves");
    const target = { url: config.connectTo, expect: idMatcher(config.managerIds, mesh.trustDomain) };
    const registries = createRegistryClient({ ...mesh, target });
    for (const registrant of registerAll({ config, registries, url: listenOn, clock: mesh.clock, log })) {
      stack.use(registrant);
      await untilAborted(registrant.registered, runtime.signal);
    }
    return stack.move();
  },
});

function privateSocket(stack: AsyncDisposableStack): string {
  const folder = stack.adopt(mkdtempSync(join(tmpdir(), "nse-")), (path) =>
    rmSync(path, { recursive: true, force: true }),
  );
  return `unix://${folder}/nse.sock`;
}

function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  return Promise.race([promise, aborted.promise]).finally(() => signal.removeEventListener("abort", onAbort));
}
