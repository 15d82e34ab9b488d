import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ConnectionSchema, MechanismSchema, PathSegmentSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import { callBy, connectionOn, createGate, eventsOf, requestOn } from "../../test/support/chain.ts";
import { eventually } from "../../test/support/netns.ts";
import { makePeer } from "../../test/support/peer.ts";
import { createMonitorStore } from "./monitor.ts";
import type { MonitorStore } from "./monitor.ts";
import { connect, followNextHop } from "./next-hop.ts";
import type { Hops } from "./next-hop.ts";
import { NOWHERE } from "./target.ts";
import type { HopEvent, NextHop } from "./target.ts";

const CALLER = callBy(await makePeer("/nsmgr/node1"));
const HOP = { url: "unix:///run/next.sock" };
const NAMES = ["client", "manager", "me"];

function build(change: (answer: Connection) => void | Promise<void> = () => undefined) {
  const closed: string[] = [];
  const closedBehind: (string | undefined)[] = [];
  const followers = new Map<string, (event: HopEvent) => void>();
  const hops: Hops = {
    async request(_, { connection }, { signal }) {
      const answer = clone(ConnectionSchema, connection ?? create(ConnectionSchema));
      if (answer.path?.pathSegments.length === NAMES.length)
        answer.path.pathSegments.push(create(PathSegmentSchema, { name: "next", id: "n" }));
      const cancelled = new Promise<void>((_resolve, reject) => {
        signal.addEventListener("abort", () => reject(new Error("left")), { once: true });
      });
      await Promise.race([change(answer), cancelled]);
      return answer;
    },
    close(_, { id, path, mechanism }) {
      closed.push(id);
      closedBehind.push(mechanism === undefined ? path?.pathSegments[NAMES.length]?.id : "with a mechanism");
      return Promise.resolve();
    },
    follow(_, id, onEvent) {
      followers.set(id, onEvent);
      return { [Symbol.dispose]: () => void followers.delete(id) };
    },
  };
  return { hops, closed, closedBehind, followers, service: connect(hops) };
}

const ask = () => requestOn(NAMES, ["1", "2", "3"]);

describe("a caller that leaves before the answer", () => {
  /** A call that is given up while the next hop works on it. */
  const leave = async (path: (request: ReturnType<typeof ask>) => void = () => undefined) => {
    const [working, finish] = [createGate(), createGate()];
    const built = build((answer) => {
      answer.mechanism = create(MechanismSchema, { cls: "LOCAL", type: "KERNEL" });
      working.resolve();
      return finish.promise;
    });
    const leaving = new AbortController();
    const request = ask();
    path(request);
    const answer = built.service.request(request, { ...CALLER, signal: leaving.signal, nextHop: HOP });
    await working.promise;
    leaving.abort(new Error("left"));
    await expect(answer).rejects.toThrow("left");
    return { ...built, finish };
  };
  const settle = () => new Promise((resolve) => setImmediate(resolve));

  test("does not wait for it, and what the next hop made for it all the same is closed", async () => {
    const { closedBehind, finish } = await leave();
    expect(closedBehind).toEqual([]);
    finish.resolve();
    await eventually("the hop is told", () => closedBehind.length === 1);
    expect(closedBehind).toEqual(["n"]);
  });

  test("keeps what it had: only the repetition is given up, and at once", async () => {
    const { closed, finish } = await leave(({ connection }) =>
      connection?.path?.pathSegments.push(create(PathSegmentSchema, { name: "next", id: "n" })),
    );
    finish.resolve();
    await settle();
    expect(closed).toEqual([]);
  });

  test("and had left before asks nobody", async () => {
    const { service, closed } = build(() => expect.unreachable("was asked"));
    const signal = AbortSignal.abort(new Error("left"));
    await expect(service.request(ask(), { ...CALLER, signal, nextHop: HOP })).rejects.toThrow("left");
    expect(closed).toEqual([]);
  });
});

describe("an answer", () => {
  test("brings what lies behind us", async () => {
    const { service } = build();
    const answer = await service.request(ask(), { ...CALLER, nextHop: HOP });
    expect(answer.path?.pathSegments.map(({ id }) => id)).toEqual(["1", "2", "3", "n"]);
  });

  test("has no say in the segments before ours", async () => {
    const { service } = build((answer) => {
      for (const segment of answer.path?.pathSegments.slice(0, 2) ?? []) {
        segment.token = "forged";
        segment.expires = timestampFromMs(4e12);
        segment.metrics = { lie: "yes" };
      }
    });
    const answer = await service.request(ask(), { ...CALLER, nextHop: HOP });
    expect(answer.path?.pathSegments.slice(0, 2)).toMatchObject([
      { token: "", metrics: {} },
      { token: "", metrics: {} },
    ]);
    expect(answer.path?.pathSegments[0]?.expires).toBeUndefined();
  });

  test.each<[string, (answer: Connection) => void]>([
    ["another connection's id", (answer) => (answer.id = "victim")],
    ["another index", (answer) => answer.path && (answer.path.index = 0)],
    [
      "another id of an earlier hop",
      (answer) => answer.path?.pathSegments[1] && (answer.path.pathSegments[1].id = "x"),
    ],
    [
      "another id of ours",
      (answer) => answer.path?.pathSegments[2] && (answer.path.pathSegments[2].id = "x"),
    ],
    [
      "another name of ours",
      (answer) => answer.path?.pathSegments[2] && (answer.path.pathSegments[2].name = "x"),
    ],
    ["a path too short", (answer) => answer.path && (answer.path.pathSegments.length = 2)],
    ["no path", (answer) => delete answer.path],
  ])("with %s is refused", async (_, change) => {
    const { service } = build(change);
    await expect(service.request(ask(), { ...CALLER, nextHop: HOP })).rejects.toMatchObject({
      code: "INTERNAL",
      reason: "path-lost",
    });
  });

  test.each<[string, (answer: Connection) => void]>([
    [
      "forty labels",
      (answer) => {
        for (let i = 0; i < 40; i++) answer.labels[`label-${i}`] = "x";
      },
    ],
    [
      "ten thousand routes",
      (answer) => {
        const srcRoutes = Array.from({ length: 10_000 }, (_, i) => ({
          prefix: `10.${i >> 8}.${i & 255}.0/24`,
        }));
        answer.context = create(ConnectionContextSchema, { ipContext: { srcRoutes } });
      },
    ],
  ])("that is oversized is refused: %s", async (_, change) => {
    const { service } = build(change);
    await expect(service.request(ask(), { ...CALLER, nextHop: HOP })).rejects.toMatchObject({
      reason: "limit",
    });
  });
});

test("a close whose next hop nobody knows ends here", async () => {
  const { service, closed } = build();
  await service.close(connectionOn(NAMES), { ...CALLER, nextHop: NOWHERE });
  expect(closed).toEqual([]);
  await service.close(connectionOn(NAMES), { ...CALLER, nextHop: HOP });
  expect(closed).toEqual(["me"]);
});

test("what went down is followed anew by the request that mends it", async () => {
  const { hops, followers } = build();
  const store = createMonitorStore();
  const service = followNextHop(hops, store)(connect(hops));
  const answer = await service.request(ask(), { ...eventsOf(CALLER), nextHop: HOP });
  store.update(answer, "owner");
  followers.get("3")?.({ kind: "down" });
  expect(store.get("3")?.state).toBe(State.DOWN);
  expect(followers.size).toBe(0);
  await service.request(ask(), { ...eventsOf(CALLER), nextHop: HOP });
  expect(followers.size).toBe(1);
  await service.close(connectionOn(NAMES, ["1", "2", "3"]), { ...eventsOf(CALLER), nextHop: NOWHERE });
  expect(followers.size).toBe(0);
});

describe("news of the next hop", () => {
  const OTHER = { url: "unix:///run/other.sock" };

  /** The end of a forwarder's chain. `answerFrom`: id of the segment of whoever is asked. */
  function buildFollowing() {
    let segment = "a1";
    const { hops, followers } = build((answer) => {
      const last = answer.path?.pathSegments.at(-1);
      if (last !== undefined) last.id = segment;
    });
    const store = createMonitorStore();
    const chain = followNextHop(hops, store)(connect(hops));
    const answerOf = async (hop: NextHop, id: string, previous?: Connection) => {
      segment = id;
      const events = eventsOf(CALLER, { previous, established: previous !== undefined });
      const answer = await chain.request(ask(), { ...events, nextHop: hop });
      answer.state = State.UP;
      return answer;
    };
    const giveBack = (answer: Connection, previous: Connection, hop: NextHop) =>
      chain.close(answer, { ...eventsOf(CALLER, { previous, established: true }), nextHop: hop });
    return { store, followers, answerOf, giveBack };
  }
  const stateOf = (store: MonitorStore) => store.get("3")?.state;

  test("about a half that was left there is not that of the one which took its place", async () => {
    const { store, followers, answerOf } = buildFollowing();
    const first = await answerOf(HOP, "a1");
    store.update(first, "owner");
    const second = await answerOf(OTHER, "b1", first);
    store.update(second, "owner");
    store.update(await answerOf(HOP, "a2", second), "owner");
    followers.get("3")?.({ kind: "down", behind: "a1" });
    expect(stateOf(store)).toBe(State.UP);
    followers.get("3")?.({ kind: "down", behind: "a2" });
    expect(stateOf(store)).toBe(State.DOWN);
  });

  test("is still heard when a new half was given back", async () => {
    const { store, followers, answerOf, giveBack } = buildFollowing();
    const first = await answerOf(HOP, "a1");
    store.update(first, "owner");
    await giveBack(await answerOf(OTHER, "b1", first), first, OTHER);
    followers.get("3")?.({ kind: "down", behind: "b1" });
    expect(stateOf(store)).toBe(State.UP);
    followers.get("3")?.({ kind: "down" });
    expect(stateOf(store)).toBe(State.DOWN);
  });

  test("ends with a Close of what there is", async () => {
    const { store, followers, answerOf, giveBack } = buildFollowing();
    const first = await answerOf(HOP, "a1");
    store.update(first, "owner");
    const second = await answerOf(OTHER, "b1", first);
    await giveBack(clone(ConnectionSchema, second), second, OTHER);
    expect(followers.size).toBe(0);
  });
});
