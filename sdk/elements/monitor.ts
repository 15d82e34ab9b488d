/** What this hop knows of its connections, and the streams that tell of changes (docs/protocol.md, "Monitoring"). */
import { clone, create, equals } from "@bufbuild/protobuf";
import {
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
  State,
} from "../../api/gen/connection_pb.js";
import type {
  Connection,
  ConnectionEvent,
  MonitorScopeSelector,
  PathSegment,
} from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { Element } from "../chain.ts";
import { NsmError } from "../errors.ts";
import { matchesMonitorSelector } from "../match.ts";
import { createEventQueue } from "../event-queue.ts";
import type { WithEvents } from "./begin.ts";
import { operatorView } from "./operator-view.ts";
import { connectionOf } from "./update-path.ts";

/** Events that wait for a slow subscriber before its stream is ended with ABORTED. */
const MAX_WAITING_EVENTS = 1000;

/** Metadata of MonitorConnections, and the value of who chooses anew when a connection's state asks for it. */
export const UNDERSTANDS = "nsm-understands";
export const RESELECT = "reselect";
/**
 * Metric of a manager's path segment: why the wire would not be made like this any more. With state RESELECT_REQUESTED it asks the client to
 * choose anew; the state alone says nothing, since Go managers show it after any choice.
 */
export const CHOICE_REMARK = "nsm.io/choice";

/** Sees the connections of everybody. */
export const OPERATOR = Symbol("operator");
/** Who looks: a SPIFFE id, which sees the connections that it owns, or an operator. */
export type Viewer = string | typeof OPERATOR;

/** Connections by own id, as last published, and who may see them. */
export interface MonitorStore {
  /** Publishes a connection as UPDATE, unless it was published before and only leases are longer now. `viewer`: SPIFFE id of the caller that owns it. */
  update(connection: Connection, viewer: string): void;
  /** Publishes what the next hop said of a connection: its state, context and the path behind us. */
  fromNextHop(id: string, change: { state: State; next?: Connection }): void;
  /** Publishes DELETE. */
  delete(id: string): void;
  get(id: string): Connection | undefined;
  /** False for a connection that is not known, too. */
  maySee(id: string, viewer: Viewer): boolean;
  /** Counts how often the next hop said that the connection is down, once after each time that it was not. */
  downs(id: string): number;
  /** What is being made anew counts as down: that the old half goes down meanwhile is no news of the new one. */
  presumeDown(id: string): void;
  /** The new half has answered, and what is said from now on is said of it. */
  newHalf(id: string): void;
  /** There will be none: the connection is what was said of it last. */
  keepOldHalf(id: string): void;
  /** Publishes the remark on a choice (`CHOICE_REMARK`), or takes it back. */
  remark(id: string, why: string | undefined): void;
  /** Publishes RESELECT_REQUESTED with its reason, unless the owner would not understand it. Returns who heard it. */
  askForNewChoice(id: string, why: string): "asked" | "nobody" | "not-understood";
  /** Tells an owner who understands such wishes of a connection, which need not be known here: nothing is kept. */
  whisper(connection: Connection, owner: string): void;
  /**
   * A stream for one subscriber: the initial state at once, even if empty, then changes; only what `viewer` may see.
   * `reselects`: it will choose anew when RESELECT_REQUESTED asks for it. `spiffeId`: of an operator, which may have wires of its own, too.
   */
  subscribe(
    selector: MonitorScopeSelector,
    viewer: Viewer,
    signal: AbortSignal,
    reselects?: boolean,
    spiffeId?: string,
  ): AsyncIterable<ConnectionEvent>;
  /** Ids of the connections known now. */
  ids(): ReadonlySet<string>;
}

interface Entry {
  connection: Connection;
  viewer: string;
  downs: number;
  isDown: boolean;
}

interface Subscriber {
  readonly viewer: Viewer;
  readonly spiffeId: string | undefined;
  readonly reselects: boolean;
  readonly sees: (entry: Entry) => boolean;
  readonly tell: (type: ConnectionEventType, entry: Entry) => void;
}

/** `onNews` is told of each state that the next hop gave a connection and that it did not have before. */
export function createMonitorStore(onNews?: (id: string, state: State) => void): MonitorStore {
  const entries = new Map<string, Entry>();
  const subscribers = new Set<Subscriber>();
  const publish = (type: ConnectionEventType, entry: Entry) => {
    for (const { sees, tell } of subscribers) if (sees(entry)) tell(type, entry);
  };
  const ownersOf = (entry: Entry) =>
    [...subscribers].filter(
      (each) => [each.viewer, each.spiffeId].includes(entry.viewer) && each.sees(entry),
    );
  return {
    ids: () => new Set(entries.keys()),
    get: (id) => entries.get(id)?.connection,
    maySee: (id, viewer) => {
      const entry = entries.get(id);
      return entry !== undefined && maySee(entry, viewer);
    },
    downs: (id) => entries.get(id)?.downs ?? 0,
    presumeDown(id) {
      const entry = entries.get(id);
      if (entry !== undefined) entry.isDown = true;
    },
    newHalf(id) {
      const entry = entries.get(id);
      if (entry !== undefined) entry.isDown = false;
    },
    keepOldHalf(id) {
      const entry = entries.get(id);
      if (entry !== undefined) entry.isDown = entry.connection.state === State.DOWN;
    },
    update(connection, viewer) {
      const before = entries.get(connection.id);
      const entry = { connection: published(connection), viewer, downs: before?.downs ?? 0, isDown: false };
      entries.set(connection.id, entry);
      const isRefresh = before?.viewer === viewer && sameButLeases(before.connection, entry.connection);
      if (!isRefresh) publish(ConnectionEventType.UPDATE, entry);
    },
    fromNextHop(id, { state, next }) {
      const entry = entries.get(id);
      if (entry === undefined) return;
      if (state === State.DOWN && !entry.isDown) entry.downs++;
      entry.isDown = state === State.DOWN;
      const changed = merged(entry.connection, state, next);
      if (equals(ConnectionSchema, changed, entry.connection)) return;
      const isNews = changed.state !== entry.connection.state;
      const visible = isNews || !sameContext(changed, entry.connection);
      entry.connection = changed;
      if (isNews) onNews?.(id, state);
      if (visible) publish(ConnectionEventType.UPDATE, entry);
    },
    delete(id) {
      const entry = entries.get(id);
      if (entry === undefined) return;
      entries.delete(id);
      publish(ConnectionEventType.DELETE, entry);
    },
    remark(id, why) {
      const entry = entries.get(id);
      if (entry === undefined || remarkOn(entry.connection) === why) return;
      entry.connection = remarked(entry.connection, entry.connection.state, why);
      publish(ConnectionEventType.UPDATE, entry);
    },
    askForNewChoice(id, why) {
      const entry = entries.get(id);
      if (entry === undefined) return "nobody";
      const listening = ownersOf(entry);
      if (listening.length > 0 && !listening.some(({ reselects }) => reselects)) return "not-understood";
      // Also when nobody listens: whoever opens a stream again is told what it has missed.
      entry.connection = remarked(entry.connection, State.RESELECT_REQUESTED, why);
      publish(ConnectionEventType.UPDATE, entry);
      return listening.length > 0 ? "asked" : "nobody";
    },
    whisper(connection, owner) {
      const entry = { connection: published(connection), viewer: owner, downs: 0, isDown: false };
      for (const { reselects, tell } of ownersOf(entry))
        if (reselects) tell(ConnectionEventType.UPDATE, entry);
    },
    subscribe(selector, viewer, signal, reselects = false, spiffeId) {
      refuseForeignSelector(selector, viewer, entries);
      const sees = (entry: Entry) =>
        maySee(entry, viewer) && matchesMonitorSelector(selector, entry.connection);
      return events({ viewer, spiffeId, reselects, sees }, signal, entries, subscribers);
    },
  };
}

/** What the hop of this connection's index says of the choice. */
export function remarkOn({ path }: Connection): string | undefined {
  return path?.pathSegments[path.index]?.metrics[CHOICE_REMARK];
}

function remarked(connection: Connection, state: State, why: string | undefined): Connection {
  const copy = clone(ConnectionSchema, connection);
  copy.state = state;
  setRemark(copy, why);
  return copy;
}

/** Changes the connection. */
export function setRemark({ path }: Connection, why: string | undefined): void {
  const own = path?.pathSegments[path.index];
  if (own === undefined) return;
  if (why === undefined) delete own.metrics[CHOICE_REMARK];
  else own.metrics[CHOICE_REMARK] = why;
}

async function* events(
  who: Omit<Subscriber, "tell">,
  signal: AbortSignal,
  entries: ReadonlyMap<string, Entry>,
  subscribers: Set<Subscriber>,
): AsyncGenerator<ConnectionEvent> {
  using queue = createEventQueue<ConnectionEvent>(MAX_WAITING_EVENTS, signal);
  const initial = [...entries.values()].filter(who.sees);
  queue.push(event(ConnectionEventType.INITIAL_STATE_TRANSFER, initial, who));
  const subscriber = {
    ...who,
    tell: (type: ConnectionEventType, entry: Entry) => queue.push(event(type, [entry], who)),
  };
  subscribers.add(subscriber);
  try {
    yield* queue;
  } finally {
    subscribers.delete(subscriber);
  }
}

function maySee(entry: Entry, viewer: Viewer): boolean {
  return viewer === OPERATOR || entry.viewer === viewer;
}

function event(
  type: ConnectionEventType,
  entries: readonly Entry[],
  { viewer, spiffeId }: Pick<Subscriber, "viewer" | "spiffeId">,
): ConnectionEvent {
  const shown = ({ connection, viewer: owner }: Entry) =>
    viewer === OPERATOR && owner !== spiffeId ? operatorView(connection) : connection;
  const connections = Object.fromEntries(entries.map((entry) => [entry.connection.id, shown(entry)]));
  return create(ConnectionEventSchema, { type, connections });
}

/** Naming somebody else's connection is refused; patterns that merely could match it find nothing of it. */
function refuseForeignSelector(
  selector: MonitorScopeSelector,
  viewer: Viewer,
  entries: ReadonlyMap<string, Entry>,
): void {
  for (const { id } of selector.pathSegments) {
    const entry = entries.get(id);
    if (entry !== undefined && !maySee(entry, viewer))
      throw new NsmError(
        "PERMISSION_DENIED",
        "foreign-connection",
        `connection ${id} belongs to another client`,
      );
  }
}

/** A copy for subscribers: tokens are bearer credentials of other hops and never leave this process. */
function published(connection: Connection): Connection {
  const copy = clone(ConnectionSchema, connection);
  for (const segment of copy.path?.pathSegments ?? []) segment.token = "";
  return copy;
}

function merged(own: Connection, state: State, next: Connection | undefined): Connection {
  const copy = clone(ConnectionSchema, own);
  copy.state = state;
  if (next === undefined) return copy;
  if (next.context !== undefined) copy.context = clone(ConnectionContextSchema, next.context);
  if (copy.path !== undefined && next.path !== undefined) {
    const behind = published(next).path?.pathSegments.slice(copy.path.index + 1) ?? [];
    copy.path.pathSegments = [...copy.path.pathSegments.slice(0, copy.path.index + 1), ...behind];
  }
  return copy;
}

/** Member by member instead of by reflection: every refresh asks. */
function sameButLeases(a: Connection, b: Connection): boolean {
  return (
    a.state === b.state &&
    a.networkService === b.networkService &&
    a.networkServiceEndpointName === b.networkServiceEndpointName &&
    a.payload === b.payload &&
    sameEntries(a.labels, b.labels) &&
    a.mechanism?.cls === b.mechanism?.cls &&
    a.mechanism?.type === b.mechanism?.type &&
    sameEntries(a.mechanism?.parameters ?? {}, b.mechanism?.parameters ?? {}) &&
    samePath(a.path?.pathSegments ?? [], b.path?.pathSegments ?? []) &&
    sameContext(a, b)
  );
}

function samePath(a: readonly PathSegment[], b: readonly PathSegment[]): boolean {
  return (
    a.length === b.length &&
    a.every((segment, i) => {
      const other = b[i];
      if (other === undefined || segment.id !== other.id || segment.name !== other.name) return false;
      return sameEntries(segment.metrics, other.metrics);
    })
  );
}

function sameEntries(a: { readonly [key: string]: string }, b: { readonly [key: string]: string }): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}

function sameContext(a: Connection, b: Connection): boolean {
  if (a.context === undefined || b.context === undefined) return a.context === b.context;
  return equals(ConnectionContextSchema, a.context, b.context);
}

/**
 * Publishes every success as UPDATE and every Close as DELETE, whether or not closing further on worked. What is to be chosen anew
 * stays as it was published until that succeeds.
 */
export function monitor(store: MonitorStore): Element<WithEvents> {
  return (next) => ({
    async request(request, ctx) {
      const { id, state } = connectionOf(request);
      if (state === State.RESELECT_REQUESTED) store.presumeDown(id);
      const downs = store.downs(id);
      const response = await next.request(request, ctx).catch((error: unknown) => {
        if (ctx.established) store.keepOldHalf(id);
        else store.delete(id);
        throw error;
      });
      response.state = State.UP;
      store.update(response, ctx.peer?.spiffeId ?? "");
      // It went down while the answer was on its way back: that is the newer news.
      if (store.downs(id) !== downs) store.fromNextHop(id, { state: State.DOWN });
      return response;
    },
    async close(connection, ctx) {
      try {
        await next.close(connection, ctx);
      } finally {
        store.delete(connection.id);
      }
    },
  });
}
