/** A process of its own for the simulation, whose memory is nobody else's. Run with --expose-gc; says what it measured and ends. */
import { create } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../../api/gen/registry_pb.js";
import { delay, systemClock as clock } from "../../../sdk/clock.ts";
import { keepImports } from "../../../sdk/domains/imports.ts";
import { joinDomain } from "../../../sdk/domains/name.ts";
import { silentLogger as log } from "../../../sdk/log.ts";
import { EMPTY_PATH } from "../../../sdk/registry-path.ts";
import { findAll } from "../../../sdk/registry/registry.ts";
import type { Registries } from "../../../sdk/registry/registry.ts";
import { openWorld } from "./world.ts";
import type { World } from "./world.ts";

const DOMAINS = 10;
const SERVICES = 1000;
const ENDPOINTS = DOMAINS * SERVICES;
const WARM_UP = 300;
const FINDS = 1500;
const REMEMBERED = 1000;
/** Services that are taken in, from each domain: every one of them is a watch for each domain. */
const IMPORTED = 50;
const IMPORTED_WITHIN_MS = 40_000;

export interface Simulated {
  /** By a client, of a service of another domain and of one of its own; milliseconds, each. */
  readonly elsewhereMs: readonly number[];
  readonly homeMs: readonly number[];
  readonly failed: readonly string[];
  /** Of heap for each endpoint: that the proxy has passed on, and that the registry has taken among its own. */
  readonly foundBytes: number;
  readonly importedBytes: number;
}

async function simulate(): Promise<Simulated> {
  await using world = await openWorld(DOMAINS, SERVICES);
  await world.register();
  const failed: string[] = [];
  const home = (i: number) => `service-${(7 * i) % SERVICES}`;
  await timed(world.client, WARM_UP, elsewhere, failed);
  await timed(world.client, WARM_UP, home, failed);
  const elsewhereMs = await timed(world.client, FINDS, elsewhere, failed);
  const homeMs = await timed(world.client, FINDS, home, failed);
  const foundBytes = await rememberMore(world);
  await world.register();
  const importedBytes = await importAll(world);
  return { elsewhereMs, homeMs, failed, foundBytes, importedBytes };
}

/** Another one for each of all endpoints. */
function elsewhere(i: number): string {
  return joinDomain(`service-${(7 * i) % SERVICES}`, `d${(i + Math.floor(i / SERVICES)) % DOMAINS}`);
}

async function timed(
  { endpoints }: Registries,
  count: number,
  serviceOf: (i: number) => string,
  failed: string[],
): Promise<readonly number[]> {
  const eachMs: number[] = [];
  for (let i = 0; i < count; i++) {
    const service = serviceOf(i);
    const query = create(NetworkServiceEndpointSchema, { networkServiceNames: [service] });
    const start = performance.now();
    const found = await findAll(endpoints, query, AbortSignal.timeout(10_000));
    eachMs.push(performance.now() - start);
    if (found.length !== 1) failed.push(`${service} has ${found.length} endpoints, not 1`);
  }
  return eachMs;
}

/** Endpoints that the proxy has not passed on before. */
async function rememberMore({ elsewhere: registries }: World): Promise<number> {
  const first = ENDPOINTS - REMEMBERED;
  const before = await heapBytes();
  await timed(registries, REMEMBERED, (i) => elsewhere(first + i), []);
  return ((await heapBytes()) - before) / REMEMBERED;
}

/** What the registries there keep for these watches is in this heap, too. */
async function importAll({ home, elsewhere }: World): Promise<number> {
  const before = await heapBytes();
  await using imports = keepImports({ registries: home, elsewhere, clock, log });
  void imports;
  const importFrom = Array.from({ length: DOMAINS }, (_, i) => `d${i}`);
  for (let i = 0; i < IMPORTED; i++)
    await home.services.register(
      create(NetworkServiceSchema, { name: `service-${i}`, payload: "IP", importFrom }),
      {
        signal: new AbortController().signal,
        deadlineMs: undefined,
        peer: undefined,
        registration: { path: EMPTY_PATH },
      },
    );
  const imported = IMPORTED * DOMAINS;
  const wanted = SERVICES + imported;
  for (const end = performance.now() + IMPORTED_WITHIN_MS; home.sizes().endpoints < wanted; await delay(50))
    if (performance.now() > end)
      throw new Error(`${home.sizes().endpoints} of ${wanted} endpoints after ${IMPORTED_WITHIN_MS} ms`);
  return ((await heapBytes()) - before) / imported;
}

/** Once what is garbage is gone. */
async function heapBytes(): Promise<number> {
  if (global.gc === undefined) throw new Error("run it with --expose-gc");
  for (let i = 0; i < 3; i++) {
    await delay(50);
    global.gc();
  }
  return process.memoryUsage().heapUsed;
}

process.send?.(await simulate());
process.disconnect();
