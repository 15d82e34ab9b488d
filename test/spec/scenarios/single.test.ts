/** Scenarios of single nodes and miscellany (test/spec/README.md, 12.5): real chains in one process. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { State } from "../../../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema } from "../../../api/gen/registry_pb.js";
import { NsmError } from "../../../sdk/errors.ts";
import { hopsIn } from "../../support/in-process.ts";
import { eventually } from "../../support/netns.ts";
import { startScenario } from "./mesh.ts";

test("ShouldParseNetworkServiceLabelsTemplate: a destination selector takes its values from the client's labels", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  await mesh.service({
    name: "templated",
    payload: "IP",
    matches: [{ routes: [{ destinationSelector: { colour: "{{.wish}}" } }] }],
  });
  for (const colour of ["red", "blue"])
    await one.endpoint({ name: `nse-${colour}`, service: "templated", labels: { colour } });
  const client = await one.client("nsc");
  for (const wish of ["blue", "red"]) {
    const connection = await client.connect("templated", { id: wish, labels: { wish } });
    expect(connection.networkServiceEndpointName).toBe(`nse-${wish}`);
  }
  await expect(client.connect("templated", { id: "x", labels: { wish: "green" } })).rejects.toMatchObject({
    code: "NOT_FOUND",
  });
});

test("a template that does not parse is a label like any other: a client whose endpoint has it is served, no other", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  const colour = "{{.wish";
  await mesh.service({
    name: "templated",
    payload: "IP",
    matches: [{ routes: [{ destinationSelector: { colour } }] }],
  });
  await one.endpoint({ name: "nse-red", service: "templated", labels: { colour: "red" } });
  const client = await one.client("nsc");
  const connecting = client.connect("templated", { id: "red", labels: { wish: "red" } });
  await expect(connecting).rejects.toMatchObject({ code: "NOT_FOUND", reason: "no-candidates" });
  await one.endpoint({ name: "nse-literal", service: "templated", labels: { colour } });
  const connection = await client.connect("templated", { id: "literal" });
  expect(connection.networkServiceEndpointName).toBe("nse-literal");
});

test("CreateEndpointDuringRequest: an endpoint that makes another one when it is asked, and refuses, is passed over", async () => {
  const mesh = await startScenario();
  const [one, two] = await mesh.nodes("one", "two");
  await mesh.service({
    name: "on-demand",
    payload: "IP",
    matches: [
      { fallthrough: true, routes: [{ destinationSelector: { nodeName: "{{.nodeName}}", made: "true" } }] },
      { routes: [{ destinationSelector: { creator: "true" } }] },
    ],
  });
  const made: Promise<unknown>[] = [];
  const creator = await two.endpoint({ name: "creator", service: "on-demand", labels: { creator: "true" } });
  const named = new Map<string, Awaited<ReturnType<typeof one.endpoint>>>();
  creator.refuse((number) => {
    if (number === 1)
      made.push(
        one
          .endpoint({ name: "made", service: "on-demand", labels: { made: "true", nodeName: "one" } })
          .then((endpoint) => named.set("made", endpoint)),
      );
    return new NsmError("UNAVAILABLE", "not-me", "another endpoint is on its way");
  });
  const kept = (await one.client("nsc")).keep("on-demand");
  const connection = await kept.up();
  await Promise.all(made);
  expect(connection.networkServiceEndpointName).toBe("made");
  expect(hopsIn(connection)).toHaveLength(4);
  kept.wire.tell("refresh");
  await eventually("a refresh", () => named.get("made")?.counts.requests === 2);
  const another = await one.client("nsc-2");
  expect((await another.connect("on-demand")).networkServiceEndpointName).toBe("made");
  expect(named.get("made")?.counts.requests).toBe(3);
});

test("three endpoints of one pool give the same addresses when nobody tells them of one another", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  const client = await one.client("nsc");
  const addresses = [];
  for (const name of ["a", "b", "c"]) {
    await mesh.service({ name, payload: "IP" });
    await one.endpoint({ name: `nse-${name}`, service: name, prefixes: "172.16.0.96/29" });
    addresses.push((await client.connect(name, { id: name })).context?.ipContext?.srcIpAddrs);
  }
  expect(addresses).toEqual([["172.16.0.97/32"], ["172.16.0.97/32"], ["172.16.0.97/32"]]);
});

test("RestartDuringRefresh: a forwarder that dies while a refresh is with the endpoint, and is started again, fails it; the wire stays", async () => {
  const mesh = await startScenario();
  const node = await mesh.node("one");
  await node.forwarder("forwarder");
  const endpoint = await node.endpoint({ name: "nse", service: "service" });
  const kept = (await node.client("nsc")).keep("service");
  await kept.up();
  for (let round = 1; round <= 15; round++) {
    const { failures } = kept;
    const { requests } = endpoint.counts;
    endpoint.refuse((number) => {
      if (number === requests + 1) void node.killForwarder("forwarder");
      return undefined;
    });
    kept.wire.tell("refresh");
    await eventually("the refresh fails", () => kept.failures > failures);
    await node.forwarder("forwarder");
    await eventually(
      "the wire is refreshed by the new process",
      () => endpoint.counts.requests > requests + 1,
    );
  }
  expect(endpoint.counts).toMatchObject({ requests: 31, closes: 0 }); // nobody asked but for these
  expect(endpoint.counts.ids.size).toBe(1);
  expect(kept.ups).toHaveLength(1);
});

test("RestartDuringRefresh, endpoint: one that dies in the middle of a refresh fails it, and the wire heals", async () => {
  const [one] = await (await startScenario()).nodes("one");
  const kept = (await one.client("nsc")).keep("service");
  let dying = await one.endpoint({ name: "nse-0", service: "service" });
  await kept.up();
  for (let round = 1; round <= 5; round++) {
    const next = await one.endpoint({ name: `nse-${round}`, service: "service" });
    const victim = dying;
    victim.refuse(() => {
      void victim.kill();
      return new NsmError("UNAVAILABLE", "connection-lost", "it died");
    });
    kept.wire.tell("refresh");
    expect((await kept.up(round + 1)).networkServiceEndpointName).toBe(next.name);
    dying = next;
  }
  const settled = dying.counts.requests;
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(dying.counts.requests).toBe(settled); // all is well: nobody asks again
});

test("a reselect by the client's own request closes the old half and takes the labels that it brings", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  await mesh.service({
    name: "coloured",
    payload: "IP",
    matches: [{ routes: [{ destinationSelector: { colour: "{{.wish}}" } }] }],
  });
  const red = await one.endpoint({ name: "nse-red", service: "coloured", labels: { colour: "red" } });
  await one.endpoint({ name: "nse-blue", service: "coloured", labels: { colour: "blue" } });
  const client = await one.client("nsc");
  const first = await client.connect("coloured", { labels: { wish: "red" } });
  const { mechanism, ...wanted } = first;
  const moved = await client.request({
    connection: {
      ...wanted,
      networkServiceEndpointName: "",
      labels: { wish: "blue" },
      state: State.RESELECT_REQUESTED,
    },
    mechanismPreferences: mechanism === undefined ? [] : [mechanism],
  });
  expect(moved.networkServiceEndpointName).toBe("nse-blue");
  await eventually("the old half is closed", () => red.counts.closes === 1);
});

test("an endpoint that its owner takes out is asked no more", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  const endpoint = await one.endpoint({ name: "nse", service: "service" });
  await endpoint.unregister();
  const client = await one.client("nsc");
  await expect(client.connect("service")).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(endpoint.counts.requests).toBe(0);
  const query = create(NetworkServiceEndpointSchema, { name: "nse" });
  const found = [];
  for await (const each of mesh.registries.endpoints.find(
    { entry: query, watch: false },
    { signal: AbortSignal.timeout(5000) },
  ))
    found.push(each);
  expect(found).toEqual([]);
});
