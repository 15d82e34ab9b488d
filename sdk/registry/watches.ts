/** Records of a registry by what was asked for, each set kept current by one watch. */
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { findAll } from "./registry.ts";
import type { Registry } from "./registry.ts";
import { byName, keepWatch } from "./watch.ts";
import type { Watched } from "./watch.ts";

/** A watch that nobody asked about for so long is ended, a minute later at most. */
const IDLE_MS = 10 * 60_000;
const SWEEP_MS = 60_000;
/** Watches of services, of endpoints by service, and of endpoints by name. */
const MAX_WATCHES = 256;
/** Where no watch is free, the one that was used least recently makes way if that was longer ago. */
const BUSY_MS = 60_000;

export interface Watches<T> extends Disposable {
  /** What the watch for a key has told; undefined without one, and before it has told anything. Nobody is asked. */
  known(key: string): readonly T[] | undefined;
  /** The same, and the registry is asked when that is nothing, or nothing that `counts`. */
  get(key: string, query: T, signal: AbortSignal, counts?: (entry: T) => boolean): Promise<readonly T[]>;
  /** Keeps a watch open, and tells of changes, until disposed. */
  follow(key: string, query: T, onChange: () => void): Disposable;
}

interface Watch<T> extends Watched<T> {
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
    void keepWatch({ registry, query, signal: stop.signal, log }, watch, { onChange, onKnown: tellAll });
  };

  return {
    known(key) {
      const watch = watches.get(key);
      return watch?.isTold === true ? [...watch.entries.values()] : undefined;
    },
    async get(key, query, signal, counts = () => true) {
      const watch = watches.get(key);
      if (watch !== undefined) use(key, watch);
      const entriesKnown = [...(watch?.entries.values() ?? [])];
      if (entriesKnown.some(counts)) return entriesKnown;
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
