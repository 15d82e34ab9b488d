/** What a source says, kept current: its list, the changes since, and streams opened again while somebody watches. */
import { createBackoff } from "../sdk/backoff.ts";
import { delay } from "../sdk/clock.ts";
import type { Source, Update } from "./get-sources.ts";

export interface Collection<T> {
  readonly name: string;
  values(): readonly T[];
  /**
   * Reads once, or with `watch` until the signal aborts. `onChange` is called after the first list and after each change. Throws
   * what the first stream failed with; later failures go to `onFault`, and what was known stays.
   */
  run(options: CollectOptions): Promise<void>;
}

export interface CollectOptions {
  readonly watch: boolean;
  readonly signal: AbortSignal;
  readonly onChange: () => void;
  readonly onFault: (error: unknown) => void;
}

export function collect<T>(source: Source<T>): Collection<T> {
  let items = new Map<string, T>();
  const take = (update: Update<T>) => {
    if (update.kind === "list") items = new Map(update.items);
    else if (update.kind === "put") items.set(update.key, update.item);
    else items.delete(update.key);
  };
  return {
    name: source.name,
    values: () => [...items.values()],
    async run({ watch, signal, onChange, onFault }) {
      const backoff = createBackoff();
      let hasListed = false;
      for (;;) {
        try {
          for await (const update of source.read(watch, signal)) {
            take(update);
            hasListed = true;
            backoff.reset();
            onChange();
          }
        } catch (error) {
          if (signal.aborted) return;
          if (!hasListed) throw error;
          onFault(error);
        }
        if (watch) await delay(backoff.next(), signal).catch(() => undefined);
        if (!watch || signal.aborted) return;
      }
    },
  };
}
