/** A fair lock: turns are taken in the order of asking. */

export interface Mutex {
  /** Resolves with the turn; disposing ends it. Rejects with the signal's reason if that aborts while waiting. */
  take(signal: AbortSignal | undefined): Promise<Disposable>;
}

export function createMutex(): Mutex {
  const queue: (() => void)[] = [];
  let taken = false;
  const release = () => {
    const next = queue.shift();
    if (next === undefined) taken = false;
    else next();
  };
  const turn = (): Disposable => {
    let ended = false;
    return {
      [Symbol.dispose]() {
        if (ended) return;
        ended = true;
        release();
      },
    };
  };
  return {
    take(signal) {
      return new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        if (!taken) {
          taken = true;
          resolve(turn());
          return;
        }
        const start = () => {
          signal?.removeEventListener("abort", giveUp);
          resolve(turn());
        };
        const giveUp = () => {
          queue.splice(queue.indexOf(start), 1);
          reject(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
        };
        queue.push(start);
        signal?.addEventListener("abort", giveUp, { once: true });
      });
    },
  };
}
