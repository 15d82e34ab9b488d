import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import { CHAIN_KEY } from "../../sdk/chain-mark.ts";
import { silentLogger } from "../../sdk/log.ts";
import { callBy, connectionOn, createRecorder, requestOn } from "../../test/support/chain.ts";
import { makePeer } from "../../test/support/peer.ts";
import { chainEnds } from "./chain-ends.ts";

const MANAGER = callBy(await makePeer("/nsmgr/node1"));
const CHAIN = "00000000-0000-4000-8000-000000000001";
const OTHER = "00000000-0000-4000-8000-000000000002";

interface Asked {
  readonly wire: string;
  readonly chain?: string;
  readonly nse?: string;
  readonly type?: string;
  readonly isBare?: boolean;
}

function build() {
  const removed: string[] = [];
  const recorder = createRecorder();
  const remove = (id: string) => Promise.resolve(void removed.push(id));
  const service = chainEnds({ remove }, silentLogger)(recorder);
  const names = ["link", "manager", "forwarder"];
  const idsOf = (wire: string) => [`link of ${wire}`, `manager of ${wire}`, wire];
  const ask = async ({ wire, chain, nse = "gateway", type = "KERNEL", isBare = false }: Asked) => {
    const request = requestOn(names, idsOf(wire));
    const { connection } = request;
    if (connection === undefined) throw new Error("it has one");
    connection.id = wire;
    connection.networkServiceEndpointName = nse;
    connection.context = create(ConnectionContextSchema);
    if (chain !== undefined) connection.context.extraContext[CHAIN_KEY] = `${chain}/2`;
    const parameters = isBare ? { addresses: "none" } : {};
    connection.mechanism = create(MechanismSchema, { cls: "LOCAL", type, parameters });
    await service.request(request, MANAGER);
  };
  const close = (wire: string) => service.close({ ...connectionOn(names, idsOf(wire)), id: wire }, MANAGER);
  return { removed, ask, close };
}

test("the former wire of a chain goes when the next one is there, once", async () => {
  const { ask, removed } = build();
  await ask({ wire: "old", chain: CHAIN });
  expect(removed).toEqual([]);
  await ask({ wire: "new", chain: CHAIN });
  await ask({ wire: "new", chain: CHAIN });
  expect(removed).toEqual(["old"]);
});

test.for<[string, Asked]>([
  ["another chain", { wire: "new", chain: OTHER }],
  ["no chain", { wire: "new" }],
  ["another endpoint", { wire: "new", chain: CHAIN, nse: "other" }],
  ["an endpoint of another node", { wire: "new", chain: CHAIN, type: "VXLAN" }],
  ["an endpoint that passes on", { wire: "new", chain: CHAIN, isBare: true }],
])("%s removes nothing", async ([, next]) => {
  const { ask, removed } = build();
  await ask({ wire: "old", chain: CHAIN });
  await ask(next);
  expect(removed).toEqual([]);
});

test("what is closed is nobody's predecessor", async () => {
  const { ask, close, removed } = build();
  await ask({ wire: "old", chain: CHAIN });
  await close("old");
  await ask({ wire: "new", chain: CHAIN });
  expect(removed).toEqual([]);
});
