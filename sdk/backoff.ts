/** Exponential back-off with jitter: 100 ms doubling to 5 s, plus or minus 20 % unless told otherwise. */

export interface BackoffOptions {
  readonly firstMs?: number;
  readonly maxMs?: number;
  /** Share of the delay that is random, 0..1. */
  readonly jitter?: number;
  readonly random?: () => number;
}

export interface Backoff {
  /** The next delay in milliseconds. */
  next(): number;
  /** Start again from the first delay, after a success. */
  reset(): void;
}

export function createBackoff(options: BackoffOptions = {}): Backoff {
  const { firstMs = 100, maxMs = 5000, jitter = 0.2, random = Math.random } = options;
  let current = firstMs;
  return {
    next() {
      const delayMs = current * (1 - jitter + 2 * jitter * random());
      current = Math.min(current * 2, maxMs);
      return delayMs;
    },
    reset() {
      current = firstMs;
    },
  };
}
