/** What a recorded registry knew, from all that it was told and said: the answers to Finds that the recording does not have. */
import { clone, create, fromJson } from "@bufbuild/protobuf";
import type { DescMessage, JsonValue, Message } from "@bufbuild/protobuf";
import {
  NetworkServiceEndpointQuerySchema,
  NetworkServiceEndpointResponseSchema,
  NetworkServiceEndpointSchema,
  NetworkServiceQuerySchema,
  NetworkServiceResponseSchema,
  NetworkServiceSchema,
} from "../../../api/gen/registry_pb.js";
import type {
  NetworkService,
  NetworkServiceEndpoint,
  NetworkServiceEndpointQuery,
  NetworkServiceQuery,
} from "../../../api/gen/registry_pb.js";
import { decodeMessage } from "../../../sdk/message.ts";
import { matchesEndpoint, matchesNetworkService } from "../../../sdk/match.ts";
import { createStore } from "../../../sdk/registry/store.ts";
import type { Places } from "./places.ts";
import { requestOf } from "./recording.ts";
import type { RecordedCall, RecordedCase } from "./recording.ts";

export interface Directory {
  /** Catches up with the recording. */
  pass(position: number): void;
  /** Answers a query message of either registry with response messages. */
  find(schema: DescMessage, query: JsonValue, signal: AbortSignal): AsyncGenerator<Message>;
}

interface Change {
  readonly at: number;
  readonly apply: () => void;
}

export function createDirectory(recorded: RecordedCase, server: string, places: Places): Directory {
  const services = createStore<NetworkService>({
    nameOf: ({ name }) => name,
    servicesOf: () => [],
    matches: matchesNetworkService,
  });
  const endpoints = createStore<NetworkServiceEndpoint>({
    nameOf: ({ name }) => name,
    servicesOf: ({ networkServiceNames }) => networkServiceNames,
    matches: matchesEndpoint,
  });
  const calls = recorded.calls.filter((call) => call.server === server);
  const registered = new Set(calls.filter((call) => call.method.endsWith("/Register")).map(nameIn));
  const put = (entry: NetworkService | NetworkServiceEndpoint) => {
    if (entry.$typeName === "registry.NetworkService") services.put(entry);
    else endpoints.put({ ...entry, url: places.toOurs(entry.url) });
  };
  const remove = (isService: boolean, name: string) => (isService ? services : endpoints).remove(name);

  const changes = calls.flatMap((call): Change[] => {
    const isService = call.method.startsWith("/registry.NetworkServiceRegistry/");
    const end = call.end ?? Infinity;
    if (call.method.endsWith("/Unregister"))
      return call.status?.code === 0 ? [{ at: end, apply: () => remove(isService, nameIn(call)) }] : [];
    if (!call.method.startsWith("/registry.")) return [];
    return call.responses.flatMap(({ at, bytes }): Change[] => {
      const { entry, deleted } = decoded(call, Buffer.from(bytes, "base64"));
      if (entry === undefined) return [];
      if (deleted) return [{ at, apply: () => remove(isService, entry.name) }];
      if (call.method.endsWith("/Register")) return [{ at, apply: () => put(entry) }];
      // Learned from somewhere beyond the recording: it was always there.
      return registered.has(entry.name) ? [] : [{ at: 0, apply: () => put(entry) }];
    });
  });
  const waiting = changes.toSorted((a, b) => a.at - b.at);

  return {
    pass(position) {
      for (const next = () => waiting[0]; (next()?.at ?? Infinity) <= position;) waiting.shift()?.apply();
    },
    async *find(schema, json, signal) {
      const query = fromJson(schema, json);
      if (isServiceQuery(query)) {
        const { networkService = create(NetworkServiceSchema), watch } = query;
        for await (const { entry, deleted } of services.find({ entry: networkService, watch }, signal))
          yield create(NetworkServiceResponseSchema, {
            networkService: clone(NetworkServiceSchema, entry),
            deleted,
          });
      } else if (isEndpointQuery(query)) {
        const { networkServiceEndpoint = create(NetworkServiceEndpointSchema), watch } = query;
        for await (const { entry, deleted } of endpoints.find(
          { entry: networkServiceEndpoint, watch },
          signal,
        ))
          yield create(NetworkServiceEndpointResponseSchema, {
            networkServiceEndpoint: clone(NetworkServiceEndpointSchema, entry),
            deleted,
          });
      } else throw new Error(`${query.$typeName} is no query`);
    },
  };
}

function nameIn(call: RecordedCall): string {
  const name: unknown = Reflect.get(requestOf(call), "name");
  return typeof name === "string" ? name : "";
}

function decoded(call: RecordedCall, bytes: Uint8Array) {
  const isService = call.method.startsWith("/registry.NetworkServiceRegistry/");
  if (call.method.endsWith("/Register"))
    return {
      entry: isService
        ? decodeMessage(NetworkServiceSchema, bytes)
        : decodeMessage(NetworkServiceEndpointSchema, bytes),
      deleted: false,
    };
  if (isService) {
    const { networkService: entry, deleted } = decodeMessage(NetworkServiceResponseSchema, bytes);
    return { entry, deleted };
  }
  const { networkServiceEndpoint: entry, deleted } = decodeMessage(
    NetworkServiceEndpointResponseSchema,
    bytes,
  );
  return { entry, deleted };
}

function isServiceQuery(message: Message): message is NetworkServiceQuery {
  return message.$typeName === NetworkServiceQuerySchema.typeName;
}

function isEndpointQuery(message: Message): message is NetworkServiceEndpointQuery {
  return message.$typeName === NetworkServiceEndpointQuerySchema.typeName;
}
