/** Who is connected to a registry now, as far as watches tell: everybody who registers watches its own records. */

export interface Presence {
  /** Somebody watches, until disposed. */
  enter(spiffeId: string): Disposable;
  readonly isPresent: (spiffeId: string) => boolean;
}

export function createPresence(): Presence {
  const watches = new Map<string, number>();
  return {
    enter(spiffeId) {
      watches.set(spiffeId, (watches.get(spiffeId) ?? 0) + 1);
      let isOver = false;
      return {
        [Symbol.dispose]() {
          if (isOver) return;
          isOver = true;
          const left = (watches.get(spiffeId) ?? 1) - 1;
          if (left > 0) watches.set(spiffeId, left);
          else watches.delete(spiffeId);
        },
      };
    },
    isPresent: (spiffeId) => watches.has(spiffeId),
  };
}
