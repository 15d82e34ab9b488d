/** Where `nsm get` reads: monitor streams of managers and the registry, each first as a list, then as changes. */
import { create } from "@bufbuild/protobuf";
import { ConnectionEventType, MonitorScopeSelectorSchema } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { NsmError } from "../sdk/errors.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { Registry } from "../sdk/registry/registry.ts";
import type { ManagerAccess, MeshClient } from "./client.ts";

/** A watch of the registry does not say where its first list ends, so it is compared with a list every so often. */
const LIST_AGAIN_MS = 10_000;

export type Update<T> =
  | { readonly kind: "list"; readonly items: ReadonlyMap<string, T> }
  | { readonly kind: "put"; readonly key: string; readonly item: T }
  | { readonly kind: "gone"; readonly key: string };

/** One stream; who watches opens it again when it has ended. */
export interface Source<T> {
  /** For messages. */
  readonly name: string;
  /** First a list; without `watch` nothing else. Throws what the peer says. */
  read(watch: boolean, signal: AbortSignal): AsyncIterable<Update<T>>;
}

export function wiresOf(manager: ManagerAccess): Source<Connection> {
  return {
    name: manager.url,
    async *read(watch, signal) {
      const { INITIAL_STATE_TRANSFER, DELETE } = ConnectionEventType;
      for await (const { type, connections } of manager.monitor(create(MonitorScopeSelectorSchema), signal)) {
        if (type === INITIAL_STATE_TRANSFER) {
          yield { kind: "list", items: new Map(Object.entries(connections)) };
          if (!watch) return;
        } else
          for (const [key, item] of Object.entries(connections))
            yield type === DELETE ? { kind: "gone", key } : { kind: "put", key, item };
      }
    },
  };
}

/** The manager that is asked, and with `allNodes` those that the forwarders of the mesh are registered through. */
export async function managersOf(
  client: MeshClient,
  allNodes: boolean,
  signal: AbortSignal,
): Promise<readonly ManagerAccess[]> {
  if (!allNodes) return [client.manager];
  const others = await otherForwarders(client, signal);
  return [client.manager, ...[...new Set(others.values())].map((url) => client.at(url))];
}

/** URLs of the managers that forwarders of other nodes are registered through, by forwarder; those of the own node appear with their sockets. */
export async function otherForwarders(
  { manager, forwarderService }: MeshClient,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const query = create(NetworkServiceEndpointSchema, { networkServiceNames: [forwarderService] });
  const forwarders = await findAll(manager.registries.endpoints, query, signal);
  return new Map(
    forwarders.flatMap(({ name, url }) => (url.startsWith("tcp://") ? [[name, url] as const] : [])),
  );
}

export function servicesOf({ url, registries }: ManagerAccess): Source<NetworkService> {
  return registrySource(url, registries.services, create(NetworkServiceSchema));
}

/** What other domains let this one use; `@domain`, with the reason as payload, for one that does not answer. */
export function servicesOfDomains({ url, registries }: ManagerAccess): Source<NetworkService> {
  const query = create(NetworkServiceSchema, { name: "@*" });
  return registrySource(`${url}: other domains`, registries.services, query);
}

export function endpointsOf({ url, registries }: ManagerAccess): Source<NetworkServiceEndpoint> {
  return registrySource(url, registries.endpoints, create(NetworkServiceEndpointSchema));
}

function registrySource<T extends { readonly name: string }>(
  name: string,
  registry: Registry<T>,
  entry: T,
): Source<T> {
  return {
    name,
    async *read(watch, signal) {
      const entries = await findAll(registry, entry, signal);
      yield { kind: "list", items: new Map(entries.map((item) => [item.name, item])) };
      if (!watch) return;
      const again = AbortSignal.timeout(LIST_AGAIN_MS);
      try {
        const found = registry.find({ entry, watch: true }, { signal: AbortSignal.any([signal, again]) });
        for await (const { entry: item, deleted } of found)
          yield deleted ? { kind: "gone", key: item.name } : { kind: "put", key: item.name, item };
      } catch (error) {
        if (!again.aborted || signal.aborted || !(error instanceof NsmError)) throw error;
      }
    },
  };
}
