/** Milliseconds of the fastest of five runs: what is slow is so every time, a pause of the machine is not. */
export function fastest(run: () => void): number {
  const once = (): number => {
    const startMs = performance.now();
    run();
    return performance.now() - startMs;
  };
  return Math.min(...Array.from({ length: 5 }, once));
}
