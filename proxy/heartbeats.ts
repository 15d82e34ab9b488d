/**
 * Signs of life of those whose registries are watched (docs/protocol.md, "Services of several domains"): a domain that is cut off breaks
 * no session, and its watches would go on saying nothing.
 */
import type { Clock } from "../sdk/clock.ts";
import type { Target } from "../sdk/grpc/sessions.ts";
import type { Logger } from "../sdk/log.ts";
import { patientTimer } from "../sdk/reach.ts";
import type { Registries, Registry } from "../sdk/registry/registry.ts";

/** From an answer to the next question. */
const PAUSE_MS = 2000;
/** From a question until its target counts as silent. */
const SILENT_AFTER_MS = 1500;

export interface HeartbeatsOptions {
  /** Resolves when the target answers anything. */
  readonly probe: (target: Target, signal: AbortSignal) => Promise<void>;
  /** It did not: ends what waits for it. */
  readonly onSilent: (target: Target) => void;
  readonly clock: Pick<Clock, "timer" | "monotonic">;
  readonly log: Logger;
}

export interface Heartbeats {
  /** The target is asked as long as anybody follows it. Targets are told apart by `key`, or else their URL. */
  follow(target: Target): Disposable;
}

/** State: who is followed, until the last one leaves. */
export function createHeartbeats(options: HeartbeatsOptions): Heartbeats {
  const followed = new Map<string, { count: number; readonly beat: Disposable }>();
  return {
    follow(target) {
      const key = target.key ?? target.url;
      const entry = followed.get(key) ?? { count: 0, beat: startBeat(target, options) };
      entry.count++;
      followed.set(key, entry);
      let isOver = false;
      return {
        [Symbol.dispose]() {
          if (isOver) return;
          isOver = true;
          if (--entry.count > 0) return;
          entry.beat[Symbol.dispose]();
          followed.delete(key);
        },
      };
    },
  };
}

function startBeat(target: Target, { probe, onSilent, clock, log }: HeartbeatsOptions): Disposable {
  const stop = new AbortController();
  let timer = clock.timer(PAUSE_MS, () => void ask());
  const ask = async () => {
    const silence = patientTimer(clock, SILENT_AFTER_MS, () => {
      log.info({ peer: target.url }, "another domain does not answer: its sessions are ended");
      onSilent(target);
    });
    timer = silence;
    // A refused connection is no silence: whoever watches there hears of it.
    await probe(target, stop.signal).catch(() => undefined);
    silence[Symbol.dispose]();
    if (!stop.signal.aborted) timer = clock.timer(PAUSE_MS, () => void ask());
  };
  return {
    [Symbol.dispose]() {
      stop.abort();
      timer[Symbol.dispose]();
    },
  };
}

/** Registries whose watches end when the target falls silent. */
export function hearing(registries: Registries, target: Target, heartbeats: Heartbeats): Registries {
  return {
    services: whileHeard(registries.services, target, heartbeats),
    endpoints: whileHeard(registries.endpoints, target, heartbeats),
  };
}

function whileHeard<T>(registry: Registry<T>, target: Target, heartbeats: Heartbeats): Registry<T> {
  return {
    ...registry,
    async *find(query, ctx) {
      using beat = query.watch ? heartbeats.follow(target) : undefined;
      void beat;
      yield* registry.find(query, ctx);
    },
  };
}
