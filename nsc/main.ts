/** The client daemon: keeps the wires of one workload. */
import type { Connection } from "../api/gen/connection_pb.js";
import { addClientInfo, clientInfoOf } from "../sdk/client-info.ts";
import { delay } from "../sdk/clock.ts";
import type { Clock } from "../sdk/clock.ts";
import { defineDaemon } from "../sdk/daemon.ts";
import type { Logger } from "../sdk/log.ts";
import { openEchoSocket } from "../sdk/echo-socket.ts";
import { openMesh } from "../sdk/mesh.ts";
import { trackWires } from "../sdk/metrics/wires.ts";
import { netnsUrl } from "../sdk/netns-url.ts";
import { groupOf } from "./awareness-groups.ts";
import { table } from "./config.ts";
import type { ClientConfig } from "./config.ts";
import { followDnsContexts, openNames } from "./dns.ts";
import type { NamesOptions } from "./dns.ts";
import { excludeOtherWires } from "./excluded-prefixes.ts";
import { followManager } from "./follow.ts";
import { createManager, managerTarget } from "../sdk/manager-client.ts";
import { createProber } from "./prober.ts";
import type { Prober } from "./prober.ts";
import { protectedAddresses } from "./protected-addresses.ts";
import { connectionId } from "./request.ts";
import type { Wish } from "./request.ts";
import { createWire } from "./wire.ts";

/** How long the start waits for what the manager remembers of an earlier life of this client. */
const ADOPT_WITHIN_MS = 2000;

export const daemon = defineDaemon({
  name: "nsc",
  summary: "client: requests wires for its network namespace and keeps them",
  about:
    "Keeps the wires of one workload: asks the manager of the node for each network service of its list, refreshes them, makes them anew when an endpoint dies, and gives them back when it ends. The interfaces appear in the network namespace that it runs in. After a restart it takes over the wires that it had.",
  table,
  async open(config, runtime, stack) {
    const { log } = runtime;
    const mesh = stack.use(await openMesh(config, runtime));
    const manager = createManager({
      ...mesh,
      target: managerTarget(config, mesh),
      requestTimeoutMs: config.requestTimeoutMs,
    });
    const names = config.localDnsServerEnabled
      ? stack.use(openNames(namesOptions(config, mesh.clock, log)))
      : undefined;
    const stop = new AbortController();
    const follower = followManager(manager, { name: config.name, netnsUrl: netnsUrl(), log }, stop.signal);
    const adopted = await Promise.race([
      follower.adopted,
      delay(ADOPT_WITHIN_MS).then(() => new Map<string, Connection>()),
    ]);
    const groups = groupsOf(config, log);
    const apart = excludeOtherWires(manager, {
      groupOf: (id) => groups.get(id),
      adopted: adopted.values(),
    });
    const prober = config.livenessCheckEnabled ? stack.use(proberOf(config, mesh.clock, log)) : undefined;
    const options = {
      manager: names === undefined ? apart : followDnsContexts(apart, names),
      clock: mesh.clock,
      log,
      requestTimeoutMs: config.requestTimeoutMs,
      random: Math.random,
      onUp: (connection: Connection) => logUp(log, connection),
      ...(prober && { watch: prober.watch }),
    };
    const wires = wishesOf(config).map((wish) => createWire(wish, options, adopted.get(wish.id)));
    stack.use(trackWires(() => wires.map(({ connection }) => connection)));
    follower.follow(wires);
    const running = Promise.all(wires.map((wire) => wire.run(stop.signal)));
    stack.defer(async () => {
      stop.abort();
      await running;
    });
    log.info({ wires: wires.length, adopted: adopted.size }, "client runs");
  },
});

function proberOf(config: ClientConfig, clock: Clock, log: Logger): Prober {
  const { livenessCheckIntervalMs: intervalMs, livenessCheckTimeoutMs: timeoutMs } = config;
  return createProber({ clock, log, intervalMs, timeoutMs, open: openEchoSocket });
}

/** Awareness groups of the connections, by id. A URL that no wire has is a mistake that would go unnoticed. */
function groupsOf(config: ClientConfig, log: Logger): ReadonlyMap<string, number | undefined> {
  const info = clientInfoOf(config);
  const groups = config.awarenessGroups;
  for (const url of groups.flat())
    if (config.services.every((wish) => groupOf(wish, [[url]], info) === undefined))
      log.warn({ service: url.networkService }, "an awareness group names a URL that is not among the wires");
  return new Map(
    config.services.map((wish, index) => [connectionId(config.name, index), groupOf(wish, groups, info)]),
  );
}

function namesOptions(config: ClientConfig, clock: Clock, log: Logger): NamesOptions {
  const { acceptedDomains, resolvConfPath: path } = config;
  return { ...config.localDnsServerAddress, acceptedDomains, path, clock, log };
}

function wishesOf(config: ClientConfig): Wish[] {
  const url = netnsUrl();
  const kept = protectedAddresses(config.protectedAddresses, {
    resolver: config.localDnsServerAddress.host,
    resolvConf: config.resolvConfPath,
    apiServer: config.apiServer,
  });
  return config.services.map(({ networkService, labels, mechanism }, index) => {
    const own = { ...labels };
    addClientInfo(own, clientInfoOf(config));
    return {
      id: connectionId(config.name, index),
      name: config.name,
      networkService,
      labels: own,
      interfaceName: mechanism.parameters["name"] || undefined,
      netnsUrl: url,
      acceptDefaultRoute: config.acceptDefaultRoute,
      protectedAddresses: kept,
    };
  });
}

/** One line that tools and people read: which wire is up, and how. */
function logUp(log: Logger, connection: Connection): void {
  const { ipContext } = connection.context ?? {};
  log.info(
    {
      connection: connection.id,
      service: connection.networkService,
      nse: connection.networkServiceEndpointName,
      interface: connection.mechanism?.parameters["name"],
      payload: connection.payload,
      addresses: ipContext?.srcIpAddrs ?? [],
      peerAddresses: ipContext?.dstIpAddrs ?? [],
      mtu: connection.context?.MTU ?? 0,
      path: connection.path?.pathSegments.map(({ name }) => name) ?? [],
    },
    "wire established",
  );
}
