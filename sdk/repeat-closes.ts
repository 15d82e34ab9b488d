/** Closes that the next hop could not be told are told when it is back (docs/protocol.md, "Closes that wait"). */
import { clone } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { createBackoff } from "./backoff.ts";
import type { Backoff } from "./backoff.ts";
import type { Clock } from "./clock.ts";
import type { Hops } from "./elements/next-hop.ts";
import type { NextHop } from "./elements/target.ts";
import { connectionOf, idBehind } from "./elements/update-path.ts";
import { NsmError } from "./errors.ts";
import type { CodeName } from "./errors.ts";
import type { Logger } from "./log.ts";

/** Closes that wait, in all; the memory of a process that has lost its next hop is bounded. */
const MAX_WAITING = 4096;
/** Of these, Closes of connections that this process did not know: anybody can make up some. */
const MAX_UNKNOWN = 256;
/** For one attempt. */
const ATTEMPT_MS = 5000;
/** No lease is longer, whatever a segment says. */
const LONGEST_MS = 600_000;

/** Failures that say nothing of the connection; with any other the hop has answered. */
const UNHEARD: ReadonlySet<CodeName> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"]);
/** The reason of a Close that waits here: whoever sent it need not repeat it. */
const WAITS = "close-waits";

interface Waiting {
  readonly connection: Connection;
  readonly isKnown: boolean;
  /** Monotonic: the lease, with which it ends at the next hop in any case. */
  readonly untilMs: number;
}

/** Those of one hop: the first of them is tried, and when it is heard so are all others. */
interface Queue {
  readonly find: () => NextHop | undefined | Promise<NextHop | undefined>;
  readonly waiting: Map<string, Waiting>;
  readonly backoff: Backoff;
  timer: Disposable | undefined;
}

export interface RepeatClosesOptions {
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * A Close that fails because its hop is away still fails, with reason `close-waits`, and is repeated until it is heard, until the
 * lease is over, or the connection is asked for again. A hop whose place nobody knows (`url` is empty) is looked for by its `again`.
 */
export function repeatCloses(hops: Hops, { clock, log }: RepeatClosesOptions): Hops & Disposable {
  const queues = new Map<string, Queue>();
  const stop = new AbortController();
  const counts = { all: 0, unknown: 0 };
  const put = ({ waiting }: Pick<Queue, "waiting">, each: Waiting) => {
    drop({ waiting }, keyOf(each.connection));
    waiting.set(keyOf(each.connection), each);
    counts.all++;
    if (!each.isKnown) counts.unknown++;
  };
  const drop = ({ waiting }: Pick<Queue, "waiting">, id: string): boolean => {
    const each = waiting.get(id);
    if (each === undefined) return false;
    waiting.delete(id);
    counts.all--;
    if (!each.isKnown) counts.unknown--;
    return true;
  };

  const add = (hop: NextHop, connection: Connection, isKnown: boolean): boolean => {
    const leftMs = leaseLeft(connection, clock.now());
    if (leftMs <= 0 || stop.signal.aborted) return false;
    if (counts.all >= MAX_WAITING || (!isKnown && counts.unknown >= MAX_UNKNOWN)) return false;
    const key = hop.again?.key ?? hop.url;
    const queue = queues.get(key) ?? {
      find: hop.again?.find ?? (() => hop),
      waiting: new Map<string, Waiting>(),
      backoff: createBackoff({ firstMs: 200, maxMs: 2000 }),
      timer: undefined,
    };
    put(queue, { connection, isKnown, untilMs: clock.monotonic() + leftMs });
    if (queues.has(key)) return true;
    queues.set(key, queue);
    log.info({ connection: connection.id, peer: key }, "the next hop is away, its close waits");
    plan(key, queue);
    return true;
  };

  const plan = (key: string, queue: Queue) => {
    queue.timer = clock.timer(queue.backoff.next(), () => void run(key, queue));
  };

  const run = async (key: string, queue: Queue): Promise<void> => {
    for (const [id, each] of queue.waiting) {
      if (each.untilMs > clock.monotonic()) {
        const isHeard = await attempt(queue, each);
        if (stop.signal.aborted) return;
        if (!isHeard) {
          // The next attempt is made with another one: this one may be what is wrong.
          if (drop(queue, id)) put(queue, each);
          break;
        }
        queue.backoff.reset();
        log.info({ connection: each.connection.id, peer: key }, "a close that waited was heard");
      }
      if (queue.waiting.get(id) === each) drop(queue, id);
    }
    if (queue.waiting.size > 0) plan(key, queue);
    else queues.delete(key);
  };

  const attempt = async (queue: Queue, { connection, isKnown }: Waiting): Promise<boolean> => {
    const timeout = new AbortController();
    using timer = clock.timer(ATTEMPT_MS, () => timeout.abort());
    void timer;
    const signal = AbortSignal.any([stop.signal, timeout.signal]);
    try {
      const hop = await queue.find();
      if (hop === undefined || hop.url === "") return false;
      const ctx = { signal, deadlineMs: undefined, peer: undefined, callerToken: undefined };
      await hops.close(hop, clone(ConnectionSchema, connection), ctx);
    } catch (err) {
      if (isUnheard(err)) return false;
      log.info({ connection: connection.id, isKnown, err }, "a close that waited was answered");
    }
    return true;
  };

  /** Asked for again, it shall not be closed; if that fails, it shall. */
  const withdraw = (connection: Connection): (() => void) => {
    const id = keyOf(connection);
    const found = [...queues.values()].find(({ waiting }) => waiting.has(id));
    const waiting = found?.waiting.get(id);
    if (found !== undefined) drop(found, id);
    const [key] = [...queues].find(([, queue]) => queue === found) ?? [];
    return () => {
      if (key === undefined || found === undefined || waiting === undefined) return;
      add({ url: "", again: { key, find: found.find } }, waiting.connection, waiting.isKnown);
    };
  };

  return {
    follow: (hop, id, onEvent) => hops.follow(hop, id, onEvent),
    async request(hop, request, ctx) {
      const putBack = queues.size === 0 ? () => undefined : withdraw(connectionOf(request));
      try {
        return await hops.request(hop, request, ctx);
      } catch (error) {
        putBack();
        throw error;
      }
    },
    async close(hop, connection, ctx) {
      const isKnown = ctx.established !== false;
      if (hop.url === "") {
        if (hop.again !== undefined) add(hop, clone(ConnectionSchema, connection), isKnown);
        return;
      }
      const copy = clone(ConnectionSchema, connection);
      try {
        await hops.close(hop, connection, ctx);
      } catch (error) {
        if (!isUnheard(error) || !add(hop, copy, isKnown)) throw error;
        const code = error instanceof NsmError ? error.code : "UNAVAILABLE";
        throw new NsmError(code, WAITS, `the close is repeated until ${hop.url} hears it`, error);
      }
    },
    [Symbol.dispose]() {
      stop.abort();
      for (const { timer } of queues.values()) timer?.[Symbol.dispose]();
      queues.clear();
    },
  };
}

function isUnheard(error: unknown): boolean {
  if (!(error instanceof NsmError)) return true;
  return UNHEARD.has(error.code) && error.reason !== WAITS;
}

/** One at this hop may have two at the next: the half that was left there, and the one in its place. */
function keyOf(connection: Connection): string {
  return `${connection.id} ${idBehind(connection) ?? ""}`;
}

function leaseLeft({ path }: Connection, nowMs: number): number {
  const expires = path?.pathSegments[path.index]?.expires;
  return Math.min(expires === undefined ? LONGEST_MS : timestampMs(expires) - nowMs, LONGEST_MS);
}
