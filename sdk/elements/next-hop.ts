/** The end of a pass-through chain: the call to the next hop, and following what it tells later. */
import { State } from "../../api/gen/connection_pb.js";
import type { Connection, PathSegment } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { CallContext, Element, NetworkService } from "../chain.ts";
import { NsmError } from "../errors.ts";
import { checkConnectionLimits } from "../limits.ts";
import type { WithEvents } from "./begin.ts";
import type { MonitorStore } from "./monitor.ts";
import { NOWHERE } from "./target.ts";
import type { HopEvent, NextHop, WithNextHop } from "./target.ts";
import { askOnce } from "./unwanted-answer.ts";
import { connectionOf, idBehind, leadsElsewhere } from "./update-path.ts";

/** The calling side, as this process reaches other processes. */
export interface Hops {
  request(hop: NextHop, request: NetworkServiceRequest, ctx: CallContext): Promise<Connection>;
  close(hop: NextHop, connection: Connection, ctx: CallContext): Promise<void>;
  /** Tells of changes of the connection with our segment id `id` at `hop`, by one stream a hop, until disposed. */
  follow(hop: NextHop, id: string, onEvent: (event: HopEvent) => void): Disposable;
}

/** The RPC itself. What comes back is the next hop's word about what lies behind us, and nothing else. */
export function connect(hops: Hops): NetworkService<CallContext & WithNextHop> {
  return {
    async request(request, ctx) {
      const sent = connectionOf(request);
      const before = sent.path?.pathSegments.slice(0, sent.path.index + 1) ?? [];
      const asked = { id: sent.id, before };
      const ask = async (signal: AbortSignal) => {
        const answer = await hops.request(ctx.nextHop, request, { ...ctx, signal });
        checkConnectionLimits(answer);
        keepWhatIsOurs(asked, answer, ctx.nextHop);
        return answer;
      };
      // What the hop has already is not undone, and whoever gives up a refresh does so to ask it for something else.
      if (idBehind(sent) !== undefined) return await ask(ctx.signal);
      const undo = (answer: Connection, own: CallContext) => {
        // The dead caller's process, which it names, proves nothing any more.
        delete answer.mechanism;
        return hops.close(ctx.nextHop, answer, own);
      };
      return await askOnce(ask, undo, ctx);
    },
    async close(connection, ctx) {
      if (ctx.nextHop !== NOWHERE) await hops.close(ctx.nextHop, connection, ctx);
    },
  };
}

/**
 * The answer must be about the connection that was asked for. The segments before ours (their tokens, leases, metrics) stay as
 * they were sent: a next hop has no say in them. Throws INTERNAL `path-lost`.
 */
function keepWhatIsOurs(
  { id, before }: { readonly id: string; readonly before: readonly PathSegment[] },
  answer: Connection,
  hop: NextHop,
): void {
  const own = before.length - 1;
  const segments = answer.path?.pathSegments ?? [];
  const isOurs =
    answer.id === id &&
    answer.path?.index === own &&
    before.every((segment, i) => segments[i]?.id === segment.id && segments[i].name === segment.name);
  if (!isOurs)
    throw new NsmError(
      "INTERNAL",
      "path-lost",
      `${hop.url} answered for another connection or path than it was asked for (${id})`,
    );
  segments.splice(0, own, ...before.slice(0, own));
}

/** The hop that a connection leads to. */
interface Way {
  readonly hop: NextHop;
  /** Id of the hop's segment. */
  behind: string | undefined;
}

interface Followed extends Way {
  readonly follower: Disposable;
  /** Where the connection led before. */
  readonly before: Way | undefined;
}

/**
 * Publishes the next hop's news of our connections as our own. A new half is followed as soon as it has answered, and the one of
 * before again when the new one is given back. State: one follower a connection, dropped on close.
 */
export function followNextHop(
  hops: Pick<Hops, "follow">,
  store: MonitorStore,
): Element<WithEvents & WithNextHop, WithNextHop> {
  const all = new Map<string, Followed>();
  const unfollow = (id: string): Followed | undefined => {
    const followed = all.get(id);
    followed?.follower[Symbol.dispose]();
    all.delete(id);
    return followed;
  };
  const follow = (id: string, { hop, behind }: Way, before?: Way) => {
    const follower = hops.follow(hop, id, (event) => {
      // A half that was left there is no business of the one that took its place.
      const expected = all.get(id)?.behind;
      if (event.kind !== "lost" && event.behind !== undefined && event.behind !== expected) return;
      // What is down is followed anew by the Request that mends it.
      if (event.kind === "down") unfollow(id);
      store.fromNextHop(id, changeOf(event));
    });
    all.set(id, { hop, behind, follower, before });
  };
  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      const response = await next.request(request, ctx);
      const way = { hop: ctx.nextHop, behind: idBehind(response) };
      const known = all.get(id);
      if (known?.hop.url === way.hop.url) known.behind = way.behind;
      else follow(id, way, unfollow(id));
      store.newHalf(id);
      return response;
    },
    async close(connection, ctx) {
      const followed = unfollow(connection.id);
      const isGivenBack = ctx.previous !== undefined && leadsElsewhere(ctx.previous, connection);
      if (isGivenBack) store.presumeDown(connection.id); // other new halves may be tried
      if (isGivenBack && followed?.before !== undefined) follow(connection.id, followed.before);
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
