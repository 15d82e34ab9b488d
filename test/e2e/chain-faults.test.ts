/**
 * A chain in use whose parts die: client, firewall, a link that passes on, gateway. Numbered datagrams that the firewall allows and
 * such that it denies are on their way all the time (docs/protocol.md, "Chaining").
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TABLE, counterOf } from "../../nse/firewall/script.ts";
import { chainService } from "../support/chains.ts";
import { expectNothingLeft, takeSettledInventory } from "../support/inventory.ts";
import type { Inventory } from "../support/inventory.ts";
import { fresh, startMesh } from "../support/mesh.ts";
import type { Mesh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { probe, startEcho, startStream } from "../support/udp.ts";
import type { Echo } from "../support/udp.ts";
import { devicesIn } from "../support/wires.ts";
import type { Workload } from "../support/workload.ts";

const GATEWAY = "172.16.9.0";
const CLIENT = "172.16.9.1";
const [ALLOWED, DENIED] = [8000, 7000];
const RULES = `
rules:
  - { name: allowed, action: allow, protocol: udp, ports: ${ALLOWED} }
  - { name: denied, action: deny, from: both }
`;
const COUNTER = ["nft", "list", "counter", "inet", TABLE, counterOf({ name: "denied" })] as const;
const HEALED_WITHIN_MS = 30_000;

const CHAIN = chainService("chain", "IP", ["firewall", "link", "gateway"]);

const folder = mkdtempSync(join(tmpdir(), "nsm-chain-"));
const rulesFile = join(folder, "rules.yaml");

const link = (name: string, app: "firewall" | "link", started = true) => ({
  name,
  service: "chain",
  kind: app === "firewall" ? ("firewall" as const) : ("passthrough" as const),
  env: { NSM_LABELS: `app:${app}`, ...(app === "firewall" && { NSM_ACL_CONFIG_PATH: rulesFile }) },
  started,
});

let before: Inventory;
let mesh: Mesh;
const ends = new AsyncDisposableStack();
/** What reached the gateway, and what reached the client. */
let allowed: Echo, denied: Echo, deniedBack: Echo;
let observer: Workload;

beforeAll(async () => {
  writeFileSync(rulesFile, RULES);
  before = await takeSettledInventory();
  mesh = await startMesh({
    nodes: 1,
    networkServices: CHAIN,
    endpoints: [
      link("firewall-a", "firewall"),
      link("firewall-b", "firewall", false),
      link("link-a", "link"),
      link("link-b", "link", false),
      {
        name: "gateway",
        service: "chain",
        prefixes: "172.16.9.0/24",
        env: { NSM_LABELS: "app:gateway" },
      },
    ],
    clients: [{ name: "client", services: "kernel://chain/nsm-1" }],
    workloads: ["observer"],
  });
  observer = await mesh.workload("observer", "node1");
  await mesh.established("client", "nsm-1");
  allowed = ends.use(startEcho(pod("gateway"), "0.0.0.0", ALLOWED));
  denied = ends.use(startEcho(pod("gateway"), "0.0.0.0", DENIED));
  deniedBack = ends.use(startEcho(pod("client"), "0.0.0.0", DENIED));
  const forbidden = [
    startStream(pod("client"), CLIENT, GATEWAY, DENIED),
    startStream(pod("gateway"), GATEWAY, CLIENT, DENIED),
  ];
  ends.defer(async () => void (await Promise.all(forbidden.map((stream) => stream.stop()))));
}, 120_000);
afterAll(async () => {
  await ends.disposeAsync();
  await mesh[Symbol.asyncDispose]();
  await expectNothingLeft(before);
  rmSync(folder, { recursive: true });
});

const pod = (name: string) => mesh.namespace(`pod-${name}`);
const wiresOf = (name: string) => devicesIn(pod(name)).map((device) => `${device.name} ${device.ifindex}`);
const passes = async () => (await probe(pod("client"), CLIENT, GATEWAY, ALLOWED)) === 3;

/** What has passed of the streams that are denied, once they are seen to end at this firewall. */
async function passed(firewall: string) {
  const dropped = () => Number(/\bpackets (\d+)/.exec(pod(firewall).exec(...COUNTER))?.[1]);
  const before = dropped();
  await eventually(`${firewall} drops packets`, () => dropped() > before + 2);
  return [denied.received, deniedBack.received];
}

/** Waits until packets pass by these, each with two wires, and nobody has a wire to one of the others. */
async function expectChain(...links: readonly string[]) {
  const wires = new Map([["client", 1], ["gateway", 1], ...links.map((name): [string, number] => [name, 2])]);
  await eventually(
    `the chain by ${links.join(" and ")}`,
    async () => [...wires].every(([name, count]) => wiresOf(name).length === count) && (await passes()),
    HEALED_WITHIN_MS,
  );
}

test("the firewall lets one stream pass, and none of the other two", async () => {
  await expectChain("firewall-a", "link-a");
  const { received } = allowed;
  expect(await passes()).toBe(true);
  expect(allowed.received).toBe(received + 3);
  expect(await passed("firewall-a")).toEqual([0, 0]);
});

test.for(["forwarder-node1", "nsmgr-node1", "forwarder-node1 nsmgr-node1 registry"])(
  "killed and started again under the chain: %s; no packet is lost and the devices are the same",
  async (names) => {
    const pods = ["client", "firewall-a", "link-a", "gateway"];
    const devices = pods.map(wiresOf);
    const stream = startStream(pod("client"), CLIENT, GATEWAY, ALLOWED);
    await mesh.restart(...names.split(" "));
    await areRegistered("forwarder-node1", "firewall-a", "link-a", "gateway");
    if (names.includes("forwarder"))
      await eventually(
        "the new forwarder has the three wires",
        () => mesh.daemon("forwarder-node1").log.filter(({ msg }) => msg === "wire adopted").length === 3,
        HEALED_WITHIN_MS,
      );
    const { sent, lost } = await stream.stop();
    expect(sent).toBeGreaterThan(50);
    expect(lost).toBe(0);
    expect(pods.map(wiresOf)).toEqual(devices);
    expect(await passed("firewall-a")).toEqual([0, 0]);
  },
);

/** Endpoints and forwarders register again by themselves, with a manager that is new. */
async function areRegistered(...expected: readonly string[]) {
  await eventually(
    `${expected.join(", ")} are registered`,
    async () => {
      const found = await observer.findEndpoints({}).catch(() => []);
      return expected.every((name) => found.some((each) => each.name === name));
    },
    HEALED_WITHIN_MS,
  );
}

test("a firewall that is killed is replaced by another one, and what it denied never passes meanwhile", async () => {
  const kept = wiresOf("gateway");
  mesh.start("firewall-b");
  await areRegistered("firewall-b");
  await mesh.daemon("firewall-a").kill();
  await eventually("the other firewall serves", () => wiresOf("firewall-b").length === 2, HEALED_WITHIN_MS);
  await expectChain("firewall-b", "link-a");
  expect(wiresOf("gateway")).toEqual(kept); // the link behind the firewall kept its own
  expect(await passed("firewall-b")).toEqual([0, 0]);
});

test("two links that are killed at once are replaced, a firewall among them, and nothing passes that is denied", async () => {
  mesh.start("firewall-a"); // where the rules of its earlier life still hold
  mesh.start("link-b");
  await areRegistered("firewall-a", "link-b");
  await Promise.all(["firewall-b", "link-a"].map((name) => mesh.daemon(name).kill()));
  await expectChain("firewall-a", "link-b");
  expect(await passed("firewall-a")).toEqual([0, 0]);
});

test("links that die while nobody can take their place are replaced once somebody can, and nothing passes meanwhile", async () => {
  const said = fresh(mesh.daemon("client"));
  await Promise.all(["firewall-a", "link-b"].map((name) => mesh.daemon(name).kill()));
  await said("wire is down, healing", HEALED_WITHIN_MS);
  mesh.start("link-a");
  await areRegistered("link-a");
  expect([denied.received, deniedBack.received]).toEqual([0, 0]);
  mesh.start("firewall-b");
  await areRegistered("firewall-b");
  await expectChain("firewall-b", "link-a");
  expect(await passed("firewall-b")).toEqual([0, 0]);
});

test("the pods of two links that end at once are left for others, too", async () => {
  mesh.start("firewall-a");
  mesh.start("link-b");
  await areRegistered("firewall-a", "link-b");
  await Promise.all(["firewall-b", "link-a"].map((name) => mesh.killPod(name)));
  await expectChain("firewall-a", "link-b");
  expect(await passed("firewall-a")).toEqual([0, 0]);
});

test("one Close of the client after all that leaves nothing in any pod", async () => {
  expect(await mesh.daemon("client").stop()).toBe(0);
  for (const name of ["firewall-a", "link-b", "gateway"])
    await eventually(`no wire in ${name}`, () => wiresOf(name).length === 0, HEALED_WITHIN_MS);
});
