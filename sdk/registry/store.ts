/** Entries by name in memory, with an index by service and watchers that never make anybody wait. */
import { createEventQueue } from "../event-queue.ts";
import type { EventQueue } from "../event-queue.ts";
import type { Found, Query } from "./registry.ts";

/** Changes that wait for a slow watcher before its stream is ended with ABORTED and it has to list again. */
const MAX_WAITING_EVENTS = 10_000;

export interface Kind<T> {
  readonly nameOf: (entry: T) => string;
  /** Services that an entry (or a query) names; the index goes by them. Empty for kinds without. */
  readonly servicesOf: (entry: T) => readonly string[];
  /** True when a stored entry fits the members that the query sets. */
  readonly matches: (query: T, entry: T) => boolean;
}

export interface Store<T> {
  get(name: string): T | undefined;
  /** Adds or replaces; watchers that it matches get it, those that only its predecessor matched get that as deleted. */
  put(entry: T): void;
  /** Watchers that the removed entry matches get it as deleted. */
  remove(name: string): T | undefined;
  find(query: Query<T>, signal: AbortSignal): AsyncIterable<Found<T>>;
  entries(): IterableIterator<T>;
  readonly size: number;
}

interface Watcher<T> {
  readonly query: T;
  readonly queue: EventQueue<Found<T>>;
}

export function createStore<T>(kind: Kind<T>): Store<T> {
  const byName = new Map<string, T>();
  const byService = createIndex<string, string>();
  // Most watchers follow one name: their own registration.
  const watchersByName = createIndex<string, Watcher<T>>();
  // Those without a name go by the first service that they ask for: a watcher is in one place, and is told once.
  const watchersByService = createIndex<string, Watcher<T>>();
  const otherWatchers = new Set<Watcher<T>>();

  const tell = ({ query, queue }: Watcher<T>, now: T | undefined, before: T | undefined) => {
    if (now !== undefined && kind.matches(query, now)) queue.push({ entry: now, deleted: false });
    else if (before !== undefined && kind.matches(query, before))
      queue.push({ entry: before, deleted: true });
  };
  const publish = (name: string, now: T | undefined, before: T | undefined) => {
    const services = [now, before].flatMap((entry) => (entry === undefined ? [] : kind.servicesOf(entry)));
    for (const watcher of watchersByName.get(name)) tell(watcher, now, before);
    for (const service of new Set(services))
      for (const watcher of watchersByService.get(service)) tell(watcher, now, before);
    for (const watcher of otherWatchers) tell(watcher, now, before);
  };
  const unindex = (entry: T) => {
    for (const service of kind.servicesOf(entry)) byService.delete(service, kind.nameOf(entry));
  };
  const candidates = (query: T): Iterable<T | undefined> => {
    const name = kind.nameOf(query);
    if (name !== "") return [byName.get(name)];
    const [service] = kind.servicesOf(query);
    if (service === undefined) return byName.values();
    return [...byService.get(service)].map((each) => byName.get(each));
  };
  const matching = (query: T): Found<T>[] => {
    const found: Found<T>[] = [];
    for (const entry of candidates(query))
      if (entry !== undefined && kind.matches(query, entry)) found.push({ entry, deleted: false });
    return found;
  };
  async function* watch(query: T, signal: AbortSignal): AsyncGenerator<Found<T>> {
    using queue = createEventQueue<Found<T>>(MAX_WAITING_EVENTS, signal);
    const watcher = { query, queue };
    const name = kind.nameOf(query);
    const [service] = kind.servicesOf(query);
    const present = matching(query);
    if (name !== "") watchersByName.add(name, watcher);
    else if (service !== undefined) watchersByService.add(service, watcher);
    else otherWatchers.add(watcher);
    try {
      yield* present;
      yield* queue;
    } finally {
      watchersByName.delete(name, watcher);
      if (service !== undefined) watchersByService.delete(service, watcher);
      otherWatchers.delete(watcher);
    }
  }
  async function* list(query: T): AsyncGenerator<Found<T>> {
    yield* matching(query);
  }

  return {
    get size() {
      return byName.size;
    },
    get: (name) => byName.get(name),
    entries: () => byName.values(),
    put(entry) {
      const name = kind.nameOf(entry);
      const old = byName.get(name);
      if (old !== undefined) unindex(old);
      byName.set(name, entry);
      for (const service of kind.servicesOf(entry)) byService.add(service, name);
      publish(name, entry, old);
    },
    remove(name) {
      const entry = byName.get(name);
      if (entry === undefined) return undefined;
      byName.delete(name);
      unindex(entry);
      publish(name, undefined, entry);
      return entry;
    },
    find: (query, signal) => (query.watch ? watch(query.entry, signal) : list(query.entry)),
  };
}

interface Index<K, V> {
  add(key: K, value: V): void;
  delete(key: K, value: V): void;
  get(key: K): ReadonlySet<V>;
}

function createIndex<K, V>(): Index<K, V> {
  const sets = new Map<K, Set<V>>();
  const none: ReadonlySet<V> = new Set();
  return {
    add(key, value) {
      const set = sets.get(key);
      if (set === undefined) sets.set(key, new Set([value]));
      else set.add(value);
    },
    delete(key, value) {
      const set = sets.get(key);
      if (set?.delete(value) === true && set.size === 0) sets.delete(key);
    },
    get: (key) => sets.get(key) ?? none,
  };
}
