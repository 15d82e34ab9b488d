/** The end of a pass-through chain: the call to the next hop, and following what it tells later. */
import { clone, create } from "@bufbuild/protobuf";
import { ConnectionSchema, PathSegmentSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection, PathSegment } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { CallContext, Element, NetworkService } from "../chain.ts";
import { NsmError } from "../errors.ts";
import { checkConnectionLimits } from "../limits.ts";
import type { WithEvents } from "./begin.ts";
import type { MonitorStore } from "./monitor.ts";
import type { HopEvent, NextHop, WithLastHop, WithNextHop } from "./target.ts";
import { ownCall } from "./own-call.ts";
import { askOnce } from "./unwanted-answer.ts";
import type { Hearing } from "./unwanted-answer.ts";
import { connectionOf, idBehind, leadsElsewhere } from "./update-path.ts";

/** The calling side, as this process reaches other processes. */
export interface Hops {
  /** With `wanted` nothing is sent once that is aborted, the hop alone is told the deadline, and the answer is heard until `signal` aborts. */
  request(
    hop: NextHop,
    request: NetworkServiceRequest,
    ctx: CallContext & { readonly wanted?: AbortSignal },
  ): Promise<Connection>;
  /** A hop without a `url` is one that nobody knows the place of now. `established`: false for connections that others told us of. */
  close(
    hop: NextHop,
    connection: Connection,
    ctx: CallContext & { readonly established?: boolean },
  ): Promise<void>;
  /** Tells of changes of the connection with our segment id `id` at `hop`, by one stream a hop, until disposed. */
  follow(hop: NextHop, id: string, onEvent: (event: HopEvent) => void): Disposable;
}

type Context = CallContext & WithNextHop & Partial<WithEvents & WithLastHop>;

/** The RPC itself. What comes back is the next hop's word about what lies behind us, and nothing else. */
export function connect(hops: Hops): NetworkService<Context> {
  return {
    async request(request, ctx) {
      const sent = connectionOf(request);
      const before = sent.path?.pathSegments.slice(0, sent.path.index + 1) ?? [];
      const asked = { id: sent.id, before };
      const known = idBehind(ctx.previous ?? sent);
      const giveBack = (unwanted: Connection) => {
        if (idBehind(unwanted) === known && !isOrphan(ctx)) return;
        // The caller's process, which it names, proves nothing when it is dead.
        delete unwanted.mechanism;
        // What cannot be closed ends with its lease.
        void hops.close(ctx.nextHop, unwanted, ownCall()).catch(() => undefined);
      };
      const ask = async (hearing: Hearing) => {
        const answer = await hops.request(ctx.nextHop, request, { ...ctx, ...hearing });
        try {
          checkConnectionLimits(answer);
          keepWhatIsOurs(asked, answer, ctx.nextHop);
        } catch (error) {
          giveBack(refused(sent, answer));
          throw error;
        }
        return answer;
      };
      const hears = () => known === undefined || isOrphan(ctx) || leadsAnew(ctx);
      return await askOnce(ask, { hears, undo: giveBack }, ctx);
    },
    async close(connection, ctx) {
      if (ctx.nextHop.url !== "" || ctx.nextHop.again !== undefined)
        await hops.close(ctx.nextHop, connection, ctx);
    },
  };
}

/** Whoever gives up asking the same hop again does so to ask it for something else, and waits for that. */
function leadsAnew({ previous, lastHop, nextHop }: Context): boolean {
  return previous !== undefined && lastHop?.url !== nextHop.url;
}

/** Nobody remembers whose it is, and who asks for it is dead. */
function isOrphan({ previous, peer }: Context): boolean {
  return previous === undefined && peer?.process?.isAlive() === false;
}

/** What a hop made whose answer cannot be taken: the connection that it was asked for, with the id that it gave it. */
function refused(sent: Connection, answer: Connection): Connection {
  const made = clone(ConnectionSchema, sent);
  if (made.path === undefined) return made;
  const own = made.path.index;
  const { id = "", name = "" } = answer.path?.pathSegments[own + 1] ?? {};
  made.path.pathSegments.splice(own + 1, Infinity, create(PathSegmentSchema, { id, name }));
  return made;
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
