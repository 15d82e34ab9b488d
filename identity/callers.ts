/**
 * Who asks on the authority's socket, and streams that follow whatever decides what the caller may have.
 *
 * A stream is a loop: look at the caller, answer with what it may have now, wait until that may have changed. So a renewed
 * certificate, an edited registration, another trust and a caller that moved to another cgroup all take the same way.
 */
import { delay } from "../sdk/clock.ts";
import type { Clock } from "../sdk/clock.ts";
import { NsmError } from "../sdk/errors.ts";
import type { Caller as Call } from "../sdk/grpc/caller.ts";
import type { PeerProcess } from "../sdk/grpc/peer.ts";
import type { Logger } from "../sdk/log.ts";
import { LruMap } from "../sdk/lru.ts";
import { findRegistration, readCaller } from "./attest.ts";
import type { Caller } from "./attest.ts";
import type { Registrations } from "./registrations-file.ts";

const LEAST_PAUSE_MS = 10;
const MAX_KINDS_OF_CALLERS = 1024;
/** How often, and at what distance, a caller is looked at before it is refused. */
const LOOKS = 4;
const LOOK_PAUSE_MS = 20;

/** Something that tells of its changes. */
export interface Changing {
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: () => void): Disposable;
}

export interface Answer<T> {
  /** Makes the message, when it is to be sent. */
  readonly message: () => T;
  /** An answer whose parts are all the same ones as before is not sent again. */
  readonly parts: readonly unknown[];
  /** When to look again in any case, milliseconds since 1970. */
  readonly untilMs: number;
}

export interface Callers {
  /** The SPIFFE id of the caller. Throws PERMISSION_DENIED, INVALID_ARGUMENT `no-security-header`. */
  identify(call: Call<PeerProcess>): Promise<string>;
  /** Yields the message of `answer` now, and again after each change that makes it another one. Throws as `identify`, also later. */
  follow<T>(call: Call<PeerProcess>, answer: (id: string) => Promise<Answer<T>>): AsyncGenerator<T>;
}

export interface CallersParts {
  readonly registrations: Registrations;
  /** What answers are made of, beside the registrations. */
  readonly changing: readonly Changing[];
  readonly clock: Clock;
  readonly log: Logger;
}

export function createCallers({ registrations, changing, clock, log }: CallersParts): Callers {
  const refusals = createRefusalLog(log);
  // A forwarder enters the namespaces of pods for microseconds and may be looked at in such a moment: one look is no proof.
  const identify = async (call: Call<PeerProcess>): Promise<string> => {
    checkMetadata(call);
    for (let looks = 1; ; looks++) {
      const caller = readCaller(call.peer);
      try {
        return findRegistration(caller, registrations.current(), registrations.path).id;
      } catch (err) {
        if (looks < LOOKS) {
          await delay(LOOK_PAUSE_MS);
          continue;
        }
        refusals.log(caller, err);
        throw err;
      }
    }
  };
  return {
    identify,
    async *follow(call, answer) {
      let last: readonly unknown[] | undefined;
      while (!call.signal.aborted) {
        // Listening begins before the look, or a change in between would be missed.
        using change = watchForChange([registrations, ...changing], call.signal);
        const { message, parts, untilMs } = await answer(await identify(call));
        if (last === undefined || parts.some((part, i) => part !== last?.[i])) yield message();
        last = parts;
        await change.orAt(untilMs, clock);
      }
    },
  };
}

/** Proof that the caller is a program that means this API, not a browser or proxy that was made to ask. */
function checkMetadata({ metadata }: Call<PeerProcess>): void {
  const values = metadata.get("workload.spiffe.io");
  if (values.length !== 1 || values[0] !== "true")
    throw new NsmError(
      "INVALID_ARGUMENT",
      "no-security-header",
      "metadata workload.spiffe.io: true is required",
    );
}

/** Each kind of caller is logged once, however often it asks: what a refused process does must not fill the log. */
function createRefusalLog(log: Logger) {
  const logged = new LruMap<string, true>(MAX_KINDS_OF_CALLERS);
  return {
    log({ uid, gid, netns, cgroup }: Caller, err: unknown): void {
      const kind = [uid, gid, netns?.ino, cgroup].join();
      if (logged.get(kind) === undefined) log.warn({ err }, "caller refused");
      logged.set(kind, true);
    },
  };
}

interface Change extends Disposable {
  /** Resolves at the first change since this was made, at `atMs` (1970), or when the call is over. */
  orAt(atMs: number, clock: Clock): Promise<void>;
}

function watchForChange(sources: readonly Changing[], signal: AbortSignal): Change {
  const { promise, resolve } = Promise.withResolvers<void>();
  const listeners = sources.map((source) => source.onChange(resolve));
  const onAbort = () => resolve();
  signal.addEventListener("abort", onAbort, { once: true });
  return {
    async orAt(atMs, clock) {
      // Timers may fire a little early; without a least pause the loop would spin until it is really time.
      using _ = clock.timer(Math.max(atMs - clock.now(), LEAST_PAUSE_MS), resolve);
      await promise;
    },
    [Symbol.dispose]() {
      for (const listener of listeners) listener[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
    },
  };
}
