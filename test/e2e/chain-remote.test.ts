/** Chains over two nodes, of both payloads: tunnels on either side of a link (docs/protocol.md, "Chaining"). */
import { expect, test } from "vitest";
import { chainService } from "../support/chains.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";

const NOBODY = "{ fallthrough: true, routes: [{ destination_selector: { app: nobody } }] }";
const SERVICES = [
  chainService("far", "IP", ["link-a", "link-b", "gateway"], NOBODY),
  chainService("lan", "ETHERNET", ["link-e", "switch"]),
].join("---\n");

const app = (name: string) => ({ name, env: { NSM_LABELS: `app:${name}` } });
const link = { kind: "passthrough" } as const;

const HEALED_WITHIN_MS = 30_000;

const mesh = useMesh({
  networkServices: SERVICES,
  endpoints: [
    { ...app("link-a"), ...link, service: "far", node: "node2" },
    { ...app("link-b"), ...link, service: "far" },
    { ...app("link-a"), ...link, name: "spare-a", service: "far", started: false },
    { ...app("link-b"), ...link, name: "spare-b", service: "far", node: "node2", started: false },
    { ...app("gateway"), service: "far", node: "node2", prefixes: "172.16.20.0/24,2001:db8:20::/112" },
    { ...app("link-e"), ...link, service: "lan", payload: "ETHERNET", node: "node2" },
    { ...app("switch"), service: "lan", payload: "ETHERNET", prefixes: "172.16.21.0/24" },
  ],
  clients: ["one", "two"].map((name) => ({
    name,
    services: "kernel://far/nsm-1,kernel://lan/nsm-2",
    started: name === "one",
  })),
});

const pings = (client: string, target: string) => pingFrom(mesh.namespace(`pod-${client}`), target);

test("PassThroughRemote, SameSourceSelector: six segments a link, and a first hop that is missing is passed over", async () => {
  const { path, peerAddresses } = await mesh.established("one", "nsm-1");
  const to = (from: number, other: number) => [
    `nsmgr-node${from}`,
    `forwarder-node${from}`,
    `nsmgr-node${other}`,
    `forwarder-node${other}`,
  ];
  expect(path).toEqual(["one", ...to(1, 2), "link-a", ...to(2, 1), "link-b", ...to(1, 2), "gateway"]);
  for (const address of peerAddresses)
    expect(await pings("one", address.split("/")[0] ?? "")).toMatchObject({ received: 5 });
});

test("frames pass a link, too", async () => {
  const { path, peerAddresses } = await mesh.established("one", "nsm-2");
  expect(path.at(-1)).toBe("switch");
  expect(await pings("one", peerAddresses[0]?.split("/")[0] ?? "")).toMatchObject({ received: 5 });
  const bridges = devicesIn(mesh.namespace("pod-link-e")).filter(({ kind }) => kind === "bridge");
  expect(bridges).toMatchObject([{ addresses: [] }]);
});

test("a link carries the wires of several clients, and the end of one is no matter to the others", async () => {
  mesh.start("two");
  const wires = await Promise.all(["nsm-1", "nsm-2"].map((name) => mesh.established("two", name)));
  for (const { peerAddresses } of wires)
    expect(await pings("two", peerAddresses[0]?.split("/")[0] ?? "")).toMatchObject({ received: 5 });
  await mesh.daemon("one").stop();
  for (const pod of ["link-a", "link-b"])
    await eventually(`two devices in ${pod}`, () => devicesIn(mesh.namespace(`pod-${pod}`)).length === 2);
  for (const { peerAddresses } of wires)
    expect(await pings("two", peerAddresses[0]?.split("/")[0] ?? "")).toMatchObject({ received: 5 });
});

test("two links that are killed at once are replaced by those of the other nodes", async () => {
  const { peerAddresses } = await mesh.established("two", "nsm-1");
  const gateway = devicesIn(mesh.namespace("pod-gateway"));
  for (const name of ["spare-a", "spare-b"]) await mesh.start(name).waitFor(`endpoint ${name} registered`);
  await Promise.all(["link-a", "link-b"].map((name) => mesh.daemon(name).kill()));
  for (const name of ["spare-a", "spare-b"])
    await eventually(
      `two devices in ${name}`,
      () => devicesIn(mesh.namespace(`pod-${name}`)).length === 2,
      HEALED_WITHIN_MS,
    );
  for (const address of peerAddresses)
    await eventually(
      `${address} answers`,
      async () => (await pings("two", address.split("/")[0] ?? "")).received === 5,
      HEALED_WITHIN_MS,
    );
  expect(devicesIn(mesh.namespace("pod-gateway"))).toHaveLength(gateway.length);
  for (const name of ["link-a", "link-b"])
    await eventually(
      `no device in ${name}`,
      () => devicesIn(mesh.namespace(`pod-${name}`)).length === 0,
      HEALED_WITHIN_MS,
    );
});

test("after the last client nothing is left in the links' namespaces", async () => {
  await mesh.daemon("two").stop();
  for (const pod of ["spare-a", "spare-b", "link-e", "gateway", "switch"])
    await eventually(`no device in ${pod}`, () => devicesIn(mesh.namespace(`pod-${pod}`)).length === 0);
  for (const pod of ["spare-a", "spare-b"]) {
    expect(mesh.namespace(`pod-${pod}`).ip("rule show")).not.toMatch(/proto 158/);
    expect(mesh.namespace(`pod-${pod}`).ip("route show table all")).not.toMatch(/proto 158/);
  }
});
