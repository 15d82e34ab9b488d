/** Scenarios of the manager's suite (test/spec/README.md, 12.1): real chains in one process, the kernel left out. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import type { Connection } from "../../../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema } from "../../../api/gen/registry_pb.js";
import { NsmError } from "../../../sdk/errors.ts";
import { findAll } from "../../../sdk/registry/registry.ts";
import { hopsIn } from "../../support/in-process.ts";
import { eventually } from "../../support/netns.ts";
import { startScenario } from "./mesh.ts";

test.for([
  ["local", 4],
  ["remote", 6],
] as const)(
  "%s use case: request, refresh and close reach the endpoint once each",
  async ([where, segments]) => {
    const [one, two] = await (await startScenario()).nodes("one", "two");
    const endpoint = await (where === "local" ? one : two).endpoint({ name: "nse", service: "service" });
    const client = await one.client("nsc");

    const connection = await client.connect("service");
    expect(hopsIn(connection)).toHaveLength(segments);
    expect(endpoint.counts).toMatchObject({ requests: 1, closes: 0 });
    const refreshed = await client.refresh(connection);
    const ids = ({ path }: typeof connection) => path?.pathSegments.map(({ name, id }) => [name, id]);
    expect(ids(refreshed)).toEqual(ids(connection));
    expect(endpoint.counts).toMatchObject({ requests: 2, closes: 0 });
    await client.close(refreshed);
    expect(endpoint.counts).toMatchObject({ requests: 2, closes: 1 });
    expect(endpoint.counts.ids.size).toBe(1);
  },
);

test("a client that asks before the endpoint of another node is registered gets it by asking again", async () => {
  const [one, two] = await (await startScenario()).nodes("one", "two");
  const client = await one.client("nsc");
  const kept = client.keep("service");
  await expect(client.connect("service", { id: "by-hand" })).rejects.toMatchObject({ code: "NOT_FOUND" });
  const endpoint = await two.endpoint({ name: "nse", service: "service" });
  const connection = await kept.up();
  expect(hopsIn(connection)).toHaveLength(6);
  kept.wire.tell("refresh");
  await eventually("a refresh", () => endpoint.counts.requests === 2);
  await kept.stop();
  expect(endpoint.counts).toMatchObject({ requests: 2, closes: 1 });
});

test("an endpoint that is registered before it serves is reached once it does", async () => {
  const [one] = await (await startScenario()).nodes("one");
  const endpoint = await one.endpoint({ name: "nse", service: "service", serves: false });
  const client = await one.client("nsc");
  const kept = client.keep("service");
  await expect(client.connect("service", { id: "by-hand" })).rejects.toMatchObject({ code: "UNAVAILABLE" });
  endpoint.serve();
  expect(hopsIn(await kept.up())).toHaveLength(4);
});

test("endpoints that always fail are passed over for the one that does not", async () => {
  const [one, two] = await (await startScenario()).nodes("one", "two");
  const client = await one.client("nsc");
  const busy = await Promise.all(
    ["busy-1", "busy-2", "busy-3"].map((name) => two.endpoint({ name, service: "service" })),
  );
  for (const each of busy)
    each.refuse(() => new NsmError("RESOURCE_EXHAUSTED", "busy", `${each.name} is busy`));
  const kept = client.keep("service");
  await eventually("each busy one was asked", () => busy.every(({ counts }) => counts.requests > 0));
  await two.endpoint({ name: "good", service: "service" });
  expect((await kept.up()).networkServiceEndpointName).toBe("good");
});

test("an endpoint that died without anybody to take its place: the refresh fails, the close ends", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  const endpoint = await one.endpoint({ name: "nse", service: "service" });
  const client = await one.client("nsc");
  const connection = await client.connect("service");
  await endpoint.kill();
  await expect(client.refresh(connection)).rejects.toBeInstanceOf(NsmError);
  await client.close(connection).catch(() => undefined); // its result says only what could not be reached
  const query = create(NetworkServiceEndpointSchema, { name: "nse" });
  expect(await findAll(mesh.registries.endpoints, query, AbortSignal.timeout(5000))).toEqual([]);
});

test("ReselectEndpointWhenNetSvcHasChanged: a client follows a service that is edited under it", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  const place = { service: "service", policy: "strict" } as const;
  const first = await one.endpoint({ ...place, name: "nse-1", prefixes: "100.100.100.100/30" });
  const kept = (await one.client("nsc")).keep("service");
  expect(ends(await kept.up())).toEqual([["100.100.100.101/32"], ["100.100.100.100/32"]]);
  const colour = "blue";
  await one.endpoint({ ...place, name: "nse-2", prefixes: "200.200.200.200/30", labels: { colour } });
  await mesh.service({
    name: "service",
    payload: "IP",
    matches: [{ routes: [{ destinationSelector: { colour } }] }],
  });
  const moved = await kept.up(2);
  expect(moved.networkServiceEndpointName).toBe("nse-2");
  expect(ends(moved)).toEqual([["200.200.200.201/32"], ["200.200.200.200/32"]]);
  expect(hopsIn(moved)).toHaveLength(4);
  await eventually("the old half is closed", () => first.counts.closes === 1);
});

function ends({ context }: Connection) {
  return [context?.ipContext?.srcIpAddrs, context?.ipContext?.dstIpAddrs];
}
