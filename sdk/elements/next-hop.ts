/** The end of a pass-through chain: the call to the next hop, and following what it tells later. */
import { State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { CallContext, Element, NetworkService } from "../chain.ts";
import type { MonitorStore } from "./monitor.ts";
import type { HopEvent, NextHop, WithNextHop } from "./target.ts";
import { connectionOf } from "./update-path.ts";

/** The calling side, as this process reaches other processes. */
export interface Hops {
  request(hop: NextHop, request: NetworkServiceRequest, ctx: CallContext): Promise<Connection>;
  close(hop: NextHop, connection: Connection, ctx: CallContext): Promise<void>;
  /** Tells of changes of the connection with our segment id `id` at `hop`, by one stream a hop, until disposed. */
  follow(hop: NextHop, id: string, onEvent: (event: HopEvent) => void): Disposable;
}

/** The RPC itself. */
export function connect(hops: Hops): NetworkService<CallContext & WithNextHop> {
  return {
    request: (request, ctx) => hops.request(ctx.nextHop, request, ctx),
    close: (connection, ctx) => hops.close(ctx.nextHop, connection, ctx),
  };
}

/** Publishes the next hop's news of our connections as our own. State: one follower a connection, dropped on close. */
export function followNextHop(hops: Hops, store: MonitorStore): Element<WithNextHop, WithNextHop> {
  const followers = new Map<string, { readonly url: string; readonly follower: Disposable }>();
  const unfollow = (id: string) => {
    followers.get(id)?.follower[Symbol.dispose]();
    followers.delete(id);
  };
  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      const response = await next.request(request, ctx);
      if (followers.get(id)?.url !== ctx.nextHop.url) {
        unfollow(id);
        const follower = hops.follow(ctx.nextHop, id, (event) => store.fromNextHop(id, changeOf(event)));
        followers.set(id, { url: ctx.nextHop.url, follower });
      }
      return response;
    },
    async close(connection, ctx) {
      unfollow(connection.id);
      await next.close(connection, ctx);
    },
  });
}

function changeOf(event: HopEvent): { state: State; next?: Connection } {
  switch (event.kind) {
    case "update":
      return { state: event.connection.state, next: event.connection };
    case "down":
      return { state: State.DOWN };
    case "lost":
      return { state: State.REFRESH_REQUESTED };
  }
}
