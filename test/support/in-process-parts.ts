/** The parts of a mesh in one process (in-process.ts): each a station with the real chain of its daemon. */
import { randomUUID } from "node:crypto";
import { clone, create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ConnectionSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { createForwarderChain } from "../../forwarder/chain.ts";
import { createOrphans } from "../../forwarder/elements/orphans.ts";
import { createTunnels } from "../../forwarder/elements/tunnels.ts";
import { followManager } from "../../nsc/follow.ts";
import { firstRequest } from "../../nsc/request.ts";
import { createWire } from "../../nsc/wire.ts";
import type { ClientWire } from "../../nsc/wire.ts";
import { createEndpointChain } from "../../nse/chain.ts";
import { createIdle } from "../../nse/on-idle.ts";
import { createManagerChain } from "../../nsmgr/chain.ts";
import { createLocalEndpoints } from "../../nsmgr/local-endpoints.ts";
import { createLostForwarders } from "../../nsmgr/lost-forwarders.ts";
import { createMoves } from "../../nsmgr/moves.ts";
import { createWaiting } from "../../nsmgr/waiting.ts";
import { createManagerRegistries } from "../../nsmgr/registry.ts";
import type { NetworkService } from "../../sdk/chain.ts";
import { systemClock as clock } from "../../sdk/clock.ts";
import { createHistory } from "../../sdk/elements/history.ts";
import { createMonitorStore } from "../../sdk/elements/monitor.ts";
import type { MonitorStore } from "../../sdk/elements/monitor.ts";
import { requestOnce } from "../../sdk/elements/unwanted-answer.ts";
import { NsmError } from "../../sdk/errors.ts";
import { createIpam, parsePrefixGroups } from "../../sdk/ipam/group.ts";
import { silentLogger as log } from "../../sdk/log.ts";
import { netnsUrl } from "../../sdk/netns-url.ts";
import type { Registries, Registry } from "../../sdk/registry/registry.ts";
import { createRegistryView } from "../../sdk/registry/view.ts";
import { repeatCloses } from "../../sdk/repeat-closes.ts";
import { createFakeDataplane } from "./dataplane.ts";
import type { FakeDataplane } from "./dataplane.ts";
import { eventually } from "./netns.ts";
import type { Station, Stations } from "./stations.ts";

export const FORWARDER_SERVICE = "forwarder";
export const CALL_MS = 10_000;

export interface Counts {
  requests: number;
  closes: number;
  /** Ids of the endpoint's own segment, in the order of their first request. */
  readonly ids: Set<string>;
}

export interface EndpointHandle {
  readonly name: string;
  readonly counts: Counts;
  readonly store: MonitorStore;
  /** From now on: what it throws instead of serving its n-th request (from 1); undefined serves it. */
  refuse(decide: (number: number) => NsmError | undefined): void;
  /** Begins to answer, if it does not yet. */
  serve(): void;
  /** The process dies, and its manager takes it out of the registry as it does when it sees that. */
  kill(): Promise<void>;
  unregister(): Promise<void>;
}

export interface ClientHandle {
  /** The manager's socket, called by hand. */
  request(
    request: MessageInitShape<typeof NetworkServiceRequestSchema>,
    signal?: AbortSignal,
  ): Promise<Connection>;
  /** The first Request of a wire. */
  connect(
    service: string,
    options?: { id?: string; labels?: Readonly<Record<string, string>>; signal?: AbortSignal },
  ): Promise<Connection>;
  refresh(connection: Connection, signal?: AbortSignal): Promise<Connection>;
  close(connection: Connection): Promise<void>;
  /** A wire as nsc keeps it: healed by itself. Its patience (seconds in which something gone may come back) is 20 times less. */
  keep(service: string, labels?: Readonly<Record<string, string>>): KeptWire;
}

export interface KeptWire {
  readonly wire: ClientWire;
  /** Every connection that its client was told of: the first one, and each healed or moved one. */
  readonly ups: readonly Connection[];
  /** Waits for the `number`th of them (from 1). */
  up(number?: number): Promise<Connection>;
  /** Requests that were refused or not answered. */
  readonly failures: number;
  /** Closes it. */
  stop(): Promise<void>;
}

export interface EndpointOptions {
  readonly name: string;
  readonly service: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly prefixes?: string;
  readonly policy?: "polite" | "strict";
  /** False: it is registered, and answers from {@link EndpointHandle.serve} on. */
  readonly serves?: boolean;
}

export interface World {
  readonly stations: Stations;
  readonly registries: Registries;
  readonly resources: AsyncDisposableStack;
}

export interface Manager {
  readonly station: Station;
  readonly registries: Registries;
  readonly chain: NetworkService;
  readonly store: MonitorStore;
  /** `path_ids` of an endpoint that registered here. */
  ownersOf(name: string): readonly string[] | undefined;
  forget(name: string): void;
}

export async function startManager(
  node: string,
  { stations, registries: upstream, resources }: World,
): Promise<Manager> {
  const publicUrl = `tcp://${node}:5001`;
  const station = resources.use(
    await stations.open({ name: `nsmgr-${node}`, path: `/nsmgr/${node}`, url: `unix:///nsmgr-${node}.sock` }),
  );
  const local = createLocalEndpoints(clock);
  const info = new Map([["nodeName", node]]);
  const mayForward = (id: string) => id.includes("/forwarder/");
  const shared = { local, forwarderService: FORWARDER_SERVICE, publicUrl, info, clock, log };
  const registries = resources.use(
    createManagerRegistries({ ...shared, upstream, refusedAddresses: [], mayForward }),
  );
  const store = createMonitorStore();
  const view = resources.use(createRegistryView(upstream, clock, log));
  const history = createHistory(clock);
  const chain = createManagerChain({
    ...shared,
    moves: resources.use(
      createMoves({ ...shared, view, store, history, random: Math.random, failbackMs: 0 }),
    ),
    lostForwarders: resources.use(
      createLostForwarders({
        ...shared,
        forwarderGraceMs: 1000,
        askAgain: (id) => store.fromNextHop(id, { state: State.REFRESH_REQUESTED }),
      }),
    ),
    waiting: resources.use(createWaiting({ ...shared, view, store })),
    name: station.name,
    minter: station.minter,
    store,
    history,
    hops: resources.use(repeatCloses(station.hops, { clock, log })),
    view,
    mayForward: (id) => mayForward(id) || id.includes("/nsmgr-proxy/"),
    excluded: () => [],
    clientGraceMs: 1000,
  });
  station.serve(chain, store, publicUrl);
  return {
    station,
    registries,
    chain,
    store,
    ownersOf: (name) => local.get(name)?.entry.pathIds,
    forget: (name) => local.delete(name),
  };
}

export function startForwarder(
  station: Station,
  registries: () => Registries,
  counts: Counts,
  { resources }: World,
): { readonly dataplane: FakeDataplane; readonly store: MonitorStore } {
  const isManager = (id: string) => id.includes("/nsmgr/");
  const dataplane = createFakeDataplane();
  const tunnels = createTunnels({ dataplane, tunnelIp: "192.0.2.1", vxlanPort: 4789 });
  const store = createMonitorStore();
  // Asked anew for each call: the manager may be another process by then.
  const through: Registries = {
    services: lateBound(() => registries().services),
    endpoints: lateBound(() => registries().endpoints),
  };
  const chain = createForwarderChain({
    name: station.name,
    minter: station.minter,
    clock,
    store,
    log,
    hops: resources.use(repeatCloses(station.hops, { clock, log })),
    client: {
      tunnels,
      isManager: ({ peer }) => peer?.transport === "unix" && isManager(peer.spiffeId),
      release: (id) => dataplane.release(id),
      priority: [],
    },
    select: {
      view: resources.use(createRegistryView(through, clock, log)),
      clock,
      log,
      isManager,
      isProxy: (id) => id.includes("/nsmgr-proxy/"),
      holdsWire: (id) => dataplane.found(id).length > 0,
      forwarderService: FORWARDER_SERVICE,
      refusedAddresses: [],
    },
    plumb: { dataplane, tunnels, listenerOf: () => process.pid, log },
    orphans: resources.use(createOrphans({ clock, log })),
  });
  station.serve(
    counting(chain, counts, () => undefined),
    store,
  );
  return { dataplane, store };
}

function lateBound<T>(registry: () => Registry<T>): Registry<T> {
  return {
    register: (entry, ctx) => registry().register(entry, ctx),
    find: (query, ctx) => registry().find(query, ctx),
    unregister: (entry, ctx) => registry().unregister(entry, ctx),
  };
}

/** Counts what reaches it into `counts`. */
export function startEndpoint(
  station: Station,
  options: EndpointOptions,
  counts: Counts,
): Pick<EndpointHandle, "refuse" | "serve" | "store"> {
  const store = createMonitorStore();
  const { prefixes = "172.16.0.0/24", policy = "polite" } = options;
  const chain = createEndpointChain({
    name: station.name,
    minter: station.minter,
    clock,
    store,
    log,
    idle: createIdle({ timeoutMs: 0, clock, stop: () => undefined }),
    ipam: createIpam(parsePrefixGroups(prefixes), policy),
    dns: [],
    policies: () => [],
    netnsUrl: netnsUrl(),
    interfaceName: () => `nse-${randomUUID().slice(0, 8)}`,
  });
  let decide: (number: number) => NsmError | undefined = () => undefined;
  const serve = () =>
    station.serve(
      counting(chain, counts, (number) => decide(number)),
      store,
    );
  if (options.serves !== false) serve();
  return { serve, store, refuse: (next) => void (decide = next) };
}

export function newCounts(): Counts {
  return { requests: 0, closes: 0, ids: new Set() };
}

function counting(
  chain: NetworkService,
  counts: Counts,
  refuse: (number: number) => NsmError | undefined,
): NetworkService {
  return {
    async request(request, ctx) {
      counts.requests++;
      counts.ids.add(request.connection?.id ?? "");
      const refusal = refuse(counts.requests);
      if (refusal !== undefined) throw refusal;
      return await chain.request(request, ctx);
    },
    async close(connection, ctx) {
      counts.closes++;
      await chain.close(connection, ctx);
    },
  };
}

export function startClient(
  station: Station,
  managerUrl: () => string,
  { stations, resources }: World,
): ClientHandle {
  const calls = stations.callsOf(station);
  const context = (signal?: AbortSignal) => {
    const limit = AbortSignal.timeout(CALL_MS);
    return {
      signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
      deadlineMs: Date.now() + CALL_MS,
    };
  };
  const wishOf = (service: string, id: string, labels: Readonly<Record<string, string>>) => ({
    id,
    name: station.name,
    networkService: service,
    labels,
    interfaceName: undefined,
    netnsUrl: netnsUrl(),
  });
  const ask = (request: MessageInitShape<typeof NetworkServiceRequestSchema>, signal?: AbortSignal) => {
    const message = create(NetworkServiceRequestSchema, request);
    return requestOnce(
      message,
      (hearing) => calls.request(managerUrl(), message, hearing),
      (answer) => calls.close(managerUrl(), answer, context()),
      context(signal),
    );
  };
  return {
    request: ask,
    connect: (service, { id = `${station.name}-0`, labels = {}, signal } = {}) =>
      ask(firstRequest(wishOf(service, id, labels)), signal),
    refresh: (connection, signal) => ask({ connection: clone(ConnectionSchema, connection) }, signal),
    close: (connection) => calls.close(managerUrl(), connection, context()),
    keep(service, labels = {}) {
      const stop = new AbortController();
      const ups: Connection[] = [];
      let failures = 0;
      const manager = {
        request: (request: Parameters<typeof calls.request>[1], signal: AbortSignal) =>
          calls.request(managerUrl(), request, context(signal)).catch((error: unknown) => {
            failures++;
            throw error;
          }),
        close: (connection: Connection, signal: AbortSignal) =>
          calls.close(managerUrl(), connection, context(signal)),
        monitor: (_selector: unknown, signal: AbortSignal) =>
          calls.monitor(managerUrl(), station.name, signal),
      };
      const wire = createWire(wishOf(service, `${station.name}-0`, labels), {
        manager,
        clock: { ...clock, monotonic: () => 20 * clock.monotonic() },
        log,
        requestTimeoutMs: CALL_MS,
        random: Math.random,
        onUp: (connection) => void ups.push(connection),
      });
      followManager(manager, { name: station.name, netnsUrl: netnsUrl(), log }, stop.signal).follow([wire]);
      const running = wire.run(stop.signal);
      const end = async () => {
        stop.abort();
        await running;
      };
      resources.defer(end);
      return {
        wire,
        ups,
        get failures() {
          return failures;
        },
        stop: end,
        async up(number = 1) {
          await eventually(`wire ${wire.id} for the ${number}. time`, () => ups.length >= number);
          const connection = ups[number - 1];
          if (connection === undefined) throw new Error("unreachable");
          return connection;
        },
      };
    },
  };
}
