/**
 * One actor per connection id: one operation at a time, Close pre-empts a hanging Request, and the id belongs to whoever used
 * it first (docs/protocol.md, "One operation at a time", "Ownership").
 *
 *   none --Request--> starting --success--> established --Request--> established (a failure keeps it)
 *                        |failure                |Close, expiry
 *                        v                       v
 *                       none <----------------- none
 */
import { clone } from "@bufbuild/protobuf";
import { ConnectionSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { CallContext, Element, NetworkService } from "../chain.ts";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { claimedExpiryMs } from "../jwt.ts";
import type { Logger } from "../log.ts";
import { LruMap } from "../lru.ts";
import { meters } from "../metrics/meters.ts";
import { isLocalDenial } from "./authorize.ts";
import { createMutex } from "./mutex.ts";
import type { Mutex } from "./mutex.ts";
import { connectionOf, idBehind, leadsElsewhere } from "./update-path.ts";

/** Operations waiting for one connection; one more is refused. */
const MAX_QUEUED = 8;
/** Ids of closed connections that are remembered: those of the last minutes, on a busy node. */
const CLOSED_REMEMBERED = 4096;
/** A Close that was decided is carried out whether or not its caller waits; this bounds it. */
const CLOSE_DEADLINE_MS = 15_000;

/** Lets later elements end the connection by themselves (expiry, death of a process). */
export interface Events {
  /** Closes the connection as if its owner had; never rejects. */
  close(why: string): Promise<void>;
}

export interface WithEvents {
  readonly events: Events;
  /** True when the connection was established before this Request. */
  readonly established: boolean;
  /** The last good answer before this Request, as seen at this hop: not to be changed. */
  readonly previous: Connection | undefined;
}

export interface BeginOptions {
  /** Who may use the connection from now on; calls of anybody else are PERMISSION_DENIED. */
  readonly owner: (connection: Connection, ctx: CallContext) => string;
  readonly log: Logger;
  readonly clock: Pick<Clock, "now">;
  /** What Close of an id does that has no actor; without it Close of an unknown id is a silent success. */
  readonly closeUnknown?: boolean;
}

interface Beginning extends BeginOptions {
  /** Ids of connections that their owners have closed. */
  readonly closed: LruMap<string, true>;
}

interface Actor {
  readonly owner: string;
  readonly mutex: Mutex;
  waiting: number;
  /** Counts Closes asked for: a Request that was queued before one of them is given up. */
  closes: number;
  running: AbortController | undefined;
  /** The last good answer, as seen at this hop. */
  connection: Connection | undefined;
}

export function begin(given: BeginOptions): Element<unknown, WithEvents> {
  const actors = new Map<string, Actor>();
  const options = { ...given, closed: new LruMap<string, true>(CLOSED_REMEMBERED) };
  return (next) => ({
    request: (request, ctx) => serialisedRequest(actors, options, next, request, ctx),
    close: (connection, ctx) => serialisedClose(actors, options, next, connection, ctx),
  });
}

type Next = NetworkService<CallContext & WithEvents>;

async function serialisedRequest(
  actors: Map<string, Actor>,
  options: Beginning,
  next: Next,
  request: NetworkServiceRequest,
  ctx: CallContext,
): Promise<Connection> {
  const { id } = connectionOf(request);
  const owner = options.owner(connectionOf(request), ctx);
  for (;;) {
    const actor = actors.get(id) ?? addActor(actors, id, owner);
    refuseStranger(actor, owner, id);
    const closesBefore = actor.closes;
    refuseCrowd(actor, id);
    using turn = await takeTurn(actors, id, actor, ctx.signal);
    void turn;
    if (actor.closes !== closesBefore)
      throw new NsmError("ABORTED", "closed", `connection ${id} was closed meanwhile`);
    if (actors.get(id) !== actor) continue; // closed and gone while we waited: start over with a new one
    return await runRequest(actors, options, next, actor, request, ctx);
  }
}

async function runRequest(
  actors: Map<string, Actor>,
  options: Beginning,
  next: Next,
  actor: Actor,
  request: NetworkServiceRequest,
  ctx: CallContext,
): Promise<Connection> {
  const { id } = connectionOf(request);
  const events: Events = { close: (why) => closeByOurselves(actors, options, next, id, actor, why) };
  const running = new AbortController();
  actor.running = running;
  const previous = actor.connection;
  const established = previous !== undefined;
  if (previous !== undefined) replaceOldWay(connectionOf(request), previous);
  else if (options.closed.get(id) === true) forgetWay(connectionOf(request));
  const idBefore = idBehind(connectionOf(request));
  try {
    const signal = AbortSignal.any([ctx.signal, running.signal]);
    const connection = await next.request(request, { ...ctx, signal, events, established, previous });
    connection.state = State.UP;
    const wasThere = established || (idBefore !== undefined && idBefore === idBehind(connection));
    if (!wasThere && ctx.signal.aborted) {
      // Nobody will hear of it, so nobody would close it: what was made for a caller that left is undone here.
      await next.close(connection, { ...detached(ctx), events, established, previous });
      throw ctx.signal.reason;
    }
    actor.connection = clone(ConnectionSchema, connection);
    options.closed.delete(id);
    return connection;
  } catch (error) {
    if (actor.connection === undefined) actors.delete(id);
    throw running.signal.aborted ? running.signal.reason : error;
  } finally {
    actor.running = undefined;
  }
}

/** A caller that has not heard the last answer knows the way of before, whose hops would make the half anew that they have closed. */
function replaceOldWay(asked: Connection, previous: Connection): void {
  const { path } = asked;
  if (path === undefined || previous.path === undefined || !leadsElsewhere(asked, previous)) return;
  const behind = clone(ConnectionSchema, previous).path?.pathSegments.slice(path.index + 1) ?? [];
  path.pathSegments.splice(path.index + 1, Infinity, ...behind);
  if (asked.state !== State.RESELECT_REQUESTED)
    asked.networkServiceEndpointName = previous.networkServiceEndpointName;
}

/**
 * What stood behind a connection that was closed has ended with it. A Request that still knows it may be one that a broken session had
 * held back: what is made for that is new, so that it goes again when its caller turns out to have left.
 */
function forgetWay({ path }: Connection): void {
  path?.pathSegments.splice(path.index + 1);
}

async function serialisedClose(
  actors: Map<string, Actor>,
  options: Beginning,
  next: Next,
  connection: Connection,
  ctx: CallContext,
): Promise<void> {
  const { id } = connection;
  const owner = options.owner(connection, ctx);
  const actor = actors.get(id);
  if (actor === undefined) {
    if (options.closeUnknown === true)
      await closeUnknown(actors, next, connection, addActor(actors, id, owner), ctx);
    return;
  }
  refuseStranger(actor, owner, id);
  actor.closes++;
  actor.running?.abort(
    new NsmError("ABORTED", "closed", `connection ${id} was closed while it was requested`),
  );
  using turn = await takeTurn(actors, id, actor, undefined);
  void turn;
  await closeStored(actors, options, next, id, actor, ctx, connection);
  // The end of a hop before is no wish: what is behind may be gone on with.
  if (connection.state !== State.DOWN) options.closed.set(id, true);
}

/** An actor for as long as it takes: a Request of the same id waits for its end. */
async function closeUnknown(
  actors: Map<string, Actor>,
  next: Next,
  connection: Connection,
  actor: Actor,
  ctx: CallContext,
): Promise<void> {
  const { id } = connection;
  using turn = await takeTurn(actors, id, actor, undefined);
  void turn;
  const events: Events = { close: () => Promise.resolve() };
  try {
    await next.close(connection, { ...detached(ctx), events, established: false, previous: undefined });
  } catch (error) {
    // Nothing is known of it, and our policies let nothing happen: that is the silent success of any unknown id.
    if (!isLocalDenial(error)) throw error;
  } finally {
    actors.delete(id);
  }
}

async function closeByOurselves(
  actors: Map<string, Actor>,
  options: Beginning,
  next: Next,
  id: string,
  actor: Actor,
  why: string,
): Promise<void> {
  options.log.info({ connection: id, why }, "closing connection");
  const ctx: CallContext = {
    signal: AbortSignal.timeout(CLOSE_DEADLINE_MS),
    deadlineMs: undefined,
    peer: undefined,
    callerToken: undefined,
    why,
  };
  const decidedOn = actor.connection;
  try {
    using turn = await takeTurn(actors, id, actor, undefined);
    void turn;
    // A Request that succeeded meanwhile has renewed what this Close was decided on.
    if (actor.connection === decidedOn) await closeStored(actors, options, next, id, actor, ctx, "orphan");
  } catch (err) {
    options.log.warn({ connection: id, err }, "closing connection failed");
  }
}

/** `orphan`: nobody asked for this Close. The stored connection is what is closed, whatever the caller's message says; only tokens that ran out are the message's. */
async function closeStored(
  actors: Map<string, Actor>,
  options: Beginning,
  next: Next,
  id: string,
  actor: Actor,
  ctx: CallContext,
  received: Connection | "orphan",
): Promise<void> {
  const stored = actor.connection;
  if (actors.get(id) !== actor) return;
  if (stored === undefined) {
    actors.delete(id);
    return;
  }
  const events: Events = { close: () => Promise.resolve() };
  const closing = clone(ConnectionSchema, stored);
  if (received !== "orphan") takeTokens(closing, received, options.clock.now());
  // Not the wish of its owner but the end of a hop before: a link of a chain waits for another one (docs/protocol.md, "Chaining").
  if (received === "orphan" || received.state === State.DOWN) closing.state = State.DOWN;
  try {
    await next.close(closing, { ...detached(ctx), events, established: true, previous: stored });
  } catch (error) {
    // A Close that our own policies refuse changes nothing; any other failure leaves no state here.
    if (isLocalDenial(error)) throw error;
    actors.delete(id);
    throw error;
  }
  actors.delete(id);
}

/** Stored tokens that ran out since the last refresh are replaced; the owner check has passed, so those hops are the same. */
function takeTokens(stored: Connection, received: Connection, nowMs: number): void {
  const { path } = stored;
  for (const [i, segment] of (path?.pathSegments ?? []).entries()) {
    const fresh = received.path?.pathSegments[i];
    const isOver = (claimedExpiryMs(segment.token) ?? 0) <= nowMs;
    if (i >= (path?.index ?? 0) || !isOver || fresh === undefined || fresh.token === "") continue;
    segment.token = fresh.token;
    if (fresh.expires !== undefined) segment.expires = fresh.expires;
  }
}

/** A Close goes on after its caller left. */
function detached<C extends CallContext>(ctx: C): C {
  return { ...ctx, signal: AbortSignal.timeout(CLOSE_DEADLINE_MS) };
}

function addActor(actors: Map<string, Actor>, id: string, owner: string): Actor {
  const actor: Actor = {
    owner,
    mutex: createMutex(),
    waiting: 0,
    closes: 0,
    running: undefined,
    connection: undefined,
  };
  actors.set(id, actor);
  return actor;
}

function refuseStranger(actor: Actor, owner: string, id: string): void {
  if (actor.owner === owner) return;
  throw new NsmError(
    "PERMISSION_DENIED",
    "foreign-connection",
    `connection ${id} belongs to another client or path: use the id that this server gave you`,
  );
}

/** A Close is never refused for others that wait. */
function refuseCrowd(actor: Actor, id: string): void {
  if (actor.waiting < MAX_QUEUED) return;
  throw new NsmError(
    "RESOURCE_EXHAUSTED",
    "too-many-operations",
    `connection ${id} has ${MAX_QUEUED} operations waiting: wait for them`,
  );
}

async function takeTurn(
  actors: Map<string, Actor>,
  id: string,
  actor: Actor,
  signal: AbortSignal | undefined,
): Promise<Disposable> {
  actor.waiting++;
  meters.waiting.add({}, 1);
  try {
    return await actor.mutex.take(signal);
  } catch (error) {
    if (
      actor.waiting === 1 &&
      actor.connection === undefined &&
      actor.running === undefined &&
      actors.get(id) === actor
    )
      actors.delete(id);
    throw error;
  } finally {
    actor.waiting--;
    meters.waiting.add({}, -1);
  }
}
