/** What the end of a network namespace means for its wires (docs/protocol.md, "The death of a client"). */
import { State } from "../api/gen/connection_pb.js";
import type { Element } from "../sdk/chain.ts";
import type { Events, WithEvents } from "../sdk/elements/begin.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import type { Dataplane } from "./dataplane.ts";

/**
 * A client's namespace took its wire along: the rest of the connection is closed. An endpoint's leaves a client without its
 * wire: it is told DOWN, and asks for another endpoint. State: how to close each connection; dropped on close.
 */
export function followNamespaces(
  dataplane: Pick<Dataplane, "onNamespaceEnded">,
  store: Pick<MonitorStore, "fromNextHop">,
): Element<WithEvents> {
  const known = new Map<string, Events>();
  dataplane.onNamespaceEnded((id, side) => {
    if (side === "endpoint") store.fromNextHop(id, { state: State.DOWN });
    else void known.get(id)?.close("the network namespace of its client has ended");
  });
  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      const response = await next.request(request, ctx);
      known.set(id, ctx.events);
      return response;
    },
    async close(connection, ctx) {
      known.delete(connection.id);
      await next.close(connection, ctx);
    },
  });
}
