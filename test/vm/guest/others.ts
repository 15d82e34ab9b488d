/** A wire of each other kind on this kernel, which is older than those that the project is written on. */
import { deepStrictEqual, equal, match, ok } from "node:assert/strict";
import type { VxlanSide, Wire } from "../../../forwarder/dataplane.ts";
import { kernelSide, wireOf } from "../../support/node.ts";
import { probe, startEcho, startStream } from "../../support/udp.ts";
import { createSuite } from "./harness.ts";
import { countRequests } from "./netlink-tap.ts";
import { startNode } from "./node.ts";
import { ADDRESSES, carries, carriesIpv6 } from "./world.ts";
import type { World } from "./world.ts";

const { test, tests } = createSuite();
export { tests as otherTests };

const VXLAN_PORT = 4789;

test("a veth pair joins two pods of a node, is adopted by the next forwarder and changed in place", async (world) => {
  const { node1, nsc, nse } = world;
  const wire = wireOf("w1", kernelSide(nsc, "nsm-c"), kernelSide(nse, "nsm-e"), { mtu: 1500, ip: ADDRESSES });
  await world.one.apply(wire);
  ok(await carries(world));
  ok(await carriesIpv6(world));
  ok(!node1.ip("-o link").includes("nsm-"));
  match(nsc.ip("neigh show nud permanent"), /172\.16\.1\.2 dev nsm-c lladdr 02:/);
  equal(await countRequests([node1, nsc, nse], () => world.one.apply(wire)), 1);

  const link = nsc.ip("-o link show nsm-c");
  using echo = startEcho(nse, "172.16.1.2");
  const stream = startStream(nsc, "172.16.1.1", "172.16.1.2", echo.port, 5);
  await world.one.kill();
  world.one = await startNode(node1);
  deepStrictEqual(
    (await world.one.found("w1")).map(({ kind }) => kind),
    ["veth", "veth"],
  );
  await world.one.apply({ ...wire, mtu: 1400 });
  equal((await stream.stop()).lost, 0);
  equal(nsc.ip("-o link show nsm-c"), link.replace("1500", "1400"));
});

test("a VXLAN device carries Ethernet between the nodes, and only its peer may speak into it", async (world) => {
  const { one, two, node1, node2, nsc, nse } = world;
  deepStrictEqual([one.vxlan, two.vxlan], [{ available: true }, { available: true }]);
  const [wire1, wire2] = vxlanWires(world, 100);
  await two.apply(wire2);
  await one.apply(wire1);
  ok(await carries(world));
  ok(await carriesIpv6(world));
  match(nsc.ip("-d link show nsm-c"), /mtu 1430[^]*vxlan id 100/);
  equal(await countRequests([node1, nsc], () => one.apply(wire1)), 1);
  match(node2.exec("nft", "list", "table", "inet", "nsm"), /10\.9\.0\.1/);

  // The same node under another address is a stranger.
  using echo = startEcho(nse, "172.16.1.2");
  node1.ip("addr add 10.9.0.66/32 dev u0");
  await one.apply(vxlanWires(world, 100, "10.9.0.66")[0]);
  equal(await probe(nsc, "172.16.1.1", "172.16.1.2", echo.port), 0);
  match(node2.exec("nft", "list", "table", "inet", "nsm"), /counter packets [1-9]/);
  node1.ip("addr del 10.9.0.66/32 dev u0");
});

function vxlanWires({ nsc, nse }: World, vni: number, localIp1 = "10.9.0.1"): [Wire, Wire] {
  const tunnel = (localIp: string, remoteIp: string): VxlanSide => ({
    kind: "vxlan",
    localIp,
    remoteIp,
    port: VXLAN_PORT,
    vni,
  });
  const more = { payload: "ETHERNET", mtu: 1430, ip: ADDRESSES } as const;
  return [
    wireOf("w1", kernelSide(nsc, "nsm-c"), tunnel(localIp1, "10.9.0.2"), more),
    wireOf("w2", tunnel("10.9.0.2", "10.9.0.1"), kernelSide(nse, "nsm-e"), more),
  ];
}
