/** Follows the wires of this node's clients while they last: those that are to be elsewhere are chosen anew (docs/protocol.md, "Wires that move"). */
import type { Element } from "../sdk/chain.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { setRemark } from "../sdk/elements/monitor.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import type { Moves } from "./moves.ts";

/** A wire of another node's forwarder is that node's affair: its manager asks the client. */
export function moveWires(moves: Moves): Element<WithEvents, WithEvents> {
  return (next) => ({
    async request(request, ctx) {
      // An endpoint that passes traffic on asks with labels of its own, and the answer has those of others.
      const labels = { ...connectionOf(request).labels };
      const response = await next.request(request, ctx);
      if (response.mechanism?.cls !== "LOCAL") return response;
      const { id, networkService: service, networkServiceEndpointName: endpoint } = response;
      const { path } = response;
      const forwarder = path?.pathSegments[path.index + 1]?.name ?? "";
      setRemark(
        response,
        moves.keep({ id, service, labels, endpoint, forwarder, close: (why) => ctx.events.close(why) }),
      );
      return response;
    },
    async close(connection, ctx) {
      moves.drop(connection.id);
      await next.close(connection, ctx);
    },
  });
}
