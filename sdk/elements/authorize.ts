/** The default policies of a server on the path up to its own segment (docs/protocol.md, "Policies"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext, Element } from "../chain.ts";
import type { Clock } from "../clock.ts";
import { authorizeServerPath } from "../policies.ts";
import { connectionOf } from "./update-path.ts";

const denials = new WeakSet<object>();

/** True for an error by which this very process refused a caller, false for one that came from further on. */
export function isLocalDenial(error: unknown): boolean {
  return typeof error === "object" && error !== null && denials.has(error);
}

/** Calls without a peer are this process's own decisions and pass. */
export function authorize(clock: Clock): Element {
  const check = (connection: Connection, ctx: CallContext) => {
    if (ctx.peer === undefined) return;
    const segments = connection.path?.pathSegments ?? [];
    const index = connection.path?.index ?? 0;
    try {
      authorizeServerPath(
        segments.slice(0, index + 1).map((segment) => segment.token),
        index,
        ctx.peer.certificate,
        clock.now(),
      );
    } catch (error) {
      if (typeof error === "object" && error !== null) denials.add(error);
      throw error;
    }
  };
  return (next) => ({
    async request(request, ctx) {
      check(connectionOf(request), ctx);
      return await next.request(request, ctx);
    },
    async close(connection, ctx) {
      check(connection, ctx);
      await next.close(connection, ctx);
    },
  });
}
