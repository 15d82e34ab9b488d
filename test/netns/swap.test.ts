//                    .---- nsm-c ======= nsm-e [first endpoint]
// A wire that moves: [client]
//                    '---- nsm-c ======= nsm-e [second endpoint]  or a tunnel
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Wire } from "../../forwarder/dataplane.ts";
import { createNamespace, eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";
import { startEcho, startStream } from "../support/udp.ts";

const PORT = 5001;
const policies = [
  { from: "", proto: "17", srcPort: "", dstPort: "7000", routes: [{ prefix: "10.7.0.0/16" }] },
];
const ip = {
  srcAddresses: ["172.16.1.1/32", "fd00::1/128"],
  dstAddresses: ["172.16.1.2/32", "fd00::2/128"],
  srcRoutes: [{ prefix: "10.9.0.0/16" }, { prefix: "fd09::/64" }],
  policies,
};

describe.skipIf(!isRoot)("a wire to another endpoint (needs root)", () => {
  let node: Namespace, client: Namespace, first: Namespace, second: Namespace, forwarder: Node;
  let all: Namespace[], before: string[][];

  beforeEach(async () => {
    all = [node, client, first, second] = [
      createNamespace("node"),
      createNamespace("client"),
      createNamespace("nse1"),
      createNamespace("nse2"),
    ];
    node.ip("addr add 10.9.0.1/32 dev lo");
    before = all.map(inventory);
    forwarder = await startNode(node);
  });
  afterEach(async () => {
    await forwarder.kill();
    await Promise.all(all.map((ns) => ns.kill()));
  });

  const to = (endpoint: Namespace, more: Partial<Wire["ip"]> = {}): Wire =>
    wireOf("wire-1", kernelSide(client, "nsm-c"), kernelSide(endpoint, "nsm-e"), { ip: { ...ip, ...more } });
  const tunnel = (vni: number): Wire["endpoint"] => {
    return { kind: "vxlan", localIp: "10.9.0.1", remoteIp: "10.9.0.2", port: 4789, vni };
  };
  const overVxlan = (vni: number): Wire =>
    wireOf("wire-1", kernelSide(client, "nsm-c"), tunnel(vni), { ip, payload: "ETHERNET" });
  /** As people see it: without indexes, which a new device has anew. */
  const viewOf = (ns: Namespace) =>
    inventory(ns)
      .map((line) =>
        line.replaceAll(/^\d+: |if\d+|link-netns\S* \S+|link\/ether \S+|lladdr \S+|metric 102\d/g, ""),
      )
      .toSorted();

  test("moves without a gap: the new way is ready before the old one goes", async () => {
    await forwarder.apply(to(first));
    const view = viewOf(client);
    using atFirst = startEcho(first, "172.16.1.2", PORT);
    const stream = startStream(client, "172.16.1.1", "172.16.1.2", PORT, 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    // The second endpoint answers as soon as it has its address.
    const moved = forwarder.apply(to(second));
    await eventually("the second endpoint has the address", () => second.ip("addr").includes("172.16.1.2"));
    using atSecond = startEcho(second, "172.16.1.2", PORT);
    await moved;
    await new Promise((resolve) => setTimeout(resolve, 100));
    const { sent, lost } = await stream.stop();
    expect(sent).toBeGreaterThan(50);
    expect(atFirst.received).toBeGreaterThan(0);
    expect(atSecond.received).toBeGreaterThan(0);
    // What the first endpoint had not answered when it went. Deleting a device alone keeps the kernel busy for 16 ms.
    expect(lost).toBeLessThan(12);
    expect(viewOf(client)).toEqual(view);
    expect(inventory(first)).toEqual(before[2]);
    expect(client.ip("route get 10.7.1.1 ipproto udp dport 7000")).toContain("dev nsm-c table 1");
    await forwarder.remove("wire-1");
    expect(all.map(inventory)).toEqual(before);
  });

  test("a new device that cannot be made leaves the old one as it is", async () => {
    await forwarder.apply(to(first));
    const good = all.map(inventory);
    second.ip("link add nsm-e type veth peer name other");
    const occupied = inventory(second);
    await expect(forwarder.apply(to(second))).rejects.toMatchObject({ reason: "interface-name-taken" });
    second.ip("link del nsm-e");
    expect(occupied).not.toEqual(before[3]);
    const hop = { prefix: "10.8.0.0/16", nextHop: "172.16.1.1" };
    await expect(forwarder.apply(to(second, { srcRoutes: [hop] }))).rejects.toMatchObject({
      reason: "refused-by-kernel",
    });
    const policy = { from: "", proto: "17", srcPort: "", dstPort: "7001", routes: [hop] };
    await expect(forwarder.apply(to(second, { policies: [...policies, policy] }))).rejects.toMatchObject({
      reason: "refused-by-kernel",
    });
    await expect(forwarder.apply(to(second), 0)).rejects.toThrow(/abort|timeout/i);
    expect(all.map(inventory)).toEqual(good);
    await forwarder.remove("wire-1");
    expect(all.map(inventory)).toEqual(before);
  });

  test.each([
    ["from veth to VXLAN and back", () => [to(first), overVxlan(100), to(second)]],
    ["from one VXLAN to another", () => [overVxlan(100), overVxlan(102), overVxlan(104)]],
    ["to another peer of the same VXLAN", () => [overVxlan(100), { ...overVxlan(100), mtu: 1400 }]],
  ])("moves %s, with filter and policies", async (_, wires) => {
    for (const wire of wires()) {
      await forwarder.apply(wire);
      expect(client.ip("-o link").match(/: nsm-/g)).toHaveLength(1);
      expect(client.ip("route get 10.7.1.1 ipproto udp dport 7000")).toContain("dev nsm-c table 1");
      const vni = wire.endpoint.kind === "vxlan" ? wire.endpoint.vni : undefined;
      const tables = node.exec("nft", "list", "ruleset");
      expect(tables === "" ? undefined : tables.includes(`0x${vni?.toString(16)}`)).toBe(
        vni === undefined ? undefined : true,
      );
    }
    await forwarder.remove("wire-1");
    expect(all.map(inventory)).toEqual(before);
  });

  test("on a kernel that renames no device that is up the old one goes first", async () => {
    await forwarder.kill();
    forwarder = await startNode(node, { OLD_KERNEL: "true" });
    await forwarder.apply(to(first));
    const view = viewOf(client);
    await forwarder.apply(to(second));
    expect(viewOf(client)).toEqual(view);
    await forwarder.remove("wire-1");
    expect(all.map(inventory)).toEqual(before);
  });
});
