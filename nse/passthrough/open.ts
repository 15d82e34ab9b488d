/** An endpoint that passes on: what the pass-through endpoint and the firewall have in common. */
import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { MonitorScopeSelectorSchema } from "../../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema } from "../../api/gen/registry_pb.js";
import { clientInfoOf } from "../../sdk/client-info.ts";
import type { Runtime } from "../../sdk/daemon.ts";
import { createMonitorStore } from "../../sdk/elements/monitor.ts";
import { createFollowers } from "../../sdk/hops.ts";
import { createManager, managerTarget } from "../../sdk/manager-client.ts";
import { openMesh } from "../../sdk/mesh.ts";
import { netnsUrl } from "../../sdk/netns-url.ts";
import { createRegistryClient } from "../../sdk/registry/client.ts";
import type { Mark } from "../../sdk/netlink/rule.ts";
import { findAll } from "../../sdk/registry/registry.ts";
import { createIdle } from "../on-idle.ts";
import { serveEndpoint } from "../serve.ts";
import { createPassThroughChain } from "./chain.ts";
import type { PassThroughConfig } from "./config.ts";
import { DOWN_PREFIX, UP_PREFIX, deviceName, isUpName } from "./device-names.ts";
import { createDownstream } from "./downstream.ts";
import { openJoints } from "./joints.ts";
import { createPassThrough } from "./pass-through.ts";

const REGISTRY_WITHIN_MS = 2000;

/** Is told of the devices of each connection before packets pass, and after they have stopped. */
export interface Gate {
  /** What it puts on packets that it judges: others do not pass, in the moment either in which the kernel ends it before the devices. */
  readonly mark: Mark;
  join(key: string, devices: readonly string[]): Promise<void>;
  part(key: string): Promise<void>;
}

export async function openPassThrough(
  config: PassThroughConfig,
  runtime: Runtime,
  gate?: Gate,
): Promise<AsyncDisposable> {
  const { log } = runtime;
  await using stack = new AsyncDisposableStack();
  // First, and so ended last: what an earlier life joined is parted before a gate opens.
  const joints = stack.use(await openJoints(log, gate?.mark));
  const mesh = stack.use(await openMesh(config, runtime));
  const target = managerTarget(config, mesh);
  const registries = createRegistryClient({ ...mesh, target });
  const { requestTimeoutMs } = config;
  const manager = createManager({ ...mesh, target, requestTimeoutMs });
  const open = (_: unknown, signal: AbortSignal) => manager.monitor(selector, signal);
  const selector = create(MonitorScopeSelectorSchema, { pathSegments: [{ name: config.name }] });
  const followers = stack.use(createFollowers({ name: config.name, log, open }));
  const store = createMonitorStore();
  const labels = { ...Object.fromEntries(config.labels), ...Object.fromEntries(clientInfoOf(config)) };
  const own = netnsUrl();
  const passThrough = stack.use(
    createPassThrough({
      hold: (device) => joints.hold(device),
      release: (device) => joints.release(device),
      async join(key, joint) {
        await gate?.join(key, [joint.up, joint.down]);
        await joints.join(key, joint);
      },
      async part(key) {
        await joints.part(key);
        await gate?.part(key);
      },
      name: config.name,
      newId: randomUUID,
      createDownstream: (id, onNews) =>
        createDownstream({
          id,
          name: config.name,
          labels,
          netnsUrl: own,
          interfaceName: deviceName(DOWN_PREFIX),
          manager,
          follow: (of, onEvent) => followers.follow(target, of, onEvent),
          requestTimeoutMs,
          clock: mesh.clock,
          log,
          onNews,
        }),
      async registered(service, names, signal) {
        if (names.length === 0) return [];
        const asked = create(NetworkServiceEndpointSchema, { networkServiceNames: [service] });
        const bounded = AbortSignal.any([signal, AbortSignal.timeout(REGISTRY_WITHIN_MS)]);
        const there = await findAll(registries.endpoints, asked, bounded).catch(() => []);
        return names.filter((name) => there.some((endpoint) => endpoint.name === name)).slice(0, 1);
      },
      store,
      clock: mesh.clock,
      log,
    }),
  );
  const idle = stack.use(
    createIdle({ timeoutMs: config.idleTimeoutMs, clock: mesh.clock, stop: runtime.stop }),
  );
  const chain = createPassThroughChain({
    ...mesh,
    name: config.name,
    store,
    log,
    idle,
    netnsUrl: own,
    interfaceName: () => deviceName(UP_PREFIX),
    isOwnName: isUpName,
    passThrough,
  });
  stack.use(await serveEndpoint({ config, mesh, runtime, chain, store, registries }));
  return stack.move();
}
