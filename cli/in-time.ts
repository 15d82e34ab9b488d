/** Streams of a manager that a person waits for: a peer that hangs is told of, instead of waited for. */
import { NsmError } from "../sdk/errors.ts";
import type { Registries, Registry } from "../sdk/registry/registry.ts";

export interface InTime {
  /** Who is asked. */
  readonly url: string;
  readonly timeoutMs: number;
  /** What has to be there in time: the first answer (of a watch) or the end (of a list). */
  readonly until: "first" | "end";
  readonly signal: AbortSignal;
}

/** Throws DEADLINE_EXCEEDED `no-answer` when it takes longer, else what the stream throws. */
export async function* inTime<T>(
  { url, timeoutMs, until, signal }: InTime,
  open: (signal: AbortSignal) => AsyncIterable<T>,
): AsyncGenerator<T, void, undefined> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), timeoutMs);
  try {
    for await (const item of open(AbortSignal.any([signal, late.signal]))) {
      if (until === "first") clearTimeout(timer);
      yield item;
    }
  } catch (error) {
    if (!late.signal.aborted || signal.aborted) throw error;
    throw new NsmError(
      "DEADLINE_EXCEEDED",
      "no-answer",
      `${url} did not answer within ${timeoutMs / 1000} s (NSM_REQUEST_TIMEOUT); it may wait for the registry`,
      error,
    );
  } finally {
    clearTimeout(timer);
  }
}

/** Lists end in time; watches are left alone. */
export function listsInTime(registries: Registries, { url, timeoutMs }: Pick<InTime, "url" | "timeoutMs">) {
  const bounded = <T>(registry: Registry<T>): Registry<T> => ({
    ...registry,
    find(query, { signal }) {
      if (query.watch) return registry.find(query, { signal });
      return inTime({ url, timeoutMs, until: "end", signal }, (within) =>
        registry.find(query, { signal: within }),
      );
    },
  });
  return { services: bounded(registries.services), endpoints: bounded(registries.endpoints) };
}
