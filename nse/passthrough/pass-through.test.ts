/** A link of a chain between a forwarder before and a manager behind that a test plays. */
import { clone, create } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";
import { ConnectionSchema, PathSegmentSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import { NsmError } from "../../sdk/errors.ts";
import { CHAIN_KEY } from "../../sdk/chain-mark.ts";
import { buildLink as build, HOPS, markOf, namesOf, withContext } from "../../test/support/link.ts";

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
