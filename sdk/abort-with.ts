/**
 * An AbortController that aborts when others do, too.
 *
 * As `AbortSignal.any`, for what has an end of its own and is made often: that one leads to its parts by weak references, which keep dead
 * calls with all that they refer to until the next full garbage collection.
 */

export interface AbortWith extends Disposable {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
}

/** Until it is disposed of; then it follows nobody any more, and does not abort by itself. */
export function abortWith(...others: readonly (AbortSignal | undefined)[]): AbortWith {
  const controller = new AbortController();
  const ends: (() => void)[] = [];
  for (const other of others) {
    if (other === undefined) continue;
    if (other.aborted) {
      controller.abort(other.reason);
      break;
    }
    const onAbort = () => controller.abort(other.reason);
    other.addEventListener("abort", onAbort, { once: true });
    ends.push(() => other.removeEventListener("abort", onAbort));
  }
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    [Symbol.dispose]() {
      for (const end of ends.splice(0)) end();
    },
  };
}
