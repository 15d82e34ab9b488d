/** Wires of every kind between real daemons: what the kernel has of them, that packets pass, and that nothing stays. */
import { beforeAll, expect, test } from "vitest";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, neighborsOf, pingFrom, routesOf } from "../support/wires.ts";

const endpoints = [
  { name: "near", service: "near", prefixes: "172.16.1.0/24,2001:db8:1::/112" },
  { name: "far", node: "node2", service: "far", prefixes: "172.16.2.0/24,2001:db8:2::/112" },
  {
    name: "lan",
    node: "node2",
    service: "lan",
    payload: "ETHERNET",
    prefixes: "172.16.3.0/24,2001:db8:3::/112",
  },
] as const;
const services = "kernel://near/nsm-1,kernel://far/nsm-2,kernel://lan/nsm-3";

const mesh = useMesh({ endpoints, clients: [{ name: "client", services, started: false }] });
beforeAll(async () => {
  mesh.start("client");
});

/** 1500 of the underlay less IP, UDP and the tunnel's own headers (RFC 7348, with a VLAN tag inside; WireGuard paper, §5.4.6). */
const wires = [
  { name: "nsm-1", endpoint: "near", kind: "veth", mtu: 9000, net: "1", neighbors: true },
  {
    name: "nsm-2",
    endpoint: "far",
    kind: expect.stringMatching(/^(wireguard|tun)$/),
    mtu: 1440,
    net: "2",
    neighbors: false,
  },
  { name: "nsm-3", endpoint: "lan", kind: "vxlan", mtu: 1446, net: "3", neighbors: false },
];

test.for(wires)(
  "$name has its kind, MTU, host addresses, routes and neighbours at both ends",
  async (wire) => {
    const established = await mesh.established("client", wire.name);
    const pods = { client: mesh.namespace("pod-client"), endpoint: mesh.namespace(`pod-${wire.endpoint}`) };
    const [theirs, ...others] = devicesIn(pods.endpoint);
    expect(others).toEqual([]);
    const own = deviceIn(pods.client, wire.name);
    const v4 = { client: `172.16.${wire.net}.1`, endpoint: `172.16.${wire.net}.0` };
    const v6 = { client: `2001:db8:${wire.net}::1`, endpoint: `2001:db8:${wire.net}::` };

    expect(own).toMatchObject({
      kind: wire.kind,
      mtu: wire.mtu,
      addresses: [`${v4.client}/32`, `${v6.client}/128`],
    });
    expect(theirs).toMatchObject({
      kind: wire.kind,
      mtu: wire.mtu,
      addresses: [`${v4.endpoint}/32`, `${v6.endpoint}/128`],
    });
    expect(established).toMatchObject({
      nse: wire.endpoint,
      peerAddresses: [`${v4.endpoint}/32`, `${v6.endpoint}/128`],
    });
    expect(routesOf(pods.client, wire.name)).toEqual([v4.endpoint, v6.endpoint]);
    expect(routesOf(pods.endpoint, theirs?.name ?? "")).toEqual([v4.client, v6.client]);
    expect(neighborsOf(pods.client, wire.name)).toEqual(
      wire.neighbors ? [`${v4.endpoint} ${theirs?.mac}`, `${v6.endpoint} ${theirs?.mac}`] : [],
    );
    for (const target of [v4.endpoint, v6.endpoint])
      expect(await pingFrom(pods.client, target), target).toMatchObject({ sent: 5, received: 5 });
    for (const target of [v4.client, v6.client])
      expect(await pingFrom(pods.endpoint, target), target).toMatchObject({ sent: 5, received: 5 });
  },
);

test("the node's own namespaces have no device of a wire", () => {
  for (const node of ["node1", "node2"]) expect(devicesIn(mesh.namespace(node))).toEqual([]);
});

test("the path of a local wire has four segments, that of a remote one six", async () => {
  const near = await mesh.established("client", "nsm-1");
  expect(near.path).toEqual(["client", "nsmgr-node1", "forwarder-node1", "near"]);
  const far = await mesh.established("client", "nsm-2");
  expect(far.path).toEqual([
    "client",
    "nsmgr-node1",
    "forwarder-node1",
    "nsmgr-node2",
    "forwarder-node2",
    "far",
  ]);
});

test("a client that is stopped gives all its wires back, and comes back as before", async () => {
  expect(await mesh.daemon("client").stop()).toBe(0);
  await mesh.expectAsStarted();

  mesh.start("client");
  for (const { name, net } of wires) {
    await mesh.established("client", name);
    const { addresses } = deviceIn(mesh.namespace("pod-client"), name);
    expect(addresses).toEqual([`172.16.${net}.1/32`, `2001:db8:${net}::1/128`]);
  }
  expect(await mesh.daemon("client").stop()).toBe(0);
  await mesh.expectAsStarted();
});
