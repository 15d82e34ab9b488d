/** Time as a dependency: the only place that touches timers, so that tests can hold the clock. */

/** Node's timers overflow above 2^31-1 ms and then fire at once; longer waits are re-armed in steps of a day. */
const LONGEST_TIMER_MS = 24 * 3600 * 1000;

export interface Clock {
  /** Wall clock, milliseconds since 1970. */
  now(): number;
  /** Monotonic milliseconds, for durations. */
  monotonic(): number;
  /** Calls `run` once after `delayMs` (clamped at 0); disposing cancels. Does not keep the process alive. */
  timer(delayMs: number, run: () => void): Disposable;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  timer(delayMs, run) {
    let handle: NodeJS.Timeout;
    let left = Number.isFinite(delayMs) ? Math.max(0, delayMs) : delayMs === Infinity ? Infinity : 0;
    const arm = () => {
      const step = Math.min(left, LONGEST_TIMER_MS);
      left -= step;
      handle = setTimeout(() => (left > 0 ? arm() : run()), step);
      handle.unref();
    };
    arm();
    return { [Symbol.dispose]: () => clearTimeout(handle) };
  },
};

/** Resolves after `delayMs`; rejects with the signal's reason when aborted first. Keeps the process alive. */
export function delay(delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const onAbort = () => {
      clearTimeout(handle);
      reject(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
    };
    const handle = setTimeout(
      () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      },
      Math.min(Math.max(0, delayMs), LONGEST_TIMER_MS),
    );
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
