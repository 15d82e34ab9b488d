/**
 * Which hops on other nodes answer (docs/protocol.md, "Lost nodes"): a node that has vanished breaks no session, and refuses nothing.
 *
 *   unknown --a Request stays unanswered--> doubted --answer--> unknown
 *                                              |silence           ^ answer, ten seconds
 *                                              +----> lost -------+
 */
import type { Clock } from "./clock.ts";
import type { NextHop } from "./elements/target.ts";
import { isLocal } from "./elements/target.ts";
import { NsmError } from "./errors.ts";
import type { Logger } from "./log.ts";
import { LruMap } from "./lru.ts";

/** A Request that takes longer makes us ask whether the hop is there at all: most wires are made sooner. */
const DOUBT_AFTER_MS = 150;
/** From that question until the hop counts as lost. */
const ANSWER_WITHIN_MS = 350;
/** How long an answer is heard that comes later. */
const GIVE_UP_AFTER_MS = 4000;
/** A lost hop comes last for this long. */
const LOST_FOR_MS = 10_000;
/** Who did not run itself for so long knows nothing of others. */
const OWN_PAUSE_MS = 100;
/** In which one's own running is looked at. */
const SLICE_MS = 50;
/** Hops that are asked at once, and that are remembered. */
const AT_ONCE = 16;
const REMEMBERED = 256;

export interface ReachOptions {
  /** Resolves when the hop answers, whatever it says; rejects when it does not. */
  readonly probe: (hop: NextHop, signal: AbortSignal) => Promise<void>;
  readonly clock: Pick<Clock, "timer" | "monotonic">;
  readonly log: Logger;
}

export interface Reach {
  /** It did not answer a moment ago. */
  isLost(hop: NextHop): boolean;
  /** Whether it answers now, or was about to. Takes 350 ms at most. */
  answers(hop: NextHop, withinMs?: number): Promise<boolean>;
  /** Of a lost hop: whether it answers after all. Takes up to four seconds from the first question on. */
  comesBack(hop: NextHop): Promise<boolean>;
  /**
   * Goes along with a Request: when that takes long and the hop turns out to be lost, `signal` is aborted with UNAVAILABLE
   * `hop-lost`. `others` are asked at the same time, so that the next one to be tried is known to be there.
   */
  watch(hop: NextHop, others: () => readonly NextHop[]): Disposable & { readonly signal: AbortSignal };
}

interface Question {
  /** When it is over that the hop may be silent. */
  readonly answered: Promise<boolean>;
  /** When nobody listens any more. */
  readonly answeredAtLast: Promise<boolean>;
}

/** State: the hops that are lost, and questions that are open; those end by themselves. */
export function createReach({ probe, clock, log }: ReachOptions): Reach {
  const lostUntil = new LruMap<string, number>(REMEMBERED);
  const open = new Map<string, Question>();

  const ask = (hop: NextHop): Question => {
    const known = open.get(hop.url);
    if (known !== undefined) return known;
    const answered = Promise.withResolvers<boolean>();
    const atLast = Promise.withResolvers<boolean>();
    const over = new AbortController();
    const silence = patientTimer(clock, ANSWER_WITHIN_MS, () => {
      log.info({ peer: hop.url }, "another node does not answer: its endpoints come last for a while");
      lostUntil.set(hop.url, clock.monotonic() + LOST_FOR_MS);
      answered.resolve(false);
    });
    const end = clock.timer(GIVE_UP_AFTER_MS, () => finish(false));
    const finish = (isThere: boolean) => {
      silence[Symbol.dispose]();
      end[Symbol.dispose]();
      open.delete(hop.url);
      if (isThere) lostUntil.delete(hop.url);
      else lostUntil.set(hop.url, clock.monotonic() + LOST_FOR_MS);
      answered.resolve(isThere);
      atLast.resolve(isThere);
      over.abort();
    };
    const question = { answered: answered.promise, answeredAtLast: atLast.promise };
    open.set(hop.url, question);
    probe(hop, over.signal).then(
      () => finish(true),
      () => {
        if (open.get(hop.url) === question) finish(false);
      },
    );
    return question;
  };
  const isLost = ({ url }: NextHop) => clock.monotonic() < (lostUntil.get(url) ?? -Infinity);

  return {
    isLost,
    async answers(hop, withinMs = ANSWER_WITHIN_MS) {
      const late = Promise.withResolvers<boolean>();
      using timer = clock.timer(withinMs, () => late.resolve(false));
      void timer;
      const { answered, answeredAtLast } = ask(hop);
      // A question that was open has been silent for long enough, and may be answered now.
      return await Promise.race([isLost(hop) ? answeredAtLast : answered, late.promise]);
    },
    comesBack: (hop) => ask(hop).answeredAtLast,
    watch(hop, others) {
      const lost = new AbortController();
      if (isLocal(hop)) return { signal: lost.signal, [Symbol.dispose]: () => undefined };
      const doubt = async () => {
        const elsewhere = others().filter((each) => !isLocal(each));
        const all = elsewhere.slice(0, AT_ONCE).map((other) => ask(other).answered);
        if (await ask(hop).answered) return;
        await Promise.all(all); // whoever is tried next has been heard
        lost.abort(new NsmError("UNAVAILABLE", "hop-lost", `${hop.url} does not answer: is its node down?`));
      };
      const timer = clock.timer(DOUBT_AFTER_MS, () => void doubt());
      return { signal: lost.signal, [Symbol.dispose]: () => timer[Symbol.dispose]() };
    },
  };
}

/**
 * As a timer, but time in which this process did not run does not count: what it waits for may be there, unread. On a machine that is busy
 * such moments are many and short, so the time is counted in slices, and what a slice takes too long is nobody's silence.
 */
export function patientTimer(
  clock: ReachOptions["clock"],
  delayMs: number,
  run: () => void,
  longestSliceMs = SLICE_MS,
): Disposable {
  let leftMs = delayMs;
  let timer: Disposable;
  const arm = () => {
    const sliceMs = Math.min(leftMs, longestSliceMs);
    const dueMs = clock.monotonic() + sliceMs;
    timer = clock.timer(sliceMs, () => {
      const lateMs = clock.monotonic() - dueMs;
      leftMs = lateMs > OWN_PAUSE_MS ? Math.min(leftMs + lateMs, delayMs) : leftMs - sliceMs;
      if (leftMs > 0) arm();
      else run();
    });
  };
  arm();
  return { [Symbol.dispose]: () => timer[Symbol.dispose]() };
}
