/** One watch of a registry, opened again and again; what was known stays in use while the registry is away. */
import { createBackoff } from "../backoff.ts";
import { delay } from "../clock.ts";
import type { Logger } from "../log.ts";
import { findAll } from "./registry.ts";
import type { Registry } from "./registry.ts";

const LIST_TIMEOUT_MS = 5000;
/** Between two tries to open a watch: so soon after a cut what is known is what there is. */
const LONGEST_PAUSE_MS = 2000;
/** How long a watch may say nothing before the registry is asked whether there is nothing to say. */
const SILENT_MS = 1000;

/** What a watch has told. */
export interface Watched<T> {
  readonly entries: Map<string, T>;
  /** False until the registry has said what there is. */
  isTold: boolean;
}

export interface WatchListener<T> {
  /** Also for a record that is told again as it was. */
  readonly onChange: (before: T | undefined, now: T | undefined) => void;
  /** Called once: the registry has said what there is. */
  readonly onKnown?: () => void;
  /** The stream is open, and what is known is what the registry has. */
  readonly onCurrent?: () => void;
  /** The stream is broken, or could not be opened; it will be tried again. */
  readonly onBroken?: (error: unknown) => void;
}

export interface WatchOptions<T> {
  readonly registry: Pick<Registry<T>, "find">;
  readonly query: T;
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** When it is this watch's turn to ask for a list; at once unless told. */
  readonly listing?: <R>(list: () => Promise<R>) => Promise<R>;
}

/** Keeps one watch open until the signal aborts, with growing pauses (2 s at most) while it cannot be opened. */
export async function keepWatch<T extends { readonly name: string }>(
  options: WatchOptions<T>,
  watched: Watched<T>,
  listener: WatchListener<T>,
): Promise<void> {
  const { signal, log } = options;
  const backoff = createBackoff({ maxMs: LONGEST_PAUSE_MS });
  while (!signal.aborted) {
    let failure: unknown;
    try {
      await followOnce(options, watched, listener, () => backoff.reset());
    } catch (err) {
      failure = err;
      if (!signal.aborted) log.debug({ err }, "registry watch broke, opening it again");
    }
    if (signal.aborted) return;
    listener.onBroken?.(failure);
    await delay(backoff.next(), signal).catch(() => undefined);
  }
}

/**
 * One stream, until it ends. A watch does not say where its first list ends, so a list that is asked for once it is open tells
 * what has gone since the last stream: whatever neither of the two names.
 */
async function followOnce<T extends { readonly name: string }>(
  { registry, query, signal: stop, listing = (list) => list() }: WatchOptions<T>,
  watched: Watched<T>,
  listener: WatchListener<T>,
  onTold: () => void,
): Promise<void> {
  const { entries } = watched;
  const broken = new AbortController();
  const signal = AbortSignal.any([stop, broken.signal]);
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
      const list = () => findAll(registry, query, within(LIST_TIMEOUT_MS, signal));
      const listed = byName(await listing(list));
      const isFirst = !watched.isTold;
      watched.isTold = true;
      for (const name of entries.keys()) if (!told.has(name) && !listed.has(name)) set(name, undefined);
      for (const [name, entry] of listed) if (!told.has(name)) set(name, entry);
      if (isFirst) listener.onKnown?.();
      listener.onCurrent?.();
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

export function byName<T extends { readonly name: string }>(entries: readonly T[]): Map<string, T> {
  return new Map(entries.map((entry) => [entry.name, entry]));
}

function within(timeoutMs: number, signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
}
