/** Messages of an async iterable into a gRPC stream, one at a time, no faster than the receiver takes them. */
import type { Writable } from "node:stream";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";

export interface PumpOptions<T> {
  readonly serialize: (message: T) => Buffer;
  readonly beforeFirst: () => void;
  /** Ends the pump with its reason, whatever the iterable waits for. */
  readonly stop: AbortSignal;
  readonly stalledMs: number;
  readonly clock: Clock;
}

/**
 * Resolves when the iterable ends; the iterable is always told (`return`) when the pump ends first.
 * Throws the signal's reason, what the iterable throws, or RESOURCE_EXHAUSTED `receiver-stalled`.
 */
export async function pump<T>(
  messages: AsyncIterable<T>,
  stream: Writable,
  { serialize, beforeFirst, stop, stalledMs, clock }: PumpOptions<T>,
): Promise<void> {
  const iterator = messages[Symbol.asyncIterator]();
  let ended = false;
  try {
    for (let first = true; ; first = false) {
      const step = await unlessStopped(iterator.next(), stop);
      if (step.done) break;
      if (first) beforeFirst();
      if (!stream.write(serialize(step.value))) await drained(stream, stop, stalledMs, clock);
    }
    ended = true;
  } finally {
    // Not awaited: a generator that hangs in `next` answers only after that.
    if (!ended) iterator.return?.().catch(() => undefined);
  }
}

/** Unlike Promise.race with a promise that lives as long as the stream, this leaves nothing behind. */
function unlessStopped<T>(promise: Promise<T>, stop: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onStop = () => reject(reasonOf(stop));
    if (stop.aborted) onStop();
    stop.addEventListener("abort", onStop, { once: true });
    promise.then(resolve, reject).finally(() => stop.removeEventListener("abort", onStop));
  });
}

function drained(stream: Writable, stop: AbortSignal, stalledMs: number, clock: Clock): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      timer[Symbol.dispose]();
      stream.off("drain", onDrain);
      stop.removeEventListener("abort", onStop);
      act();
    };
    const onDrain = () => settle(resolve);
    const onStop = () => settle(() => reject(reasonOf(stop)));
    const timer = clock.timer(stalledMs, () =>
      settle(() =>
        reject(
          new NsmError(
            "RESOURCE_EXHAUSTED",
            "receiver-stalled",
            `the receiver has taken nothing for ${stalledMs} ms`,
          ),
        ),
      ),
    );
    stream.once("drain", onDrain);
    stop.addEventListener("abort", onStop, { once: true });
    if (stop.aborted) onStop();
  });
}

function reasonOf(stop: AbortSignal): Error {
  return stop.reason instanceof Error ? stop.reason : new Error("stopped");
}
