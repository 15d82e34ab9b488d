/**
 * What a registry knows of the services that this process uses, kept current by one watch each: no look-up on the hot path.
 *
 * Clients name services as they like, so a watch is only for what the registry has, and there are not more than so many.
 */
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

/** A watch that nobody asked about for so long is ended, a minute later at most. */
const IDLE_MS = 10 * 60_000;
const SWEEP_MS = 60_000;
/** Watches of services, of endpoints by service, and of endpoints by name. */
const MAX_WATCHES = 256;
/** Where no watch is free, the one that was used least recently makes way if that was longer ago. */
const BUSY_MS = 60_000;
const LIST_TIMEOUT_MS = 5000;
/** How long a watch may say nothing before the registry is asked whether there is nothing to say. */
const SILENT_MS = 1000;

export interface RegistryView extends Disposable {
  service(name: string, signal: AbortSignal): Promise<NetworkService | undefined>;
  /** Endpoints of a service that are not expired, in the registry's order. */
  endpointsOf(service: string, signal: AbortSignal): Promise<readonly NetworkServiceEndpoint[]>;
  /** By name, unless it is expired. `service`: where it is found without asking if that is followed already. */
  endpoint(name: string, service: string, signal: AbortSignal): Promise<NetworkServiceEndpoint | undefined>;
}

export function createRegistryView(registries: Registries, clock: Clock, log: Logger): RegistryView {
  const services = createWatches(registries.services, clock, log);
  const endpoints = createWatches(registries.endpoints, clock, log);
  const named = createWatches(registries.endpoints, clock, log);
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
    async endpoint(name, service, signal) {
      const known = endpoints.known(service).find((entry) => entry.name === name && alive(entry));
      if (known !== undefined) return known;
      const found = await named.get(name, create(NetworkServiceEndpointSchema, { name }), signal);
      return found.find((entry) => entry.name === name && alive(entry));
    },
    [Symbol.dispose]() {
      services[Symbol.dispose]();
      endpoints[Symbol.dispose]();
      named[Symbol.dispose]();
    },
  };
}

interface Watches<T> extends Disposable {
  /** What a watch that is open has told; nobody is asked. */
  known(key: string): readonly T[];
  get(key: string, query: T, signal: AbortSignal): Promise<readonly T[]>;
}

interface Watch<T> {
  readonly entries: Map<string, T>;
  usedAt: number;
  readonly stop: AbortController;
}

function createWatches<T extends { readonly name: string }>(
  registry: Registry<T>,
  clock: Clock,
  log: Logger,
): Watches<T> {
  /** The one that was used least recently is the first. */
  const watches = new Map<string, Watch<T>>();
  let disposed = false;

  const end = (key: string) => {
    watches.get(key)?.stop.abort();
    watches.delete(key);
  };
  const sweep = () => {
    for (const [key, { usedAt }] of watches) if (clock.monotonic() - usedAt >= IDLE_MS) end(key);
    timer = clock.timer(SWEEP_MS, sweep);
  };
  let timer = clock.timer(SWEEP_MS, sweep);
  const use = (key: string, watch: Watch<T>) => {
    watch.usedAt = clock.monotonic();
    watches.delete(key);
    watches.set(key, watch);
  };
  const hasRoom = () => {
    const [first] = watches;
    if (watches.size < MAX_WATCHES || first === undefined) return true;
    const [key, { usedAt }] = first;
    if (clock.monotonic() - usedAt < BUSY_MS) return false;
    end(key);
    return true;
  };
  const start = (key: string, query: T, entries: readonly T[]) => {
    if (disposed || watches.has(key) || !hasRoom()) return;
    const watch: Watch<T> = { entries: byName(entries), usedAt: 0, stop: new AbortController() };
    use(key, watch);
    void follow(registry, query, watch, log);
  };

  return {
    known: (key) => [...(watches.get(key)?.entries.values() ?? [])],
    async get(key, query, signal) {
      const watch = watches.get(key);
      if (watch !== undefined) use(key, watch);
      if (watch !== undefined && watch.entries.size > 0) return [...watch.entries.values()];
      // A watch may be a moment behind: nothing known is asked for once more.
      const entries = await findAll(registry, query, signal);
      if (entries.length > 0) start(key, query, entries);
      return entries;
    },
    [Symbol.dispose]() {
      disposed = true;
      timer[Symbol.dispose]();
      for (const key of watches.keys()) end(key);
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
  while (!signal.aborted) {
    try {
      await followOnce(registry, query, watch.entries, signal, () => backoff.reset());
    } catch (err) {
      if (!signal.aborted) log.debug({ err }, "registry watch broke, opening it again");
    }
    if (!signal.aborted) await delay(backoff.next(), signal).catch(() => undefined);
  }
}

/**
 * One stream, until it ends. A watch does not say where its first list ends, so a list that is asked for once it is open tells
 * what has gone since the last stream: whatever neither of the two names.
 */
async function followOnce<T extends { readonly name: string }>(
  registry: Registry<T>,
  query: T,
  entries: Map<string, T>,
  stop: AbortSignal,
  onTold: () => void,
): Promise<void> {
  const broken = new AbortController();
  const signal = AbortSignal.any([stop, broken.signal]);
  const first = Promise.withResolvers<void>();
  /** Names that this stream spoke of: what it says of them is newer than the list. */
  const told = new Set<string>();
  let isOpen = false;
  let isCompared = false;
  const read = async () => {
    for await (const { entry, deleted } of registry.find({ entry: query, watch: true }, { signal })) {
      onTold();
      if (!isCompared) told.add(entry.name);
      if (deleted) entries.delete(entry.name);
      else entries.set(entry.name, entry);
      isOpen = true;
      first.resolve();
    }
  };
  const compare = async () => {
    while (!isCompared) {
      await Promise.race([first.promise, delay(SILENT_MS, signal)]);
      const wasOpen = isOpen;
      const listed = byName(await findAll(registry, query, within(LIST_TIMEOUT_MS, signal)));
      for (const name of entries.keys()) if (!told.has(name) && !listed.has(name)) entries.delete(name);
      for (const [name, entry] of listed) if (!told.has(name)) entries.set(name, entry);
      // A watch that is silent about entries is not open yet, and what goes until it is would be missed.
      isCompared = wasOpen || listed.size === 0;
    }
    told.clear();
  };
  const end = () => broken.abort();
  const fail = (error: unknown) => {
    end();
    throw error;
  };
  const results = await Promise.allSettled([read().finally(end), compare().catch(fail)]);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

function byName<T extends { readonly name: string }>(entries: readonly T[]): Map<string, T> {
  return new Map(entries.map((entry) => [entry.name, entry]));
}

function within(timeoutMs: number, signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
}
