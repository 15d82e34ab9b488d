/** The life of a WireGuard wire on the kernel's own device. */
import { deepStrictEqual, equal, match, notDeepStrictEqual, ok, rejects } from "node:assert/strict";
import { readFileSync } from "node:fs";
import { bindUdp, startEcho, startStream } from "../../support/udp.ts";
import { createSuite } from "./harness.ts";
import { countRequests } from "./netlink-tap.ts";
import { startNode } from "./node.ts";
import type { WireguardKeys } from "./node.ts";
import { carries, carriesIpv6, makeWire, showWireguard, udpSockets, wiresOf } from "./world.ts";

const { test, tests } = createSuite();
export { tests as wireguardTests };

const base64 = (key: Uint8Array) => Buffer.from(key).toString("base64");

test("the kernel's WireGuard is found, and its module loaded by asking for it", async ({ one, two }) => {
  deepStrictEqual([one.wireguard, two.wireguard], [{ mode: "kernel" }, { mode: "kernel" }]);
  match(readFileSync("/proc/modules", "latin1"), /^wireguard /m);
});

for (const family of ["IPv4", "IPv6"])
  test(`a wire is born in the pods and carries both families over ${family}`, async (world) => {
    const { keys } = await makeWire(world, family === "IPv6");
    ok(await carriesIpv6(world));
    const { node1, node2, nsc, nse } = world;
    for (const node of [node1, node2]) ok(!/wireguard|nsm-/.test(node.ip("-d -o link")));
    match(nsc.ip("-d link show nsm-c"), /mtu 1420[^]*wireguard/);
    match(nse.ip("-d link show nsm-e"), /mtu 1420[^]*wireguard/);
    const addresses = nsc.ip("-o addr show nsm-c");
    match(addresses, /172\.16\.1\.1\/32[^]*fd00::1\/128/);
    ok(!addresses.includes("fe80"));
    match(nsc.ip("route"), /10\.0\.0\.0\/8 via 172\.16\.1\.2 dev nsm-c/);
    // One socket for each family, both in the node.
    const [port1, port2] = keys.map(({ port }) => port);
    deepStrictEqual(
      [udpSockets(node1), udpSockets(node2)],
      [
        [port1, port1],
        [port2, port2],
      ],
    );
    deepStrictEqual([udpSockets(nsc), udpSockets(nse)], [[], []]);
  });

test("keys, port, peer, allowed addresses and keepalive are as planned, and no key is used twice", async (world) => {
  const { keys } = await makeWire(world);
  const [seen1, seen2] = [showWireguard(world.nsc, "nsm-c"), showWireguard(world.nse, "nsm-e")];
  const [keys1, keys2] = keys;
  const expected = (own: WireguardKeys, peer: WireguardKeys, ip: string) => ({
    privateKey: base64(own.privateKey),
    publicKey: base64(own.publicKey),
    port: own.port,
    peer: {
      publicKey: base64(peer.publicKey),
      endpoint: `${ip}:${peer.port}`,
      allowedIps: "0.0.0.0/0,::/0",
      keepalive: "10",
    },
  });
  const plain = ({ peers, ...own }: typeof seen1) => {
    equal(peers.length, 1);
    return { ...own, peer: { ...peers[0], lastHandshake: undefined } };
  };
  deepStrictEqual(JSON.stringify(plain(seen1)), JSON.stringify(expected(keys1, keys2, "10.9.0.2")));
  deepStrictEqual(JSON.stringify(plain(seen2)), JSON.stringify(expected(keys2, keys1, "10.9.0.1")));
  const more = [await world.one.reserveWireguard("w3"), await world.two.reserveWireguard("w4")];
  const secrets = [...keys, ...more].map(({ privateKey }) => base64(privateKey));
  equal(new Set(secrets).size, 4);
});

test("a refresh that changes nothing costs one netlink message a node", async (world) => {
  const { wires } = await makeWire(world);
  const { node1, node2, nsc, nse } = world;
  const handshake = showWireguard(nsc, "nsm-c").peers[0]?.lastHandshake;
  equal(await countRequests([node1, nsc], () => world.one.apply(wires[0])), 1);
  equal(await countRequests([node2, nse], () => world.two.apply(wires[1])), 1);
  equal(showWireguard(nsc, "nsm-c").peers[0]?.lastHandshake, handshake);
});

test("a new key of the peer replaces the old one on the same device", async (world) => {
  const { keys } = await makeWire(world);
  const link = world.nsc.ip("-o link show nsm-c");
  await world.two.remove("w2");
  const fresh = await world.two.reserveWireguard("w2");
  notDeepStrictEqual(fresh.publicKey, keys[1].publicKey);
  const [wire1, wire2] = wiresOf(world, keys[0], fresh);
  await world.two.apply(wire2);
  await world.one.apply(wire1);
  ok(await carries(world));
  ok(await carriesIpv6(world));
  equal(world.nsc.ip("-o link show nsm-c"), link);
  deepStrictEqual(
    showWireguard(world.nsc, "nsm-c").peers.map(({ publicKey }) => publicKey),
    [base64(fresh.publicKey)],
  );
});

test("a restarted forwarder adopts the wire: same device, same keys, not one packet lost", async (world) => {
  const { keys, wires } = await makeWire(world);
  const link = world.nsc.ip("-o link show nsm-c");
  const seen = showWireguard(world.nsc, "nsm-c");
  using echo = startEcho(world.nse, "172.16.1.2");
  const stream = startStream(world.nsc, "172.16.1.1", "172.16.1.2", echo.port, 5);
  await world.one.kill();
  world.one = await startNode(world.node1);
  const [found, ...others] = await world.one.found("w1");
  deepStrictEqual(others, []);
  deepStrictEqual(
    [found?.kind, found?.side, found?.interfaceName, found?.binding, found?.port, found?.remotePort],
    ["wireguard", "client", "nsm-c", "b1", keys[0].port, keys[1].port],
  );
  deepStrictEqual(await world.one.reserveWireguard("w1"), keys[0]);
  await world.one.apply(wires[0]);
  await world.one.apply({ ...wires[0], mtu: 1400 });
  const { sent, lost } = await stream.stop();
  ok(sent > 20, `${sent} packets were sent`);
  equal(lost, 0);
  equal(world.nsc.ip("-o link show nsm-c"), link.replace("1420", "1400"));
  deepStrictEqual(showWireguard(world.nsc, "nsm-c"), seen);
});

test("a restarted forwarder removes a wire that nobody claims", async (world) => {
  await makeWire(world);
  await world.one.kill();
  world.one = await startNode(world.node1);
  deepStrictEqual(await world.one.sweep([]), ["w1"]);
  ok(!world.nsc.ip("-o link").includes("nsm-c"));
});

test("a port that is taken is not reserved, and refused when it is taken afterwards", async (world) => {
  const { one, two, node1, nsc } = world;
  const holder = bindUdp(node1, "0.0.0.0", 51_820);
  const keys1 = await one.reserveWireguard("w1");
  equal(keys1.port, 51_821);
  const late = bindUdp(node1, "0.0.0.0", keys1.port);
  const [wire1] = wiresOf(world, keys1, await two.reserveWireguard("w2"));
  await rejects(one.apply(wire1), { code: "UNAVAILABLE", reason: "port-busy" });
  ok(!nsc.ip("-o link").includes("nsm-c"));
  await one.release("w1");
  equal((await one.reserveWireguard("w1")).port, 51_822);
  holder.close();
  late.close();
  await makeWire(world);
});

test("an interface name that is taken is refused, and the stranger stays", async (world) => {
  const { one, two, nsc } = world;
  nsc.ip("link add nsm-c type bridge");
  const [wire1] = wiresOf(world, await one.reserveWireguard("w1"), await two.reserveWireguard("w2"));
  await rejects(one.apply(wire1), { code: "ALREADY_EXISTS", reason: "interface-name-taken" });
  match(nsc.ip("-d link show nsm-c"), /bridge/);
  nsc.ip("link del nsm-c");
});
