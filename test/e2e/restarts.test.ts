/** Daemons killed and started again while packets pass: the wires do not notice, and are refreshed by the new processes. */
import { beforeAll, expect, test } from "vitest";
import { expectNothingLeft, takeSettledInventory } from "../support/inventory.ts";
import type { Inventory } from "../support/inventory.ts";
import { fresh } from "../support/mesh.ts";
import type { Workload } from "../support/workload.ts";
import type { NodeName } from "../../cli/demo/topology.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, hostOf, pingFrom, startTraffic, withoutOwner } from "../support/wires.ts";
import type { Device } from "../support/wires.ts";

/** Far longer than all daemons together need to start on a busy machine; test/e2e/rotation.test.ts has short leases. */
const TOKEN_LIFE_MS = 120_000;
const endpoints = [
  { name: "near", service: "near", prefixes: "172.16.1.0/24" },
  { name: "far", node: "node2", service: "far", prefixes: "172.16.2.0/24" },
  { name: "lan", node: "node2", service: "lan", payload: "ETHERNET", prefixes: "172.16.3.0/24" },
] as const;
const services = "kernel://near/nsm-1,kernel://far/nsm-2,kernel://lan/nsm-3";
const env = { NSM_REQUEST_TIMEOUT: "2s" };

let before: Inventory;
let observer: Workload;
const mesh = useMesh({
  endpoints,
  clients: [
    { name: "client", services, env, started: false },
    { name: "visitor", services, env, started: false },
  ],
  workloads: ["observer"],
  tokenLifetime: `${TOKEN_LIFE_MS}ms`,
  clientGrace: `${TOKEN_LIFE_MS}ms`,
});
beforeAll(async () => {
  observer = await mesh.workload("observer", "node1");
  before = await takeSettledInventory();
  mesh.start("client");
  // On a busy machine a first Request may be given up, and the second one get other addresses.
  for (const wire of wires) {
    const { peerAddresses } = await mesh.established("client", wire.interface);
    wire.source = hostOf(deviceIn(mesh.namespace("pod-client"), wire.interface).addresses);
    wire.target = hostOf(peerAddresses);
  }
  await eventually("each wire has two ends", () => devices().length === 2 * wires.length);
});

const wires = endpoints.map(({ name }, i) => ({
  interface: `nsm-${i + 1}`,
  pod: `pod-${name}`,
  source: "",
  target: "",
}));

function devices(): readonly Device[] {
  const pods = ["pod-client", ...wires.map(({ pod }) => pod)];
  return pods.flatMap((pod) => devicesIn(mesh.namespace(pod)));
}

/** All ends of the client's wires: index, name, alias (the wire's id and whose it is) and addresses. */
function ends(): readonly Device[] {
  return devices().map(withoutOwner);
}

function startAllTraffic() {
  const from = mesh.namespace("pod-client");
  return wires.map(({ pod, source, target }) =>
    startTraffic({ from, source, to: mesh.namespace(pod), target }),
  );
}

/** How long each restart takes until everybody knows the wires again. */
const ADOPTED_WITHIN_MS = 20_000;

/** Endpoints and forwarders register again by themselves. */
async function isRegisteredAgain(): Promise<void> {
  const names = (node: NodeName) =>
    observer.findEndpoints({}, { url: mesh.managerUrl(node) }).then(
      (found) => found.map(({ name }) => name),
      (): string[] => [],
    );
  const expected = [...endpoints.map(({ name }) => name), "forwarder-node1", "forwarder-node2"];
  await eventually(
    "everybody is registered again",
    async () => {
      const [one, two] = await Promise.all([names("node1"), names("node2")]);
      return expected.every((name) => one.includes(name) && two.includes(name));
    },
    ADOPTED_WITHIN_MS,
  );
}

/** Resolves when the new processes serve the wires again. */
async function isKnownAgain(victims: readonly string[]): Promise<void> {
  await isRegisteredAgain();
  for (const victim of victims) {
    const daemon = mesh.daemon(victim);
    if (victim.startsWith("forwarder"))
      await eventually(
        `${victim} adopts its wires`,
        () =>
          daemon.log.filter(({ msg }) => msg === "wire adopted").length === (victim.endsWith("1") ? 3 : 2),
        ADOPTED_WITHIN_MS,
      );
    if (victim === "client") for (const { interface: name } of wires) await mesh.established("client", name);
  }
}

test.for([
  "forwarder-node1",
  "forwarder-node2",
  "nsmgr-node1",
  "nsmgr-node2",
  "registry",
  "nsmgr-node1 registry",
  "forwarder-node1 nsmgr-node1",
  "client",
  "forwarder-node1 forwarder-node2 nsmgr-node1 nsmgr-node2 registry",
])("killed and started again: %s; no packet is lost and the devices are the same", async (names) => {
  const victims = names.split(" ");
  const devices = ends();
  expect(devices).toHaveLength(6);
  const traffic = startAllTraffic();
  const pings = wires.map(({ target }) => pingFrom(mesh.namespace("pod-client"), target, 60));
  await mesh.restart(...victims);
  await isKnownAgain(victims);

  for (const result of await Promise.all(pings)) expect(result).toMatchObject({ sent: 60, received: 60 });
  for (const stream of traffic) expect(await stream.stop()).toMatchObject({ lost: 0 });
  expect(ends()).toEqual(devices);
});

test("a new client is served after all the restarts, and its end takes nothing of the first one's", async () => {
  const devices = ends();
  mesh.start("visitor");
  for (const { interface: name } of wires) {
    const { peerAddresses } = await mesh.established("visitor", name);
    const target = hostOf(peerAddresses);
    expect(await pingFrom(mesh.namespace("pod-visitor"), target)).toMatchObject({ received: 5 });
  }
  expect(await mesh.daemon("visitor").stop()).toBe(0);
  await eventually("only the first client's devices are left", () => ends().length === devices.length);
  expect(ends()).toEqual(devices);
});

test("nothing is left of the wires when their client stops", async () => {
  const said = fresh(mesh.daemon("client"));
  expect(await mesh.daemon("client").stop()).toBe(0);
  await said("wire closed");
  await expectNothingLeft(before);
});
