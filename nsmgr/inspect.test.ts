import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { DescribeWireRequestSchema, WireDescriptionSchema } from "../api/gen/admin_pb.js";
import { ConnectionContextSchema } from "../api/gen/connectioncontext_pb.js";
import { createHistory } from "../sdk/elements/history.ts";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import { NsmError } from "../sdk/errors.ts";
import type { Caller } from "../sdk/grpc/caller.ts";
import type { SessionPool } from "../sdk/grpc/sessions.ts";
import { createTokenMinter } from "../sdk/token.ts";
import { connectionOn } from "../test/support/chain.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import { wiresHandlers } from "./inspect.ts";

const owner = await makePeer("/client/a");
const stranger = await makePeer("/client/b");
const operator = await makePeer("/operator/eve");

const CHAIN = "0b5f8a52-3c55-4d0c-9d1c-5a3a3f7f0001";

/** A manager with one wire `m` of `/client/a`, whose forwarder answers as told. */
function build(answer: () => Promise<unknown>) {
  const clock = createFakeClock(5000);
  const store = createMonitorStore();
  const history = createHistory(clock);
  const asked: unknown[] = [];
  const unary = async (target: { url: string }, _method: unknown, request: { id: string }) => {
    asked.push([target.url, request.id]);
    return { response: await answer(), header: undefined };
  };
  const connection = connectionOn(["client", "manager", "forwarder", "nse"], ["c", "m", "f", "n"]);
  if (connection.path !== undefined) connection.path.index = 1;
  connection.id = "m";
  for (const segment of connection.path?.pathSegments ?? []) segment.token = "secret";
  connection.context = create(ConnectionContextSchema, {
    extraContext: { nsmChain: `${CHAIN}/2`, other: "x" },
  });
  store.update(connection, owner.spiffeId);
  history.note("m", "made", "endpoint nse");
  const handlers = wiresHandlers({
    store,
    history,
    isOperator: (id) => id === operator.spiffeId,
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the one method that is called
    pool: { unary } as unknown as SessionPool,
    minter: createTokenMinter({ clock }),
    forwarderNamed: (name) => (name === "forwarder" ? { url: "unix:///forwarder.sock" } : undefined),
  });
  const describe = (peer: typeof owner, id = "m") => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the handler reads of it
    const caller = { peer, signal: AbortSignal.timeout(5000) } as Caller;
    return handlers.describeWire(create(DescribeWireRequestSchema, { id }), caller);
  };
  return { store, history, describe, asked };
}

const counted = create(WireDescriptionSchema, {
  interfaces: [{ forwarder: "forwarder", side: "client", name: "nsm-1", rxBytes: 84n }],
});

test("owner and operator get connection, events and the forwarder's counters, without tokens and the chain's number", async () => {
  const { describe, asked } = build(() => Promise.resolve(counted));
  for (const peer of [owner, operator]) {
    const wire = await describe(peer);
    expect(wire.connection?.path?.pathSegments.map(({ id, token }) => [id, token])).toEqual([
      ["c", ""],
      ["m", ""],
      ["f", ""],
      ["n", ""],
    ]);
    expect(wire.events).toMatchObject([
      { what: "made", why: "endpoint nse", count: 1, time: { seconds: 5n } },
    ]);
    expect(wire.interfaces).toMatchObject([{ name: "nsm-1", rxBytes: 84n }]);
    expect(wire.connection?.context?.extraContext).toEqual({
      nsmChain: expect.stringMatching(/^sha256:[0-9a-f]{16}\/2$/),
      other: "x",
    });
  }
  expect(asked[0]).toEqual(["unix:///forwarder.sock", "f"]);
});

test("for anybody else there is no such wire, as there is none under an unknown id", async () => {
  const { describe, asked } = build(() => Promise.resolve(counted));
  for (const [peer, id] of [
    [stranger, "m"],
    [stranger, "x"],
    [operator, "x"],
  ] as const)
    await expect(describe(peer, id)).rejects.toMatchObject({ code: "NOT_FOUND", reason: "wire-not-found" });
  expect(asked).toEqual([]);
});

test("a forwarder that fails is named, and the rest is told all the same", async () => {
  const { describe } = build(() => Promise.reject(new NsmError("UNAVAILABLE", "unreachable", "gone")));
  const wire = await describe(operator);
  expect(wire.faults).toEqual(["forwarder forwarder: gone"]);
  expect(wire.connection?.id).toBe("m");
});

test("what happened to a wire that is closed is told to operators alone", async () => {
  const { describe, store, history } = build(() => Promise.resolve(counted));
  history.note("m", "closed", "its lease ran out");
  store.delete("m");
  await expect(describe(owner)).rejects.toMatchObject({ reason: "wire-not-found" });
  const wire = await describe(operator);
  expect(wire.connection).toBeUndefined();
  expect(wire.events.map(({ what }) => what)).toEqual(["made", "closed"]);
});
