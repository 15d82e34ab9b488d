import { create } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ConnectionEventType, MonitorScopeSelectorSchema, State } from "../../api/gen/connection_pb.js";
import type { ConnectionEvent } from "../../api/gen/connection_pb.js";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { CallContext } from "../chain.ts";
import type { WithEvents } from "./begin.ts";
import { OPERATOR, createMonitorStore, monitor } from "./monitor.ts";
import type { MonitorStore, Viewer } from "./monitor.ts";

const ALICE = "spiffe://example.org/alice";
const BOB = "spiffe://example.org/bob";
const PEER = await makePeer("/alice");
const EVERYTHING = create(MonitorScopeSelectorSchema);

function subscribe(store: MonitorStore, viewer: Viewer, selector = EVERYTHING) {
  const stop = new AbortController();
  const stream = store.subscribe(selector, viewer, stop.signal)[Symbol.asyncIterator]();
  const next = async (): Promise<ConnectionEvent> => {
    const { value, done } = await stream.next();
    if (done === true) throw new Error("the stream ended");
    return value;
  };
  return { next, stop, stream };
}

const own = (id: string) => connectionOn(["client", "me"], [`${id}-0`, id]);

test("a connection may be seen by its owner and by operators, an unknown one by nobody", () => {
  const store = createMonitorStore();
  store.update(own("1"), ALICE);
  const viewers: Viewer[] = [ALICE, BOB, OPERATOR];
  expect(viewers.map((viewer) => store.maySee("1", viewer))).toEqual([true, false, true]);
  expect(viewers.map((viewer) => store.maySee("2", viewer))).toEqual([false, false, false]);
});

test("news of the next hop is told once, and only when the state changes", () => {
  const news: [string, State][] = [];
  const store = createMonitorStore((id, state) => void news.push([id, state]));
  store.update(own("1"), ALICE);
  store.fromNextHop("1", { state: State.UP });
  store.fromNextHop("1", { state: State.DOWN });
  store.fromNextHop("1", { state: State.DOWN });
  store.fromNextHop("2", { state: State.DOWN });
  expect(news).toEqual([["1", State.DOWN]]);
});

describe("a new choice", () => {
  const listen = (store: MonitorStore, viewer: Viewer, reselects: boolean) => {
    const stream = store.subscribe(EVERYTHING, viewer, AbortSignal.timeout(10_000), reselects);
    const events = stream[Symbol.asyncIterator]();
    return async () => {
      const { value, done } = await events.next();
      return done === true ? undefined : value.connections["1"]?.state;
    };
  };

  test("is asked of an owner who understands it", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    const next = listen(store, ALICE, true);
    await next();
    expect(store.askForNewChoice("1", "why")).toBe("asked");
    expect(await next()).toBe(State.RESELECT_REQUESTED);
  });

  test("is not shown to an owner who does not understand it", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    await listen(store, ALICE, false)();
    expect(store.askForNewChoice("1", "why")).toBe("not-understood");
    expect(store.get("1")?.state).toBe(State.UP);
  });

  test("waits for an owner who does not listen; others who do are no help", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    await listen(store, OPERATOR, true)();
    expect(store.askForNewChoice("1", "why")).toBe("nobody");
    expect(await listen(store, ALICE, true)()).toBe(State.RESELECT_REQUESTED);
    expect(store.askForNewChoice("2", "why")).toBe("nobody");
  });
});

test("an operator's own wire is its to choose anew, and it is asked", async () => {
  const store = createMonitorStore();
  store.update(own("1"), ALICE);
  const { signal } = new AbortController();
  await store.subscribe(EVERYTHING, OPERATOR, signal, true, ALICE)[Symbol.asyncIterator]().next();
  expect(store.askForNewChoice("1", "why")).toBe("asked");
  store.update(own("2"), BOB);
  expect(store.askForNewChoice("2", "why")).toBe("nobody");
});

test("a remark is shown in our own path segment until it is taken back", async () => {
  const store = createMonitorStore();
  store.update(own("1"), ALICE);
  const { next } = subscribe(store, ALICE);
  const metrics = async () => (await next()).connections["1"]?.path?.pathSegments.map((each) => each.metrics);
  expect(await metrics()).toEqual([{}, {}]);
  store.remark("1", "so");
  store.remark("1", "so");
  expect(await metrics()).toEqual([{}, { "nsm.io/choice": "so" }]);
  store.remark("1", undefined);
  expect(await metrics()).toEqual([{}, {}]);
});

describe("the stream", () => {
  test("begins with the present state, even when there is none", async () => {
    const { next } = subscribe(createMonitorStore(), ALICE);
    expect(await next()).toMatchObject({ type: ConnectionEventType.INITIAL_STATE_TRANSFER, connections: {} });
  });

  test("then tells of updates and deletions, by own ids", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    const { next } = subscribe(store, ALICE);
    expect(Object.keys((await next()).connections)).toEqual(["1"]);
    store.update(own("2"), ALICE);
    store.delete("1");
    expect(await next()).toMatchObject({
      type: ConnectionEventType.UPDATE,
      connections: { "2": { id: "2" } },
    });
    expect(await next()).toMatchObject({
      type: ConnectionEventType.DELETE,
      connections: { "1": { id: "1" } },
    });
  });

  test("never shows anybody else's connection, whatever is asked for", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    const { next } = subscribe(store, BOB);
    expect((await next()).connections).toEqual({});
    store.update(own("1"), ALICE);
    store.update(own("2"), BOB);
    expect(Object.keys((await next()).connections)).toEqual(["2"]);
  });

  test("refuses a selector that names somebody else's connection", () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    const selector = create(MonitorScopeSelectorSchema, { pathSegments: [{ id: "1" }] });
    expect(() => store.subscribe(selector, BOB, AbortSignal.timeout(1000))).toThrow(
      expect.objectContaining({ code: "PERMISSION_DENIED" }),
    );
  });

  test("shows an operator everybody's connections, whatever it selects by, and the tokens of none", async () => {
    const store = createMonitorStore();
    const connection = own("1");
    for (const segment of connection.path?.pathSegments ?? []) segment.token = "secret";
    store.update(connection, ALICE);
    const { next } = subscribe(store, OPERATOR);
    expect(JSON.stringify(Object.values((await next()).connections))).not.toContain("secret");
    store.update(own("2"), BOB);
    expect(Object.keys((await next()).connections)).toEqual(["2"]);
    const selector = create(MonitorScopeSelectorSchema, { pathSegments: [{ id: "1" }] });
    expect(Object.keys((await subscribe(store, OPERATOR, selector).next()).connections)).toEqual(["1"]);
  });

  test("carries no token of any hop", async () => {
    const store = createMonitorStore();
    const connection = own("1");
    for (const segment of connection.path?.pathSegments ?? []) segment.token = "secret";
    store.update(connection, ALICE);
    const event = await subscribe(store, ALICE).next();
    expect(event.connections["1"]?.path?.pathSegments.map(({ token }) => token)).toEqual(["", ""]);
    expect(connection.path?.pathSegments[0]?.token).toBe("secret");
  });

  test("a refresh that changes leases alone is not told, and seen by who comes later", async () => {
    const store = createMonitorStore();
    const lease = (seconds: number) => {
      const connection = own("1");
      for (const segment of connection.path?.pathSegments ?? [])
        segment.expires = create(TimestampSchema, { seconds: BigInt(seconds) });
      return connection;
    };
    store.update(lease(1), ALICE);
    const { next } = subscribe(store, ALICE);
    await next();
    store.update(lease(2), ALICE);
    const changed = lease(3);
    changed.labels["app"] = "new";
    store.update(changed, ALICE);
    expect((await next()).connections["1"]?.labels).toEqual({ app: "new" });
    store.update(lease(4), ALICE);
    const later = await subscribe(store, ALICE).next();
    expect(later.connections["1"]?.path?.pathSegments[0]?.expires?.seconds).toBe(4n);
  });

  test("a refresh of what was down is told", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    store.fromNextHop("1", { state: State.DOWN });
    const { next } = subscribe(store, ALICE);
    await next();
    const up = own("1");
    up.state = State.UP;
    store.update(up, ALICE);
    expect((await next()).connections["1"]?.state).toBe(State.UP);
  });

  test("shows what the selector asks for", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    store.update(own("2"), ALICE);
    const selector = create(MonitorScopeSelectorSchema, { pathSegments: [{ id: "2-0" }] });
    expect(Object.keys((await subscribe(store, ALICE, selector).next()).connections)).toEqual(["2"]);
  });

  test("ends with its signal and forgets its reader", async () => {
    const { next, stop, stream } = subscribe(createMonitorStore(), ALICE);
    await next();
    const waiting = stream.next();
    stop.abort();
    expect(await waiting).toMatchObject({ done: true });
  });

  test("a reader that never reads is cut off", async () => {
    const store = createMonitorStore();
    const { next } = subscribe(store, ALICE);
    await next();
    for (let i = 0; i < 1100; i++) store.update(own(`${i}`), ALICE);
    const drain = async () => {
      for (;;) await next();
    };
    await expect(drain()).rejects.toMatchObject({ code: "ABORTED", reason: "slow-reader" });
  });
});

describe("news of the next hop", () => {
  test("DOWN is passed on with our own id and index", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    const { next } = subscribe(store, ALICE);
    await next();
    store.fromNextHop("1", { state: State.DOWN });
    expect(await next()).toMatchObject({
      type: ConnectionEventType.UPDATE,
      connections: { "1": { id: "1", state: State.DOWN, path: { index: 1 } } },
    });
  });

  test("nothing is told when nothing changed", async () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    const { next } = subscribe(store, ALICE);
    await next();
    store.fromNextHop("1", { state: State.UP });
    store.fromNextHop("unknown", { state: State.DOWN });
    store.fromNextHop("1", { state: State.DOWN });
    expect((await next()).connections["1"]?.state).toBe(State.DOWN);
  });

  test("the path behind us is taken over, what is before us stays ours", () => {
    const store = createMonitorStore();
    store.update(own("1"), ALICE);
    const next = connectionOn(["liar", "liar", "next"], ["x", "y", "n-1"]);
    store.fromNextHop("1", { state: State.DOWN, next });
    expect(store.get("1")?.path?.pathSegments.map(({ name, id }) => `${name}/${id}`)).toEqual([
      "client/1-0",
      "me/1",
      "next/n-1",
    ]);
  });
});

describe("the element", () => {
  const build = () => {
    const store = createMonitorStore();
    const recorder = createRecorder<CallContext & WithEvents>();
    return { store, recorder, service: monitor(store)(recorder) };
  };

  test("publishes successes for their caller, and deletes on close even when closing further on fails", async () => {
    const { store, recorder, service } = build();
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER)));
    expect([...store.ids()]).toEqual(["me"]);
    recorder.answer = () => Promise.reject(new Error("the next hop is gone"));
    await expect(service.close(connectionOn(["client", "me"]), eventsOf(callBy(PEER)))).rejects.toThrow(
      "gone",
    );
    expect([...store.ids()]).toEqual([]);
  });

  test("DOWN that crosses an answer is the newer news", async () => {
    const { store, recorder, service } = build();
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER)));
    recorder.answer = (call) => {
      store.fromNextHop("me", { state: State.DOWN });
      return Promise.resolve(call.connection);
    };
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER), { established: true }));
    expect(store.get("me")?.state).toBe(State.DOWN);
    recorder.answer = (call) => Promise.resolve(call.connection);
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER), { established: true }));
    expect(store.get("me")?.state).toBe(State.UP);
  });

  const reselect = () => {
    const request = requestOn(["client", "me"]);
    if (request.connection !== undefined) request.connection.state = State.RESELECT_REQUESTED;
    return request;
  };
  const established = () => eventsOf(callBy(PEER), { established: true });

  test("a first request that fails is not shown, a refresh that fails changes nothing", async () => {
    const { store, recorder, service } = build();
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER)));
    recorder.answer = () => Promise.reject(new Error("nobody serves"));
    const ask = (isEstablished: boolean) =>
      service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER), { established: isEstablished }));
    await expect(ask(true)).rejects.toThrow("nobody");
    expect([...store.ids()]).toEqual(["me"]);
    await expect(ask(false)).rejects.toThrow("nobody");
    expect([...store.ids()]).toEqual([]);
  });

  test("what is down and finds nobody else stays down", async () => {
    const { store, recorder, service } = build();
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER)));
    store.fromNextHop("me", { state: State.DOWN });
    recorder.answer = () => Promise.reject(new Error("nobody serves"));
    await expect(service.request(reselect(), established())).rejects.toThrow("nobody");
    expect(store.get("me")?.state).toBe(State.DOWN);
  });

  test("that the old half goes down while the new one is made is no news of the new one", async () => {
    const { store, recorder, service } = build();
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER)));
    recorder.answer = (call) => {
      store.fromNextHop("me", { state: State.DOWN });
      return Promise.resolve(call.connection);
    };
    await service.request(reselect(), established());
    expect(store.get("me")?.state).toBe(State.UP);
  });

  test("that the new half goes down before its answer arrives is", async () => {
    const { store, recorder, service } = build();
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER)));
    recorder.answer = (call) => {
      for (const state of [State.DOWN, State.UP, State.DOWN]) store.fromNextHop("me", { state });
      return Promise.resolve(call.connection);
    };
    await service.request(reselect(), established());
    expect(store.get("me")?.state).toBe(State.DOWN);
  });

  test("that the new half goes down once it has answered is, whatever was said of the old one", async () => {
    const { store, recorder, service } = build();
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER)));
    recorder.answer = (call) => {
      store.fromNextHop("me", { state: State.DOWN });
      store.newHalf("me");
      store.fromNextHop("me", { state: State.DOWN });
      return Promise.resolve(call.connection);
    };
    await service.request(reselect(), established());
    expect(store.get("me")?.state).toBe(State.DOWN);
  });

  test("after a new choice that failed, DOWN that crosses an answer is news again", async () => {
    const { store, recorder, service } = build();
    await service.request(requestOn(["client", "me"]), eventsOf(callBy(PEER)));
    recorder.answer = () => Promise.reject(new Error("nobody serves"));
    await expect(service.request(reselect(), established())).rejects.toThrow("nobody");
    recorder.answer = (call) => {
      store.fromNextHop("me", { state: State.DOWN });
      return Promise.resolve(call.connection);
    };
    await service.request(requestOn(["client", "me"]), established());
    expect(store.get("me")?.state).toBe(State.DOWN);
  });
});
