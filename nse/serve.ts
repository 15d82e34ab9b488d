/** Puts an endpoint's chain on its socket and keeps it registered: the last step of every endpoint. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MonitorConnection } from "../api/gen/connection_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import type { NetworkService as Chain } from "../sdk/chain.ts";
import type { Runtime } from "../sdk/daemon.ts";
import { Defaults } from "../sdk/defaults.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../sdk/elements/serve.ts";
import { openServer } from "../sdk/grpc/server.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { trackStore } from "../sdk/metrics/wires.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import type { EndpointConfig } from "./config.ts";
import { registerAll } from "./register.ts";
import type { RegisterOptions } from "./register.ts";

export interface ServeOptions {
  readonly config: RegisterOptions["config"] & Pick<EndpointConfig, "listenOn" | "forwarderIds">;
  readonly mesh: Mesh;
  readonly runtime: Runtime;
  readonly chain: Chain;
  readonly store: MonitorStore;
  readonly registries: Registries;
}

/** Resolves when the endpoint and its services are registered. */
export async function serveEndpoint(options: ServeOptions): Promise<AsyncDisposable> {
  const { config, mesh, runtime, chain, store, registries } = options;
  const { log } = runtime;
  await using stack = new AsyncDisposableStack();
  const listenOn = config.listenOn ?? privateSocket(stack);
  const isForwarder = idMatcher(config.forwarderIds, mesh.trustDomain);
  const limits = { maxConcurrentStreams: Defaults.watchStreams };
  stack.use(trackStore(store));
  const server = stack.use(
    await openServer({ ...mesh, log, listen: [listenOn], limits }, (add) => {
      add(NetworkService, networkServiceHandlers(chain), ({ spiffeId }) => isForwarder(spiffeId));
      add(MonitorConnection, monitorHandlers(store), ({ spiffeId }) => isForwarder(spiffeId));
    }),
  );
  log.info({ addresses: server.addresses }, "endpoint serves");
  for (const registrant of registerAll({ config, registries, url: listenOn, clock: mesh.clock, log })) {
    stack.use(registrant);
    await untilAborted(registrant.registered, runtime.signal);
  }
  return stack.move();
}

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
