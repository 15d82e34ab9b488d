/** Scenarios of the choice of forwarders (test/spec/README.md, 12.4 and 12.5): real chains in one process. */
import { expect, test } from "vitest";
import { NsmError } from "../../../sdk/errors.ts";
import { hopsIn } from "../../support/in-process.ts";
import { eventually } from "../../support/netns.ts";
import { startScenario } from "./mesh.ts";

/** What makes a manager try another forwarder. */
const broken = () => new NsmError("INTERNAL", "broken", "the endpoint cannot do it");

test("CloseAfterError: refreshes that fail leave the wire as it is, and the client's close is the only one", async () => {
  const [one] = await (await startScenario()).nodes("one");
  const endpoint = await one.endpoint({ name: "nse", service: "service" });
  endpoint.refuse((number) => (number === 1 ? undefined : broken()));
  const kept = (await one.client("nsc")).keep("service");
  await kept.up();
  kept.wire.tell("refresh");
  await eventually("three refreshes fail", () => kept.failures >= 3);
  expect(endpoint.counts.ids.size).toBe(1);
  expect(endpoint.counts.closes).toBe(0);
  expect(kept.ups).toHaveLength(1);
  await kept.stop();
  expect(endpoint.counts.closes).toBe(1);
});

test("ChangeForwarderOnClose: the manager walks through forwarders until one serves; a close forgets which one it was", async () => {
  const node = await (await startScenario()).node("one");
  const forwarders = await Promise.all(
    Array.from({ length: 10 }, (_, i) => node.forwarder(`forwarder-${i + 1}`)),
  );
  const endpoint = await node.endpoint({ name: "nse", service: "service" });
  endpoint.refuse((number) => (number <= 5 ? broken() : undefined));
  const client = await node.client("nsc");
  const first = await client.connect("service");
  expect(endpoint.counts.requests).toBe(6);
  expect(endpoint.counts.ids.size).toBe(6); // each forwarder has a segment of its own
  expect(forwarders.filter(({ counts }) => counts.requests > 0)).toHaveLength(6);
  const used = hopsIn(first)[2];
  expect(hopsIn(await client.refresh(first))[2]).toBe(used);
  await client.close(first);

  // One of three serves: the wire of the same id comes to another forwarder, which it did not while it was there.
  endpoint.refuse((number) => (number % 3 === 0 ? undefined : broken()));
  let other: string | undefined;
  for (let round = 0; round < 10 && (other === undefined || other === used); round++) {
    const again = await client.connect("service");
    expect(again.id).toBe(first.id);
    other = hopsIn(again)[2];
    await client.close(again);
  }
  expect(other).not.toBe(used);
});

test("ChangeForwarderOnDeath: when the forwarder died, choosing anew takes another one and the refreshes stay with it", async () => {
  const node = await (await startScenario()).node("one");
  await node.forwarder("forwarder-1");
  await node.forwarder("forwarder-2");
  const endpoint = await node.endpoint({ name: "nse", service: "service" });
  const kept = (await node.client("nsc")).keep("service");
  const first = await kept.up();
  const used = hopsIn(first)[2] ?? "";
  await node.killForwarder(used);
  kept.wire.tell("down");
  const healed = await kept.up(2);
  const other = used === "forwarder-1" ? "forwarder-2" : "forwarder-1";
  expect(hopsIn(healed)[2]).toBe(other);
  expect(healed.networkServiceEndpointName).toBe("nse");
  expect(healed.path?.pathSegments[1]).toMatchObject({ id: first.path?.pathSegments[1]?.id });
  for (const requests of [3, 4]) {
    kept.wire.tell("refresh");
    await eventually("a refresh", () => endpoint.counts.requests === requests);
  }
  expect(hopsIn(kept.wire.connection ?? healed)[2]).toBe(other);
  await kept.stop();
  expect(endpoint.counts.closes).toBe(1);
});

test("ChangeRemoteForwarderOnDeath: the other node goes on with another forwarder", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  const two = await mesh.node("two");
  await two.forwarder("forwarder-1");
  await two.forwarder("forwarder-2");
  const endpoint = await two.endpoint({ name: "nse", service: "service" });
  const kept = (await one.client("nsc")).keep("service");
  const used = hopsIn(await kept.up())[4] ?? "";
  await two.killForwarder(used);
  kept.wire.tell("down");
  const other = used === "forwarder-1" ? "forwarder-2" : "forwarder-1";
  const healed = await kept.up(2);
  expect(hopsIn(healed)[4]).toBe(other);
  expect(healed.networkServiceEndpointName).toBe("nse");
  kept.wire.tell("refresh");
  await eventually("a refresh", () => endpoint.counts.requests === 3);
  expect(hopsIn(kept.wire.connection ?? healed)[4]).toBe(other);
});

test.for(["local", "remote"])(
  "a forwarder that is gone for good is left without anybody's word, and the endpoint is kept: %s",
  async (where) => {
    const mesh = await startScenario();
    const [one, two] = [await mesh.node("one"), await mesh.node("two")];
    const [dying, serving, hop] = where === "local" ? [one, one, 2] : [two, two, 4];
    if (where === "remote") await one.forwarder("forwarder-one");
    await dying.forwarder("forwarder-1");
    await dying.forwarder("forwarder-2");
    await serving.endpoint({ name: "nse", service: "service" });
    await serving.endpoint({ name: "another", service: "service" });
    const kept = (await one.client("nsc")).keep("service");
    const first = await kept.up();
    const used = hopsIn(first)[hop] ?? "";
    await dying.killForwarder(used);
    const other = used === "forwarder-1" ? "forwarder-2" : "forwarder-1";
    await eventually("the other forwarder", () => hopsIn(kept.wire.connection ?? first)[hop] === other);
    expect(kept.wire.connection?.networkServiceEndpointName).toBe(first.networkServiceEndpointName);
    await kept.stop();
  },
);

test("Should_KeepSelectedForwarder: a wire stays with its forwarder however many appear", async () => {
  const node = await (await startScenario()).node("one");
  await node.forwarder("forwarder-1");
  await node.endpoint({ name: "nse", service: "service" });
  const client = await node.client("nsc");
  let connection = await client.connect("service");
  for (let more = 2; more <= 6; more++) {
    await node.forwarder(`forwarder-${more}`);
    connection = await client.refresh(connection);
    expect(hopsIn(connection)[2]).toBe("forwarder-1");
  }
});

test.for(["local", "remote"])(
  "Point2MultiPoint, %s: the labels of the match choose between forwarders for one peer and for many",
  async (where) => {
    const mesh = await startScenario();
    const [one, two] = [await mesh.node("one"), await mesh.node("two")];
    for (const node of [one, two]) {
      await node.forwarder(`p2p-${node.name}`, { p2p: "true" });
      await node.forwarder(`p2mp-${node.name}`, { p2mp: "true" });
    }
    await mesh.service({ name: "plain", payload: "IP" });
    await mesh.service({
      name: "multi",
      payload: "IP",
      matches: [{ routes: [{}], metadata: { labels: { p2mp: "true" } } }],
    });
    const place = where === "local" ? one : two;
    await place.endpoint({ name: "nse-plain", service: "plain" });
    await place.endpoint({ name: "nse-multi", service: "multi" });
    const client = await one.client("nsc");
    const multi = hopsIn(await client.connect("multi", { id: "multi" })).filter((name) => /p2m?p/.test(name));
    expect(multi).toEqual(where === "local" ? ["p2mp-one"] : ["p2mp-one", "p2mp-two"]);
    const plain = hopsIn(await client.connect("plain", { id: "plain" }));
    expect(plain.filter((name) => /p2m?p/.test(name))).toHaveLength(where === "local" ? 1 : 2);
  },
);
