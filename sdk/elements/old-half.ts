/** Closes what a Request left behind: the half of a connection that led elsewhere (docs/protocol.md, "One operation at a time"). */
import { clone } from "@bufbuild/protobuf";
import { ConnectionSchema, PathSegmentSchema } from "../../api/gen/connection_pb.js";
import type { Connection, PathSegment } from "../../api/gen/connection_pb.js";
import type { Element } from "../chain.ts";
import type { Logger } from "../log.ts";
import type { WithEvents } from "./begin.ts";
import type { Hops } from "./next-hop.ts";
import { ownCall } from "./own-call.ts";
import type { NextHop, WithLastHop, WithNextHop } from "./target.ts";
import { connectionOf, leadsElsewhere } from "./update-path.ts";

/**
 * The new half is there before the old one goes, and no caller waits for that: who is left behind is often dead. The old half is
 * what stood behind us under another segment id; one under the same id has been changed by its own hop. State: the next hop
 * per connection; dropped on close.
 */
export function closeOldHalf(
  hops: Pick<Hops, "close">,
  log: Logger,
): Element<WithEvents & WithNextHop, WithEvents & WithNextHop & WithLastHop> {
  const lastHops = new Map<string, NextHop>();
  return (next) => ({
    async request(request, ctx) {
      const { id, path } = connectionOf(request);
      const before = path?.pathSegments.slice(0, path.index + 1) ?? [];
      const lastHop = lastHops.get(id);
      const response = await next.request(request, { ...ctx, lastHop });
      lastHops.set(id, ctx.nextHop);
      if (lastHop !== undefined && ctx.previous !== undefined && leadsElsewhere(ctx.previous, response)) {
        const old = oldHalf(ctx.previous, before);
        log.info({ connection: id, nse: old.networkServiceEndpointName }, "closing the half left behind");
        hops.close(lastHop, old, ownCall()).catch((err: unknown) => {
          log.info({ connection: id, peer: lastHop.url, err }, "closing the half left behind failed");
        });
      }
      return response;
    },
    async close(connection, ctx) {
      const lastHop = lastHops.get(connection.id);
      lastHops.delete(connection.id);
      await next.close(connection, { ...ctx, lastHop });
    },
  });
}

/** As it was, with the tokens of now up to our own segment: those of then may have run out. */
function oldHalf(previous: Connection, before: readonly PathSegment[]): Connection {
  const old = clone(ConnectionSchema, previous);
  // Towards the caller it is another one than towards the next hop, which knows its own.
  delete old.mechanism;
  old.path?.pathSegments.splice(0, before.length, ...before.map((each) => clone(PathSegmentSchema, each)));
  return old;
}
