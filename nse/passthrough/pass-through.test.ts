/** A link of a chain between a forwarder before and a manager behind that a test plays. */
import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test, vi } from "vitest";
import { ConnectionSchema, PathSegmentSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema, IPContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { CHOICE_REMARK, createMonitorStore } from "../../sdk/elements/monitor.ts";
import type { HopEvent } from "../../sdk/elements/target.ts";
import { NsmError } from "../../sdk/errors.ts";
import { silentLogger } from "../../sdk/log.ts";
import { callBy, eventsOf, requestOn } from "../../test/support/chain.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import { CHAIN_KEY } from "../../sdk/chain-mark.ts";
import { createDownstream } from "./downstream.ts";
import type { Joint } from "./joints.ts";
import { createPassThrough } from "./pass-through.ts";

const peer = await makePeer("/forwarder");
const HOPS = ["client", "nsmgr", "forwarder", "link"];

function build() {
  const clock = createFakeClock();
  const store = createMonitorStore();
  const requests: NetworkServiceRequest[] = [];
  const closes: Connection[] = [];
  const followers = new Map<string, (event: HopEvent) => void>();
  const joints = new Map<string, Joint>();
  const held: string[] = [];
  let ids = 0;
  const bed = {
    held,
    clock,
    store,
    requests,
    closes,
    followers,
    joints,
    /** The endpoint that the manager chooses next. */
    next: "gateway",
    failure: undefined as NsmError | undefined,
    address: "10.0.0.1/32",
    registered: [] as string[],
  };
  const manager = {
    request(request: NetworkServiceRequest) {
      requests.push(request);
      if (bed.failure !== undefined) return Promise.reject(bed.failure);
      const asked = request.connection ?? create(ConnectionSchema);
      const answer = clone(ConnectionSchema, asked);
      answer.networkServiceEndpointName = asked.networkServiceEndpointName || bed.next;
      answer.mechanism ??= request.mechanismPreferences[0];
      const [own] = answer.path?.pathSegments ?? [];
      const expires = timestampFromMs(clock.now() + 600_000);
      const behind = ["nsmgr", "forwarder", answer.networkServiceEndpointName].map((name) =>
        create(PathSegmentSchema, { name, id: `${name}-of-${own?.id}`, expires, token: "" }),
      );
      if (answer.path !== undefined && own !== undefined) answer.path.pathSegments = [own, ...behind];
      answer.context ??= create(ConnectionContextSchema);
      answer.context.ipContext = create(IPContextSchema, { srcIpAddrs: [bed.address] });
      return Promise.resolve(answer);
    },
    close(connection: Connection) {
      closes.push(connection);
      return Promise.resolve();
    },
  };
  const link = createPassThrough({
    name: "link",
    newId: () => `00000000-0000-0000-0000-${String(++ids).padStart(12, "0")}`,
    createDownstream: (id, onNews) =>
      createDownstream({
        id,
        name: "link",
        labels: { app: "link" },
        netnsUrl: "inode://4/1",
        interfaceName: `out-${id.slice(-2)}`,
        manager,
        follow(of, onEvent) {
          followers.set(of, onEvent);
          return { [Symbol.dispose]: () => void followers.delete(of) };
        },
        requestTimeoutMs: 15_000,
        clock,
        log: silentLogger,
        onNews,
      }),
    registered: (_, names) => Promise.resolve(names.filter((name) => bed.registered.includes(name))),
    hold: (device) => Promise.resolve(void held.push(`${requests.length} ${device}`)),
    release: (device) => Promise.resolve(void held.push(`released ${device} after ${closes.length}`)),
    join: (key, joint) => Promise.resolve(void joints.set(key, joint)),
    part: (key) => Promise.resolve(void joints.delete(key)),
    store,
    clock,
    log: silentLogger,
  });
  const ask = (id = "up-1", change: (connection: Connection) => void = () => undefined, overrides = {}) => {
    const request = requestOn(HOPS, ["client-0", "m", "f", id]);
    const connection = request.connection ?? create(ConnectionSchema);
    connection.labels = { app: "client" };
    connection.mechanism = { ...requestMechanism() };
    change(connection);
    return link.request(request, eventsOf(callBy(peer), overrides)).then((answer) => {
      store.update(answer, peer.spiffeId);
      return answer;
    });
  };
  const close = (connection: Connection, overrides = {}) =>
    link.close(connection, eventsOf(callBy(peer), overrides));
  return { bed, link, ask, close };
}

function requestMechanism() {
  const connection = create(ConnectionSchema, {
    mechanism: { cls: "LOCAL", type: "KERNEL", parameters: { name: "in-1" } },
  });
  if (connection.mechanism === undefined) throw new Error("no mechanism");
  return connection.mechanism;
}

const markOf = (connection: Connection | undefined) => connection?.context?.extraContext[CHAIN_KEY];
const withContext = (answer: Connection) => (connection: Connection) => {
  if (answer.context !== undefined) connection.context = clone(ConnectionContextSchema, answer.context);
};
const namesOf = ({ path }: Connection) => path?.pathSegments.map(({ name }) => name);

test("it asks for the same service with its own labels, as the first hop of a path of its own", async () => {
  const { bed, ask } = build();
  await ask();
  const [sent] = bed.requests;
  expect(sent?.connection).toMatchObject({
    networkService: "service",
    labels: { app: "link" },
    networkServiceEndpointName: "",
    path: { index: 0, pathSegments: [{ name: "link" }] },
  });
  expect(sent?.mechanismPreferences).toMatchObject([
    { type: "KERNEL", parameters: { inodeURL: "inode://4/1", addresses: "none" } },
  ]);
});

test("the answer has the client's labels and mechanism, this endpoint's name, and the whole path", async () => {
  const { bed, ask } = build();
  const answer = await ask();
  expect(answer).toMatchObject({
    id: "up-1",
    labels: { app: "client" },
    networkServiceEndpointName: "link",
    mechanism: { parameters: { name: "in-1" } },
    context: { ipContext: { srcIpAddrs: ["10.0.0.1/32"] } },
    path: { index: 3 },
  });
  expect(namesOf(answer)).toEqual([...HOPS, "nsmgr", "forwarder", "gateway"]);
  expect(answer.path?.pathSegments[3]?.id).toBe("up-1");
  expect(bed.joints.get("up-1")).toMatchObject({ up: "in-1", clientAddresses: ["10.0.0.1/32"] });
});

test("a refresh goes to the endpoint that was chosen first, over the same path", async () => {
  const { bed, ask } = build();
  const first = await ask();
  bed.next = "another";
  const again = await ask("up-1", withContext(first), { established: true });
  expect(again.path?.pathSegments.map(({ id }) => id)).toEqual(first.path?.pathSegments.map(({ id }) => id));
  expect(bed.requests[1]?.connection).toMatchObject({
    networkServiceEndpointName: "gateway",
    mechanism: { type: "KERNEL" },
  });
  expect(markOf(again)).toBe(markOf(first));
});

test("a next hop that is down is replaced here, and the hop before hears of it only when something changed for it", async () => {
  const { bed, ask } = build();
  const first = await ask();
  const [[id, tell] = ["", () => undefined]] = bed.followers;
  bed.next = "gateway-2";
  tell({ kind: "down" });
  await vi.waitFor(() => expect(bed.requests.length === 2 && bed.followers.size === 1).toBe(true));
  expect(bed.requests[1]?.connection).toMatchObject({
    id,
    state: State.RESELECT_REQUESTED,
    networkServiceEndpointName: "",
  });
  expect(bed.requests[1]?.connection?.mechanism).toBeUndefined();
  expect(markOf(bed.requests[1]?.connection)).toBe(`${markOf(first)}/1`);
  expect(bed.store.get("up-1")?.state).toBe(State.UP);

  bed.address = "10.9.9.9/32";
  bed.followers.get(id)?.({ kind: "down" });
  await vi.waitFor(() => expect(bed.store.get("up-1")?.state === State.REFRESH_REQUESTED).toBe(true));
  expect(bed.store.get("up-1")?.context?.ipContext?.srcIpAddrs).toEqual(["10.9.9.9/32"]);
});

test("when the matches lead elsewhere it moves, once, and a failure leaves all as it was", async () => {
  const { bed, ask } = build();
  await ask();
  const [[id, tell] = ["", () => undefined]] = bed.followers;
  const wanted = create(ConnectionSchema, {
    state: State.RESELECT_REQUESTED,
    path: { index: 1, pathSegments: [{}, {}] },
  });
  tell({ kind: "update", connection: wanted });
  const [, manager] = wanted.path?.pathSegments ?? [];
  if (manager !== undefined) manager.metrics[CHOICE_REMARK] = "endpoint-mismatch";
  bed.failure = new NsmError("NOT_FOUND", "no-candidates", "none");
  tell({ kind: "update", connection: wanted });
  await vi.waitFor(() => expect(bed.requests).toHaveLength(2));
  expect(bed.requests[1]?.connection).toMatchObject({ id, state: State.RESELECT_REQUESTED });
  bed.failure = undefined;
  await ask("up-1", () => undefined, { established: true });
  expect(bed.requests[2]?.connection).toMatchObject({
    networkServiceEndpointName: "gateway",
    state: State.UP,
  });
});

test("without any next hop for ten seconds it is down itself", async () => {
  const { bed, ask } = build();
  await ask();
  const [[, tell] = ["", () => undefined]] = bed.followers;
  bed.failure = new NsmError("NOT_FOUND", "no-candidates", "none");
  tell({ kind: "down" });
  await vi.waitFor(() => expect(bed.requests.length >= 3).toBe(true));
  expect(bed.store.get("up-1")?.state).toBe(State.UP);
  await bed.clock.advance(10_000);
  await vi.waitFor(() => expect(bed.store.get("up-1")?.state === State.DOWN).toBe(true));
});

test("a wish for another choice is not passed on while the next hop is well, unless it comes again soon", async () => {
  const { bed, ask } = build();
  const first = await ask();
  const reselect = (connection: Connection) => {
    withContext(first)(connection);
    connection.state = State.RESELECT_REQUESTED;
  };
  await ask("up-1", reselect);
  expect(bed.requests[1]?.connection).toMatchObject({
    state: State.UP,
    networkServiceEndpointName: "gateway",
  });
  await ask("up-1", reselect);
  expect(bed.requests[2]?.connection).toMatchObject({ state: State.RESELECT_REQUESTED });
});

test("a new hop before takes over the half behind of the one that died, which is not closed", async () => {
  const { bed, ask, close } = build();
  const first = await ask("up-1", (connection) => {
    connection.context = create(ConnectionContextSchema, {
      extraContext: { [CHAIN_KEY]: `${"0".repeat(8)}-0000-0000-0000-${"1".repeat(12)}/2` },
    });
  });
  const dead = clone(ConnectionSchema, first);
  dead.state = State.DOWN;
  await close(dead);
  await ask("up-2", withContext(first));
  expect(bed.closes).toEqual([]);
  expect(bed.requests[1]?.connection?.id).toBe(bed.requests[0]?.connection?.id);
  expect([...bed.joints.keys()]).toEqual(["up-2"]);
});

test("a hop before that nobody has seen die is replaced, too, and has no say any more", async () => {
  const { bed, ask, close } = build();
  const first = await ask("up-1");
  await ask("up-2", withContext(first));
  expect([...bed.joints.keys()]).toEqual(["up-2"]);
  await expect(ask("up-1", withContext(first), { established: true })).rejects.toMatchObject({
    reason: "chain-taken-over",
  });
  await close(first);
  expect(bed.closes).toEqual([]);
});

test("nobody takes over: the half behind is closed after a while", async () => {
  const { bed, ask, close } = build();
  const first = await ask("up-1", (connection) => {
    connection.context = create(ConnectionContextSchema, {
      extraContext: { [CHAIN_KEY]: `${"0".repeat(8)}-0000-0000-0000-${"1".repeat(12)}/2` },
    });
  });
  first.state = State.DOWN;
  await close(first);
  await bed.clock.advance(9_999);
  expect(bed.closes).toEqual([]);
  await bed.clock.advance(1);
  await vi.waitFor(() => expect(bed.closes.length === 1).toBe(true));
});

test("the originator's death and anybody's Close close the half behind at once, once", async () => {
  const { bed, ask, close } = build();
  const first = await ask("up-1");
  first.state = State.DOWN;
  await close(first);
  expect(bed.closes).toHaveLength(1);
  await close(await ask("up-2"));
  expect(bed.closes).toHaveLength(2);
  expect(bed.joints.size).toBe(0);
});

test("a first request that fails leaves nothing", async () => {
  const { bed, ask } = build();
  bed.failure = new NsmError("NOT_FOUND", "no-candidates", "none");
  await expect(ask()).rejects.toThrow("none");
  expect(bed.followers.size).toBe(0);
  expect(bed.closes).toEqual([]);
});

test("what the chain had behind before is tried first, then whoever the matches lead to", async () => {
  const { bed, ask } = build();
  bed.registered = ["gateway-7"];
  const answer = await ask("up-1", (connection) => {
    const more = ["nsmgr", "forwarder", "gateway-7"].map((name) =>
      create(PathSegmentSchema, { name, id: name }),
    );
    connection.path?.pathSegments.push(...more);
  });
  expect(bed.requests[0]?.connection?.networkServiceEndpointName).toBe("gateway-7");
  expect(namesOf(answer)?.at(-1)).toBe("gateway-7");
});

test("matches that lead in circles are refused", async () => {
  const { ask } = build();
  const asked = ask("up-1", (connection) => {
    connection.context = create(ConnectionContextSchema, {
      extraContext: { [CHAIN_KEY]: `${"0".repeat(8)}-0000-0000-0000-${"1".repeat(12)}/15` },
    });
  });
  await expect(asked).rejects.toMatchObject({ code: "FAILED_PRECONDITION", reason: "chain-too-long" });
});

test("an endpoint that ends leaves what is behind to another one", async () => {
  const { bed, ask, link } = build();
  await ask();
  await link[Symbol.asyncDispose]();
  expect(bed.closes).toMatchObject([{ state: State.DOWN }]);
});

test("the device behind is held before it is asked for, and released when it has been given back", async () => {
  const { bed, ask, close } = build();
  const answer = await ask();
  expect(bed.held).toEqual(["0 out-02"]);
  await close(answer);
  expect(bed.held).toEqual(["0 out-02", "released out-02 after 1"]);
});

test("a device that was asked for in vain is released, too", async () => {
  const { bed, ask } = build();
  bed.failure = new NsmError("UNAVAILABLE", "no-endpoint", "nobody");
  await expect(ask()).rejects.toMatchObject({ reason: "no-endpoint" });
  expect(bed.held).toEqual(["0 out-02", "released out-02 after 0"]);
});
