import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionContextSchema } from "../api/gen/connectioncontext_pb.js";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { excludedPrefixes } from "./excluded-prefixes.ts";

const PEER = await makePeer("/a");

test("what the file says now is added to what the client excludes, each once", async () => {
  let file: readonly string[] = ["10.96.0.0/12", "10.244.0.0/16"];
  const recorder = createRecorder();
  const service = excludedPrefixes(() => file)(recorder);
  const ask = async (own: string[]) => {
    const request = requestOn(["client", "me"]);
    if (request.connection !== undefined)
      request.connection.context = create(ConnectionContextSchema, { ipContext: { excludedPrefixes: own } });
    const answer = await service.request(request, callBy(PEER));
    return answer.context?.ipContext?.excludedPrefixes;
  };
  expect(await ask([])).toEqual(["10.96.0.0/12", "10.244.0.0/16"]);
  expect(await ask(["172.16.0.0/31", "10.96.0.0/12"])).toEqual([
    "172.16.0.0/31",
    "10.96.0.0/12",
    "10.244.0.0/16",
  ]);
  file = ["192.168.0.0/16"];
  expect(await ask([])).toEqual(["192.168.0.0/16"]);
});

test("a request without a context gets one", async () => {
  const service = excludedPrefixes(() => ["10.0.0.0/8"])(createRecorder());
  const answer = await service.request(requestOn(["client", "me"]), callBy(PEER));
  expect(answer.context?.ipContext?.excludedPrefixes).toEqual(["10.0.0.0/8"]);
});
