/** The last changes of each wire's state, with their reasons: what happened to it, for people who ask (docs/protocol.md, "Looking"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import { State } from "../../api/gen/connection_pb.js";
import type { Element } from "../chain.ts";
import type { Clock } from "../clock.ts";
import { NsmError, messageOf } from "../errors.ts";
import { LruMap } from "../lru.ts";
import type { WithEvents } from "./begin.ts";
import { connectionOf } from "./update-path.ts";

/** Events that are kept of a wire, and wires of which any are kept; a wire that is closed is remembered, too. */
const EVENTS_OF_WIRE = 16;
const WIRES = 1024;
/** Texts of peers are cut. */
const MAX_WHY = 300;

export type WireEventName =
  /** The first Request, or one after a Close, was answered. */
  | "made"
  /** A Request for a new choice was answered. */
  | "healed"
  /** A Request failed. */
  | "failed"
  /** A Request was answered after failures or bad news. */
  | "mended"
  /** The next hop said that the wire is down, or is known to be dead. */
  | "down"
  /** The next hop came back without its memory of the wire. */
  | "lost"
  /** The matches of its service want it elsewhere, or nowhere. */
  | "unmatched"
  | "closed";

export interface WireEvent {
  /** Wall clock, milliseconds since 1970; of the last one when it happened more than once in a row. */
  readonly timeMs: number;
  readonly what: WireEventName;
  readonly why: string;
  readonly count: number;
}

export interface History {
  note(id: string, what: WireEventName, why?: string): void;
  /** Oldest first; empty for a wire of which nothing is known. */
  of(id: string): readonly WireEvent[];
}

export function createHistory(clock: Pick<Clock, "now">): History {
  const wires = new LruMap<string, WireEvent[]>(WIRES);
  return {
    note(id, what, text = "") {
      const events = wires.get(id) ?? [];
      const why = text.length > MAX_WHY ? `${text.slice(0, MAX_WHY)}…` : text;
      const last = events.at(-1);
      const isAgain = last?.what === what && last.why === why;
      const event = { timeMs: clock.now(), what, why, count: isAgain ? last.count + 1 : 1 };
      if (isAgain) events.pop();
      events.push(event);
      if (events.length > EVENTS_OF_WIRE) events.shift();
      wires.set(id, events);
    },
    of: (id) => [...(wires.get(id) ?? [])],
  };
}

/** Notes what Requests and Closes do; refreshes of a wire that is well are no events. */
export function recordHistory(history: History): Element<WithEvents, WithEvents> {
  const isWell = (id: string) => {
    const last = history.of(id).at(-1)?.what;
    return last === "made" || last === "healed" || last === "mended" || last === "unmatched";
  };
  return (next) => ({
    async request(request, ctx) {
      const { id, state } = connectionOf(request);
      try {
        const response = await next.request(request, ctx);
        if (state === State.RESELECT_REQUESTED) history.note(id, "healed", endpointOf(response));
        else if (!ctx.established) history.note(id, "made", endpointOf(response));
        else if (!isWell(id)) history.note(id, "mended", endpointOf(response));
        return response;
      } catch (error) {
        // The caller's own word is no fault of the wire, and a wire that was never made has none.
        if (history.of(id).length > 0 && !ctx.signal.aborted) history.note(id, "failed", describe(error));
        throw error;
      }
    },
    async close(connection, ctx) {
      const isKnown = history.of(connection.id).length > 0;
      const why = ctx.why ?? `by ${ctx.peer?.spiffeId ?? "this manager"}`;
      if (isKnown) history.note(connection.id, "closed", why);
      await next.close(connection, ctx);
    },
  });
}

function endpointOf(connection: Connection): string {
  return `endpoint ${connection.networkServiceEndpointName}`;
}

function describe(error: unknown): string {
  return error instanceof NsmError ? `${error.code} ${error.reason}: ${error.message}` : messageOf(error);
}
