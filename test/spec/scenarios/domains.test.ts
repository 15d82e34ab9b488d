/** Scenarios of several domains (test/spec/README.md, 12.7): real chains, registries and proxies in one process. */
import { expect, onTestFinished, test } from "vitest";
import type { Connection } from "../../../api/gen/connection_pb.js";
import { startDomains } from "../../support/in-process-domains.ts";
import { hopsIn } from "../../support/in-process.ts";
import { eventually } from "../../support/netns.ts";

async function start<const N extends string>(...names: readonly N[]) {
  const started = await startDomains(...names);
  onTestFinished(() => started[Symbol.asyncDispose]());
  return started.domains;
}

const idsIn = ({ path }: Connection) => path?.pathSegments.map(({ name, id }) => [name, id]);

test("two domains: eight segments, names keep their domain, request, refresh and close reach the endpoint once each", async () => {
  const { east, west } = await start("east", "west");
  await west.service({ name: "service", payload: "IP" });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  const endpoint = await there.endpoint({ name: "nse", service: "service" });
  const client = await here.client("nsc");

  const connection = await client.connect("service@west");
  expect(hopsIn(connection)).toEqual([
    "nsc",
    "nsmgr-one",
    "forwarder-one",
    "nsmgr-proxy-east",
    "nsmgr-proxy-west",
    "nsmgr-two",
    "forwarder-two",
    "nse",
  ]);
  expect(connection).toMatchObject({
    networkService: "service@west",
    networkServiceEndpointName: "nse@west",
    payload: "IP",
  });
  const refreshed = await client.refresh(connection);
  expect(idsIn(refreshed)).toEqual(idsIn(connection));
  expect(refreshed.networkServiceEndpointName).toBe("nse@west");
  await client.close(refreshed);
  expect(endpoint.counts).toMatchObject({ requests: 2, closes: 1 });
  expect(endpoint.counts.ids.size).toBe(1);
});

test("two endpoints on two nodes of the other domain are both reached", async () => {
  const { east, west } = await start("east", "west");
  await west.service({ name: "service", payload: "IP" });
  const [here] = await east.nodes("one");
  const [two, three] = await west.nodes("two", "three");
  const endpoints = [
    await two.endpoint({ name: "nse-2", service: "service" }),
    await three.endpoint({ name: "nse-3", service: "service" }),
  ];
  const client = await here.client("nsc");
  const connections = [
    await client.connect("service@west", { id: "a" }),
    await client.connect("service@west", { id: "b" }),
  ];
  expect(endpoints.map(({ counts }) => counts.requests)).toEqual([1, 1]);
  for (const connection of connections) await client.close(connection);
  expect(endpoints.map(({ counts }) => counts.closes)).toEqual([1, 1]);
});

test("the rules of a service hold for clients of other domains", async () => {
  const { east, west } = await start("east", "west");
  await west.service({
    name: "service",
    payload: "IP",
    matches: [{ sourceSelector: { app: "allowed" }, routes: [{ destinationSelector: { app: "nse" } }] }],
  });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  const endpoint = await there.endpoint({ name: "nse", service: "service", labels: { app: "nse" } });
  const client = await here.client("nsc");
  await expect(client.connect("service@west", { id: "a", labels: { app: "other" } })).rejects.toThrow(
    "service@west",
  );
  expect(endpoint.counts.requests).toBe(0);
  await client.connect("service@west", { id: "b", labels: { app: "allowed" } });
  expect(endpoint.counts.requests).toBe(1);
});

test("a floating domain: an endpoint of one domain is found by clients of another under a third one's name", async () => {
  const { east, west, floating } = await start("east", "west", "floating");
  await floating.service({ name: "service", payload: "IP" });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  const endpoint = await there.endpoint({ name: "nse@floating", service: "service@floating" });
  const client = await here.client("nsc");
  const connection = await client.connect("service@floating");
  expect(hopsIn(connection)).toHaveLength(8);
  expect(hopsIn(connection)).not.toContain("nsmgr-proxy-floating");
  expect(connection.networkServiceEndpointName).toBe("nse@floating");
  await client.close(await client.refresh(connection));
  expect(endpoint.counts).toMatchObject({ requests: 2, closes: 1 });
});

test.for(["east", "west"] as const)(
  "a proxy that was restarted in %s serves the wires of before",
  async (which) => {
    const { east, west } = await start("east", "west");
    await west.service({ name: "service", payload: "IP" });
    const [here] = await east.nodes("one");
    const [there] = await west.nodes("two");
    const endpoint = await there.endpoint({ name: "nse", service: "service" });
    const client = await here.client("nsc");
    const kept = client.keep("service@west");
    await kept.up();
    const domain = which === "east" ? east : west;
    domain.killProxy();
    await domain.startProxy();
    kept.wire.tell("refresh");
    await eventually("a refresh", () => endpoint.counts.requests >= 2);
    await kept.stop();
    expect(endpoint.counts.closes).toBe(1);
    expect(endpoint.counts.ids.size).toBe(1);
  },
);

test("an endpoint of the other domain that dies is replaced by another", async () => {
  const { east, west } = await start("east", "west");
  await west.service({ name: "service", payload: "IP" });
  const [here] = await east.nodes("one");
  const [two, three] = await west.nodes("two", "three");
  const first = await two.endpoint({ name: "nse-2", service: "service" });
  const client = await here.client("nsc");
  const kept = client.keep("service@west");
  const before = await kept.up();
  expect(before.networkServiceEndpointName).toBe("nse-2@west");
  const second = await three.endpoint({ name: "nse-3", service: "service" });
  await first.kill();
  const after = await kept.up(2);
  expect(after.networkServiceEndpointName).toBe("nse-3@west");
  await kept.stop();
  expect(second.counts.closes).toBe(1);
});

test("names of a domain that nobody knows are not found, at once", async () => {
  const { east } = await start("east", "west");
  const [here] = await east.nodes("one");
  const client = await here.client("nsc");
  await expect(client.connect("service@nowhere")).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("payload ETHERNET does not leave its domain unencrypted, and nothing of it is left", async () => {
  const { east, west } = await start("east", "west");
  await west.service({ name: "lan", payload: "ETHERNET" });
  const [here, there] = [await east.node("one"), await west.node("two")];
  const forwarders = [await here.forwarder("forwarder-one"), await there.forwarder("forwarder-two")];
  const endpoint = await there.endpoint({ name: "nse", service: "lan" });
  const client = await here.client("nsc");
  await expect(client.connect("lan@west")).rejects.toMatchObject({
    code: "FAILED_PRECONDITION",
    reason: "unencrypted",
    message: expect.stringContaining("NSM_ALLOW_UNENCRYPTED_DOMAINS"),
  });
  expect(endpoint.counts.requests).toBe(0);
  for (const { dataplane } of forwarders) expect(dataplane.present.size).toBe(0);
});
