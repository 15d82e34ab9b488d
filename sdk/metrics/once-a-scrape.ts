/** Several metrics of one reading. */
import type { Clock } from "../clock.ts";

/** The readers of one scrape follow one another at once. */
const SAME_SCRAPE_MS = 500;

/** What `read` gave for the first metric of a scrape is given for the others, too. */
export function onceAScrape<T>(read: () => T, clock: Pick<Clock, "monotonic">): () => T {
  let last: { readonly atMs: number; readonly value: T } | undefined;
  return () => {
    const now = clock.monotonic();
    if (last === undefined || now - last.atMs > SAME_SCRAPE_MS) last = { atMs: now, value: read() };
    return last.value;
  };
}
