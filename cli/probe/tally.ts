/** What became of numbered probes: how many came back, from whom, and how long nothing came. Pure; times are given in milliseconds. */

export interface Answers {
  readonly received: number;
  /** When the last one came. */
  readonly lastMs: number;
}

export interface ProbeReport {
  readonly sent: number;
  readonly received: number;
  /** Never came back; those before the first that did (there was no way yet) don't count. */
  readonly lost: number;
  /** The longest time without an arrival, between the first one and the last probe. */
  readonly gapMs: number;
  /** By the name of the reflector. */
  readonly from: Readonly<Record<string, Answers>>;
}

export interface Tally {
  /** Numbers count up from 0, one a call. Also of a probe that the kernel refused: there was no route. */
  sent(atMs: number): number;
  /** True when it is the first one of all, or comes from somebody else than the one before. A second copy does not count. */
  arrived(sequence: number, from: string, atMs: number): boolean;
  /** Probes that may still come back. */
  readonly missing: number;
  report(): ProbeReport;
}

export function createTally(): Tally {
  const missing = new Set<number>();
  const from = new Map<string, { received: number; lastMs: number }>();
  let sent = 0;
  let received = 0;
  let gapMs = 0;
  let lastSentMs = 0;
  let last: { readonly from: string; readonly atMs: number } | undefined;
  return {
    sent(atMs) {
      lastSentMs = atMs;
      missing.add(sent);
      return sent++;
    },
    arrived(sequence, name, atMs) {
      if (!missing.delete(sequence)) return false;
      if (last === undefined) for (const each of missing) if (each < sequence) missing.delete(each);
      const isNew = last?.from !== name;
      gapMs = Math.max(gapMs, atMs - (last?.atMs ?? atMs));
      last = { from: name, atMs };
      received++;
      from.set(name, { received: (from.get(name)?.received ?? 0) + 1, lastMs: atMs });
      return isNew;
    },
    get missing() {
      return missing.size;
    },
    report: () => ({
      sent,
      received,
      lost: last === undefined ? sent : missing.size,
      gapMs: Math.max(gapMs, lastSentMs - (last?.atMs ?? lastSentMs)),
      from: Object.fromEntries(from),
    }),
  };
}
