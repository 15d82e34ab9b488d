/** What a registry knows of the services that this process uses, kept current by one watch each: no look-up on the hot path. */
import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import { createBackoff } from "../backoff.ts";
import { delay } from "../clock.ts";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { findAll } from "./registry.ts";
import type { Registries, Registry } from "./registry.ts";

/** A watch that nobody asked about for so long is ended. */
const IDLE_MS = 10 * 60_000;

export interface RegistryView extends Disposable {
  service(name: string, signal: AbortSignal): Promise<NetworkService | undefined>;
  /** Endpoints of a service that are not expired, in the registry's order. */
  endpointsOf(service: string, signal: AbortSignal): Promise<readonly NetworkServiceEndpoint[]>;
  /** By name, asked anew each time. */
  endpoint(name: string, signal: AbortSignal): Promise<NetworkServiceEndpoint | undefined>;
}

export function createRegistryView(registries: Registries, clock: Clock, log: Logger): RegistryView {
  const services = createWatches(registries.services, clock, log);
  const endpoints = createWatches(registries.endpoints, clock, log);
  const alive = (entry: NetworkServiceEndpoint) =>
    entry.expirationTime === undefined || timestampMs(entry.expirationTime) > clock.now();
  return {
    async service(name, signal) {
      const known = await services.get(name, create(NetworkServiceSchema, { name }), signal);
      return known.find((entry) => entry.name === name);
    },
    async endpointsOf(service, signal) {
      const query = create(NetworkServiceEndpointSchema, { networkServiceNames: [service] });
      return (await endpoints.get(service, query, signal)).filter(alive);
    },
    async endpoint(name, signal) {
      const found = await findAll(
        registries.endpoints,
        create(NetworkServiceEndpointSchema, { name }),
        signal,
      );
      return found.find((entry) => entry.name === name && alive(entry));
    },
    [Symbol.dispose]() {
      services[Symbol.dispose]();
      endpoints[Symbol.dispose]();
    },
  };
}

interface Watches<T> extends Disposable {
  get(key: string, query: T, signal: AbortSignal): Promise<readonly T[]>;
}

interface Watch<T> {
  entries: Map<string, T>;
  /** False until the first list came, and again while the stream is broken and nothing is known. */
  listed: boolean;
  usedAt: number;
  readonly stop: AbortController;
}

function createWatches<T extends { readonly name: string }>(
  registry: Registry<T>,
  clock: Clock,
  log: Logger,
): Watches<T> {
  const watches = new Map<string, Watch<T>>();

  const dropIdle = () => {
    for (const [key, watch] of watches) {
      if (clock.monotonic() - watch.usedAt < IDLE_MS) continue;
      watch.stop.abort();
      watches.delete(key);
    }
  };
  const start = (key: string, query: T): Watch<T> => {
    dropIdle();
    const watch: Watch<T> = {
      entries: new Map(),
      listed: false,
      usedAt: clock.monotonic(),
      stop: new AbortController(),
    };
    watches.set(key, watch);
    void follow(registry, query, watch, log);
    return watch;
  };

  return {
    async get(key, query, signal) {
      const watch = watches.get(key) ?? start(key, query);
      watch.usedAt = clock.monotonic();
      // A watch has no mark after its first list, and may be a moment behind: nothing known is asked for once more.
      if (!watch.listed || watch.entries.size === 0) {
        const entries = await findAll(registry, query, signal);
        if (!watch.listed) {
          for (const entry of entries) watch.entries.set(entry.name, entry);
          watch.listed = entries.length > 0;
        }
        return entries;
      }
      return [...watch.entries.values()];
    },
    [Symbol.dispose]() {
      for (const watch of watches.values()) watch.stop.abort();
      watches.clear();
    },
  };
}

/** Keeps one watch open; what was known stays in use while the registry is away. */
async function follow<T extends { readonly name: string }>(
  registry: Registry<T>,
  query: T,
  watch: Watch<T>,
  log: Logger,
): Promise<void> {
  const { signal } = watch.stop;
  const backoff = createBackoff();
  let again = false;
  while (!signal.aborted) {
    try {
      if (again) {
        const entries = await findAll(registry, query, AbortSignal.any([signal, AbortSignal.timeout(5000)]));
        watch.entries = new Map(entries.map((entry) => [entry.name, entry]));
      }
      for await (const { entry, deleted } of registry.find({ entry: query, watch: true }, { signal })) {
        backoff.reset();
        if (deleted) watch.entries.delete(entry.name);
        else watch.entries.set(entry.name, entry);
      }
    } catch (err) {
      if (!signal.aborted) log.debug({ err }, "registry watch broke, opening it again");
    }
    again = true;
    if (!signal.aborted) await delay(backoff.next(), signal).catch(() => undefined);
  }
}
