/** The forwarder daemon of one node: the only one that changes the kernel. */
import { create } from "@bufbuild/protobuf";
import { Wires } from "../api/gen/admin_pb.js";
import { MonitorConnection } from "../api/gen/connection_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { CallContext } from "../sdk/chain.ts";
import { defineDaemon } from "../sdk/daemon.ts";
import { Defaults } from "../sdk/defaults.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../sdk/elements/serve.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { createHops } from "../sdk/hops.ts";
import { openMesh } from "../sdk/mesh.ts";
import { trackStore } from "../sdk/metrics/wires.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { keepRegistered } from "../sdk/registry/registrant.ts";
import { findAll } from "../sdk/registry/registry.ts";
import { createRegistryView } from "../sdk/registry/view.ts";
import { repeatCloses } from "../sdk/repeat-closes.ts";
import { createForwarderChain } from "./chain.ts";
import { table } from "./config.ts";
import { openDataplane } from "./dataplane.ts";
import { createEndpointSockets } from "./watch/endpoint-sockets.ts";
import { wiresHandlers } from "./inspect.ts";
import { createOrphans } from "./elements/orphans.ts";
import { createReach } from "../sdk/reach.ts";
import { ownRecord } from "./record.ts";
import { startSweep } from "./watch/sweep.ts";
import { trackTraffic } from "./watch/traffic.ts";
import { createTunnels } from "./elements/tunnels.ts";
import { defaultTunnelIp } from "./kernel/tunnel-ip.ts";
import { rememberMtu } from "./kernel/underlay.ts";

export const daemon = defineDaemon({
  name: "forwarder",
  summary: "data plane of one node: makes the wires in the kernel",
  about:
    "The data plane of one node. On behalf of the manager it makes virtual interfaces in the network namespaces of clients and endpoints and joins them: by a veth pair on the node, by WireGuard (IP) or VXLAN (Ethernet) to other nodes. Packets never pass through it; its end or restart loses none. It needs CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_SYS_PTRACE, and runs in the node's network and pid namespaces.",
  table,
  async open(config, runtime, stack) {
    const { log } = runtime;
    const tunnelIp = config.tunnelIp ?? defaultTunnelIp();
    const { externalIp } = config;
    const dataplane = stack.use(
      await openDataplane({
        log,
        wireguardPorts: config.wireguardPorts,
        vxlanUnfiltered: config.vxlanUnfiltered,
      }),
    );
    const mesh = stack.use(await openMesh(config, runtime));
    const { pool, minter, clock, trustDomain } = mesh;
    const isManager = idMatcher(config.managerIds, trustDomain);
    const ofManager = ({ peer }: CallContext) => peer?.transport === "unix" && isManager(peer.spiffeId);
    const registries = createRegistryClient({
      ...mesh,
      target: { url: config.connectTo, expect: isManager },
    });
    const view = stack.use(createRegistryView(registries, clock, log));
    const sockets = stack.use(createEndpointSockets(clock));
    const calls = stack.use(createHops({ pool, minter, name: config.name, log, ...sockets }));
    const hops = stack.use(repeatCloses(calls, { clock, log }));
    const store = createMonitorStore();
    stack.use(trackStore(store));
    stack.use(trackTraffic(dataplane, clock));
    const orphans = stack.use(createOrphans({ clock, log }));
    const vxlanPort = config.vxlanPort || Defaults.vxlanPort;
    const underlayMtu = rememberMtu((ip) => dataplane.underlayMtu(ip), clock);
    const tunnels = createTunnels({
      dataplane: { ...dataplane, underlayMtu },
      tunnelIp,
      externalIp,
      vxlanPort,
    });
    const chain = createForwarderChain({
      name: config.name,
      minter,
      clock,
      store,
      log,
      hops,
      client: {
        tunnels,
        isManager: ofManager,
        // What was found of an earlier life is claimed by the refresh that succeeds: until then it stays reserved.
        release: (id) => {
          if (dataplane.found(id).length === 0) dataplane.release(id);
        },
        priority: config.mechanismPriority,
        acceptDefaultRoute: config.acceptDefaultRoute,
        protectedAddresses: config.protectedAddresses,
      },
      select: {
        view,
        clock,
        log,
        isManager,
        isProxy: idMatcher(config.proxyIds, trustDomain),
        refuseStopped: sockets.refuseStopped,
        reach: createReach({ probe: calls.probe, clock, log }),
        refusedAddresses: config.refusedAddresses,
        forwarderService: config.service,
        holdsWire: (id) => dataplane.found(id).length > 0,
      },
      plumb: { dataplane, tunnels, listenerOf: sockets.listenerOf, log },
      orphans,
    });
    const server = stack.use(
      await openServer(
        {
          ...mesh,
          log,
          listen: [{ url: config.listenOn, authorize: ({ spiffeId }) => isManager(spiffeId) }],
          limits: { maxConcurrentStreams: Defaults.watchStreams },
        },
        (add) => {
          add(NetworkService, networkServiceHandlers(chain));
          add(MonitorConnection, monitorHandlers(store));
          add(Wires, wiresHandlers({ name: config.name, dataplane }));
        },
      ),
    );
    // Endpoints of this node are shown with their sockets, those of others are not.
    const isOther = ({ name, url }: NetworkServiceEndpoint) =>
      name !== config.name && url.startsWith("unix:");
    const sameService = create(NetworkServiceEndpointSchema, { networkServiceNames: [config.service] });
    const isAlone = async (signal: AbortSignal) =>
      !(await findAll(registries.endpoints, sameService, signal)).some(isOther);
    const afterMs = config.maxTokenLifetimeMs;
    stack.use(startSweep({ dataplane, store, isAlone, clock, log, afterMs }));
    stack.use(
      keepRegistered({
        registry: registries.endpoints,
        entry: () => ownRecord(config),
        query: create(NetworkServiceEndpointSchema, { name: config.name }),
        what: `forwarder ${config.name}`,
        unregister: true,
        onRegistered: () => orphans.managerServes(),
        clock,
        log,
      }),
    );
    log.info({ addresses: server.addresses, tunnelIp, mechanisms: tunnels.list() }, "forwarder serves");
    for (const type of ["WIREGUARD", "VXLAN"])
      if (tunnels.whyNot(type) !== "") log.warn(`not offered: ${tunnels.whyNot(type)}`);
  },
});
