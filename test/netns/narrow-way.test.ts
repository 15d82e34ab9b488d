// A way between two nodes that is narrower than their own links say, and on which nobody hears of it: ICMP is lost.
//
//     [nsc]                                                                                    [nse]
//       :                                                                                        :
//     [node 1] 10.9.1.1 === 1500 === [router 1] ---- 1300 ---- [router 2] === 1500 === 10.9.2.1 [node 2]
//              fd09:1::1                                                               fd09:2::1
import { describe, expect, onTestFinished, test } from "vitest";
import type { VxlanSide, Wire, WireguardSide } from "../../forwarder/dataplane.ts";
import { createNamespace, eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import { probe, startEcho } from "../support/udp.ts";

const [SRC, DST] = ["172.16.1.1", "172.16.1.2"];
const NARROW = 1300;
/** Datagrams that just fit into a wire of 1420. */
const SIZE = 1390;
const SILENCE = `table inet silence {
  chain out { type filter hook output priority 0;
    icmp type { destination-unreachable, time-exceeded } drop
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded } drop
  }
}`;

async function start() {
  await using guard = new AsyncDisposableStack();
  const stack = guard.use(new AsyncDisposableStack());
  const make = (label: string) => stack.use(createNamespace(label));
  const [nodes, routers] = [[make("n1"), make("n2")] as const, [make("r1"), make("r2")] as const];
  const [nsc, nse] = [make("nsc"), make("nse")];
  routers[0].ip(`link add t0 type veth peer name t0 netns ${routers[1].name}`);
  for (const [i, router] of routers.entries()) {
    const [node, n] = [nodes[i] ?? nodes[0], i + 1];
    router.ip(`link add u0 type veth peer name u0 netns ${node.name}`);
    addressed(node, "u0", `10.9.${n}.1/24`, `fd09:${n}::1/64`);
    addressed(router, "u0", `10.9.${n}.254/24`, `fd09:${n}::fe/64`);
    addressed(router, "t0", `100.64.0.${n}/30`, `fd64::${n}/64`);
    router.exec("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1");
    node.ip(`route add default via 10.9.${n}.254`);
    node.ip(`-6 route add default via fd09:${n}::fe`);
  }
  for (const [i, router] of routers.entries()) {
    const other = 2 - i;
    router.ip(`route add 10.9.${other}.0/24 via 100.64.0.${other}`);
    router.ip(`-6 route add fd09:${other}::/64 via fd64::${other}`);
  }
  const planes = await Promise.all(nodes.map((node) => startNode(node)));
  stack.defer(async () => void (await Promise.all(planes.map((plane) => plane.kill()))));
  const [one, two] = planes;
  if (one === undefined || two === undefined) throw new Error("there are two nodes");
  const all = [...nodes, nsc, nse];
  const kept = guard.move();
  onTestFinished(() => kept.disposeAsync());
  return { nodes, routers, nsc, nse, one, two, all, before: all.map(inventory) };
}
type Places = Awaited<ReturnType<typeof start>>;

function addressed(ns: Namespace, device: string, v4: string, v6: string): void {
  ns.ip(`link set ${device} addrgenmode none`);
  ns.ip(`addr add ${v4} dev ${device}`);
  ns.ip(`addr add ${v6} dev ${device} nodad`);
  ns.ip(`link set ${device} up`);
}

/** From now on the way is narrow. */
function narrow({ routers }: Places): void {
  for (const router of routers) {
    router.exec("nft", SILENCE);
    router.ip(`link set t0 mtu ${NARROW}`);
  }
}

async function makeWire(
  { one, two, nsc, nse }: Places,
  kind: "wireguard" | "vxlan",
  mtu: number,
  v6 = false,
) {
  const keys = [await one.reserveWireguard("w1"), await two.reserveWireguard("w2")] as const;
  const ipOf = (n: number) => (v6 ? `fd09:${n}::1` : `10.9.${n}.1`);
  const side = (n: 1 | 2): VxlanSide | WireguardSide => {
    const ends = { localIp: ipOf(n), remoteIp: ipOf(3 - n) };
    if (kind === "vxlan") return { kind, ...ends, port: 4789, vni: 77 };
    const [own, peer] = n === 1 ? keys : [keys[1], keys[0]];
    return {
      kind,
      ...ends,
      localPort: own.port,
      remotePort: peer.port,
      privateKey: own.privateKey,
      remotePublicKey: peer.publicKey,
    };
  };
  const more = {
    mtu,
    payload: kind === "vxlan" ? ("ETHERNET" as const) : ("IP" as const),
    ip: { srcAddresses: [`${SRC}/32`], dstAddresses: [`${DST}/32`] },
  };
  const wires: [Wire, Wire] = [
    wireOf("w1", kernelSide(nsc, "nsm-c"), side(1), more),
    wireOf("w2", side(2), kernelSide(nse, "nsm-e"), more),
  ];
  await two.apply(wires[1]);
  await one.apply(wires[0]);
}

describe.skipIf(!isRoot)("a wire on a way that is narrower than anybody knows (needs root)", () => {
  test.for(["wireguard", "vxlan"] as const)(
    "%s over IPv4 carries packets as large as it says before and after",
    async (kind) => {
      const places = await start();
      const { nsc, nse, one, two } = places;
      await makeWire(places, kind, 1420);
      using echo = startEcho(nse, DST);
      const passes = async (size: number) =>
        (await probe(nsc, SRC, DST, echo.port, { size, count: 1, timeoutMs: 200 })) === 1;
      await eventually("large packets pass the wide way", () => passes(SIZE));
      narrow(places);
      await eventually("large packets pass the narrow way", () => passes(SIZE), 3000);
      expect(await probe(nsc, SRC, DST, echo.port, { size: SIZE, count: 10 })).toBe(10);
      await Promise.all([one.remove("w1"), two.remove("w2")]);
      expect(places.all.map(inventory)).toEqual(places.before);
    },
  );
});
