import { create } from "@bufbuild/protobuf";
import { describe, expect, test, vi } from "vitest";
import {
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
  State,
} from "../api/gen/connection_pb.js";
import type { Connection, ConnectionEvent } from "../api/gen/connection_pb.js";
import type { HopEvent, NextHop } from "./elements/target.ts";
import { createEventQueue } from "./event-queue.ts";
import type { EventQueue } from "./event-queue.ts";
import { createFollowers } from "./hops.ts";
import { silentLogger } from "./log.ts";

const HOP: NextHop = { url: "unix:///run/next.sock" };
const { INITIAL_STATE_TRANSFER, UPDATE, DELETE } = ConnectionEventType;

function build() {
  const streams: EventQueue<ConnectionEvent>[] = [];
  let alive = true;
  const followers = createFollowers({
    name: "me",
    log: silentLogger,
    isAlive: () => alive,
    open(_, signal) {
      const queue = createEventQueue<ConnectionEvent>(100, signal);
      streams.push(queue);
      return queue;
    },
  });
  const told: [string, HopEvent["kind"]][] = [];
  const behind: (string | undefined)[] = [];
  const follow = (id: string, hop = HOP) =>
    followers.follow(hop, id, (event) => {
      told.push([id, event.kind]);
      if (event.kind !== "lost") behind.push(event.behind);
    });
  const opened = (n: number) => vi.waitFor(() => expect(streams).toHaveLength(n), { timeout: 3000 });
  const send = (type: ConnectionEventType, ...connections: Connection[]) => {
    const byId = Object.fromEntries(connections.map((connection) => [connection.id, connection]));
    streams.at(-1)?.push(create(ConnectionEventSchema, { type, connections: byId }));
  };
  return { followers, follow, told, behind, streams, opened, send, die: () => (alive = false) };
}

/** A connection as the next hop shows it: our segment stands before its own. */
const shown = (id: string, state = State.UP) =>
  create(ConnectionSchema, {
    id: `next-${id}`,
    state,
    path: {
      index: 1,
      pathSegments: [
        { name: "me", id },
        { name: "next", id: `next-${id}` },
      ],
    },
  });

describe("followers of one hop", () => {
  test("share one stream, each hearing of its own connection", async () => {
    const { follow, told, send, opened, followers } = build();
    follow("a");
    follow("b");
    await opened(1);
    send(INITIAL_STATE_TRANSFER, shown("a"), shown("b"));
    send(UPDATE, shown("b", State.DOWN));
    send(DELETE, shown("a"));
    send(UPDATE, shown("unknown"));
    await vi.waitFor(() => expect(told).toHaveLength(4));
    expect(told).toEqual([
      ["a", "update"],
      ["b", "update"],
      ["b", "update"],
      ["a", "down"],
    ]);
    await followers[Symbol.asyncDispose]();
  });

  test("hear nothing after they left, and the last one closes the stream", async () => {
    const { follow, told, send, opened, streams } = build();
    const [a, b] = [follow("a"), follow("b")];
    await opened(1);
    a[Symbol.dispose]();
    send(UPDATE, shown("a", State.DOWN), shown("b", State.DOWN));
    await vi.waitFor(() => expect(told).toEqual([["b", "update"]]));
    b[Symbol.dispose]();
    follow("c");
    await opened(2);
    expect(streams).toHaveLength(2);
  });

  test("a connection that is not in the first list is not lost: list and connection may cross", async () => {
    const { follow, told, send, opened } = build();
    follow("a");
    await opened(1);
    send(INITIAL_STATE_TRANSFER);
    send(UPDATE, shown("a"));
    await vi.waitFor(() => expect(told).toEqual([["a", "update"]]));
  });
});

describe("a stream that breaks", () => {
  test("is opened again, and tells nothing by itself", async () => {
    const { follow, told, streams, opened, send } = build();
    follow("a");
    await opened(1);
    streams[0]?.end(new Error("the session broke"));
    await opened(2);
    send(INITIAL_STATE_TRANSFER, shown("a"));
    await vi.waitFor(() => expect(told).toEqual([["a", "update"]]));
  });

  test("makes connections lost that the hop does not know afterwards", async () => {
    const { follow, told, streams, opened, send } = build();
    follow("a");
    follow("b");
    await opened(1);
    send(INITIAL_STATE_TRANSFER, shown("a"), shown("b"));
    await vi.waitFor(() => expect(told).toHaveLength(2));
    streams[0]?.end();
    await opened(2);
    send(INITIAL_STATE_TRANSFER, shown("b"));
    await vi.waitFor(() =>
      expect(told.slice(2)).toEqual([
        ["b", "update"],
        ["a", "lost"],
      ]),
    );
  });

  test("is opened at once when its hop is there again, however long the next pause", async () => {
    vi.useFakeTimers();
    try {
      const { follow, followers, streams } = build();
      const advance = (ms: number) => vi.advanceTimersByTimeAsync(ms);
      follow("a");
      for (const pauseMs of [0, 120, 240, 480]) {
        await advance(pauseMs);
        streams.at(-1)?.end(new Error("nobody there"));
      }
      await advance(1);
      const before = streams.length;
      followers.isBack("unix:///run/other.sock");
      await advance(1);
      expect(streams).toHaveLength(before);
      followers.isBack(HOP.url);
      await advance(1);
      expect(streams).toHaveLength(before + 1);
      streams.at(-1)?.end(new Error("nobody there"));
      await advance(1);
      expect(streams).toHaveLength(before + 1);
      await advance(120); // the pauses begin anew
      expect(streams).toHaveLength(before + 2);
    } finally {
      vi.useRealTimers();
    }
  });

  test("of a process that is dead means down, and is not opened again", async () => {
    const { follow, told, streams, opened, die } = build();
    follow("a");
    await opened(1);
    die();
    streams[0]?.end(new Error("the session broke"));
    await vi.waitFor(() => expect(told).toEqual([["a", "down"]]));
    expect(streams).toHaveLength(1);
  });
});

test("news says which of the hop's connections it is about", async () => {
  const { follow, behind, send, opened, followers } = build();
  follow("a");
  await opened(1);
  send(UPDATE, shown("a"));
  const left = shown("a");
  if (left.path?.pathSegments[1] !== undefined) left.path.pathSegments[1].id = "left";
  send(DELETE, left);
  await vi.waitFor(() => expect(behind).toEqual(["next-a", "left"]));
  await followers[Symbol.asyncDispose]();
});

test("an update beyond the limits of an answer is no news", async () => {
  const { follow, told, send, opened, followers } = build();
  follow("a");
  await opened(1);
  const huge = shown("a", State.DOWN);
  for (let i = 0; i < 40; i++) huge.labels[`label-${i}`] = "x";
  send(UPDATE, huge);
  send(DELETE, shown("a"));
  await vi.waitFor(() => expect(told).toEqual([["a", "down"]]));
  await followers[Symbol.asyncDispose]();
});

test("disposing ends every stream", async () => {
  const { follow, followers, opened, streams } = build();
  follow("a");
  follow("b", { url: "tcp://192.0.2.1:5001" });
  await opened(2);
  await followers[Symbol.asyncDispose]();
  expect(streams).toHaveLength(2);
});
