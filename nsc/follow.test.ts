import { create } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";
import {
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
  State,
} from "../api/gen/connection_pb.js";
import type { Connection, ConnectionEvent } from "../api/gen/connection_pb.js";
import { CHOICE_REMARK } from "../sdk/elements/monitor.ts";
import { SOMEBODY_SERVES } from "../sdk/elements/wishes.ts";
import { createEventQueue } from "../sdk/event-queue.ts";
import { silentLogger } from "../sdk/log.ts";
import { followManager } from "./follow.ts";
import type { News } from "./wire.ts";

const OWN_NETNS = "inode://4/17";

/** As the client has it: its own id, then the manager's. */
const answered = (id: string, managersId = `m-${id}`) =>
  create(ConnectionSchema, {
    id,
    path: {
      pathSegments: [
        { name: "client", id },
        { name: "manager", id: managersId },
      ],
    },
  });

function build() {
  const stop = new AbortController();
  let queue = createEventQueue<ConnectionEvent>(100, stop.signal);
  let opened = 0;
  const follower = followManager(
    {
      async *monitor() {
        opened++;
        yield* queue;
      },
    },
    { name: "client", netnsUrl: OWN_NETNS, log: silentLogger },
    stop.signal,
  );
  const told: [string, News][] = [];
  /** Ids of the manager's side of what was down and is not what the wire has. */
  const others: (string | undefined)[] = [];
  const wireOf = (id: string, connection: Connection | undefined) => ({
    id,
    connection,
    tell(news: News, of?: Connection) {
      if (of === undefined) told.push([id, news]);
      else others.push(of.path?.pathSegments[1]?.id);
    },
    run: () => Promise.resolve(),
  });
  const wire = (id: string, connection = answered(id)) => wireOf(id, connection);
  const waitingWire = (id: string) => wireOf(id, undefined);
  const send = (type: ConnectionEventType, ...connections: Connection[]) =>
    queue.push(
      create(ConnectionEventSchema, {
        type,
        connections: Object.fromEntries(connections.map((c) => [c.id, c])),
      }),
    );
  const breakStream = () => {
    const old = queue;
    queue = createEventQueue<ConnectionEvent>(100, stop.signal);
    old.end(new Error("the session broke"));
  };
  return { follower, wire, waitingWire, told, others, send, stop, breakStream, opened: () => opened };
}

/** As the manager shows it: own id and index are the manager's. */
const shown = (id: string, state = State.UP, name = "client", index = 1) =>
  create(ConnectionSchema, {
    id: `m-${id}`,
    state,
    mechanism: { parameters: { inodeURL: OWN_NETNS } },
    path: {
      index,
      pathSegments: [
        { name, id },
        { name: "manager", id: `m-${id}` },
      ],
    },
  });

const { INITIAL_STATE_TRANSFER, UPDATE, DELETE } = ConnectionEventType;

test("connections of an earlier life are told with our own id and index", async () => {
  const { follower, send, stop } = build();
  send(
    INITIAL_STATE_TRANSFER,
    shown("client-0"),
    shown("other-0", State.UP, "other"),
    shown("client-7", State.UP, "client", 3),
  );
  const adopted = await follower.adopted;
  expect([...adopted.keys()]).toEqual(["client-0"]);
  expect(adopted.get("client-0")).toMatchObject({ id: "client-0", path: { index: 0 } });
  stop.abort();
});

test("a wish for a new choice is told as one; the state without a reason, which Go managers show, is none", async () => {
  const { follower, wire, told, send, stop } = build();
  follower.follow([wire("client-0"), wire("client-1")]);
  const wanted = shown("client-0", State.RESELECT_REQUESTED);
  const manager = wanted.path?.pathSegments[1];
  if (manager !== undefined) manager.metrics["nsm.io/choice"] = "endpoint-mismatch";
  send(INITIAL_STATE_TRANSFER, wanted, shown("client-1", State.RESELECT_REQUESTED));
  await vi.waitFor(() => expect(told).toEqual([["client-0", "reselect"]]));
  stop.abort();
});

test("the word that somebody serves now reaches a wire that nobody has yet, and so does a manager that is back", async () => {
  const { follower, told, send, stop, breakStream, opened, waitingWire } = build();
  follower.follow([waitingWire("client-0")]);
  const news = shown("client-0", State.RESELECT_REQUESTED);
  const manager = news.path?.pathSegments[1];
  if (manager !== undefined) manager.metrics[CHOICE_REMARK] = SOMEBODY_SERVES;
  send(ConnectionEventType.UPDATE, news);
  await vi.waitFor(() => expect(told).toEqual([["client-0", "retry"]]));
  breakStream();
  await vi.waitFor(() => expect(opened()).toBe(2));
  send(INITIAL_STATE_TRANSFER);
  await vi.waitFor(() => expect(told).toHaveLength(2));
  expect(told[1]).toEqual(["client-0", "retry"]);
  stop.abort();
});

test("DOWN of another endpoint than the wire has is told as such: its answer may be on its way", async () => {
  const { follower, wire, told, others, send, stop } = build();
  follower.follow([wire("client-0"), { ...wire("client-1"), connection: undefined }]);
  const elsewhere = shown("client-0", State.DOWN);
  elsewhere.networkServiceEndpointName = "nse-2";
  send(INITIAL_STATE_TRANSFER, elsewhere, shown("client-1", State.DOWN));
  await vi.waitFor(() => expect(others).toEqual(["m-client-0", "m-client-1"]));
  expect(told).toEqual([]);
  stop.abort();
});

test("DOWN and DELETE are down, a wish to refresh is a refresh, UP is nothing", async () => {
  const { follower, wire, told, send, stop } = build();
  follower.follow([wire("client-0"), wire("client-1"), wire("client-2"), wire("client-3")]);
  send(INITIAL_STATE_TRANSFER, ...["client-0", "client-1", "client-2", "client-3"].map((id) => shown(id)));
  send(UPDATE, shown("client-0", State.DOWN));
  send(DELETE, shown("client-1"));
  send(UPDATE, shown("client-2", State.REFRESH_REQUESTED));
  send(UPDATE, shown("client-3"), shown("unknown", State.DOWN));
  await vi.waitFor(() => expect(told).toHaveLength(3));
  expect(told).toEqual([
    ["client-0", "down"],
    ["client-1", "down"],
    ["client-2", "refresh"],
  ]);
  stop.abort();
});

test("a twin with our name and identity has its own news and its own wires", async () => {
  const { follower, wire, told, send, stop } = build();
  follower.follow([wire("client-0", answered("client-0", "m-of-ours"))]);
  const twins = shown("client-0", State.DOWN);
  if (twins.mechanism !== undefined) twins.mechanism.parameters["inodeURL"] = "inode://4/99";
  send(INITIAL_STATE_TRANSFER, twins);
  expect(await follower.adopted).toEqual(new Map());
  send(DELETE, twins);
  await vi.waitFor(() => expect(told).toEqual([["client-0", "refresh"]])); // ours was not listed
  stop.abort();
});

test("a stream that breaks is opened again, and a manager that forgot us is refreshed, not the wire torn down", async () => {
  const { follower, wire, told, send, stop, breakStream, opened } = build();
  follower.follow([wire("client-0"), wire("client-1")]);
  send(INITIAL_STATE_TRANSFER, shown("client-0"), shown("client-1"));
  await follower.adopted;
  breakStream();
  await vi.waitFor(() => expect(opened()).toBe(2));
  send(INITIAL_STATE_TRANSFER, shown("client-1"));
  await vi.waitFor(() => expect(told).toEqual([["client-0", "refresh"]]));
  stop.abort();
});

test("a start without a manager is not held up for ever", async () => {
  const { follower, stop } = build();
  stop.abort();
  expect(await follower.adopted).toEqual(new Map());
});
