/** Clients that are killed while a hop of their wires is away: what it has of them goes when it is back, long before the leases end. */
import { expect, test } from "vitest";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { devicesIn } from "../support/wires.ts";

/** Of the usual ten minutes of a lease; a Close is repeated every two seconds. */
const GONE_WITHIN_MS = 30_000;

const mesh = useMesh({
  endpoints: [
    { name: "near", service: "near", prefixes: "172.16.1.0/24" },
    { name: "far", node: "node2", service: "far", prefixes: "172.16.2.0/24" },
  ],
  clients: [{ name: "client", services: "kernel://near/nsm-1,kernel://far/nsm-2", started: false }],
});

const left = () => ["client", "near", "far"].flatMap((name) => devicesIn(mesh.namespace(`pod-${name}`)));
const startClient = async () => {
  mesh.start("client");
  await mesh.established("client", "nsm-1");
  await mesh.established("client", "nsm-2");
  expect(left()).toHaveLength(4);
};
const WAITS = "the next hop is away, its close waits";
const gone = () => eventually("every device is gone", () => left().length === 0, GONE_WITHIN_MS);

test.each([
  ["forwarder-node1", "forwarder serves", "nsmgr-node1", 4],
  ["nsmgr-node2", "manager serves", "forwarder-node1", 1],
  ["forwarder-node2", "forwarder serves", "nsmgr-node2", 1],
] as const)(
  "of a client that is killed while %s is down, nothing is left once that is back",
  async (name, serves, before, devices) => {
    await startClient();
    const said = fresh(mesh.daemon(before));
    await mesh.daemon(name).kill();
    await mesh.daemon("client").kill();
    await said(WAITS);
    expect(left()).toHaveLength(devices);
    await mesh.start(name).waitFor(serves);
    await gone();
  },
);

test("of a client that is killed while its forwarder is stopped, nothing is left once that goes on", async () => {
  await startClient();
  const forwarder = mesh.daemon("forwarder-node1");
  const said = fresh(mesh.daemon("nsmgr-node1"));
  forwarder.signal("SIGSTOP");
  await mesh.daemon("client").kill();
  await said(WAITS);
  expect(left()).toHaveLength(4);
  forwarder.signal("SIGCONT");
  await gone();
});
