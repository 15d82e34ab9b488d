/**
 * Sessions move on when the server has a new identity: in a session it signs with the identity that the session showed, and
 * nothing that it signs lives longer than that.
 */
import type { Clock } from "../clock.ts";
import type { X509Snapshot, X509Source } from "../spiffe/source.ts";

/** Sessions end one by one over this part of what remains of the old identity's life, and over no longer than that time. */
const PART_OF_LIFE = 1 / 4;
const LONGEST_MS = 10_000;

export interface Renewals extends Disposable {
  /** Calls `retire` once, some time after the source has a newer SVID than that of `own`, unless disposed before. */
  watch(own: X509Snapshot, retire: () => void): Disposable;
}

interface Watched {
  readonly own: X509Snapshot;
  readonly retire: () => void;
  timer: Disposable | undefined;
}

export function createRenewals(source: X509Source, clock: Clock): Renewals {
  const all = new Set<Watched>();
  let newest: X509Snapshot | undefined;

  const schedule = (watched: Watched) => {
    // Bundles alone are no reason: whom they cut off is cut off by `distrust.ts`.
    if (newest === undefined || watched.own.svid === newest.svid) return;
    if (watched.own.generation >= newest.generation) return;
    watched.timer ??= clock.timer(pauseMs(watched.own, clock.now()), watched.retire);
  };
  const forget = (watched: Watched) => {
    watched.timer?.[Symbol.dispose]();
    all.delete(watched);
  };
  const listener = source.onChange((snapshot) => {
    newest = snapshot;
    for (const watched of all) schedule(watched);
  });
  return {
    watch(own, retire) {
      const watched: Watched = { own, retire, timer: undefined };
      all.add(watched);
      // A handshake may have begun before the change.
      schedule(watched);
      return { [Symbol.dispose]: () => forget(watched) };
    },
    [Symbol.dispose]() {
      listener[Symbol.dispose]();
      for (const watched of all) forget(watched);
    },
  };
}

/** Never at once: peers whose own identity changed too (a new CA is everybody's) come back by themselves meanwhile. */
function pauseMs({ svid }: X509Snapshot, nowMs: number): number {
  const longestMs = Math.min(LONGEST_MS, Math.max(0, svid.notAfterMs - nowMs) * PART_OF_LIFE);
  return longestMs * (0.5 + 0.5 * Math.random());
}
