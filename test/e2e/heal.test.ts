/** Endpoints that die: their clients go on with another one, or with the same once it is back. */
import { beforeAll, expect, test } from "vitest";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, pingFrom } from "../support/wires.ts";

/** For a death to be seen, another endpoint to be asked and the wire to be made. */
const HEALED_WITHIN_MS = 5000;

const mesh = useMesh({
  endpoints: [
    { name: "here", service: "echo", prefixes: "172.16.1.0/24" },
    { name: "there", node: "node2", service: "echo", prefixes: "172.16.2.0/24", started: false },
  ],
  clients: [{ name: "client", services: "kernel://echo/nsm-1", started: false }],
});
beforeAll(async () => {
  mesh.start("client");
  await mesh.established("client", "nsm-1");
});

/** Kills an endpoint's process, whose namespace lives on, and waits until the client says that it has a wire to `next`. */
async function killAndHeal(victim: string, next: string): Promise<void> {
  const said = fresh(mesh.daemon("client"));
  await mesh.daemon(victim).kill();
  await said(({ msg, nse }) => msg === "wire established" && nse === next, HEALED_WITHIN_MS);
}

async function expectWireTo(endpoint: string, kind: RegExp, target: string): Promise<void> {
  expect(deviceIn(mesh.namespace("pod-client"), "nsm-1").kind).toMatch(kind);
  expect(devicesIn(mesh.namespace("pod-client"))).toHaveLength(1);
  expect(devicesIn(mesh.namespace(`pod-${endpoint}`))).toHaveLength(1);
  expect(await pingFrom(mesh.namespace("pod-client"), target)).toMatchObject({ received: 5 });
}

/** Waits for it. */
async function devicesLeftOf(endpoint: string): Promise<readonly unknown[]> {
  const left = () => devicesIn(mesh.namespace(`pod-${endpoint}`));
  await eventually(`no device in the namespace of ${endpoint}`, () => left().length === 0);
  return left();
}

test("a client whose endpoint is killed goes on with one on another node", async () => {
  mesh.start("there");
  await mesh.daemon("there").waitFor("endpoint there registered");
  await killAndHeal("here", "there");
  await expectWireTo("there", /^(wireguard|tun)$/, "172.16.2.0");
  expect(await devicesLeftOf("here")).toEqual([]);
});

test("a client whose only endpoint is killed gets its wire back once that endpoint is back", async () => {
  const said = fresh(mesh.daemon("client"));
  await mesh.daemon("there").kill();
  await said("wire is down, healing", HEALED_WITHIN_MS);
  // A wire that works badly is better than none: it stays until another one takes its place.
  expect(devicesIn(mesh.namespace("pod-client"))).toHaveLength(1);
  mesh.start("there");
  await said(({ msg, nse }) => msg === "wire established" && nse === "there", 2 * HEALED_WITHIN_MS);
  await expectWireTo("there", /^(wireguard|tun)$/, "172.16.2.0");
});

test("a client whose endpoint on another node is killed goes on with one on its own", async () => {
  mesh.start("here");
  await mesh.daemon("here").waitFor("endpoint here registered");
  await killAndHeal("there", "here");
  await expectWireTo("here", /^veth$/, "172.16.1.0");
  expect(await devicesLeftOf("there")).toEqual([]);
});

test("after all the deaths nothing is left of the client's wires", async () => {
  expect(await mesh.daemon("client").stop()).toBe(0);
  mesh.start("there"); // takes the socket over that its killed process left
  await mesh.daemon("there").waitFor("endpoint there registered");
  expect(await mesh.daemon("there").stop()).toBe(0);
  await mesh.expectAsStarted();
});
