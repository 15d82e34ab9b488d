/** Closes what a Request left behind: the half of a connection that led elsewhere (docs/protocol.md, "One operation at a time"). */
import { clone } from "@bufbuild/protobuf";
import { ConnectionSchema, PathSegmentSchema } from "../../api/gen/connection_pb.js";
import type { Connection, PathSegment } from "../../api/gen/connection_pb.js";
import type { Element } from "../chain.ts";
import type { Logger } from "../log.ts";
import type { WithEvents } from "./begin.ts";
import type { Hops } from "./next-hop.ts";
import { ownCall } from "./own-call.ts";
import type { NextHop, WithLastHop, WithNextHop, WithOldWay } from "./target.ts";
import { connectionOf, leadsElsewhere } from "./update-path.ts";

/** Connections that this process had before it was started again. */
export interface FormerLife {
  readonly has: (id: string) => boolean;
  readonly hopOf: (connection: Connection, signal: AbortSignal) => Promise<NextHop>;
}

/**
 * The new half is there before the old one goes, and no caller waits for that: who is left behind is often dead. The old half is
 * what stood behind us under another segment id; one under the same id has been changed by its own hop. `former`: what
 * is known by its caller's path alone. State: the next hop per connection; dropped on close.
 */
export function closeOldHalf(
  hops: Pick<Hops, "close">,
  log: Logger,
  former?: FormerLife,
): Element<WithEvents & WithNextHop & WithOldWay, WithEvents & WithNextHop & WithLastHop> {
  const lastHops = new Map<string, NextHop>();
  const close = async (old: Connection, lastHop: NextHop | undefined, established: boolean) => {
    const { id: connection, networkServiceEndpointName: nse } = old;
    const own = ownCall();
    const hop = lastHop ?? (await former?.hopOf(old, own.signal));
    if (hop === undefined) return;
    log.info({ connection, nse }, "closing the half left behind");
    await hops.close(hop, old, { ...own, established }).catch((err: unknown) => {
      log.info({ connection, peer: hop.url, err }, "closing the half left behind failed");
    });
  };
  return (next) => ({
    async request(request, ctx) {
      const { id, path } = connectionOf(request);
      const before = path?.pathSegments.slice(0, path.index + 1) ?? [];
      const lastHop = lastHops.get(id);
      const left = ctx.previous ?? (former?.has(id) === true ? broughtBy(connectionOf(request)) : undefined);
      const response = await next.request(request, { ...ctx, lastHop });
      lastHops.set(id, ctx.nextHop);
      const { established, oldWay } = ctx;
      if (left !== undefined && leadsElsewhere(left, response))
        void close(oldHalf(left, before), lastHop, established);
      else if (!established && oldWay !== undefined)
        void close(oldHalf(oldWay.connection, before), oldWay.hop, established);
      return response;
    },
    async close(connection, ctx) {
      const lastHop = lastHops.get(connection.id);
      lastHops.delete(connection.id);
      await next.close(connection, { ...ctx, lastHop });
    },
  });
}

/** By its caller's path; the endpoint that it names is the one that has been chosen now. */
function broughtBy(asked: Connection): Connection {
  const brought = clone(ConnectionSchema, asked);
  brought.networkServiceEndpointName = "";
  return brought;
}

/** As it was, with the tokens of now up to our own segment: those of then may have run out. */
function oldHalf(previous: Connection, before: readonly PathSegment[]): Connection {
  const old = clone(ConnectionSchema, previous);
  // Towards the caller it is another one than towards the next hop, which knows its own.
  delete old.mechanism;
  old.path?.pathSegments.splice(0, before.length, ...before.map((each) => clone(PathSegmentSchema, each)));
  return old;
}
