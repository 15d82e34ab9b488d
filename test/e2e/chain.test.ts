/** A chain of endpoints on one node: client, three links that pass on, and a gateway (docs/protocol.md, "Chaining"). */
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectNothingLeft, takeSettledInventory } from "../support/inventory.ts";
import type { Inventory } from "../support/inventory.ts";
import { startMesh } from "../support/mesh.ts";
import type { Mesh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";

const LINKS = ["link-1", "link-2", "link-3"];
const hop = (from: string, to: string) =>
  `    - { source_selector: { app: ${from} }, routes: [{ destination_selector: { app: ${to} } }] }`;
const CHAIN = `kind: NetworkService
metadata: { name: chain }
spec:
  payload: IP
  matches:
${hop("link-1", "link-2")}
${hop("link-2", "link-3")}
${hop("link-3", "gateway")}
    - { routes: [{ destination_selector: { app: link-1 } }] }
`;

const link = (name: string, app: string, started = true) => ({
  name,
  service: "chain",
  kind: "passthrough" as const,
  env: { NSM_LABELS: `app:${app}` },
  started,
});

let before: Inventory;
let mesh: Mesh;
beforeAll(async () => {
  before = await takeSettledInventory();
  mesh = await startMesh({
    nodes: 1,
    networkServices: CHAIN,
    endpoints: [
      ...LINKS.map((name) => link(name, name)),
      link("link-2b", "link-2", false),
      {
        name: "gateway",
        service: "chain",
        prefixes: "172.16.9.0/24,2001:db8:9::/112",
        env: { NSM_LABELS: "app:gateway" },
      },
    ],
    clients: [{ name: "client", services: "kernel://chain/nsm-1" }],
  });
}, 120_000);
afterAll(async () => {
  await mesh[Symbol.asyncDispose]();
  await expectNothingLeft(before);
});

const wiresOf = (pod: string) =>
  devicesIn(mesh.namespace(`pod-${pod}`)).map(({ name, ifindex }) => `${name} ${ifindex}`);

test("PassThroughLocal: the client's path has four segments a link, and packets pass both ways", async () => {
  const { path } = await mesh.established("client", "nsm-1");
  const hops = ["nsmgr-node1", "forwarder-node1"];
  expect(path).toEqual(["client", ...[...LINKS, "gateway"].flatMap((name) => [...hops, name])]);
  expect(await pingFrom(mesh.namespace("pod-client"), "172.16.9.0")).toMatchObject({ received: 5 });
  expect(await pingFrom(mesh.namespace("pod-client"), "2001:db8:9::")).toMatchObject({ received: 5 });
});

test("a link that is killed is replaced by another of its labels, and the other wires stay", async () => {
  mesh.start("link-2b");
  await mesh.daemon("link-2b").waitFor("endpoint link-2b registered");
  const pods = ["client", "link-1", "link-3", "gateway"];
  const kept = new Map(pods.map((pod) => [pod, wiresOf(pod)]));
  await mesh.daemon("link-2").kill();
  // Who is dead has no wires any more, or an old one at the most that leads nowhere.
  await eventually("link-2b has two wires", () => wiresOf("link-2b").length === 2, 20_000);
  await eventually(
    "the wire to link-2 is gone",
    () =>
      !wiresOf("link-1").some(
        (wire) => kept.get("link-1")?.includes(wire) === true && wire.startsWith("out-"),
      ),
  );
  await eventually("packets pass", async () => {
    const { received } = await pingFrom(mesh.namespace("pod-client"), "172.16.9.0");
    return received === 5;
  });
  expect(wiresOf("client")).toEqual(kept.get("client"));
  expect(wiresOf("gateway")).toEqual(kept.get("gateway"));
  const keptOf = (pod: string, side: string) => kept.get(pod)?.filter((wire) => wire.startsWith(side)) ?? [];
  expect(wiresOf("link-1")).toEqual(expect.arrayContaining(keptOf("link-1", "in-")));
  expect(wiresOf("link-3")).toEqual(expect.arrayContaining(keptOf("link-3", "out-")));
});

test("one Close of the client closes each link once, and leaves nothing", async () => {
  expect(await mesh.daemon("client").stop()).toBe(0);
  for (const pod of ["link-1", "link-2b", "gateway"])
    await eventually(`no wire in ${pod}`, () => wiresOf(pod).length === 0);
});
