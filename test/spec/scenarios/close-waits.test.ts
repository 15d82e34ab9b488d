/** Closes whose next hop is away: real chains in one process (docs/protocol.md, "Closes that wait"). */
import { expect, test } from "vitest";
import { eventually } from "../../support/netns.ts";
import { startScenario } from "./mesh.ts";

const start = async () => {
  const [one, two] = await (await startScenario()).nodes("one", "two");
  const near = await one.endpoint({ name: "near", service: "service", labels: { where: "near" } });
  const far = await two.endpoint({ name: "far", service: "service", labels: { where: "far" } });
  const client = await one.client("nsc");
  // Endpoints take turns: one wire to each.
  const wires = [await client.connect("service", { id: "a" }), await client.connect("service", { id: "b" })];
  expect([near, far].map(({ store }) => store.ids().size)).toEqual([1, 1]);
  const areClosed = () =>
    eventually("the endpoints have none", () => near.store.ids().size + far.store.ids().size === 0);
  return { one, two, near, far, client, wires, areClosed };
};

test("a forwarder that is started again passes on the Closes that waited for it, though it remembers nothing", async () => {
  const { one, client, wires, areClosed } = await start();
  await one.killForwarder("forwarder-one");
  for (const wire of wires) await client.close(wire);
  const again = await one.forwarder("forwarder-one");
  await areClosed();
  expect([one.manager.store.ids().size, again.dataplane.removed.length]).toEqual([0, 2]);
});

test("a manager of another node does so, too, and waits for the forwarder there", async () => {
  const { two, far, client, wires, areClosed } = await start();
  two.killManager();
  const outcomes = await Promise.allSettled(wires.map((wire) => client.close(wire)));
  const failed = outcomes.filter(({ status }) => status === "rejected");
  expect(failed).toMatchObject([{ reason: { code: "UNAVAILABLE", reason: "close-waits" } }]);
  expect(far.store.ids().size).toBe(1);
  await two.restart();
  await areClosed();
});
