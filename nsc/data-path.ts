/**
 * What a client knows of the data path of one wire (docs/protocol.md, "Liveness").
 *
 *   trusted --probes unanswered--> dead --wire made anew by the same endpoint--> doubted --an answer--> trusted
 *                                   ^----------------no answer during a pause---------/
 *
 * A new wire is trusted, since an endpoint need not answer probes. One whose endpoint did answer, and then did not, is doubted until
 * it answers again: whoever asks the control plane alone would take it for healed each time.
 */
import type { Connection } from "../api/gen/connection_pb.js";
import { createBackoff } from "../sdk/backoff.ts";
import type { Clock } from "../sdk/clock.ts";

/** Pauses between two wires by an endpoint that stays silent. */
const PAUSE = { firstMs: 1000, maxMs: 60_000 };
/** Who answers sooner after the wire was made anew may be one that answers only now and then … */
const SILENCE_MS = 500;
/** … unless it goes on for longer than it takes to find out that it does not. */
const STEADY_MS = 750;
/** What an endpoint that has gone silent may have answered before, to be judged as if for the first time. */
const SOUND_MS = 60_000;
/** Of endpoints that went silent. */
const MOST_REMEMBERED = 64;

/** What probes tell. */
export interface PathNews {
  /** Nobody answers any more; told once, and nothing after it. */
  readonly onDead: () => void;
  /** The first answer; told once. */
  readonly onAnswer: () => void;
}

/**
 * Probes a wire until it is dead, or until disposed. `hasAnswered`: the same endpoint has answered before, so that silence from the
 * beginning is death, too.
 */
export type WatchPath = (connection: Connection, news: PathNews, hasAnswered: boolean) => Disposable;

export interface DataPathOptions {
  readonly clock: Clock;
  readonly random: () => number;
  /** Undefined: nothing is probed, and every wire trusted. */
  readonly watch: WatchPath | undefined;
  readonly onDead: () => void;
  /** A wire that was doubted has answered. */
  readonly onTrusted: () => void;
}

export interface DataPath extends Disposable {
  /** From now on this wire is watched. `isNew`: the way was chosen anew, even if nothing that probes depend on has changed. */
  follow(connection: Connection, isNew: boolean): void;
  /** False while the wire may not be said to be up. */
  readonly isTrusted: boolean;
}

export function createDataPath({ clock, random, watch, onDead, onTrusted }: DataPathOptions): DataPath {
  /** Endpoints that went silent and have not answered since. */
  const silent = new Set<string>();
  const pauses = createBackoff({ ...PAUSE, random });
  let watched = new DisposableStack();
  let watchedAs = "";
  let isTrusted = true;

  const die = (endpoint: string, sinceMs: number) => {
    silent.delete(endpoint);
    silent.add(endpoint);
    for (const oldest of silent) if (silent.size > MOST_REMEMBERED) silent.delete(oldest);
    if (isTrusted && clock.monotonic() - sinceMs >= SOUND_MS) pauses.reset();
    onDead();
  };
  const answerOf = (endpoint: string) => {
    silent.delete(endpoint);
    if (isTrusted) return;
    isTrusted = true;
    onTrusted();
  };
  /** `hasAnswered`: the pause is over, and silence counts. */
  const judge = (connection: Connection, hasAnswered: boolean) => {
    const endpoint = connection.networkServiceEndpointName;
    const sinceMs = clock.monotonic();
    const news = {
      onDead: () => die(endpoint, sinceMs),
      onAnswer: () => answerOf(endpoint),
    };
    const probes = watch?.(connection, news, hasAnswered);
    if (probes !== undefined) watched.use(probes);
  };
  /** Until the pause is over nothing counts but an answer, and that who has answered goes on. */
  const doubt = (connection: Connection) => {
    const endpoint = connection.networkServiceEndpointName;
    const sinceMs = clock.monotonic();
    let counts = false;
    let steady: Disposable | undefined;
    const timer = clock.timer(pauses.next(), () => {
      renew();
      judge(connection, true);
    });
    const believe = () => {
      timer[Symbol.dispose]();
      pauses.reset();
      counts = true;
    };
    const news = {
      onDead() {
        steady?.[Symbol.dispose]();
        if (counts) die(endpoint, sinceMs);
      },
      onAnswer() {
        if (clock.monotonic() - sinceMs >= SILENCE_MS) believe();
        else steady = clock.timer(STEADY_MS, believe);
        answerOf(endpoint);
      },
    };
    watched.use(timer);
    watched.defer(() => steady?.[Symbol.dispose]());
    const probes = watch?.(connection, news, false);
    if (probes !== undefined) watched.use(probes);
  };
  const renew = () => {
    watched.dispose();
    watched = new DisposableStack();
  };

  return {
    get isTrusted() {
      return isTrusted;
    },
    follow(connection, isNew) {
      const as = dataPathOf(connection);
      if (!isNew && as === watchedAs) return;
      watchedAs = as;
      renew();
      isTrusted = !silent.has(connection.networkServiceEndpointName);
      if (!isTrusted) {
        doubt(connection);
        return;
      }
      pauses.reset();
      judge(connection, false);
    },
    [Symbol.dispose]: () => watched.dispose(),
  };
}

/** What probes depend on. */
export function dataPathOf({ mechanism, context }: Connection): string {
  const { srcIpAddrs = [], dstIpAddrs = [] } = context?.ipContext ?? {};
  return JSON.stringify([mechanism?.parameters["name"], srcIpAddrs, dstIpAddrs]);
}
