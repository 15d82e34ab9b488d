import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { CallContext } from "../sdk/chain.ts";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { addClusterInfo, clusterInfo, parseClusterInfo } from "./cluster-info.ts";
import type { WithSide } from "./side.ts";

const FORWARDER = callBy(await makePeer("/forwarder/one"));
const INFO = { clusterName: "east" };

/** Labels that are passed on, and that are answered. */
async function ask(side: WithSide) {
  const recorder = createRecorder<CallContext & WithSide>();
  const seen: Record<string, string>[] = [];
  const { answer } = recorder;
  recorder.answer = (call, ctx) => {
    seen.push({ ...call.connection.labels });
    return answer(call, ctx);
  };
  const request = requestOn(["forwarder", "proxy"]);
  if (request.connection !== undefined) request.connection.labels = { app: "x", clusterName: "theirs" };
  const response = await clusterInfo(() => INFO)(recorder).request(request, { ...FORWARDER, ...side });
  return { seen, answered: response.labels };
}

test("another domain hears which cluster a client is of, and the client hears its own labels", async () => {
  expect(await ask({ way: { url: "tcp://192.0.2.9:5004" }, domain: "west" })).toEqual({
    seen: [{ app: "x", clusterName: "east" }],
    answered: { app: "x", clusterName: "theirs" },
  });
});

test("what comes in, or stays here, keeps its labels", async () => {
  for (const side of [{ way: undefined }, { way: { url: "tcp://192.0.2.1:5001" } }])
    expect((await ask(side)).seen).toEqual([{ app: "x", clusterName: "theirs" }]);
});

test("an endpoint that registers in another domain has the labels for each of its services", () => {
  const record = () =>
    create(NetworkServiceEndpointSchema, {
      networkServiceNames: ["a", "b"],
      networkServiceLabels: { a: { labels: { app: "x", clusterName: "old" } } },
    });
  const endpoint = record();
  addClusterInfo(endpoint, INFO);
  expect(endpoint.networkServiceLabels).toMatchObject({
    a: { labels: { app: "x", clusterName: "east" } },
    b: { labels: INFO },
  });
  const untouched = record();
  addClusterInfo(untouched, {});
  expect(untouched).toEqual(record());
});

test.for([
  ["", {}],
  ["clusterName: east\nregion: eu-1\n", { clusterName: "east", region: "eu-1" }],
  ["zone: 7", { zone: "7" }],
] as const)("the file %j says %j", ([text, info]) => {
  expect(parseClusterInfo(text)).toEqual(info);
});

test.for(["- clusterName", "clusterName: { a: b", '"": x'])("the file %j is refused", (text) => {
  expect(() => parseClusterInfo(text)).toThrow();
});
