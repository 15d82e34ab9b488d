/**
 * When the keys of an authority come and go: pure.
 *
 *     made, published ──lead──> signs ──until the next one signs──> still published ──life of what it signed──> removed
 *
 * Whoever verifies hears of a key before anything is signed with it, and as long as anything is valid that was.
 */

/** Keys are published for this many refresh hints before they sign, so that domains that ask by the hint know them (3 to 5). */
const LEAD_HINTS = 4;
/** The least time in which the workloads of this machine, who are told at once, know a new key. */
export const TELL_MS = 1000;
/** Ends of certificates have whole seconds. */
const MARGIN_MS = 2000;

export interface Timing {
  /** Of a CA, from when it is made. */
  readonly caLifetimeMs: number;
  readonly svidLifetimeMs: number;
  /** What is published as `spiffe_refresh_hint`. */
  readonly refreshHintMs: number;
}

/** Times are wall clock, milliseconds since 1970. */
export interface Generation {
  readonly madeMs: number;
  /** From then on until the next one does. */
  readonly signsFromMs: number;
  /** The end of its certificate; Infinity without one. */
  readonly notAfterMs: number;
  /** The longest life of anything that it signed. */
  readonly longestLifeMs: number;
}

export interface Plan<G> {
  /** Those to keep, in the order in which they sign. */
  readonly keep: readonly G[];
  /** When defined, another one must be made now, to sign from then on. */
  readonly nextSignsFromMs: number | undefined;
  /** When to plan again. */
  readonly againMs: number;
}

export function leadMsOf({ refreshHintMs }: Timing): number {
  return Math.max(TELL_MS, LEAD_HINTS * refreshHintMs);
}

/** The shortest life of a CA in which there is time for all that. */
export function leastCaLifetimeMs(timing: Timing): number {
  return 2 * (timing.svidLifetimeMs + leadMsOf(timing));
}

/** The generation that signs now; undefined without any. */
export function signingOf<G extends Generation>(generations: readonly G[], nowMs: number): G | undefined {
  const ordered = inOrder(generations);
  return ordered.findLast(({ signsFromMs }) => signsFromMs <= nowMs) ?? ordered[0];
}

/** The generations that will sign, in their order. */
export function waitingOf<G extends Generation>(generations: readonly G[], nowMs: number): readonly G[] {
  const signing = signingOf(generations, nowMs);
  return inOrder(generations).filter(({ signsFromMs }) => signsFromMs > (signing?.signsFromMs ?? 0));
}

export function planOf<G extends Generation>(
  generations: readonly G[],
  nowMs: number,
  timing: Timing,
): Plan<G> {
  const ordered = inOrder(generations);
  const signing = signingOf(ordered, nowMs);
  if (signing === undefined) return { keep: [], nextSignsFromMs: nowMs, againMs: nowMs };
  const at = ordered.indexOf(signing);
  const removals = ordered
    .slice(0, at)
    .map((old, i) => ({ old, atMs: removalOf(old, ordered[i + 1] ?? signing) }));
  const kept = removals.filter(({ atMs }) => atMs > nowMs);
  const waiting = waitingOf(ordered, nowMs);
  const endMs = Math.min(signing.notAfterMs, signing.madeMs + timing.caLifetimeMs);
  const dueMs = endMs - timing.svidLifetimeMs - leadMsOf(timing);
  const isDue = waiting.length === 0 && nowMs >= dueMs;
  return {
    keep: [...kept.map(({ old }) => old), signing, ...waiting],
    nextSignsFromMs: isDue ? nextFrom(nowMs, endMs, timing) : undefined,
    againMs: Math.min(
      ...kept.map(({ atMs }) => atMs),
      ...waiting.map(({ signsFromMs }) => signsFromMs),
      waiting.length === 0 ? dueMs : Infinity,
    ),
  };
}

/** In time for whole lives before the end of the one that signs; at once when that is over. */
function nextFrom(nowMs: number, endMs: number, timing: Timing): number {
  return nowMs >= endMs ? nowMs : Math.max(endMs - timing.svidLifetimeMs, nowMs + TELL_MS);
}

function removalOf(old: Generation, successor: Generation): number {
  return Math.min(old.notAfterMs, successor.signsFromMs + old.longestLifeMs) + MARGIN_MS;
}

/** In the order in which they sign. */
export function inOrder<G extends Generation>(generations: readonly G[]): readonly G[] {
  return generations.toSorted((a, b) => a.signsFromMs - b.signsFromMs);
}
