/** Messages between stations (stations.ts) that arrive one at a time, in an order that a test chooses. */
import type { Transit } from "./stations.ts";

export interface Steps {
  readonly transit: Transit;
  /** Lets one message arrive, when everything that could happen without it has. False when none was on its way. */
  step(): Promise<boolean>;
  /** Until nothing is on its way. */
  drain(): Promise<void>;
}

/** Numbers from 0 up to 1, the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Those between the same two stations arrive in the order of sending, as on one connection; `random` chooses between the others. */
export function createSteps(random: () => number): Steps {
  const links = new Map<string, (() => void)[]>();
  const settle = async () => {
    for (let i = 0; i < 4; i++) await new Promise((resolve) => setImmediate(resolve));
  };
  const step = async () => {
    await settle();
    const waiting = [...links.keys()];
    const link = waiting[Math.floor(random() * waiting.length)];
    const queue = link === undefined ? undefined : links.get(link);
    if (link === undefined || queue === undefined) return false;
    queue.shift()?.();
    if (queue.length === 0) links.delete(link);
    await settle();
    return true;
  };
  return {
    transit: (from, to) =>
      new Promise((resolve) => {
        const link = `${from} ${to}`;
        const queue = links.get(link);
        if (queue === undefined) links.set(link, [resolve]);
        else queue.push(resolve);
      }),
    step,
    async drain() {
      while (await step());
    },
  };
}
