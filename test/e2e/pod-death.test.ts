/** Pods that go with their network namespace, and clients that die when there is no manager to see it. */
import { expect, test } from "vitest";
import { expectNothingLeft, takeSettledInventory } from "../support/inventory.ts";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { wishFor } from "../support/wishes.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";

/** Of the usual ten minutes of a lease. */
const GONE_WITHIN_MS = 45_000;
/** Of clients that each end once. */
const PODS = ["pod-1", "pod-2", "pod-3"] as const;
/** Wires of one process. */
const MANY = 50;
/** When a process is killed after it asked; the answer comes after some tens of milliseconds. */
const DELAYS_MS = [0, 5, 15, 30, 60];
const ENDPOINTS = ["near", "far", "frames"] as const;
const EACH = "kernel://near/nsm-1,kernel://far/nsm-2,kernel://frames/nsm-3";

const mesh = useMesh({
  endpoints: [
    { name: "near", service: "near", prefixes: "172.16.1.0/24" },
    { name: "far", node: "node2", service: "far", prefixes: "172.16.2.0/24" },
    { name: "frames", node: "node2", service: "frames", prefixes: "172.16.3.0/24", payload: "ETHERNET" },
    { name: "first", service: "spare", prefixes: "172.16.4.0/24" },
    { name: "second", node: "node2", service: "spare", prefixes: "172.16.5.0/24", started: false },
    { name: "third", service: "spare", prefixes: "172.16.6.0/24", started: false },
    { name: "lonely", node: "node2", service: "lonely", prefixes: "172.16.7.0/24", started: false },
  ],
  workloads: ["operator", "guest"],
  pods: ["pod-operator", "pod-guest"],
  env: { NSM_OPERATOR_IDS: "/workload/operator" },
  clients: [
    ...[...PODS, "client"].map((name) => ({ name, services: EACH, started: false })),
    { name: "mover", services: "kernel://spare/nsm-1", started: false },
    { name: "partner", services: "kernel://lonely/nsm-1", started: false },
  ],
});

const devicesOf = (...names: readonly string[]) =>
  names.flatMap((name) => devicesIn(mesh.namespace(`pod-${name}`)));
const noneLeft = (...names: readonly string[]) =>
  eventually(`no device in ${names.join(", ")}`, () => devicesOf(...names).length === 0, GONE_WITHIN_MS);
const startClient = async (client: string) => {
  mesh.start(client);
  for (const name of ["nsm-1", "nsm-2", "nsm-3"]) await mesh.established(client, name);
};
const startManager = async () => {
  await mesh.start("nsmgr-node1").waitFor("manager serves");
};
/** Resolves when the manager of the clients' node knows of so many wires. */
const managerKnows = async (count: number) => {
  await using operator = await mesh.workload("operator", "pod-operator");
  const stream = await operator.monitor({});
  const seen = new Set<string>();
  await stream.waitFor(({ connections }) => {
    for (const id of Object.keys(connections)) seen.add(id);
    return seen.size === count;
  });
  await stream.stop();
};

test("of clients whose pods end at the same moment, nothing is left on either node", async () => {
  for (const pod of PODS) await startClient(pod);
  expect(devicesOf(...ENDPOINTS)).toHaveLength(3 * PODS.length);
  await Promise.all(PODS.map((pod) => mesh.killPod(pod)));
  await noneLeft(...ENDPOINTS);
});

test("a client that is killed after its manager was restarted is known to the new one", async () => {
  const before = await takeSettledInventory();
  await startClient("client");
  await mesh.daemon("nsmgr-node1").kill();
  await startManager();
  await managerKnows(3);
  expect(devicesOf("client", ...ENDPOINTS)).toHaveLength(6);
  await mesh.daemon("client").kill();
  await noneLeft("client", ...ENDPOINTS);
  await expectNothingLeft(before);
});

test("a client that is killed when there is no manager leaves nothing once there is one", async () => {
  await startClient("client");
  await mesh.daemon("nsmgr-node1").kill();
  await mesh.daemon("client").kill();
  await startManager();
  expect(devicesOf("client", ...ENDPOINTS)).toHaveLength(6);
  await noneLeft("client", ...ENDPOINTS);
});

test.for([1, 10, MANY])("T22: of %i wires of one process that is killed, nothing is left", async (count) => {
  const before = await takeSettledInventory();
  await using guest = await mesh.workload("guest", "pod-guest");
  const services = ["near", "far"];
  for (let i = 0; i < count; i += 5)
    await Promise.all(
      Array.from({ length: Math.min(5, count) }, (_, j) =>
        guest.request(
          wishFor(guest, {
            service: services[j % services.length] ?? "",
            id: `guest-${i + j}`,
            interfaceName: `nsm-${i + j}`,
          }),
        ),
      ),
    );
  expect(devicesOf("guest", ...ENDPOINTS)).toHaveLength(2 * count);
  await guest.kill();
  await noneLeft("guest", ...ENDPOINTS);
  await expectNothingLeft(before);
});

test("of processes that are killed while they ask, nothing is left, whatever had been made", async () => {
  const before = await takeSettledInventory();
  for (const service of ["near", "far"])
    for (const [i, delayMs] of DELAYS_MS.entries()) {
      await using guest = await mesh.workload("guest", "pod-guest");
      // Names of its own: the next one shall not take over what was left.
      const wish = { service, id: `guest-${service}-${i}`, interfaceName: `${service}-${i}` };
      const asked = guest.request(wishFor(guest, wish));
      const answered = asked.then(
        () => true,
        () => false,
      );
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      await guest.kill();
      await answered;
    }
  await noneLeft("guest", ...ENDPOINTS);
  await expectNothingLeft(before);
  expect(devicesOf("guest", ...ENDPOINTS)).toEqual([]);
});

test("a client whose endpoint's pod ends goes on with another one, on either node", async () => {
  mesh.start("mover");
  await mesh.established("mover", "nsm-1");
  for (const [victim, spare, target] of [
    ["first", "second", "172.16.5.0"],
    ["second", "third", "172.16.6.0"],
  ] as const) {
    await mesh.start(spare).waitFor(`endpoint ${spare} registered`);
    const said = fresh(mesh.daemon("mover"));
    await mesh.killPod(victim);
    await said(({ msg, nse }) => msg === "wire established" && nse === spare);
    expect(await pingFrom(mesh.namespace("pod-mover"), target)).toMatchObject({ received: 5 });
    expect(devicesOf("mover")).toHaveLength(1);
  }
});

test("of a wire whose two pods end at the same moment, nothing is left", async () => {
  await mesh.start("lonely").waitFor("endpoint lonely registered");
  mesh.start("partner");
  await mesh.established("partner", "nsm-1");
  expect(devicesOf("partner", "lonely")).toHaveLength(2);
  const forwarders = ["forwarder-node1", "forwarder-node2"].map((name) => fresh(mesh.daemon(name)));
  await Promise.all(["lonely", "partner"].map((pod) => mesh.killPod(pod)));
  await Promise.all(forwarders.map((said) => said("wire removed")));
});
