/** Records of a registry by what was asked for, each set kept current by one watch. */
import { createBackoff } from "../backoff.ts";
import { delay } from "../clock.ts";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { findAll } from "./registry.ts";
import type { Registry } from "./registry.ts";

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

export interface Watches<T> extends Disposable {
  /** What the watch for a key has told; undefined without one, and before it has told anything. Nobody is asked. */
  known(key: string): readonly T[] | undefined;
  /** The same, and the registry is asked when that is nothing. */
  get(key: string, query: T, signal: AbortSignal): Promise<readonly T[]>;
  /** Keeps a watch open, and tells of changes, until disposed. */
  follow(key: string, query: T, onChange: () => void): Disposable;
}

interface Watch<T> {
  readonly entries: Map<string, T>;
  /** False until the registry has said what there is. */
  isTold: boolean;
  usedAt: number;
  readonly stop: AbortController;
}

interface Followed<T> {
  readonly query: T;
  readonly listeners: Set<() => void>;
}

/** `same`: the difference between two records of one name is no change to who follows. */
export function createWatches<T extends { readonly name: string }>(
  registry: Registry<T>,
  same: (a: T, b: T) => boolean,
  clock: Clock,
  log: Logger,
): Watches<T> {
  /** The one that was used least recently is the first. */
  const watches = new Map<string, Watch<T>>();
  const followed = new Map<string, Followed<T>>();
  let disposed = false;

  const end = (key: string) => {
    watches.get(key)?.stop.abort();
    watches.delete(key);
  };
  const sweep = () => {
    for (const [key, { usedAt }] of watches)
      if (!followed.has(key) && clock.monotonic() - usedAt >= IDLE_MS) end(key);
    // There may be room for it now.
    for (const [key, { query }] of followed) start(key, query, []);
    timer = clock.timer(SWEEP_MS, sweep);
  };
  let timer = clock.timer(SWEEP_MS, sweep);
  const use = (key: string, watch: Watch<T>) => {
    watch.usedAt = clock.monotonic();
    watches.delete(key);
    watches.set(key, watch);
  };
  const hasRoom = () => {
    if (watches.size < MAX_WATCHES) return true;
    const idle = [...watches].find(([key]) => !followed.has(key));
    if (idle === undefined || clock.monotonic() - idle[1].usedAt < BUSY_MS) return false;
    end(idle[0]);
    return true;
  };
  const start = (key: string, query: T, entries: readonly T[]) => {
    if (disposed || watches.has(key) || !hasRoom()) return;
    const stop = new AbortController();
    const watch: Watch<T> = { entries: byName(entries), isTold: entries.length > 0, usedAt: 0, stop };
    use(key, watch);
    const tellAll = () => {
      for (const listener of followed.get(key)?.listeners ?? []) listener();
    };
    const onChange = (before: T | undefined, now: T | undefined) => {
      const isSame = before === undefined || now === undefined ? before === now : same(before, now);
      if (!isSame) tellAll();
    };
    void follow(registry, query, watch, { onChange, onKnown: tellAll }, log);
  };

  return {
    known(key) {
      const watch = watches.get(key);
      return watch?.isTold === true ? [...watch.entries.values()] : undefined;
    },
    async get(key, query, signal) {
      const watch = watches.get(key);
      if (watch !== undefined) use(key, watch);
      if (watch !== undefined && watch.entries.size > 0) return [...watch.entries.values()];
      // A watch may be a moment behind: nothing known is asked for once more.
      const entries = await findAll(registry, query, signal);
      if (entries.length > 0) start(key, query, entries);
      return entries;
    },
    follow(key, query, onChange) {
      const each = followed.get(key) ?? { query, listeners: new Set() };
      followed.set(key, each);
      each.listeners.add(onChange);
      start(key, query, []);
      return {
        [Symbol.dispose]() {
          each.listeners.delete(onChange);
          if (each.listeners.size > 0 || followed.get(key) !== each) return;
          followed.delete(key);
          // What the registry does not have takes no room once nobody waits for it.
          if (watches.get(key)?.entries.size === 0) end(key);
        },
      };
    },
    [Symbol.dispose]() {
      disposed = true;
      timer[Symbol.dispose]();
      for (const key of watches.keys()) end(key);
    },
  };
}

interface Listener<T> {
  readonly onChange: (before: T | undefined, now: T | undefined) => void;
  /** Called once: the registry has said what there is. */
  readonly onKnown: () => void;
}

/** Keeps one watch open; what was known stays in use while the registry is away. */
async function follow<T extends { readonly name: string }>(
  registry: Registry<T>,
  query: T,
  watch: Watch<T>,
  listener: Listener<T>,
  log: Logger,
): Promise<void> {
  const { signal } = watch.stop;
  const backoff = createBackoff();
  while (!signal.aborted) {
    try {
      await followOnce(registry, query, watch, listener, () => backoff.reset());
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
  watch: Watch<T>,
  listener: Listener<T>,
  onTold: () => void,
): Promise<void> {
  const { entries } = watch;
  const broken = new AbortController();
  const signal = AbortSignal.any([watch.stop.signal, broken.signal]);
  const set = (name: string, entry: T | undefined) => {
    const before = entries.get(name);
    if (entry === undefined) entries.delete(name);
    else entries.set(name, entry);
    listener.onChange(before, entry);
  };
  const first = Promise.withResolvers<void>();
  /** Names that this stream spoke of: what it says of them is newer than the list. */
  const told = new Set<string>();
  let isOpen = false;
  let isCompared = false;
  const read = async () => {
    for await (const { entry, deleted } of registry.find({ entry: query, watch: true }, { signal })) {
      onTold();
      if (!isCompared) told.add(entry.name);
      set(entry.name, deleted ? undefined : entry);
      isOpen = true;
      first.resolve();
    }
  };
  const compare = async () => {
    while (!isCompared) {
      await Promise.race([first.promise, delay(SILENT_MS, signal)]);
      const wasOpen = isOpen;
      const listed = byName(await findAll(registry, query, within(LIST_TIMEOUT_MS, signal)));
      const isFirst = !watch.isTold;
      watch.isTold = true;
      for (const name of entries.keys()) if (!told.has(name) && !listed.has(name)) set(name, undefined);
      for (const [name, entry] of listed) if (!told.has(name)) set(name, entry);
      if (isFirst) listener.onKnown();
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
