/** Which registrations end when: looking for those that have ended costs nothing for the others. */

/** Names whose leases end in the same span are kept together. */
const SPAN_MS = 500;

export interface Leases {
  /** The lease of that name ends then, and not when it did before; undefined for one without end. Milliseconds since 1970. */
  set(name: string, endMs: number | undefined): void;
  /** Names whose leases have ended; each is forgotten as it is told. */
  ended(nowMs: number): Iterable<string>;
}

export function createLeases(): Leases {
  const ends = new Map<string, number>();
  const spans = new Map<number, Set<string>>();
  const forget = (name: string) => {
    const endMs = ends.get(name);
    if (endMs === undefined) return;
    ends.delete(name);
    const span = spanOf(endMs);
    const names = spans.get(span);
    names?.delete(name);
    if (names?.size === 0) spans.delete(span);
  };
  return {
    set(name, endMs) {
      forget(name);
      if (endMs === undefined) return;
      ends.set(name, endMs);
      const span = spanOf(endMs);
      const names = spans.get(span);
      if (names === undefined) spans.set(span, new Set([name]));
      else names.add(name);
    },
    *ended(nowMs) {
      for (const [span, names] of spans) {
        if (span > spanOf(nowMs)) continue;
        for (const name of names) {
          if ((ends.get(name) ?? Infinity) > nowMs) continue;
          forget(name);
          yield name;
        }
      }
    },
  };
}

function spanOf(ms: number): number {
  return Math.floor(ms / SPAN_MS);
}
