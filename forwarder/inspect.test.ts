import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { DescribeWireRequestSchema } from "../api/gen/admin_pb.js";
import type { Caller } from "../sdk/grpc/caller.ts";
import type { Dataplane, EndStats } from "./dataplane.ts";
import { wiresHandlers } from "./inspect.ts";

const end: EndStats = {
  side: "client",
  interfaceName: "nsm-1",
  rxBytes: 84,
  rxPackets: 1,
  rxDropped: 2,
  rxErrors: 3,
  txBytes: 2 ** 40,
  txPackets: 5,
  txDropped: 6,
  txErrors: 7,
};

function describe(stats: Dataplane["stats"], id = "w") {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the handler reads nothing of it
  const caller = {} as Caller;
  const handlers = wiresHandlers({ name: "forwarder-1", dataplane: { stats } });
  return handlers.describeWire(create(DescribeWireRequestSchema, { id }), caller);
}

test("each end of a wire is told with all its counters, under the forwarder's name", async () => {
  const { interfaces, faults } = await describe(() => Promise.resolve(new Map([["w", [end]]])));
  expect(interfaces).toMatchObject([
    {
      forwarder: "forwarder-1",
      side: "client",
      name: "nsm-1",
      rxBytes: 84n,
      rxPackets: 1n,
      rxDropped: 2n,
      rxErrors: 3n,
      txBytes: 2n ** 40n,
      txPackets: 5n,
      txDropped: 6n,
      txErrors: 7n,
    },
  ]);
  expect(faults).toEqual([]);
});

test("a wire without devices has nothing to tell, and what cannot be read is named", async () => {
  expect(await describe(() => Promise.resolve(new Map()))).toMatchObject({ interfaces: [], faults: [] });
  const { faults } = await describe(() => Promise.reject(new Error("no permission")));
  expect(faults).toEqual(["forwarder forwarder-1 cannot read counters: no permission"]);
});
