//  [nsc] nsm-c                          nsm-e [nse]       nodes that change their addresses, ways that become narrow or lead
//          :                              :               back into themselves, and strangers who speak into the tunnel
//       [node 1] u0 10.9.0.1 ==== 10.9.0.2 u0 [node 2]
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import type { Wire } from "../../forwarder/dataplane.ts";
import { shortOrLong } from "../support/long.ts";
import { eventually, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startTwoNodes, wireOf, wireguardSide } from "../support/node.ts";
import type { Node, TwoNodes, WireguardKeys as Keys } from "../support/node.ts";
import { bindUdp, probe, reaches, startEcho, startStream } from "../support/udp.ts";

const [SRC, DST] = ["172.16.1.1", "172.16.1.2"];
const EVERY_MS = 10;
const Counters = z.array(z.object({ stats64: z.object({ tx: z.object({ bytes: z.number() }) }) }));

describe.skipIf(!isRoot)("a WireGuard wire whose way changes (needs root)", () => {
  let node1: Namespace, node2: Namespace, nsc: Namespace, nse: Namespace, one: Node, two: Node;
  let nodes: TwoNodes;

  beforeEach(async () => {
    nodes = await startTwoNodes();
    ({ node1, node2, nsc, nse, one, two } = nodes);
  });
  afterEach(async () => {
    await nodes[Symbol.asyncDispose]();
  });

  async function makeWire(v6 = false, mtu = 1420): Promise<{ wires: [Wire, Wire]; keys: [Keys, Keys] }> {
    const keys: [Keys, Keys] = [await one.reserveWireguard("w1"), await two.reserveWireguard("w2")];
    const more = { mtu, ip: { srcAddresses: [`${SRC}/32`], dstAddresses: [`${DST}/32`] } };
    const wires: [Wire, Wire] = [
      wireOf("w1", kernelSide(nsc, "nsm-c"), wireguardSide(1, ...keys, v6), more),
      wireOf("w2", wireguardSide(2, keys[1], keys[0], v6), kernelSide(nse, "nsm-e"), more),
    ];
    await two.apply(wires[1]);
    await one.apply(wires[0]);
    expect(await reaches(nsc, SRC, nse, DST)).toBe(true);
    return { wires, keys };
  }

  test.for([
    ["IPv4", false],
    ["IPv6", true],
  ] as const)("goes on within a second each time a node changes its %s address", async ([, v6]) => {
    await makeWire(v6);
    using echo = startEcho(nse, DST);
    // All of an underlay's addresses in turn; the node that moves is the one or the other.
    for (let moves = 0; moves < shortOrLong(5, 50); moves++) {
      const [node, n] = moves % 2 === 0 ? [node2, 2] : [node1, 1];
      const at = (i: number) => (v6 ? `fd09::${n}${i}` : `10.9.0.${n}${i}`);
      const stream = startStream(nsc, SRC, DST, echo.port, EVERY_MS);
      const round = Math.floor(moves / 2);
      const before = round === 0 ? (v6 ? `fd09::${n}` : `10.9.0.${n}`) : at(round % 8);
      node.ip(`addr del ${before}/${v6 ? 64 : 24} dev u0`);
      node.ip(`addr add ${at((round + 1) % 8)}/${v6 ? "64 dev u0 nodad" : "24 dev u0"}`);
      await eventually(
        "packets come back",
        async () => (await probe(nsc, SRC, DST, echo.port, { count: 1, timeoutMs: 100 })) === 1,
      );
      await new Promise((resolve) => setTimeout(resolve, 300));
      const { sent, lost } = await stream.stop();
      expect(sent).toBeGreaterThan(10);
      expect(lost * EVERY_MS, `move ${moves}`).toBeLessThanOrEqual(1000);
    }
  });

  test("carries packets as large as before when the node's link becomes narrow", async () => {
    await makeWire();
    using echo = startEcho(nse, DST);
    expect(await probe(nsc, SRC, DST, echo.port, { size: 1390 })).toBe(3);
    for (const node of [node1, node2]) node.ip("link set u0 mtu 1300");
    await eventually(
      "large packets come back",
      async () => (await probe(nsc, SRC, DST, echo.port, { size: 1390, count: 1, timeoutMs: 200 })) === 1,
      1000,
    );
    expect(await probe(nsc, SRC, DST, echo.port, { size: 1390, count: 10 })).toBe(10);
  });

  test("takes nothing from those who have no key, whatever they send from wherever", async () => {
    const { keys } = await makeWire();
    using echo = startEcho(nse, DST, 7000);
    const neighbor = bindUdp(node2, "10.9.0.2", 9000);
    onTestFinished(() => void neighbor.close());
    const forged: Buffer[] = [];
    node2.ip("addr add 10.9.0.66/24 dev u0");
    const stranger = bindUdp(node2, "10.9.0.66", 9001);
    onTestFinished(() => void stranger.close());
    for (let type = 0; type < 8; type++)
      for (const size of [0, 1, 32, 92, 148, 1400]) {
        const packet = Buffer.alloc(size, 0xa5);
        if (size >= 4) packet.writeUInt32LE(type, 0);
        forged.push(packet);
      }
    for (const packet of forged) {
      stranger.send(packet, keys[0].port, "10.9.0.1");
      neighbor.send(packet, keys[0].port, "10.9.0.1");
    }
    expect(await probe(nsc, SRC, DST, 7000, { count: 20 })).toBe(20);
    expect(echo.received).toBe(20);
  });

  test("that seems to lead back into itself does not: its own packets know the node's routes alone", async () => {
    await makeWire();
    // The pod's way to the other node, and all else, is the wire itself.
    for (const route of ["10.9.0.0/24", "0.0.0.0/0"]) nsc.ip(`route add ${route} dev nsm-c`);
    using echo = startEcho(nse, DST);
    const before = sentBy(nsc, "nsm-c");
    expect(await probe(nsc, SRC, DST, echo.port, { count: 10 })).toBe(10);
    expect(sentBy(nsc, "nsm-c") - before).toBe(10 * (64 + 28));
  });

  test("in a loop of its pods' routes packets end with their TTL", async () => {
    await makeWire();
    for (const [pod, device] of [
      [nsc, "nsm-c"],
      [nse, "nsm-e"],
    ] as const) {
      pod.exec("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0");
      // Else the sender drops what bears its own address.
      pod.exec("sysctl", "-qw", "net.ipv4.conf.all.accept_local=1");
      pod.ip(`route add 10.7.0.0/16 dev ${device}`);
    }
    const both = () => sentBy(nsc, "nsm-c") + sentBy(nse, "nsm-e");
    const before = both();
    const socket = bindUdp(nsc, SRC);
    for (let i = 0; i < 10; i++) socket.send(Buffer.alloc(36), 7000, "10.7.0.1");
    await eventually("they went round", () => both() - before >= 10 * 63 * 64);
    await new Promise((resolve) => setTimeout(resolve, 500));
    socket.close();
    // TTL 64, and what tells the sender that it is over.
    expect(both() - before).toBeLessThan(70_000);
  });
});

/** Bytes of inner packets. */
function sentBy(pod: Namespace, device: string): number {
  return Counters.parse(JSON.parse(pod.ip(`-j -s link show ${device}`)))[0]?.stats64.tx.bytes ?? 0;
}
