/**
 * The life of one wire, seen from its client: asked for, kept alive by refreshes, healed, given back
 * (docs/protocol.md, "The life of a wire").
 *
 *   asking --answer--> up --refresh due, news--> asking --bad news of what is refreshed--> asking anew
 *   asking --failure--> waiting --back-off, news--> asking          any --stop--> closing --> gone
 *
 * A refresh that fails leaves the wire as it is; only news that it is down or dead, the next hop's lasting word that the way is
 * gone, or the end of its lease makes a new one.
 */
import { clone, create } from "@bufbuild/protobuf";
import { ConnectionSchema, State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { createBackoff } from "../sdk/backoff.ts";
import type { Clock } from "../sdk/clock.ts";
import { NsmError } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { measureWire } from "../sdk/metrics/wire-measure.ts";
import { earliestExpiry } from "../sdk/path.ts";
import { afterFailure, saysEnded, saysGone, saysMismatch, saysNobody } from "../sdk/failure.ts";
import type { Manager } from "../sdk/manager-client.ts";
import { createDataPath, dataPathOf } from "./data-path.ts";
import type { WatchPath } from "./data-path.ts";
import { firstRequest } from "./request.ts";
import type { Wish } from "./request.ts";

/** Share of the shortest lease after which the originator refreshes; the value of the Go clients. */
const REFRESH_AT = 0.2;
/** Refreshes are early by up to this share of their delay, so that wires of one start do not stay in step. */
const REFRESH_JITTER = 0.2;
/** Answers that the way is gone count after this long: who was restarted registers again within it, and the wire works meanwhile. */
const GONE_AFTER_MS = 10_000;
/** Between tries of a Request that failed, at most. */
const LONGEST_RETRY_MS = 2000;
/** The same while there is nobody to serve: the manager tells when that has changed, so this is for what it has not heard. */
const LONGEST_PAUSE_MS = 10_000;
/** A wire that is down sooner, time and again, is made anew ever more seldom. */
const SHORT_LIFE_MS = 500;

export interface WireOptions {
  readonly manager: Manager;
  readonly clock: Clock;
  readonly log: Logger;
  /** For one Request or Close. */
  readonly requestTimeoutMs: number;
  readonly random: () => number;
  /** Told of every first, healed or changed wire. */
  readonly onUp: (connection: Connection) => void;
  /** Probes the data path; default nobody. */
  readonly watch?: WatchPath;
}

/**
 * What happened to a wire. The manager's stream said that it is down, that it works but is wanted elsewhere, a wish for a
 * refresh, or that a Request which failed may succeed now (`retry`); or its data path is dead.
 */
export type News = "down" | "reselect" | "dead" | "refresh" | "retry";

export interface ClientWire {
  readonly id: string;
  /** The last good answer. */
  readonly connection: Connection | undefined;
  /**
   * Hands the wire news from the monitor stream. `of`: bad news of another connection than the wire has, which counts if the
   * answer that is under way turns out to be it.
   */
  tell(news: News, of?: Connection): void;
  /** Keeps the wire until the signal aborts, then closes it. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
}

/** `adopted`: a connection of an earlier life of this client, as the manager's monitor shows it. */
export function createWire(wish: Wish, options: WireOptions, adopted?: Connection): ClientWire {
  const { clock, log, manager } = options;
  let connection = adopted;
  const measure = measureWire(clock);
  let reselect = adopted?.state === State.DOWN;
  /** One attempt to choose anew; whoever fails goes on with what there is. */
  let moving = false;
  /** Monotonic; since when every answer has been that the way is gone. */
  let goneSince: number | undefined;
  let wake: ((news: News | undefined) => void) | undefined;
  let pending: News | undefined;
  /** The last Request succeeded, and the next one is not due yet. */
  let isUp = false;
  /** What bad news came of while an answer was under way: the two may cross. */
  let saidDown: Connection | undefined;
  /** While a refresh is under way, which bad news make pointless. */
  let refreshing: AbortController | undefined;
  /** It has been said that the wire is down, and not yet that it is up again. */
  let isSaidDown = false;
  const dataPath = createDataPath({
    clock,
    random: options.random,
    watch: options.watch,
    onDead: () => tell("dead"),
    onTrusted() {
      if (!reselect) isUpAgain(); // else it is being replaced
    },
  });

  /** Resolves with news, or undefined after the delay or at the signal. */
  const wait = (delayMs: number, signal: AbortSignal): Promise<News | undefined> => {
    if (pending !== undefined) return Promise.resolve(takePending());
    return new Promise((resolve) => {
      const done = (news: News | undefined) => {
        timer[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
        wake = undefined;
        resolve(news);
      };
      const onAbort = () => done(undefined);
      const timer = clock.timer(delayMs, () => done(undefined));
      signal.addEventListener("abort", onAbort, { once: true });
      wake = done;
      if (signal.aborted) done(undefined);
    });
  };
  const takePending = (): News | undefined => {
    const news = pending;
    pending = undefined;
    return news;
  };
  const heed = (news: News | undefined) => {
    if (news === undefined || news === "refresh" || news === "retry" || connection === undefined) return;
    if (news === "reselect") {
      moving = true;
      log.info({ connection: wish.id, service: wish.networkService }, "wire is wanted elsewhere, moving");
      return;
    }
    reselect = true;
    measure.broken(news);
    sayDown(news);
  };
  /** Once, however often the wire is made anew until it works. */
  const sayDown = (news: News) => {
    const fields = { connection: wish.id, service: wish.networkService, news };
    if (isSaidDown) log.info(fields, "wire does not work yet, choosing again");
    else log.info(fields, "wire is down, healing");
    isSaidDown = true;
  };
  const isUpAgain = () => {
    isSaidDown = false;
    measure.healed();
    if (connection !== undefined) options.onUp(connection);
  };

  const ask = async (signal: AbortSignal) => {
    const request = requestFor(wish, connection, reselect || moving);
    const what = reselect ? "heal" : moving ? "move" : connection === undefined ? "first" : "refresh";
    if (what === "refresh") refreshing = new AbortController();
    saidDown = undefined;
    const signals = refreshing === undefined ? signal : AbortSignal.any([signal, refreshing.signal]);
    try {
      const answer = await measure.request(what, () =>
        manager.request(request, withTimeout(signals, options.requestTimeoutMs)),
      );
      const isOther = connection !== undefined && dataPathOf(connection) !== dataPathOf(answer);
      const changed = what !== "refresh" || connection === adopted || isOther;
      connection = answer;
      // The end of the old half is no news of the new one; what came during a mere refresh is.
      if (reselect || moving || pending === "retry") pending = undefined;
      if (saidDown !== undefined && isSameWay(saidDown, answer)) pending = "down";
      dataPath.follow(answer, reselect || moving);
      reselect = false;
      moving = false;
      goneSince = undefined;
      if (!dataPath.isTrusted) {
        const nse = answer.networkServiceEndpointName;
        if (changed) log.info({ connection: wish.id, nse }, "wire made anew, waiting for its data path");
      } else if (changed) isUpAgain();
      else measure.healed();
    } finally {
      refreshing = undefined;
    }
  };

  const tell = (news: News, of?: Connection) => {
    if (of !== undefined) {
      saidDown = of;
      return;
    }
    if (news === "retry" && isUp) return;
    // Bad news are the stronger ones and are not forgotten for later others.
    if (news === "retry") pending ??= news;
    else if (!isBad(pending)) pending = news;
    if (isBad(pending))
      refreshing?.abort(
        new NsmError("CANCELLED", "superseded", `the wire is ${pending}, its refresh is given up`),
      );
    if (wake !== undefined) wake(takePending());
  };

  const close = async () => {
    if (connection === undefined) return;
    const signal = AbortSignal.timeout(options.requestTimeoutMs);
    await manager.close(clone(ConnectionSchema, connection), signal).catch((err: unknown) => {
      log.warn({ connection: wish.id, err }, "closing failed; the wire ends with its lease");
    });
    log.info({ connection: wish.id, service: wish.networkService }, "wire closed");
  };

  return {
    id: wish.id,
    get connection() {
      return connection;
    },
    tell,
    async run(signal) {
      const backoff = createBackoff({ firstMs: 50, maxMs: LONGEST_PAUSE_MS, random: options.random });
      const pauseAfter = async (error: unknown) => {
        const isWaiting = saysNobody(error) && (connection === undefined || reselect);
        const news = await wait(Math.min(backoff.next(), isWaiting ? Infinity : LONGEST_RETRY_MS), signal);
        if (news === "retry") backoff.reset();
        heed(news);
      };
      const relapses = createBackoff({ firstMs: 50, maxMs: 2000, random: options.random });
      let shortLives = 0;
      while (!signal.aborted) {
        try {
          await ask(signal);
          backoff.reset();
        } catch (err) {
          if (signal.aborted) break;
          if (moving && !reselect) {
            moving = false;
            log.warn({ connection: wish.id, service: wish.networkService, err }, "moving failed, staying");
            await pauseAfter(err);
            continue;
          }
          goneSince = saysGone(err) ? (goneSince ?? clock.monotonic()) : undefined;
          const isLasting = goneSince !== undefined && clock.monotonic() - goneSince >= GONE_AFTER_MS;
          const isGone = connection !== undefined && (saysEnded(err) || isLasting);
          const wasReselect = reselect;
          ({ connection, reselect } = afterFailure(err, connection, reselect || isGone, clock.now()));
          if (reselect && !wasReselect) backoff.reset();
          if (reselect && connection !== undefined)
            measure.broken(saysEnded(err) ? "process-ended" : isGone ? "gone" : "lease");
          if (saysMismatch(err) && connection !== undefined && !reselect) {
            // It works where it is, and will not be refreshed there any more.
            moving = true;
            log.info({ connection: wish.id, service: wish.networkService, err }, "not refreshed, moving");
            continue;
          }
          log.warn(
            { connection: wish.id, service: wish.networkService, err },
            "request failed, trying again",
          );
          await pauseAfter(err);
          continue;
        }
        const delayMs = refreshDelay(connection, clock.now(), options.random);
        const upMs = clock.monotonic();
        isUp = true;
        const news = await wait(delayMs, signal);
        isUp = false;
        if (news === undefined && !signal.aborted) measure.refreshDue(clock.monotonic() - upMs - delayMs);
        heed(news);
        if (clock.monotonic() - upMs >= SHORT_LIFE_MS) {
          shortLives = 0;
          relapses.reset();
        } else if (news === "down" && ++shortLives > 1) heed(await wait(relapses.next(), signal));
      }
      dataPath[Symbol.dispose]();
      await close();
    },
  };
}

function isSameWay(a: Connection, b: Connection): boolean {
  const managersId = ({ path }: Connection) => path?.pathSegments[1]?.id;
  return a.networkServiceEndpointName === b.networkServiceEndpointName && managersId(a) === managersId(b);
}

function isBad(news: News | undefined): boolean {
  return news === "down" || news === "dead";
}

function requestFor(
  wish: Wish,
  connection: Connection | undefined,
  reselect: boolean,
): NetworkServiceRequest {
  const first = firstRequest(wish);
  if (connection === undefined) return first;
  const again = clone(ConnectionSchema, connection);
  if (reselect) {
    delete again.mechanism;
    again.networkServiceEndpointName = "";
    again.state = State.RESELECT_REQUESTED;
  }
  return create(NetworkServiceRequestSchema, {
    connection: again,
    mechanismPreferences: first.mechanismPreferences,
  });
}

/** Milliseconds until the next refresh. */
export function refreshDelay(
  connection: Connection | undefined,
  nowMs: number,
  random: () => number,
): number {
  const path = connection?.path;
  const expiryMs = path === undefined ? undefined : earliestExpiry(path);
  if (path === undefined || expiryMs === undefined) return 0;
  const share = path.pathSegments.length > 1 ? REFRESH_AT : 1 / 3;
  return Math.max(0, expiryMs - nowMs) * share * (1 - REFRESH_JITTER * random());
}

function withTimeout(signal: AbortSignal, timeoutMs: number): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
}
