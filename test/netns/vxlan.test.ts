//  [nsc] nsm-c                          nsm-e [nse]       the devices are in the pods,
//          :                              :               their UDP sockets in the nodes
//       [node 1] u0 10.9.0.1 ==== 10.9.0.2 u0 [node 2]
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { VxlanSide, Wire } from "../../forwarder/dataplane.ts";
import { eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, startTwoNodes, wireOf } from "../support/node.ts";
import type { Node, TwoNodes } from "../support/node.ts";
import { bindUdp, probe, reaches, startEcho } from "../support/udp.ts";

const PORT = 4789;
const SPOOFED_MAC = "02:00:00:00:00:66";

describe.skipIf(!isRoot)("a VXLAN wire between nodes (needs root)", () => {
  let node1: Namespace, node2: Namespace, nsc: Namespace, nse: Namespace, one: Node, two: Node;
  let nodes: TwoNodes, all: TwoNodes["all"], before: TwoNodes["before"];

  beforeEach(async () => {
    nodes = await startTwoNodes();
    ({ node1, node2, nsc, nse, one, two, all, before } = nodes);
  });
  afterEach(async () => {
    await nodes[Symbol.asyncDispose]();
  });

  const tunnel = (from: 1 | 2, vni: number, v6 = false): VxlanSide => {
    const ip = (n: number) => (v6 ? `fd09::${n}` : `10.9.0.${n}`);
    return { kind: "vxlan", localIp: ip(from), remoteIp: ip(3 - from), port: PORT, vni };
  };
  const clientWire = (vni: number, v6 = false, more: Parameters<typeof wireOf>[3] = {}): Wire =>
    wireOf("w1", kernelSide(nsc, "nsm-c"), tunnel(1, vni, v6), { payload: "ETHERNET", mtu: 1430, ...more });
  const endpointWire = (vni: number, v6 = false): Wire =>
    wireOf("w2", tunnel(2, vni, v6), kernelSide(nse, "nsm-e"), { payload: "ETHERNET", mtu: 1430 });
  const carries = () => reaches(nsc, "172.16.1.1", nse, "172.16.1.2");

  test.each([
    ["IPv4", false],
    ["IPv6", true],
  ])("carries Ethernet over %s, and leaves nothing when removed", async (_, v6) => {
    await two.apply(endpointWire(100, v6));
    await one.apply(clientWire(100, v6));
    expect(await carries()).toBe(true);
    expect(node1.ip("-o link")).not.toMatch(/: nsm|vxlan/);
    expect(nsc.ip("-d link show nsm-c")).toMatch(
      /mtu 1430[^]*vxlan id 100 remote [^ ]+ local [^ ]+ .*nolearning/,
    );
    await one.remove("w1");
    await two.remove("w2");
    expect(all.map(inventory)).toEqual(before);
  });

  test("says the MTU of the underlay, of the route before that of the device", async () => {
    expect(await one.underlayMtu("10.9.0.2")).toBe(1500);
    expect(await one.underlayMtu("fd09::2")).toBe(1500);
    node1.ip("route add 10.9.0.2/32 dev u0 mtu lock 1300");
    expect(await one.underlayMtu("10.9.0.2")).toBe(1300);
    await expect(one.underlayMtu("192.0.2.1")).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "no-route",
    });
  });

  test("a VNI of our own or of a stranger is not used twice", async () => {
    const vni = await one.reserveVni("w1", "even", PORT);
    expect(vni % 2).toBe(0);
    expect(await one.reserveVni("w1", "even", PORT)).toBe(vni);
    expect((await one.reserveVni("w9", "odd", PORT)) % 2).toBe(1);
    await expect(one.keepVni("w2", vni)).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "vni-taken",
    });
    await one.keepVni("w1", vni);
    await one.release("w1");
    await one.keepVni("w2", vni);

    node1.ip(`link add foreign type vxlan id 777 dstport ${PORT} remote 10.9.0.2`);
    node1.ip("link set foreign addrgenmode none");
    node1.ip("link set foreign up");
    before = all.map(inventory);
    await expect(one.apply(clientWire(777))).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "vni-taken",
      message: expect.stringContaining("777"),
    });
    expect(all.map(inventory)).toEqual(before);
    await one.kill();
    one = await startNode(node1);
    await expect(one.keepVni("w3", 777)).rejects.toMatchObject({ reason: "vni-taken" });
  });

  test("a port that something else holds is named, and nothing is left", async () => {
    const holder = bindUdp(node1, "0.0.0.0", PORT);
    await expect(one.apply(clientWire(100))).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "port-busy",
    });
    holder.close();
    expect(all.map(inventory)).toEqual(before);
    await one.apply(clientWire(100));
  });

  test("the filter takes a wire's packets from its peer only, and leaves other VNIs alone", async () => {
    await two.apply(endpointWire(100));
    await one.apply(clientWire(100));
    expect(await carries()).toBe(true);
    // A stranger's tunnel on the same port, between the same nodes.
    for (const [i, ns] of [node1, node2].entries()) {
      ns.ip(
        `link add foreign type vxlan id 101 dstport ${PORT} remote 10.9.0.${2 - i} local 10.9.0.${i + 1}`,
      );
      ns.ip(`addr add 192.168.77.${i + 1}/24 dev foreign`);
      ns.ip("link set foreign up");
    }
    expect(await reaches(node1, "192.168.77.1", node2, "192.168.77.2")).toBe(true);

    // Node 2 speaks into both VNIs from another of its addresses.
    node2.ip("addr add 10.9.0.66/24 dev u0");
    using spoofed = speakVxlan(node2, "10.9.0.66");
    const heard = countPackets(node1);
    const dropped = () =>
      Number(/counter packets (\d+)/.exec(node1.exec("nft", "list", "table", "inet", "nsm"))?.[1]);
    const intoWire = countFrames(nsc, "nsm-c", SPOOFED_MAC);
    const intoForeign = countFrames(node1, "foreign", SPOOFED_MAC);
    expect(dropped()).toBe(0);
    for (let i = 0; i < 5; i++) await spoofed.send(100);
    for (let i = 0; i < 5; i++) await spoofed.send(101);
    await eventually("the spoofed packets arrived", () => dropped() === 5 && heard() > 0);
    await eventually("the stranger's packets arrived", () => intoForeign() === 5);
    expect(intoWire()).toBe(0);
    expect(await carries()).toBe(true);

    await one.remove("w1");
    node1.exec("nft", "delete table netdev foreign");
    expect(node1.exec("nft", "list", "tables")).toBe("");
    expect(node2.exec("nft", "list", "tables")).toBe("table inet nsm\n");
    expect(await reaches(node1, "192.168.77.1", node2, "192.168.77.2")).toBe(true);
  });

  test("the filter is written again when somebody flushed it", async () => {
    await one.apply(clientWire(100));
    node1.exec("nft", "flush", "ruleset");
    const other = wireOf("w3", kernelSide(nsc, "nsm-d"), tunnel(1, 102), { payload: "ETHERNET" });
    await one.apply(other);
    expect(node1.exec("nft", "list", "table", "inet", "nsm")).toMatch(/0x64[^]*0x66/);
    await one.remove("w1");
    await one.remove("w3");
    expect(all.map(inventory)).toEqual(before);
  });

  test("a wire whose peer or VNI changes is made anew, with the filter", async () => {
    await two.apply(endpointWire(100));
    await one.apply(clientWire(200));
    expect(await probeOnce()).toBe(0);
    await one.apply(clientWire(100));
    expect(await carries()).toBe(true);
    expect(node1.exec("nft", "list", "table", "inet", "nsm")).not.toMatch(/0xc8/);
  });

  test("a restarted forwarder adopts the device, the filter and the VNI", async () => {
    await two.apply(endpointWire(100));
    await one.apply(clientWire(100));
    const link = nsc.ip("-o link show nsm-c");
    await one.kill();
    expect(await carries()).toBe(true);
    one = await startNode(node1);
    expect(await one.found("w1")).toMatchObject([
      { kind: "vxlan", vni: 100, remoteIp: "10.9.0.2", port: PORT, interfaceName: "nsm-c", side: "client" },
    ]);
    expect(await one.reserveVni("w1", "even", PORT)).toBe(100);
    await expect(one.keepVni("other", 100)).rejects.toMatchObject({ reason: "vni-taken" });
    await one.apply(clientWire(100));
    expect(nsc.ip("-o link show nsm-c")).toBe(link);
    expect(await one.found("w1")).toEqual([]);
    expect(await carries()).toBe(true);
    await one.remove("w1");
    await two.remove("w2");
    expect(all.map(inventory)).toEqual(before);
  });

  test("a filter left behind by a crash goes when its wires are gone", async () => {
    await one.apply(clientWire(100));
    await one.kill();
    nsc.ip("link del nsm-c");
    one = await startNode(node1);
    expect(all.map(inventory)).toEqual(before);
  });

  async function probeOnce(): Promise<number> {
    using echo = startEcho(nse, "172.16.1.2");
    return await probe(nsc, "172.16.1.1", "172.16.1.2", echo.port, { count: 1, timeoutMs: 100 });
  }

  /** Hand-made VXLAN packets (RFC 7348) from a source address to node 1, each with a broadcast frame inside. */
  function speakVxlan(ns: Namespace, source: string) {
    const socket = bindUdp(ns, source);
    const frame = Buffer.concat([
      Buffer.from(`ffffffffffff${SPOOFED_MAC.replaceAll(":", "")}0800`, "hex"),
      Buffer.alloc(46),
    ]);
    return {
      async send(vni: number) {
        const header = Buffer.from([8, 0, 0, 0, vni >> 16, (vni >> 8) & 255, vni & 255, 0]);
        await new Promise((resolve) =>
          socket.send(Buffer.concat([header, frame]), PORT, "10.9.0.1", resolve),
        );
      },
      [Symbol.dispose]: () => socket.close(),
    };
  }
});

/** Frames with that source address that a device received from now on: a wire's own neighbour discovery is none of them. */
function countFrames(ns: Namespace, device: string, mac: string): () => number {
  ns.exec(
    "nft",
    `add table netdev ${device}`,
    `; add chain netdev ${device} in { type filter hook ingress device ${device} priority 0; }`,
    `; add rule netdev ${device} in ether saddr ${mac} counter`,
  );
  return () => Number(/counter packets (\d+)/.exec(ns.exec("nft", "list", "table", "netdev", device))?.[1]);
}

function countPackets(ns: Namespace): () => number {
  const before = rxPackets(ns, "u0");
  return () => rxPackets(ns, "u0") - before;
}

function rxPackets(ns: Namespace, device: string): number {
  const line = ns
    .exec("cat", "/proc/net/dev")
    .split("\n")
    .find((text) => text.trim().startsWith(`${device}:`));
  return Number(line?.split(":")[1]?.trim().split(/\s+/)[1]);
}
