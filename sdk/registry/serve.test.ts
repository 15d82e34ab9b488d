/** The registries' handlers: what is refused before a registry is asked. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  NetworkServiceEndpointQuerySchema,
  NetworkServiceEndpointSchema,
  NetworkServiceQuerySchema,
  NetworkServiceSchema,
} from "../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../registry/memory.ts";
import { failureOf } from "../../test/support/grpc.ts";
import { makePeer } from "../../test/support/peer.ts";
import { systemClock } from "../clock.ts";
import type { Caller } from "../grpc/caller.ts";
import { createTokenMinter } from "../token.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "./serve.ts";

const TOO_LONG = "x".repeat(508);
const LIMIT = { code: "INVALID_ARGUMENT", reason: "limit" };

async function build() {
  const registries = createMemoryRegistries(systemClock);
  const options = {
    minter: createTokenMinter({ clock: systemClock }),
    clock: systemClock,
    ...registries,
    mayRelay: () => false,
  };
  const caller: Caller = {
    peer: await makePeer("/client"),
    metadata: { get: () => [] },
    signal: new AbortController().signal,
    deadlineMs: undefined,
    sendHeader: () => undefined,
  };
  return {
    caller,
    services: serviceRegistryHandlers(registries, options),
    endpoints: endpointRegistryHandlers(registries, options),
    [Symbol.dispose]: () => registries[Symbol.dispose](),
  };
}

test("a service record over the limits is refused in every method", async () => {
  using bed = await build();
  const { services, caller } = bed;
  const service = create(NetworkServiceSchema, { name: TOO_LONG });
  const query = create(NetworkServiceQuerySchema, { networkService: service });
  expect(await failureOf(services.register(service, caller))).toMatchObject(LIMIT);
  expect(await failureOf(services.unregister(service, caller))).toMatchObject(LIMIT);
  expect(await failureOf(first(services.find(query, caller)))).toMatchObject(LIMIT);
  expect((await first(services.find(create(NetworkServiceQuerySchema), caller))).done).toBe(true);
});

test("an endpoint record over the limits is refused in every method", async () => {
  using bed = await build();
  const { endpoints, caller } = bed;
  const endpoint = create(NetworkServiceEndpointSchema, { name: TOO_LONG });
  const query = create(NetworkServiceEndpointQuerySchema, { networkServiceEndpoint: endpoint });
  expect(await failureOf(endpoints.register(endpoint, caller))).toMatchObject(LIMIT);
  expect(await failureOf(endpoints.unregister(endpoint, caller))).toMatchObject(LIMIT);
  expect(await failureOf(first(endpoints.find(query, caller)))).toMatchObject(LIMIT);
  expect((await first(endpoints.find(create(NetworkServiceEndpointQuerySchema), caller))).done).toBe(true);
});

function first<T>(messages: AsyncIterable<T>): Promise<IteratorResult<T>> {
  return messages[Symbol.asyncIterator]().next();
}
