/** Two linked clusters of real daemons with the same addresses inside, each with an authority, a registry and a proxy of its own: wires between them, restarts, and nothing left. */
import { expect, test } from "vitest";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, pingFrom } from "../support/wires.ts";

const mesh = useMesh({
  clusters: true,
  exports: { west: ["gateway"] },
  endpoints: [{ name: "gateway", node: "node3", service: "gateway", prefixes: "172.16.7.0/24" }],
  clients: [{ name: "client", services: "kernel://gateway@west/nsm-1", started: false }],
});

const messagesSince = (since: number) =>
  mesh
    .daemon("client")
    .log.slice(since)
    .map(({ msg }) => msg);

test("a client of one domain reaches a service of the other through both proxies, over WireGuard", async () => {
  mesh.start("client");
  const wire = await mesh.established("client", "nsm-1");
  expect(wire.path).toEqual([
    "client",
    "nsmgr-node1",
    "forwarder-node1",
    "proxy-east",
    "proxy-west",
    "nsmgr-node3",
    "forwarder-node3",
    "gateway",
  ]);
  const pod = mesh.namespace("pod-client");
  expect(deviceIn(pod, "nsm-1").kind).toMatch(/^(wireguard|tun)$/);
  expect((await pingFrom(pod, "172.16.7.0")).received).toBe(5);
});

test.for([["proxy-east"], ["proxy-west"], ["registry-east", "registry-west"], ["proxy-east", "proxy-west"]])(
  "%s killed and started again: the wire is the same, and still answers",
  async (names) => {
    const pod = mesh.namespace("pod-client");
    const { ifindex } = deviceIn(pod, "nsm-1");
    const since = mesh.daemon("client").log.length;
    await mesh.restart(...names);
    for (const name of names) await mesh.daemon(name).waitFor(" serves", 20_000);
    expect((await pingFrom(pod, "172.16.7.0")).received).toBe(5);
    expect(deviceIn(pod, "nsm-1").ifindex).toBe(ifindex);
    expect(messagesSince(since)).not.toContain("wire closed");
  },
);

test.for(["everything", "to-east", "to-west", "data", "control"] as const)(
  "cut off from one another (%s) and joined again, the clusters have the same wire",
  async (what) => {
    const pod = mesh.namespace("pod-client");
    const { ifindex } = deviceIn(pod, "nsm-1");
    await mesh.cut(what);
    const { received } = await pingFrom(pod, "172.16.7.0", 3);
    expect(received).toBe(what === "control" ? 3 : 0);
    await mesh.mend();
    expect((await pingFrom(pod, "172.16.7.0")).received).toBe(5);
    expect(deviceIn(pod, "nsm-1").ifindex).toBe(ifindex);
  },
);

test("the end of the client ends all of it, in both domains", async () => {
  await mesh.daemon("client").stop();
  expect(devicesIn(mesh.namespace("pod-gateway"))).toEqual([]);
  await mesh.expectAsStarted();
});

test("a domain that nobody knows is said to be unknown", async () => {
  const client = mesh.start("client", { NSM_NETWORK_SERVICES: "kernel://gateway@nowhere.invalid/nsm-1" });
  const { err } = await client.waitFor("request failed", 20_000);
  expect(JSON.stringify(err)).toContain("nowhere.invalid");
  await client.stop();
  await mesh.expectAsStarted();
});
