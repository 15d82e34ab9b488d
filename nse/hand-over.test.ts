import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionContextSchema } from "../api/gen/connectioncontext_pb.js";
import { CHAIN_KEY } from "../sdk/chain-mark.ts";
import type { CallContext } from "../sdk/chain.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { NsmError } from "../sdk/errors.ts";
import { createPointToPoint } from "../sdk/ipam/point-to-point.ts";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { assignAddresses } from "./assign-addresses.ts";
import { handOver } from "./hand-over.ts";

const CHAIN = "00000000-0000-4000-8000-000000000001";
const ctx = eventsOf(callBy(await makePeer("/forwarder/one")));

function build(prefix = "172.16.0.0/31") {
  const ipam = createPointToPoint([prefix]);
  const recorder = createRecorder<CallContext & WithEvents>();
  const service = handOver(ipam)(assignAddresses(ipam)(recorder));
  const names = ["link", "nse"];
  /** `brought`: the addresses that the hop before has got from the chain until now. */
  const ask = async (id: string, chain: string | undefined, brought = false) => {
    const request = requestOn(names, [`link of ${id}`, id]);
    const context = create(ConnectionContextSchema, {
      ipContext: brought ? { srcIpAddrs: ["172.16.0.1/32"], dstIpAddrs: ["172.16.0.0/32"] } : {},
    });
    if (chain !== undefined) context.extraContext[CHAIN_KEY] = `${chain}/2`;
    if (request.connection !== undefined) request.connection.context = context;
    const { context: answer } = await service.request(request, ctx);
    return answer?.ipContext?.srcIpAddrs;
  };
  const close = (id: string) => service.close(connectionOn(names, [`link of ${id}`, id]), ctx);
  return { recorder, ask, close };
}

test("who goes on with a chain has its addresses, also of a pool that has no others", async () => {
  const { ask } = build();
  expect(await ask("old", CHAIN)).toEqual(["172.16.0.1/32"]);
  expect(await ask("new", CHAIN, true)).toEqual(["172.16.0.1/32"]);
});

test("who was replaced has no say any more, and its Close takes nothing from its successor", async () => {
  const { ask, close } = build();
  await ask("old", CHAIN);
  await ask("new", CHAIN, true);
  await expect(ask("old", CHAIN, true)).rejects.toMatchObject({ reason: "chain-taken-over" });
  await close("old");
  await expect(ask("stranger", undefined)).rejects.toMatchObject({ reason: "ipam-exhausted" });
  expect(await ask("new", CHAIN, true)).toEqual(["172.16.0.1/32"]);
});

test("a successor that fails leaves the chain as it was", async () => {
  const { ask, recorder } = build();
  await ask("old", CHAIN);
  const { answer } = recorder;
  recorder.answer = () => Promise.reject(new NsmError("UNAVAILABLE", "unreachable", "no"));
  await expect(ask("new", CHAIN, true)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  recorder.answer = answer;
  expect(await ask("old", CHAIN, true)).toEqual(["172.16.0.1/32"]);
});

test("a closed chain begins anew, and connections without a chain have nothing to do with each other", async () => {
  const { ask, close } = build("172.16.0.0/29");
  await ask("old", CHAIN);
  await close("old");
  expect(await ask("new", CHAIN)).toEqual(["172.16.0.1/32"]);
  expect(await ask("a", undefined)).toEqual(["172.16.0.3/32"]);
  expect(await ask("b", undefined)).toEqual(["172.16.0.5/32"]);
  expect(await ask("a", undefined, false)).toEqual(["172.16.0.3/32"]);
});
