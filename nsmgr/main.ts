/** The manager daemon of one node. */
import { Wires } from "../api/gen/admin_pb.js";
import { MonitorConnection, State } from "../api/gen/connection_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../api/gen/registry_pb.js";
import { clientInfoOf } from "../sdk/client-info.ts";
import { defineDaemon } from "../sdk/daemon.ts";
import { Defaults } from "../sdk/defaults.ts";
import { createHistory } from "../sdk/elements/history.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../sdk/elements/serve.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { createHops } from "../sdk/hops.ts";
import { openMesh } from "../sdk/mesh.ts";
import { trackStore } from "../sdk/metrics/wires.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { publishedUrl } from "../sdk/published-url.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "../sdk/registry/serve.ts";
import { createRegistryView } from "../sdk/registry/view.ts";
import { repeatCloses } from "../sdk/repeat-closes.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import { createManagerChain } from "./chain.ts";
import { table } from "./config.ts";
import { createLocalEndpoints } from "./local-endpoints.ts";
import { wiresHandlers } from "./inspect.ts";
import { createLostForwarders } from "./lost-forwarders.ts";
import { createMoves } from "./moves.ts";
import { createManagerRegistries } from "./registry.ts";
import { createWaiting } from "./waiting.ts";

export const daemon = defineDaemon({
  name: "nsmgr",
  summary: "manager of one node: authenticates clients, finds forwarders and endpoints",
  about:
    "The manager of one node. Clients, endpoints and the forwarder of the node reach it on a unix socket, managers and forwarders of other nodes by TCP. It authenticates every caller, passes requests for wires to a forwarder of the node, and publishes the node's endpoints in the registry. It needs no privileges.",
  table,
  async open(config, runtime, stack) {
    const { log } = runtime;
    const mesh = stack.use(await openMesh(config, runtime));
    const { clock, pool, minter, trustDomain } = mesh;
    const info = clientInfoOf(config);
    const upstream = createRegistryClient({
      ...mesh,
      target: { url: config.registryUrl, expect: idMatcher(config.registryIds, trustDomain) },
    });
    const local = createLocalEndpoints(clock);
    const shared = {
      local,
      forwarderService: config.forwarderService,
      publicUrl: publishedUrl(config.listenOn),
      refusedAddresses: config.refusedAddresses,
      info,
      clock,
      log,
    };
    const mayForward = idMatcher(config.forwarderIds, trustDomain);
    const calls = stack.use(createHops({ pool, minter, name: config.name, log }));
    const hops = stack.use(repeatCloses(calls, { clock, log }));
    const onForwarder = calls.isBack; // its wires, which it may have forgotten, are asked for at once
    const registries = stack.use(createManagerRegistries({ ...shared, upstream, mayForward, onForwarder }));
    const mayTunnel = idMatcher([...config.forwarderIds, ...config.proxyIds], trustDomain);
    const view = stack.use(createRegistryView(upstream, clock, log));
    const history = createHistory(clock);
    const store = createMonitorStore((id, state) => {
      if (state === State.DOWN) history.note(id, "down", "said by the next hop, or its process has ended");
      if (state === State.REFRESH_REQUESTED) history.note(id, "lost", "the next hop came back without it");
    });
    stack.use(trackStore(store));
    const isOperator = idMatcher(config.operatorIds, trustDomain);
    const excluded = stack.use(
      await openWatchedFile({
        path: config.excludedPrefixesPath,
        variable: "NSM_EXCLUDED_PREFIXES_PATH",
        what: "excluded prefixes",
        // Loaded when there is a file: most nodes have none, and need no reader of YAML.
        parse: async (text) => (await import("./excluded-prefixes-file.ts")).parseExcludedPrefixes(text),
        missing: [],
        wrong: [], // a node without wires is worse than one without exclusions
        log,
        clock,
      }),
    );
    const moves = stack.use(
      createMoves({
        ...shared,
        view,
        store,
        history,
        random: Math.random,
        failbackMs: config.failbackDelayMs,
      }),
    );
    const lostForwarders = stack.use(
      createLostForwarders({
        ...shared,
        forwarderGraceMs: config.forwarderGraceMs,
        askAgain: (id) => askAgain(store, id),
      }),
    );
    const waiting = stack.use(createWaiting({ ...shared, view, store }));
    const chain = createManagerChain({
      ...shared,
      moves,
      lostForwarders,
      waiting,
      name: config.name,
      minter,
      store,
      history,
      hops,
      view,
      mayForward: mayTunnel,
      excluded: excluded.current,
      clientGraceMs: config.clientGraceMs,
    });
    const forwarderNamed = (name: string) => local.hopTo(name, config.forwarderService);
    const owners = {
      ownersOfService: () => undefined, // the registry knows
      ownersOfEndpoint: (name: string) => local.get(name)?.entry.pathIds,
      mayRelay: () => false, // workloads and forwarders register themselves
    };
    const limits = { maxConcurrentStreams: Defaults.watchStreams };
    const server = stack.use(
      await openServer({ ...mesh, log, listen: config.listenOn, limits }, (add) => {
        add(NetworkService, networkServiceHandlers(chain));
        add(MonitorConnection, monitorHandlers(store, isOperator));
        add(Wires, wiresHandlers({ store, history, isOperator, pool, minter, forwarderNamed }));
        add(NetworkServiceRegistry, serviceRegistryHandlers(registries, { ...mesh, ...owners }));
        add(NetworkServiceEndpointRegistry, endpointRegistryHandlers(registries, { ...mesh, ...owners }));
      }),
    );
    log.info({ addresses: server.addresses, published: shared.publicUrl }, "manager serves");
  },
});

/** Its client's next Request makes another forwarder know it; one that is down is asked for in any case. */
function askAgain(store: MonitorStore, id: string): void {
  if (store.get(id)?.state !== State.DOWN) store.fromNextHop(id, { state: State.REFRESH_REQUESTED });
}
