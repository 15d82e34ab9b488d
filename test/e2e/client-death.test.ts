/** Clients that are killed without a word: their wires go, here and on other nodes, long before their leases end. */
import { expect, test } from "vitest";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { devicesIn, withoutOwner } from "../support/wires.ts";

/** For a client to be started again on a busy machine. */
const GRACE_MS = 5000;
/** Of the usual ten minutes of a lease. */
const GONE_WITHIN_MS = 30_000;
const RESTARTS = 5;
/** As many as one client may have. */
const MANY = 16;

const far = { name: "far", node: "node2", service: "far", prefixes: "172.16.2.0/24" } as const;
const many = Array.from({ length: MANY }, (_, i) => `kernel://near/nsm-${i}`).join(",");

const mesh = useMesh({
  endpoints: [{ name: "near", service: "near", prefixes: "172.16.1.0/24" }, far],
  clients: [
    { name: "client", services: "kernel://near/nsm-1,kernel://far/nsm-2", started: false },
    { name: "crowd", services: many, started: false },
  ],
  clientGrace: `${GRACE_MS}ms`,
});

const left = () =>
  ["pod-client", "pod-crowd", "pod-near", "pod-far"].flatMap((pod) => devicesIn(mesh.namespace(pod)));
const allGone = () => eventually("every device is gone", () => left().length === 0, GONE_WITHIN_MS);

test("of a client that is killed, nothing is left on its node or another", async () => {
  mesh.start("client");
  await mesh.established("client", "nsm-1");
  await mesh.established("client", "nsm-2");
  expect(left()).toHaveLength(4);
  await mesh.daemon("client").kill();
  await allGone();
  await mesh.expectAsStarted();
});

test(`of ${MANY} wires of one client, too`, async () => {
  mesh.start("crowd");
  for (let i = 0; i < MANY; i++) await mesh.established("crowd", `nsm-${i}`);
  expect(left()).toHaveLength(2 * MANY);
  await mesh.daemon("crowd").kill();
  await allGone();
  await mesh.expectAsStarted();
});

test("T22: a client that is killed and started again within the grace keeps devices and addresses, every time", async () => {
  mesh.start("client");
  const areThere = async () => {
    await mesh.established("client", "nsm-1");
    await mesh.established("client", "nsm-2");
  };
  await areThere();
  const devices = left().map(withoutOwner);
  for (let restart = 0; restart < RESTARTS; restart++) {
    await mesh.restart("client");
    await areThere();
    expect(left().map(withoutOwner)).toEqual(devices);
  }
  await new Promise((resolve) => setTimeout(resolve, GRACE_MS + 1000));
  expect(left().map(withoutOwner)).toEqual(devices);
  expect(await mesh.daemon("client").stop()).toBe(0);
  await allGone();
  await mesh.expectAsStarted();
});
