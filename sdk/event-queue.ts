/** A bounded queue between one producer and one async reader: a reader that falls behind is cut off, never waited for. */
import { NsmError } from "./errors.ts";
import { meters } from "./metrics/meters.ts";

/** Disposing drops what is queued; whoever has read to the end need not. */
export interface EventQueue<T> extends AsyncIterable<T>, Disposable {
  /** Adds an item; beyond the limit the reader gets ABORTED `slow-reader` after what is queued. */
  push(item: T): void;
  /** Ends the stream after what is queued, with an error if one is given. */
  end(error?: unknown): void;
}

/** How many items wait in each queue that is open. */
const open = new Set<() => number>();
const lengths = () => [...open].map((waiting) => waiting());
meters.queuedEvents.track(() => [{ labels: {}, value: lengths().reduce((sum, length) => sum + length, 0) }]);
meters.longestQueue.track(() => [{ labels: {}, value: Math.max(0, ...lengths()) }]);

/** Ends by itself, silently, when `signal` aborts. */
export function createEventQueue<T>(limit: number, signal: AbortSignal): EventQueue<T> {
  const items: T[] = [];
  let ended = false;
  let failure: { error: unknown } | undefined;
  let wake: (() => void) | undefined;
  let waiting = 0;
  const length = () => waiting;
  open.add(length);
  const drop = () => {
    ended = true;
    items.length = waiting = 0;
    open.delete(length);
  };
  const end = (error?: unknown) => {
    if (ended) return;
    ended = true;
    if (error !== undefined) failure = { error };
    wake?.();
  };
  return {
    push(item) {
      if (ended) return;
      if (items.length >= limit) {
        meters.slowReaders.inc({});
        end(
          new NsmError(
            "ABORTED",
            "slow-reader",
            `more than ${limit} events are waiting: read faster, or list again`,
          ),
        );
        return;
      }
      items.push(item);
      waiting++;
      wake?.();
    },
    end,
    [Symbol.dispose]: drop,
    async *[Symbol.asyncIterator]() {
      const onAbort = () => end();
      if (signal.aborted) return drop();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        for (;;) {
          for (const item of items.splice(0)) {
            if (signal.aborted) return;
            waiting--;
            yield item;
          }
          if (items.length > 0) continue;
          if (ended || signal.aborted) break;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        if (failure !== undefined) throw failure.error;
      } finally {
        drop();
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
}
