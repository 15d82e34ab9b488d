/**
 * The half of a chain behind this endpoint: a connection of its own, asked for through the manager of the node, and healed here
 * (docs/protocol.md, "Chaining").
 *
 *   new --answer--> up --DOWN, end of lease--> down --answer to RESELECT--> up        any --close--> closed
 */
import { clone, create, equals } from "@bufbuild/protobuf";
import { ConnectionSchema, PathSegmentSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { ConnectionContext } from "../../api/gen/connectioncontext_pb.js";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { createBackoff } from "../../sdk/backoff.ts";
import type { Clock } from "../../sdk/clock.ts";
import { createMutex } from "../../sdk/elements/mutex.ts";
import type { HopEvent } from "../../sdk/elements/target.ts";
import { wishOf } from "../../sdk/elements/wishes.ts";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { saysForeign, saysMismatch } from "../../sdk/failure.ts";
import { checkConnectionLimits } from "../../sdk/limits.ts";
import type { Logger } from "../../sdk/log.ts";
import type { Manager } from "../../sdk/manager-client.ts";
import { KERNEL_TYPE, NO_ADDRESSES } from "../../sdk/mechanisms/kernel.ts";
import { measureWire } from "../../sdk/metrics/wire-measure.ts";
import { earliestExpiry } from "../../sdk/path.ts";
import { CHAIN_KEY } from "../../sdk/chain-mark.ts";

/** A next hop that is replaced within this time is no news to the hop before. */
const HEAL_WITHIN_MS = 10_000;
const CLOSE_WITHIN_MS = 3500;

/** `down`: no next hop has been found for a while. `refresh`: the originator's next Request makes known what has changed. */
export type News = "down" | "refresh" | "healed";

export interface DownstreamOptions {
  readonly id: string;
  /** Own path segment name. */
  readonly name: string;
  /** Of this endpoint; they stand in place of the client's. */
  readonly labels: Readonly<Record<string, string>>;
  readonly netnsUrl: string;
  readonly interfaceName: string;
  readonly manager: Pick<Manager, "request" | "close">;
  /** Tells of the connection with our id `id` at the manager until disposed. */
  readonly follow: (id: string, onEvent: (event: HopEvent) => void) => Disposable;
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly onNews: (news: News) => void;
}

export interface Asked {
  readonly networkService: string;
  readonly payload: string;
  readonly context: ConnectionContext | undefined;
  /** Endpoints to try first, in this order. */
  readonly prefer: readonly string[];
}

export interface Downstream {
  readonly interfaceName: string;
  /** The last good answer. */
  readonly connection: Connection | undefined;
  /** A first request, or a refresh; a new choice when the next hop is down or `reselect`. A failure leaves what there is. */
  request(asked: Asked, signal: AbortSignal, reselect: boolean): Promise<Connection>;
  /** Ends it, for good; never rejects. `orphan`: this endpoint ends, and another may go on with what is behind. */
  close(orphan?: "orphan"): Promise<void>;
}

export function createDownstream(options: DownstreamOptions): Downstream {
  const { log, clock, manager, id } = options;
  const mutex = createMutex();
  const stop = new AbortController();
  let connection: Connection | undefined;
  let last: Asked | undefined;
  let isDown = false;
  let healing: Promise<void> | undefined;
  let follower: Disposable | undefined;
  const measure = measureWire(clock);
  /** Ends the pause after a try, or makes it end at once. */
  let wake = new AbortController();

  const attempt = async (asked: Asked, signal: AbortSignal, reselect: boolean): Promise<Connection> => {
    const bounded = AbortSignal.any([signal, stop.signal, AbortSignal.timeout(options.requestTimeoutMs)]);
    const tryOne = (name: string) =>
      manager.request(requestFor(options, asked, connection, reselect, name), bounded);
    let answer: Connection;
    try {
      answer = await firstOf(connection === undefined ? asked.prefer : [], tryOne);
      checkAnswer(options, answer);
    } catch (error) {
      // Both ends forgot us: the next request starts with a path of our own segment alone.
      if (saysForeign(error)) connection = undefined;
      throw error;
    }
    connection = clone(ConnectionSchema, answer);
    isDown = false;
    measure.healed();
    follower ??= options.follow(id, onEvent);
    return answer;
  };

  const onEvent = (event: HopEvent) => {
    if (stop.signal.aborted) return;
    const state = event.kind === "update" ? event.connection.state : undefined;
    if (event.kind === "lost" || state === State.REFRESH_REQUESTED) options.onNews("refresh");
    const wish = event.kind === "update" ? wishOf(event.connection) : undefined;
    if (wish === "reselect") void move();
    if (wish === "retry") wake.abort();
    if (event.kind !== "down" && state !== State.DOWN) return;
    isDown = true;
    measure.broken("down");
    healing ??= heal().finally(() => (healing = undefined));
  };

  /** It works, but the matches lead elsewhere now: one attempt, and who fails stays. */
  const move = async () => {
    try {
      using turn = await mutex.take(stop.signal);
      void turn;
      if (last === undefined) return;
      const before = connection?.context;
      const answer = await attempt({ ...last, context: latest(before, last.context) }, stop.signal, true);
      log.info({ connection: id, nse: answer.networkServiceEndpointName }, "moved to another next hop");
      options.onNews(isSame(before, answer.context) ? "healed" : "refresh");
    } catch (err) {
      if (!stop.signal.aborted) log.info({ connection: id, err }, "moving failed, staying");
    }
  };

  /** Until the time is over, somebody serves, or the end. */
  const pause = async (pauseMs: number) => {
    const over = Promise.withResolvers<void>();
    using timer = clock.timer(pauseMs, () => over.resolve());
    void timer;
    const signal = AbortSignal.any([stop.signal, wake.signal]);
    signal.addEventListener("abort", () => over.resolve(), { once: true });
    if (!signal.aborted) await over.promise;
  };

  const heal = async () => {
    log.info({ connection: id, nse: connection?.networkServiceEndpointName }, "next hop is down, healing");
    const backoff = createBackoff({ firstMs: 20, maxMs: 2000 });
    const sinceMs = clock.monotonic();
    let isTold = false;
    let complaint = "";
    while (!stop.signal.aborted) {
      wake = new AbortController();
      try {
        using turn = await mutex.take(stop.signal);
        void turn;
        if (!isDown || last === undefined) return; // a request of the hop before has done it
        const before = connection?.context;
        const answer = await attempt({ ...last, context: latest(before, last.context) }, stop.signal, true);
        const nse = answer.networkServiceEndpointName;
        log.info(
          { connection: id, nse, durationMs: Math.round(clock.monotonic() - sinceMs) },
          "next hop healed",
        );
        options.onNews(isSame(before, answer.context) ? "healed" : "refresh");
        return;
      } catch (err) {
        if (stop.signal.aborted) return;
        // Told once for each reason: nobody may come for hours.
        if (messageOf(err) !== complaint) log.info({ connection: id, err }, "no next hop yet, trying again");
        complaint = messageOf(err);
      }
      if (!isTold && clock.monotonic() - sinceMs >= HEAL_WITHIN_MS) {
        isTold = true;
        options.onNews("down");
      }
      await pause(backoff.next());
      if (wake.signal.aborted) backoff.reset();
    }
  };

  return {
    interfaceName: options.interfaceName,
    get connection() {
      return connection;
    },
    async request(asked, signal, reselect) {
      using turn = await mutex.take(signal);
      void turn;
      stop.signal.throwIfAborted();
      last = asked;
      if (connection === undefined) return await attempt(asked, signal, false);
      if (isOver(connection, clock)) measure.broken("lease");
      const isAnew = reselect || isDown || isOver(connection, clock);
      try {
        return await attempt(asked, signal, isAnew);
      } catch (error) {
        // It works where it is, and will not be refreshed there any more.
        if (isAnew || !saysMismatch(error) || connection === undefined) throw error;
        return await attempt(asked, signal, true);
      }
    },
    async close(orphan) {
      if (stop.signal.aborted) return;
      stop.abort(new NsmError("ABORTED", "closed", `connection ${id} was closed while it was requested`));
      await healing;
      using turn = await mutex.take(undefined);
      void turn;
      follower?.[Symbol.dispose]();
      if (connection === undefined) return;
      if (orphan) connection.state = State.DOWN;
      await manager.close(connection, AbortSignal.timeout(CLOSE_WITHIN_MS)).catch((err: unknown) => {
        log.info({ connection: id, err }, "closing behind failed; it ends with its lease");
      });
    },
  };
}

/** The preferred ones, then whichever the match list leads to. */
async function firstOf(
  names: readonly string[],
  tryOne: (name: string) => Promise<Connection>,
): Promise<Connection> {
  for (const name of names) {
    try {
      return await tryOne(name);
    } catch (error) {
      if (!(error instanceof NsmError) || ["ABORTED", "CANCELLED", "DEADLINE_EXCEEDED"].includes(error.code))
        throw error;
    }
  }
  return await tryOne("");
}

function requestFor(
  { id, name, labels, netnsUrl, interfaceName }: DownstreamOptions,
  { networkService, payload, context }: Asked,
  known: Connection | undefined,
  reselect: boolean,
  wishedEndpoint: string,
): NetworkServiceRequest {
  const keeps = known !== undefined && !reselect;
  return create(NetworkServiceRequestSchema, {
    connection: {
      id,
      networkService,
      payload,
      labels: { ...labels },
      networkServiceEndpointName: keeps ? known.networkServiceEndpointName : wishedEndpoint,
      state: reselect ? State.RESELECT_REQUESTED : State.UP,
      path: known?.path ?? { pathSegments: [create(PathSegmentSchema, { name, id })] },
      ...(context !== undefined && { context }),
      ...(keeps && known.mechanism !== undefined && { mechanism: known.mechanism }),
    },
    mechanismPreferences: [
      {
        cls: "LOCAL",
        type: KERNEL_TYPE,
        parameters: { name: interfaceName, inodeURL: netnsUrl, ...NO_ADDRESSES },
      },
    ],
  });
}

/** It is the manager's word on what we asked for, and no larger than what strangers may send. */
function checkAnswer({ id, name }: DownstreamOptions, answer: Connection): void {
  checkConnectionLimits(answer);
  const { path } = answer;
  if (answer.id === id && path?.index === 0 && path.pathSegments[0]?.name === name) return;
  throw new NsmError("INTERNAL", "path-lost", `the manager answered for another connection than ${id}`);
}

/** What the way had, under the mark with which we ask. */
function latest(
  answered: ConnectionContext | undefined,
  asked: ConnectionContext | undefined,
): ConnectionContext | undefined {
  if (answered === undefined) return asked;
  const context = clone(ConnectionContextSchema, answered);
  const mark = asked?.extraContext[CHAIN_KEY];
  if (mark !== undefined) context.extraContext[CHAIN_KEY] = mark;
  return context;
}

function isOver({ path }: Connection, clock: Clock): boolean {
  return path !== undefined && (earliestExpiry(path) ?? Infinity) <= clock.now();
}

function isSame(a: ConnectionContext | undefined, b: ConnectionContext | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return equals(ConnectionContextSchema, a, b);
}
