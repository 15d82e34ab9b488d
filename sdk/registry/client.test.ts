/** Registries behind a session, as their callers see them. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  NetworkServiceEndpointRegistry,
  NetworkServiceEndpointSchema,
  NetworkServiceRegistry,
  NetworkServiceSchema,
} from "../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../registry/memory.ts";
import { openBed, until } from "../../test/support/grpc.ts";
import { systemClock as clock } from "../clock.ts";
import { openServer } from "../grpc/server.ts";
import { silentLogger as log } from "../log.ts";
import { EMPTY_PATH } from "../registry-path.ts";
import { verifySvid as verify } from "../spiffe/verify.ts";
import { createTokenMinter } from "../token.ts";
import { createRegistryClient } from "./client.ts";
import { findAll } from "./registry.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "./serve.ts";

const STREAMS = 10;

test("Register and Find go through while watches take all streams of their session", async () => {
  await using bed = await openBed();
  using memory = createMemoryRegistries(clock);
  const minter = createTokenMinter({ clock });
  const options = { minter, clock, ...memory, mayRelay: () => false };
  const source = await bed.source("/registry");
  const limits = { maxConcurrentStreams: STREAMS };
  await using _ = await openServer({ verify, clock, source, listen: [bed.url()], limits, log }, (add) => {
    add(NetworkServiceRegistry, serviceRegistryHandlers(memory, options));
    add(NetworkServiceEndpointRegistry, endpointRegistryHandlers(memory, options));
  });
  const pool = bed.pool(await bed.source("/client"));
  const registries = createRegistryClient({ pool, minter, clock, target: { url: bed.url() } });
  const register = (name: string) =>
    registries.services.register(create(NetworkServiceSchema, { name }), {
      signal: AbortSignal.timeout(10_000),
      deadlineMs: undefined,
      peer: undefined,
      registration: { path: EMPTY_PATH },
    });

  await register("s");
  const stop = new AbortController();
  let told = 0;
  const watches = Array.from({ length: 2 * STREAMS }, async () => {
    const query = { entry: create(NetworkServiceSchema, { name: "s" }), watch: true };
    for await (const found of registries.services.find(query, stop)) told += found.deleted ? 0 : 1;
  });
  await until("the watches that fit", () => told === STREAMS);
  await register("t");
  const query = create(NetworkServiceEndpointSchema, { name: "nobody" });
  expect(await findAll(registries.endpoints, query, AbortSignal.timeout(10_000))).toEqual([]);
  stop.abort();
  await Promise.allSettled(watches);
});
