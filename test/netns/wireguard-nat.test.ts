// Nodes of two clusters with the same addresses, behind gateways: see test/support/two-clusters.ts.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Wire, WireguardSide } from "../../forwarder/dataplane.ts";
import { GET, askProgram, formatNewPeer, parseState } from "../../forwarder/kernel/wireguard/uapi.ts";
import { shortOrLong } from "../support/long.ts";
import { createNamespace, eventually, inventory, isRoot, joinNamespaces } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";
import { INNER, OUTER, startTwoClusters } from "../support/two-clusters.ts";
import type { Gate, TwoClusters } from "../support/two-clusters.ts";
import { probe, startEcho, startStream } from "../support/udp.ts";

type Keys = Awaited<ReturnType<Node["reserveWireguard"]>>;

const [SRC, DST] = ["172.16.1.1", "172.16.1.2"];
/** WireGuard by itself tries again after five seconds. */
const AT_ONCE_MS = 4000;

async function start(gates: readonly [Gate, Gate], environment?: Parameters<typeof startTwoClusters>[1]) {
  const clusters = await startTwoClusters(gates, environment);
  onTestFinished(() => clusters[Symbol.asyncDispose]());
  return clusters;
}

/** The two halves of a wire, each told of the other's outer address. */
function halves(
  ids: readonly [string, string],
  pods: readonly [Namespace, Namespace],
  keys: readonly [Keys, Keys],
  family: "v4" | "v6",
): [Wire, Wire] {
  const side = (i: 0 | 1, own: Keys, peer: Keys): WireguardSide => ({
    kind: "wireguard",
    localIp: INNER[family],
    remoteIp: OUTER[1 - i]?.[family] ?? "",
    localPort: own.port,
    remotePort: peer.port,
    privateKey: own.privateKey,
    remotePublicKey: peer.publicKey,
  });
  const more = { mtu: 1400, ip: { srcAddresses: [`${SRC}/32`], dstAddresses: [`${DST}/32`] } };
  return [
    wireOf(ids[0], kernelSide(pods[0], "nsm-c"), side(0, keys[0], keys[1]), more),
    wireOf(ids[1], side(1, keys[1], keys[0]), kernelSide(pods[1], "nsm-e"), more),
  ];
}

/** As Requests make it: the serving end first. */
async function makeWire(
  clusters: TwoClusters,
  ids: readonly [string, string] = ["w1", "w2"],
  pods: readonly [Namespace, Namespace] = [clusters.nsc, clusters.nse],
  family: "v4" | "v6" = "v4",
) {
  const { one, two } = clusters;
  const keys = [await one.reserveWireguard(ids[0]), await two.reserveWireguard(ids[1])] as const;
  const wires = halves(ids, pods, keys, family);
  await two.apply(wires[1]);
  await one.apply(wires[0]);
  return wires;
}

/** Milliseconds until a packet comes back. */
async function untilCarries(
  from: Namespace,
  source: string,
  to: Namespace,
  target: string,
  withinMs: number,
): Promise<number> {
  using echo = startEcho(to, target);
  const startMs = performance.now();
  const isBack = async () =>
    (await probe(from, source, target, echo.port, { count: 1, timeoutMs: 100 })) === 1;
  await eventually("a packet comes back", isBack, withinMs);
  return performance.now() - startMs;
}

const programs = "/var/run/wireguard";
const sockets = () => readdirSync(programs).map((file) => join(programs, file));

describe.skipIf(!isRoot)("a WireGuard wire between clusters with the same addresses (needs root)", () => {
  test.for(["v4", "v6"] as const)(
    "whose nodes have others outside carries over %s, and leaves nothing",
    async (family) => {
      const clusters = await start(["one-to-one", "one-to-one"]);
      await makeWire(clusters, ["w1", "w2"], [clusters.nsc, clusters.nse], family);
      await untilCarries(clusters.nsc, SRC, clusters.nse, DST, AT_ONCE_MS);
      await Promise.all([clusters.one.remove("w1"), clusters.two.remove("w2")]);
      expect(clusters.all.map(inventory)).toEqual(clusters.before);
    },
  );

  test("whose pods have the same addresses too keeps to its own ends", async () => {
    const clusters = await start(["one-to-one", "one-to-one"]);
    const { nsc, nse } = clusters;
    const [near, far] = [createNamespace("near"), createNamespace("far")];
    const [nsc2, nse2] = [createNamespace("nsc2"), createNamespace("nse2")];
    onTestFinished(async () => {
      for (const ns of [near, far, nsc2, nse2]) await ns.kill();
    });
    // The pod network of both clusters: 10.244.0.1 is each pod, 10.244.0.2 its neighbour.
    await joinNamespaces(nsc, near, "10.244.0");
    await joinNamespaces(nse, far, "10.244.0");
    await makeWire(clusters);
    await makeWire(clusters, ["w3", "w4"], [nsc2, nse2]);
    await untilCarries(nsc, SRC, nse, DST, AT_ONCE_MS);
    await untilCarries(nsc2, SRC, nse2, DST, AT_ONCE_MS);
    using first = startEcho(nse, DST, 7000);
    using second = startEcho(nse2, DST, 7000);
    expect(await probe(nsc, SRC, DST, 7000, { count: 5 })).toBe(5);
    expect([first.received, second.received]).toEqual([5, 0]);
    using nearby = startEcho(near, "10.244.0.2", 7001);
    using faraway = startEcho(far, "10.244.0.2", 7001);
    expect(await probe(nsc, "10.244.0.1", "10.244.0.2", 7001, { count: 5 })).toBe(5);
    expect([nearby.received, faraway.received]).toEqual([5, 0]);
    // Neither does the far pod's network answer by way of the wire.
    expect(await probe(nsc, SRC, "10.244.0.2", 7001, { count: 1, timeoutMs: 300 })).toBe(0);
    expect(faraway.received).toBe(0);
  });

  test.for([
    ["asking", ["masquerade", "one-to-one"]],
    ["serving", ["one-to-one", "masquerade"]],
  ] as const)("opens at once when nobody can dial the %s node, from whichever end", async ([, gates]) => {
    const clusters = await start(gates);
    const { nsc, nse } = clusters;
    await makeWire(clusters);
    // The reachable end speaks first.
    const reachable = gates[0] === "one-to-one";
    const [from, source, to, target] = reachable ? [nsc, SRC, nse, DST] : [nse, DST, nsc, SRC];
    expect(await untilCarries(from, source, to, target, AT_ONCE_MS)).toBeLessThan(AT_ONCE_MS);
    expect(await untilCarries(to, target, from, source, 1000)).toBeLessThan(1000);
  });

  test("keeps the address that a peer was heard from when the forwarder there starts again", async () => {
    const clusters = await start(["masquerade", "one-to-one"]);
    const { nsc, nse, node2 } = clusters;
    const [, wire2] = await makeWire(clusters);
    await untilCarries(nsc, SRC, nse, DST, AT_ONCE_MS);
    using echo = startEcho(nsc, SRC);
    // From the end that could not dial: by the learned address alone.
    const stream = startStream(nse, DST, SRC, echo.port, 1);
    await clusters.two.kill();
    clusters.two = await startNode(node2);
    await clusters.two.apply(wire2);
    await clusters.two.apply({ ...wire2, isDoubted: true });
    await clusters.two.apply({ ...wire2, mtu: 1380 });
    if (wire2.client.kind !== "wireguard") throw new Error("no tunnel");
    // Said to be elsewhere behind that gateway: it is where it was heard from all the same.
    await clusters.two.apply({ ...wire2, client: { ...wire2.client, remoteIp: "198.51.100.12" } });
    const { sent, lost } = await stream.stop();
    expect(sent).toBeGreaterThan(50);
    expect(lost).toBe(0);
  });

  test("goes on at once after a cut in which its session ended, both ends reachable or one", async () => {
    for (const gates of [
      ["one-to-one", "one-to-one"],
      ["masquerade", "one-to-one"],
    ] as const) {
      await using clusters = await startTwoClusters(gates, { SESSION_MS: "3000" });
      const { nsc, nse } = clusters;
      await makeWire(clusters);
      await untilCarries(nsc, SRC, nse, DST, AT_ONCE_MS);
      for (let cuts = 0; cuts < 2; cuts++) {
        clusters.cut();
        await endSessions();
        // Each end has looked and begun in vain by then; their sessions end again, and with them WireGuard's own next try is far.
        await new Promise((resolve) => setTimeout(resolve, 3500));
        await endSessions();
        clusters.mend();
        expect(await untilCarries(nsc, SRC, nse, DST, AT_ONCE_MS)).toBeLessThan(3000);
      }
    }
  });

  test("goes on at once after a cut, also one that outlasts its session", async () => {
    const clusters = await start(["masquerade", "one-to-one"]);
    const { nsc, nse } = clusters;
    await makeWire(clusters);
    await untilCarries(nsc, SRC, nse, DST, AT_ONCE_MS);
    clusters.cut();
    await new Promise((resolve) => setTimeout(resolve, shortOrLong(10_000, 300_000)));
    clusters.mend();
    expect(await untilCarries(nsc, SRC, nse, DST, AT_ONCE_MS)).toBeLessThan(1500);
  });
});

/** As they end after three minutes: each peer is as if new, and a handshake that is lost begins. */
async function endSessions(): Promise<void> {
  for (const socket of sockets()) {
    const state = parseState(await askProgram(socket, GET));
    const { remotePublicKey, remoteIp, remotePort } = state ?? {};
    if (remotePublicKey === undefined || remoteIp === undefined || remotePort === undefined)
      throw new Error(`${socket} has no peer`);
    await askProgram(socket, formatNewPeer({ remotePublicKey, remoteIp, remotePort }));
  }
}
