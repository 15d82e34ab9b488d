/** Ends a connection whose caller stopped refreshing it (docs/protocol.md, "Leases"). */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { Element } from "../chain.ts";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { claimedExpiryMs } from "../jwt.ts";
import type { WithEvents } from "./begin.ts";
import { connectionOf } from "./update-path.ts";

/** Share of a lease; without it one that is shorter than the time for a request would be over at once. */
const LARGEST_RESERVE = 0.25;

/**
 * Closes at the expiry of the caller's segment less the time that the caller gave its request, at most a quarter of the lease,
 * so that the close itself still has valid tokens. State: one timer a connection, dropped on close.
 */
export function timeout(clock: Clock): Element<WithEvents> {
  const timers = new Map<string, Disposable>();
  const stop = (id: string) => {
    timers.get(id)?.[Symbol.dispose]();
    timers.delete(id);
  };
  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      // Known before anything is made: an answer's word on the caller's lease would be the next hop's.
      const dueMs = dueAt(connectionOf(request), ctx.deadlineMs, clock.now());
      const response = await next.request(request, ctx);
      stop(id);
      timers.set(
        id,
        clock.timer(dueMs - clock.now(), () => {
          timers.delete(id);
          void ctx.events.close("its lease ran out without a refresh");
        }),
      );
      return response;
    },
    async close(connection, ctx) {
      stop(connection.id);
      await next.close(connection, ctx);
    },
  });
}

function dueAt(connection: Connection, deadlineMs: number | undefined, nowMs: number): number {
  const expiryMs = callerExpiry(connection);
  const budgetMs = deadlineMs === undefined ? 0 : Math.max(0, deadlineMs - nowMs);
  return expiryMs - Math.min(budgetMs, Math.max(0, expiryMs - nowMs) * LARGEST_RESERVE);
}

function callerExpiry(connection: Connection): number {
  const { path } = connection;
  const previous = path?.pathSegments[path.index - 1];
  if (previous?.expires === undefined)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "token-missing",
      "the call carried no usable nsm-client-token and nsm-client-token-expires: send exactly one of each",
    );
  // The expiry beside the token is the caller's word; the signed claim bounds it.
  return Math.min(timestampMs(previous.expires), claimedExpiryMs(previous.token) ?? Infinity);
}
