/** Runs once after a burst. */
import type { Clock } from "../sdk/clock.ts";

export interface Debounce extends Disposable {
  trigger(): void;
}

/** `run` is called `delayMs` after the first trigger since it ran last, however many follow. */
export function createDebounce(clock: Pick<Clock, "timer">, delayMs: number, run: () => void): Debounce {
  let timer: Disposable | undefined;
  return {
    trigger() {
      timer ??= clock.timer(delayMs, () => {
        timer = undefined;
        run();
      });
    },
    [Symbol.dispose]() {
      timer?.[Symbol.dispose]();
      timer = undefined;
    },
  };
}
