/** Scenarios of healing (test/spec/README.md, 12.2 and 12.3): real chains in one process, the kernel left out. */
import { expect, test } from "vitest";
import { hopsIn } from "../../support/in-process.ts";
import { eventually } from "../../support/netns.ts";
import { startScenario } from "./mesh.ts";

test.for(["local", "remote"])(
  "HealEndpoint, %s: the client goes on with another endpoint, and its old connection object closes the new wire",
  async (where) => {
    const [one, two] = await (await startScenario()).nodes("one", "two");
    const place = where === "local" ? one : two;
    const dying = await place.endpoint({ name: "nse-1", service: "service" });
    const client = await one.client("nsc");
    const kept = client.keep("service");
    const first = await kept.up();
    expect(first.networkServiceEndpointName).toBe("nse-1");
    const next = await place.endpoint({ name: "nse-2", service: "service" });
    await dying.kill();
    expect((await kept.up(2)).networkServiceEndpointName).toBe("nse-2");
    expect(next.counts).toMatchObject({ requests: 1, closes: 0 });

    kept.wire.tell("refresh");
    await eventually("a refresh", () => next.counts.requests === 2);
    expect(next.counts.ids.size).toBe(1);
    await client.close(first);
    await eventually("the new wire is closed", () => next.counts.closes === 1);
  },
);

test.for(["local", "remote"])(
  "HealForwarder, %s: a forwarder that dies and does not come back is left for another one, at the latest after a refresh",
  async (where) => {
    const [one, two] = await (await startScenario()).nodes("two-forwarders", "two");
    const extra = await one.forwarder("forwarder-extra");
    const endpoint = await (where === "local" ? one : two).endpoint({ name: "nse", service: "service" });
    const kept = (await one.client("nsc")).keep("service");
    const first = await kept.up();
    const used = hopsIn(first)[2];
    const other = used === extra.name ? "forwarder-two-forwarders" : extra.name;
    await one.killForwarder(used ?? "");
    const now = () => kept.wire.connection ?? first;
    kept.wire.tell("refresh"); // packets pass all the time: nobody is in a hurry
    await eventually("the new path", () => hopsIn(now())[2] === other);
    expect(now().networkServiceEndpointName).toBe("nse");
    expect(endpoint.counts.requests).toBe(2);
    kept.wire.tell("refresh");
    await eventually("a refresh", () => endpoint.counts.requests === 3);
    expect(hopsIn(now())[2]).toBe(other);
  },
);

test("HealNSMgr, local restored: the wire is known to the new manager by a refresh, and closed once", async () => {
  const [one] = await (await startScenario()).nodes("one");
  const endpoint = await one.endpoint({ name: "nse", service: "service" });
  const kept = (await one.client("nsc")).keep("service");
  const first = await kept.up();
  await one.restart();
  await eventually("the refresh through the new manager", () => endpoint.counts.requests === 2);
  expect(kept.ups).toHaveLength(1); // the same wire all the time
  expect(kept.wire.connection?.path?.pathSegments.map(({ id }) => id)).toEqual(
    first.path?.pathSegments.map(({ id }) => id),
  );
  kept.wire.tell("refresh");
  await eventually("a refresh", () => endpoint.counts.requests === 3);
  await kept.stop();
  expect(endpoint.counts).toMatchObject({ requests: 3, closes: 1 });
});

test("HealNSMgr, remote restored: a refresh makes the wire known again, nobody closes it", async () => {
  const [one, two] = await (await startScenario()).nodes("one", "two");
  const endpoint = await two.endpoint({ name: "nse", service: "service" });
  const kept = (await one.client("nsc")).keep("service");
  await kept.up();
  await two.restart();
  await eventually("the refresh through the new manager", () => endpoint.counts.requests === 2);
  expect(kept.ups).toHaveLength(1);
  await kept.stop();
  expect(endpoint.counts.closes).toBe(1);
});

test("HealRegistry: with the registry away an existing wire refreshes, and once it is back a new client connects", async () => {
  const mesh = await startScenario();
  const [one] = await mesh.nodes("one");
  const endpoint = await one.endpoint({ name: "nse", service: "service" });
  const client = await one.client("nsc");
  const connection = await client.connect("service");
  mesh.setRegistry(false);
  const refreshed = await client.refresh(connection);
  expect(endpoint.counts).toMatchObject({ requests: 2, closes: 0 });
  mesh.setRegistry(true);
  const another = await one.client("nsc-2");
  await another.connect("service");
  expect(endpoint.counts.ids.size).toBe(2);
  await client.close(refreshed);
});

test("Close_RegistryDied: a close reaches forwarder and endpoint while the registry is away", async () => {
  const mesh = await startScenario();
  const [one, two] = await mesh.nodes("one", "two");
  const endpoint = await two.endpoint({ name: "nse", service: "service" });
  const client = await one.client("nsc");
  const connection = await client.connect("service");
  mesh.setRegistry(false);
  await client.close(connection);
  expect(endpoint.counts.closes).toBe(1);
});

test("CloseHeal: a client that stops while nobody can take the dead endpoint's place leaves nothing", async () => {
  const [one] = await (await startScenario()).nodes("one");
  const endpoint = await one.endpoint({ name: "nse", service: "service" });
  const kept = (await one.client("nsc")).keep("service");
  await kept.up();
  await endpoint.kill();
  await eventually("healing is tried", () => kept.failures > 0);
  await kept.stop();
  const asked = endpoint.counts.requests;
  await one.endpoint({ name: "late", service: "service" });
  expect(kept.ups).toHaveLength(1);
  expect(endpoint.counts.requests).toBe(asked);
});

test.for(["local", "remote"])(
  "ForwarderShouldBeSelectedCorrectlyOnNSMgrRestart, %s: through ten restarts the path names the same forwarder",
  async (where) => {
    const [one, two] = await (await startScenario()).nodes("one", "two");
    const place = where === "local" ? one : two;
    const endpoint = await place.endpoint({ name: "nse", service: "service" });
    const client = await one.client("nsc");
    let connection = await client.connect("service");
    const path = hopsIn(connection);
    for (let restart = 1; restart <= 10; restart++) {
      await place.restart();
      await place.forwarder(`additional-${restart}`);
      connection = await client.refresh(connection);
      expect(hopsIn(connection)).toEqual(path);
    }
    expect(endpoint.counts).toMatchObject({ requests: 11, closes: 0 });
    expect(endpoint.counts.ids.size).toBe(1);
  },
);

test.for(["none", "local", "remote", "both"])(
  "NsmgrRestart, %s: after restarts of managers a wire heals as ever, and its new half is closed once at the end",
  async (restarted) => {
    const mesh = await startScenario();
    const [one, two] = [await mesh.node("one"), await mesh.node("two")];
    const forwarders = [await one.forwarder("forwarder-one"), await two.forwarder("forwarder-two")];
    const closes = () => forwarders.map(({ counts }) => counts.closes);
    const dying = await two.endpoint({ name: "nse-1", service: "service" });
    const kept = (await one.client("nsc")).keep("service");
    const first = await kept.up();
    if (restarted === "local" || restarted === "both") await one.restart();
    if (restarted === "remote" || restarted === "both") await two.restart();
    const next = await two.endpoint({ name: "nse-2", service: "service" });
    await dying.kill();
    const healed = await kept.up(2);
    expect(healed.networkServiceEndpointName).toBe("nse-2");
    expect(healed.id).toBe(first.id);
    expect(closes()).toEqual([0, 0]); // both go on with the wire that they have
    kept.wire.tell("refresh");
    await eventually("a refresh", () => next.counts.requests === 2);
    expect(next.counts.closes).toBe(0);
    await kept.stop();
    expect(next.counts).toMatchObject({ requests: 2, closes: 1 });
    expect(closes()).toEqual([1, 1]);
  },
);

test("HealNSMgr, remote new: when the other node's manager dies for good, the wire goes to an endpoint on a third node", async () => {
  const [one, two, three] = await (await startScenario()).nodes("one", "two", "three");
  const lost = await two.endpoint({ name: "nse-1", service: "service" });
  const client = await one.client("nsc");
  const kept = client.keep("service");
  const first = await kept.up();
  expect(first.networkServiceEndpointName).toBe("nse-1");
  const next = await three.endpoint({ name: "nse-2", service: "service" });
  two.killManager();
  await lost.kill(); // the whole node
  kept.wire.tell("dead"); // its probes are not answered any more
  const healed = await kept.up(2);
  expect(healed.networkServiceEndpointName).toBe("nse-2");
  expect(next.counts).toMatchObject({ requests: 1, closes: 0 });
  await client.close(first); // the old connection object
  expect(next.counts.closes).toBe(1);
});
