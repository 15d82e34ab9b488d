/** A clock that stands still until a test moves it. */
import type { Clock } from "../../sdk/clock.ts";

export interface FakeClock extends Clock {
  /** Moves time on and runs what is due on the way, in order; promises settle between two timers. */
  advance(ms: number): Promise<void>;
  /** Timers that are armed. */
  readonly armed: number;
}

export function createFakeClock(startMs = Date.UTC(2030, 0, 1)): FakeClock {
  let now = startMs;
  const timers = new Set<{ readonly dueMs: number; readonly run: () => void }>();
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  return {
    now: () => now,
    monotonic: () => now - startMs,
    timer(delayMs, run) {
      const timer = { dueMs: now + Math.max(0, delayMs), run };
      timers.add(timer);
      return { [Symbol.dispose]: () => void timers.delete(timer) };
    },
    get armed() {
      return timers.size;
    },
    async advance(ms) {
      const endMs = now + ms;
      await settle();
      for (;;) {
        const next = [...timers]
          .filter(({ dueMs }) => dueMs <= endMs)
          .toSorted((a, b) => a.dueMs - b.dueMs)[0];
        if (next === undefined) break;
        timers.delete(next);
        now = Math.max(now, next.dueMs);
        next.run();
        await settle();
      }
      now = endMs;
      await settle();
    },
  };
}
