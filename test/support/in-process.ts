/**
 * A mesh in one process, for scenarios: registry, managers, forwarders, endpoints and clients with their real chains over
 * stations (stations.ts); only the kernel is missing. Endpoints count what reaches them and may be told to refuse.
 */
import { clone, create } from "@bufbuild/protobuf";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../registry/memory.ts";
import { systemClock as clock } from "../../sdk/clock.ts";
import { keepImports } from "../../sdk/domains/imports.ts";
import { routeByDomain } from "../../sdk/domains/route.ts";
import { NsmError } from "../../sdk/errors.ts";
import { silentLogger as log } from "../../sdk/log.ts";
import { EMPTY_PATH } from "../../sdk/registry-path.ts";
import type { Registries, Registry, RegistryContext } from "../../sdk/registry/registry.ts";
import type { MonitorStore } from "../../sdk/elements/monitor.ts";
import type { FakeDataplane } from "./dataplane.ts";
import { makeAuthority } from "./certificates.ts";
import type { TestAuthority } from "./certificates.ts";
import { createStations } from "./stations.ts";
import type { Station, Stations, Transit } from "./stations.ts";
import {
  CALL_MS,
  FORWARDER_SERVICE,
  newCounts,
  startClient,
  startEndpoint,
  startForwarder,
  startManager,
} from "./in-process-parts.ts";
import type {
  ClientHandle,
  Counts,
  EndpointHandle,
  EndpointOptions,
  Manager,
  World,
} from "./in-process-parts.ts";

export interface ForwarderHandle {
  readonly name: string;
  readonly dataplane: FakeDataplane;
  readonly store: MonitorStore;
  /** Requests and closes that reached it. */
  readonly counts: Counts;
  kill(): Promise<void>;
}

export interface InProcessMesh extends AsyncDisposable {
  service(entry: MessageInitShape<typeof NetworkServiceSchema>): Promise<void>;
  /** With a manager; forwarders are added to it. */
  node(name: string): Promise<NodeHandle>;
  /** Nodes with one forwarder each, `forwarder-<name>`. */
  nodes<const N extends readonly string[]>(...names: N): Promise<{ [K in keyof N]: NodeHandle }>;
  /** What the registry has. */
  readonly registries: Registries;
  /** False: every call fails and watches end. */
  setRegistry(works: boolean): void;
}

export interface NodeHandle {
  readonly name: string;
  forwarder(name: string, labels?: Readonly<Record<string, string>>): Promise<ForwarderHandle>;
  /** By its name, as {@link ForwarderHandle.kill}. */
  killForwarder(name: string): Promise<void>;
  endpoint(options: EndpointOptions): Promise<EndpointHandle>;
  client(name: string): Promise<ClientHandle>;
  /** The manager that runs now. */
  readonly manager: Manager;
  /** The manager dies, and nobody takes its place. */
  killManager(): void;
  /** A new manager process in place of the old one; forwarders and endpoints register again, as they do by themselves. */
  restart(): Promise<void>;
}

/** Names of the path segments, from the client to the endpoint. */
export function hopsIn({ path }: Connection): readonly string[] {
  return path?.pathSegments.map(({ name }) => name) ?? [];
}

export interface InProcessOptions {
  /** Whose identities its parts have; one of its own unless given. */
  readonly authority?: TestAuthority;
  /** Where its parts meet those of other meshes; in place of `authority`. */
  readonly stations?: Stations;
  /** How long messages take; at once unless given. */
  readonly transit?: Transit;
  /** Who knows other domains. */
  readonly elsewhere?: Registries;
}

export async function startInProcess(options: InProcessOptions = {}): Promise<InProcessMesh> {
  await using stack = new AsyncDisposableStack();
  const { authority, elsewhere, transit } = options;
  const stations =
    options.stations ?? createStations(authority ?? (await makeAuthority("example.org")), transit);
  const own = stack.use(createMemoryRegistries(clock));
  stack.use(keepImports({ registries: own, elsewhere, clock, log }));
  const memory = routeByDomain(own, elsewhere);
  const outage = { current: new AbortController(), isDown: false };
  const registries: Registries = {
    services: copying(memory.services, (entry) => clone(NetworkServiceSchema, entry), outage),
    endpoints: copying(memory.endpoints, (entry) => clone(NetworkServiceEndpointSchema, entry), outage),
  };
  const resources = stack.move();
  return {
    registries,
    service: async (entry) =>
      void (await registries.services.register(create(NetworkServiceSchema, entry), ctxOf())),
    node: (name) => startNode(name, { stations, registries, resources }),
    async nodes(...nodeNames) {
      const started = nodeNames.map(async (name) => {
        const node = await startNode(name, { stations, registries, resources });
        await node.forwarder(`forwarder-${name}`);
        return node;
      });
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- one node for each name
      return (await Promise.all(started)) as { [K in keyof typeof nodeNames]: NodeHandle };
    },
    setRegistry(works) {
      outage.isDown = !works;
      if (!works) outage.current.abort();
      else outage.current = new AbortController();
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

interface Outage {
  current: AbortController;
  isDown: boolean;
}

/** As over the wire: nobody shares objects with the registry, and it can be away. */
function copying<T>(inner: Registry<T>, copy: (entry: T) => T, outage: Outage): Registry<T> {
  const away = () => new NsmError("UNAVAILABLE", "unreachable", "the registry is away");
  const check = () => {
    if (outage.isDown) throw away();
  };
  return {
    async register(entry, ctx) {
      check();
      return copy(await inner.register(copy(entry), ctx));
    },
    async *find(query, { signal }) {
      check();
      const { signal: gone } = outage.current;
      const copied = { ...query, entry: copy(query.entry) };
      for await (const found of inner.find(copied, { signal: AbortSignal.any([signal, gone]) }))
        yield { ...found, entry: copy(found.entry) };
      if (gone.aborted && !signal.aborted) throw away();
    },
    async unregister(entry, ctx) {
      check();
      await inner.unregister(copy(entry), ctx);
    },
  };
}

function ctxOf(peer?: RegistryContext["peer"]): RegistryContext {
  return {
    signal: AbortSignal.timeout(CALL_MS),
    deadlineMs: undefined,
    peer,
    registration: { path: EMPTY_PATH },
  };
}

async function startNode(name: string, world: World): Promise<NodeHandle> {
  const { stations, resources } = world;
  let manager = await startManager(name, world);
  const registrants = new Map<string, () => Promise<void>>();
  const forwarders = new Map<string, Station>();
  const register = async (station: Station, entry: () => NetworkServiceEndpoint) => {
    const send = async () => {
      if (!station.isAlive) return;
      const peer = station.peerAt(manager.station, manager.station.url);
      await manager.registries.endpoints.register(entry(), ctxOf(peer));
    };
    registrants.set(station.name, send);
    await send();
  };
  const kill = async (station: Station) => {
    station.kill();
    registrants.delete(station.name);
    manager.forget(station.name);
    await world.registries.endpoints.unregister(
      create(NetworkServiceEndpointSchema, { name: station.name }),
      ctxOf(),
    );
  };
  return {
    name,
    get manager() {
      return manager;
    },
    killManager: () => manager.station.kill(),
    async restart() {
      manager.station.kill();
      manager = await startManager(name, world);
      for (const send of registrants.values()) await send();
    },
    async forwarder(forwarderName, labels = { p2p: "true" }) {
      const url = `unix:///${forwarderName}.sock`;
      const path = `/forwarder/${forwarderName}`;
      const station = resources.use(await stations.open({ name: forwarderName, path, url }));
      forwarders.set(forwarderName, station);
      const counts = newCounts();
      const { dataplane, store } = startForwarder(station, () => manager.registries, counts, world);
      await register(station, () =>
        create(NetworkServiceEndpointSchema, {
          name: forwarderName,
          networkServiceNames: [FORWARDER_SERVICE],
          networkServiceLabels: { [FORWARDER_SERVICE]: { labels } },
          url,
        }),
      );
      return { name: forwarderName, dataplane, store, counts, kill: () => kill(station) };
    },
    async killForwarder(forwarderName) {
      const station = forwarders.get(forwarderName);
      if (station === undefined) throw new Error(`node ${name} has no forwarder ${forwarderName}`);
      await kill(station);
    },
    async endpoint(options) {
      const url = `unix:///${options.name}.sock`;
      const station = resources.use(
        await stations.open({ name: options.name, path: `/nse/${options.name}`, url }),
      );
      const counts = newCounts();
      const handle: EndpointHandle = {
        ...startEndpoint(station, options, counts),
        name: options.name,
        counts,
        kill: () => kill(station),
        async unregister() {
          registrants.delete(options.name);
          await manager.registries.endpoints.unregister(
            create(NetworkServiceEndpointSchema, { name: options.name }),
            ctxOf(),
          );
        },
      };
      const { service, labels = {} } = options;
      const entry = () =>
        create(NetworkServiceEndpointSchema, {
          name: options.name,
          networkServiceNames: [service],
          networkServiceLabels: { [service]: { labels } },
          url,
        });
      await register(station, entry);
      return handle;
    },
    async client(clientName) {
      const station = resources.use(
        await stations.open({
          name: clientName,
          path: `/nsc/${clientName}`,
          url: `unix:///${clientName}.sock`,
        }),
      );
      return startClient(station, () => manager.station.url, world);
    },
  };
}
