/** The endpoint daemon: a kernel responder that gives each client an address pair and a device in its own namespace. */
import { create } from "@bufbuild/protobuf";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MonitorConnection } from "../api/gen/connection_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { clientInfoOf } from "../sdk/client-info.ts";
import { defineDaemon } from "../sdk/daemon.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../sdk/elements/serve.ts";
import { NsmError } from "../sdk/errors.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { createIpam } from "../sdk/ipam/group.ts";
import { generateInterfaceName } from "../sdk/mechanisms/kernel.ts";
import { openMesh } from "../sdk/mesh.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { netnsUrl } from "../sdk/netns-url.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { keepRegistered } from "../sdk/registry/registrant.ts";
import type { Registrant } from "../sdk/registry/registrant.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import type { Logger } from "../sdk/log.ts";
import { createEndpointChain } from "./chain.ts";
import { table } from "./config.ts";
import type { EndpointConfig } from "./config.ts";

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
    const chain = createEndpointChain({
      ...mesh,
      name: config.name,
      store,
      log,
      ipam: createIpam(config.cidrPrefix, config.ipamPolicy),
      netnsUrl: netnsUrl(),
      interfaceName: generateInterfaceName,
    });
    const isForwarder = idMatcher(config.forwarderIds, mesh.trustDomain);
    const server = stack.use(
      await openServer({ ...mesh, log, listen: [listenOn] }, (add) => {
        add(NetworkService, networkServiceHandlers(chain), ({ spiffeId }) => isForwarder(spiffeId));
        add(MonitorConnection, monitorHandlers(store), ({ spiffeId }) => isForwarder(spiffeId));
      }),
    );
    log.info({ addresses: server.addresses }, "endpoint serves");
    for (const registrant of registerAll(config, mesh, listenOn, log)) {
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

/** Services first, then the endpoint; one after the other as each is asked for. */
function* registerAll(config: EndpointConfig, mesh: Mesh, url: string, log: Logger): Generator<Registrant> {
  const target = { url: config.connectTo, expect: idMatcher(config.managerIds, mesh.trustDomain) };
  const registries = createRegistryClient({ ...mesh, target });
  const unregister = config.unregisterItself;
  const shared = { clock: mesh.clock, log };
  for (const name of config.registerService ? config.serviceNames : [])
    yield keepRegistered({
      ...shared,
      registry: registries.services,
      entry: () => create(NetworkServiceSchema, { name, payload: config.payload }),
      query: create(NetworkServiceSchema, { name }),
      what: `network service ${name}`,
      unregister: false, // other endpoints offer it, too
      accept: (error) => isThereAlready(registries, name, config.payload, error, log),
    });
  yield keepRegistered({
    ...shared,
    registry: registries.endpoints,
    entry: () => endpointRecord(config, url),
    query: create(NetworkServiceEndpointSchema, { name: config.name }),
    what: `endpoint ${config.name}`,
    unregister,
  });
}

/** A service belongs to whoever registered it first; an equal one is as good as ours. */
async function isThereAlready(
  registries: Registries,
  name: string,
  payload: string,
  error: unknown,
  log: Logger,
): Promise<boolean> {
  if (!(error instanceof NsmError) || error.code !== "PERMISSION_DENIED") return false;
  const found = await findAll(
    registries.services,
    create(NetworkServiceSchema, { name }),
    AbortSignal.timeout(5000),
  );
  const service = found.find((each) => each.name === name);
  if (service !== undefined && service.payload !== payload)
    log.error(
      { service: name },
      `network service ${name} is registered by somebody else with payload ${service.payload}, not ${payload}: set NSM_PAYLOAD to it, or use another name`,
    );
  return service?.payload === payload;
}

function endpointRecord(config: EndpointConfig, url: string) {
  const labels = { ...Object.fromEntries(config.labels), ...Object.fromEntries(clientInfoOf(config)) };
  return create(NetworkServiceEndpointSchema, {
    name: config.name,
    networkServiceNames: [...config.serviceNames],
    networkServiceLabels: Object.fromEntries(config.serviceNames.map((service) => [service, { labels }])),
    url,
  });
}

function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  return Promise.race([promise, aborted.promise]).finally(() => signal.removeEventListener("abort", onAbort));
}
