import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { CallContext } from "../sdk/chain.ts";
import { EMPTY_PATH } from "../sdk/registry-path.ts";
import type { Registry, RegistryContext } from "../sdk/registry/registry.ts";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { clusterInfo, parseClusterInfo, registerWith } from "./cluster-info.ts";
import type { WithSide } from "./side.ts";

const FORWARDER = callBy(await makePeer("/forwarder/one"));
const CONTEXT: RegistryContext = {
  signal: new AbortController().signal,
  deadlineMs: undefined,
  peer: undefined,
  registration: { path: EMPTY_PATH },
};
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

test("an endpoint that registers in another domain has the labels for each of its services", async () => {
  const registered: NetworkServiceEndpoint[] = [];
  const elsewhere: Registry<NetworkServiceEndpoint> = {
    register(entry) {
      registered.push(entry);
      return Promise.resolve(entry);
    },
    unregister: () => Promise.resolve(),
    async *find() {},
  };
  const record = () =>
    create(NetworkServiceEndpointSchema, {
      networkServiceNames: ["a", "b"],
      networkServiceLabels: { a: { labels: { app: "x", clusterName: "old" } } },
    });
  await registerWith(elsewhere, () => INFO).register(record(), CONTEXT);
  await registerWith(elsewhere, () => ({})).register(record(), CONTEXT);
  expect(registered[0]?.networkServiceLabels).toMatchObject({
    a: { labels: { app: "x", clusterName: "east" } },
    b: { labels: INFO },
  });
  expect(registered[1]).toEqual(record());
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
