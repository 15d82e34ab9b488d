/** Closes whose next hop is away: real chains in one process (docs/protocol.md, "Closes that wait"). */
import { statSync } from "node:fs";
import { expect, test } from "vitest";
import type { Connection } from "../../../api/gen/connection_pb.js";
import type { FoundDevice } from "../../../forwarder/dataplane.ts";
import { NsmError } from "../../../sdk/errors.ts";
import { hopsIn } from "../../support/in-process.ts";
import { eventually } from "../../support/netns.ts";
import { chosenAnew, startScenario } from "./mesh.ts";

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

/** At the client's end of a wire, as the kernel shows it to a new forwarder. */
const deviceOf = ({ path }: Connection): FoundDevice => ({
  wireId: path?.pathSegments[2]?.id ?? "",
  side: "client",
  kind: "veth",
  netns: { pid: process.pid, inode: statSync("/proc/self/ns/net", { bigint: true }).ino },
  interfaceName: "nsm",
  ifindex: 1,
  binding: "",
});

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

test("a forwarder that was started again closes the half that it leaves, though it remembers nothing of it", async () => {
  const { one, near, far, client, wires, areClosed } = await start();
  await one.killForwarder("forwarder-one");
  const { dataplane } = await one.forwarder("forwarder-one");
  dataplane.devices = wires.map(deviceOf);
  // It begins to count turns anew, so each goes to the other's endpoint.
  const moved = [];
  for (const wire of wires.toReversed()) moved.push(await client.request(chosenAnew(wire)));
  expect(moved.map(hopsIn)).toEqual(wires.map(hopsIn));
  await eventually("the halves that were left are closed", () =>
    [near, far].every(({ store }) => store.ids().size === 1),
  );
  for (const wire of moved) await client.close(wire);
  await areClosed();
});

test("when the endpoint on the other node has ended as well, the hops there are found all the same", async () => {
  const { one, two, far, client, wires } = await start();
  await one.killForwarder("forwarder-one");
  await one.forwarder("forwarder-one");
  await far.kill();
  expect(two.manager.store.ids().size).toBe(1);
  await Promise.allSettled(wires.map((wire) => client.close(wire))); // that the endpoint has ended is told
  await eventually("the manager there has none", () => two.manager.store.ids().size === 0);
});

test("a manager that was started again has what the forwarder of before made closed, when another one takes the wire", async () => {
  const node = await (await startScenario()).node("one");
  const forwarders = [await node.forwarder("f1"), await node.forwarder("f2")];
  await node.endpoint({ name: "nse", service: "service" });
  const client = await node.client("nsc");
  const wire = await client.connect("service");
  const [used, other] = hopsIn(wire)[2] === "f1" ? forwarders : forwarders.toReversed();
  await node.restart();
  if (used !== undefined) used.dataplane.failure = new NsmError("INTERNAL", "broken", "the kernel refuses");
  const moved = await client.request(chosenAnew(wire));
  expect(hopsIn(moved)[2]).toBe(other?.name);
  await eventually("the forwarder of before has none", () => used?.store.ids().size === 0);
  expect(other?.store.ids().size).toBe(1);
});
