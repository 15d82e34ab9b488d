/** Summaries of measured values. */

/** The smallest value that `share` (0 to 1) of all are not above. */
export function percentile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new Error("nothing was measured");
  const sorted = values.toSorted((a, b) => a - b);
  const index = Math.max(0, Math.ceil(sorted.length * share) - 1);
  return sorted[index] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** To so many decimals, for people and for JSON. */
export function round(value: number, decimals = 2): number {
  return Number(value.toFixed(decimals));
}
