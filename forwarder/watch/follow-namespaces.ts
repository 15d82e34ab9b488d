/** What the end of a network namespace means for its wires (docs/protocol.md, "The death of a client"). */
import { State } from "../../api/gen/connection_pb.js";
import type { Element } from "../../sdk/chain.ts";
import type { Events, WithEvents } from "../../sdk/elements/begin.ts";
import type { MonitorStore } from "../../sdk/elements/monitor.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import type { Dataplane } from "../dataplane.ts";

interface Followed {
  events: Events;
  /** Requests on their way. */
  running: number;
  /** Its endpoint's namespace ended meanwhile: of no account if the Request found another one. */
  isLost: boolean;
}

/**
 * A client's namespace took its wire along: the rest of the connection is closed. An endpoint's leaves a client without its
 * wire: it is told DOWN, and asks for another endpoint. State: how to close each connection; dropped on close.
 */
export function followNamespaces(
  dataplane: Pick<Dataplane, "onNamespaceEnded">,
  store: Pick<MonitorStore, "fromNextHop">,
): Element<WithEvents> {
  const known = new Map<string, Followed>();
  const sayDown = (id: string) => store.fromNextHop(id, { state: State.DOWN });
  dataplane.onNamespaceEnded((id, side) => {
    const followed = known.get(id);
    if (followed === undefined) return;
    if (side === "client") void followed.events.close("the network namespace of its client has ended");
    else if (followed.running > 0) followed.isLost = true;
    else sayDown(id);
  });
  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      const followed = known.get(id) ?? { events: ctx.events, running: 0, isLost: false };
      followed.events = ctx.events;
      followed.running++;
      known.set(id, followed);
      try {
        const response = await next.request(request, ctx);
        followed.isLost = false;
        return response;
      } catch (error) {
        if (!ctx.established) known.delete(id);
        throw error;
      } finally {
        followed.running--;
        if (followed.isLost && followed.running === 0) {
          followed.isLost = false;
          sayDown(id);
        }
      }
    },
    async close(connection, ctx) {
      known.delete(connection.id);
      await next.close(connection, ctx);
    },
  });
}
