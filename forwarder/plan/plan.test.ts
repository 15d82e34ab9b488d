import { describe, expect, test } from "vitest";
import { formatPrefix } from "../../sdk/prefix.ts";
import { planWire } from "./plan.ts";
import type { WantedEnd } from "./plan.ts";
import type { KernelSide, Wire, WireIp } from "../wire.ts";

const pod = (pid: number, interfaceName: string): KernelSide => ({
  kind: "kernel",
  netns: { pid, inode: BigInt(pid) },
  interfaceName,
  binding: "b",
});
const noIp: WireIp = { srcAddresses: [], dstAddresses: [], srcRoutes: [], dstRoutes: [], neighbors: [] };
const wire = (ip: Partial<WireIp> = {}, more: Partial<Wire> = {}): Wire => ({
  id: "w",
  payload: "IP",
  mtu: 0,
  client: pod(1, "nsm-c"),
  endpoint: pod(2, "nsm-e"),
  ip: { ...noIp, ...ip },
  ...more,
});
const vxlan = { kind: "vxlan", localIp: "10.9.0.1", remoteIp: "10.9.0.2", port: 4789, vni: 5 } as const;
const wireguard = {
  kind: "wireguard",
  localIp: "10.9.0.1",
  remoteIp: "10.9.0.2",
  localPort: 51820,
  remotePort: 51821,
  privateKey: new Uint8Array(32),
  remotePublicKey: new Uint8Array(32),
} as const;

/** An end as words: `10.0.0.1/32`, `10.0.0.0/8 via 10.0.0.2`, `10.0.0.2 link`. */
function words(end: WantedEnd | undefined) {
  return {
    addresses: end?.addresses.map(formatPrefix),
    routes: end?.routes.map(
      ({ prefix, gateway, scope }) =>
        `${formatPrefix(prefix)}${gateway === undefined ? "" : ` via ${gateway}`}${scope === "link" ? " link" : ""}`,
    ),
  };
}

describe("routes", () => {
  const pair = { srcAddresses: ["10.0.0.1/32"], dstAddresses: ["10.0.0.2/32"] };
  test.each<[string, Partial<WireIp>, string[], string[]]>([
    ["each end reaches the other's address", pair, ["10.0.0.2/32 link"], ["10.0.0.1/32 link"]],
    [
      "no route to a peer within one's own prefix",
      { srcAddresses: ["10.0.0.1/24"], dstAddresses: ["10.0.0.2/24"] },
      [],
      [],
    ],
    [
      "a peer's prefix is routed without its host bits",
      { srcAddresses: ["10.0.0.1/32"], dstAddresses: ["10.0.1.2/24"] },
      ["10.0.1.0/24 link"],
      ["10.0.0.1/32 link"],
    ],
    [
      "a route to the peer itself has no gateway and replaces that on the link",
      { ...pair, srcRoutes: [{ prefix: "10.0.0.2/32" }] },
      ["10.0.0.2/32"],
      ["10.0.0.1/32 link"],
    ],
    [
      "other routes go through the first address of the peer, those on the link come first",
      {
        ...pair,
        srcRoutes: [{ prefix: "0.0.0.0/0" }, { prefix: "192.168.1.1/16" }],
        dstRoutes: [{ prefix: "10.7.0.0/16" }],
      },
      ["10.0.0.2/32 link", "0.0.0.0/0 via 10.0.0.2", "192.168.0.0/16 via 10.0.0.2"],
      ["10.0.0.1/32 link", "10.7.0.0/16 via 10.0.0.1"],
    ],
    [
      "a next hop goes before the peer",
      {
        ...pair,
        srcRoutes: [
          { prefix: "10.8.0.0/16", nextHop: "10.0.0.77" },
          { prefix: "10.9.0.0/16", nextHop: "" },
        ],
      },
      ["10.0.0.2/32 link", "10.8.0.0/16 via 10.0.0.77", "10.9.0.0/16 via 10.0.0.2"],
      ["10.0.0.1/32 link"],
    ],
    [
      "a family in which the peer has no address has no gateway",
      { ...pair, srcRoutes: [{ prefix: "::/0" }] },
      ["10.0.0.2/32 link", "::/0"],
      ["10.0.0.1/32 link"],
    ],
    [
      "both families side by side",
      {
        srcAddresses: ["10.0.0.1/32", "fd00::1/128"],
        dstAddresses: ["10.0.0.2/32", "fd00::2/128"],
        srcRoutes: [{ prefix: "fd01::/16" }],
      },
      ["10.0.0.2/32 link", "fd00::2/128 link", "fd01::/16 via fd00::2"],
      ["10.0.0.1/32 link", "fd00::1/128 link"],
    ],
    [
      "a route that comes twice is wanted once, as it was said last",
      { ...pair, srcRoutes: [{ prefix: "10.8.0.0/16", nextHop: "10.0.0.7" }, { prefix: "10.8.0.9/16" }] },
      ["10.0.0.2/32 link", "10.8.0.0/16 via 10.0.0.2"],
      ["10.0.0.1/32 link"],
    ],
  ])("%s", (_, ip, client, endpoint) => {
    const { ends } = planWire(wire(ip));
    expect([words(ends[0]).routes, words(ends[1]).routes]).toEqual([client, endpoint]);
  });
});

describe("devices", () => {
  const ip = { srcAddresses: ["10.0.0.1/32"], dstAddresses: ["10.0.0.2/32"] };

  test("two pods of this node are joined by a veth pair with neighbours both ways", () => {
    const { link, ends } = planWire(wire(ip));
    expect(link).toEqual({ kind: "veth" });
    expect(ends.map(({ side, name, alias }) => [side, name, alias])).toEqual([
      ["client", "nsm-c", "nsm:1:w:client:b"],
      ["endpoint", "nsm-e", "nsm:1:w:endpoint:b"],
    ]);
    expect(ends[0]?.neighbors).toEqual([{ ip: "10.0.0.2", mac: ends[1]?.mac }]);
    expect(ends[1]?.neighbors).toEqual([{ ip: "10.0.0.1", mac: ends[0]?.mac }]);
    expect(ends[0]?.mac).toMatch(/^02(:[0-9a-f]{2}){5}$/);
    expect(ends[0]?.mac).not.toBe(ends[1]?.mac);
    expect(planWire(wire(ip))).toEqual(planWire(wire(ip)));
  });

  test("Ethernet payload: MACs of the context, ARP left alone, link-local addresses allowed", () => {
    const { ends } = planWire(wire(ip, { payload: "ETHERNET", srcMac: "02:00:00:00:00:0A", dstMac: "" }));
    expect(ends[0]).toMatchObject({ mac: "02:00:00:00:00:0a", neighbors: [], noAddressGeneration: false });
  });

  test("neighbours of the context go before what we know, those on none of an end's networks are left out", () => {
    const own = { ip: "10.0.0.1", mac: "02:00:00:00:00:0a" };
    const peer = { ip: "10.0.0.2", mac: "02:00:00:00:00:01" };
    const hop = { ip: "10.0.0.9", mac: "02:00:00:00:00:09" };
    const strange = { ip: "10.0.0.7", mac: "02:00:00:00:00:07" };
    const neighbors = [own, peer, hop, strange];
    const srcRoutes = [{ prefix: "10.7.0.0/16", nextHop: "10.0.0.9" }];
    const { ends } = planWire(wire({ ...ip, srcRoutes, neighbors }));
    expect(ends[0]?.neighbors).toEqual([peer, hop]);
    expect(ends[1]?.neighbors).toEqual([own]);
    const network = planWire(wire({ ...ip, srcAddresses: ["10.0.0.1/24"], neighbors }));
    expect(network.ends[0]?.neighbors).toEqual([peer, hop, strange]);
  });

  test("a tunnel has one end in a pod: the client's with the source addresses, the endpoint's with the others", () => {
    const there = planWire(wire(ip, { endpoint: vxlan }));
    expect(there).toMatchObject({ link: vxlan, ends: [{ side: "client" }] });
    expect(words(there.ends[0]).addresses).toEqual(["10.0.0.1/32"]);
    const here = planWire(wire(ip, { client: wireguard }));
    expect(here).toMatchObject({
      link: { kind: "wireguard", localPort: 51820 },
      ends: [{ side: "endpoint", mac: undefined }],
    });
    expect(words(here.ends[0])).toEqual({ addresses: ["10.0.0.2/32"], routes: ["10.0.0.1/32 link"] });
    expect(here.ends[0]?.neighbors).toEqual([]);
  });
});

describe("bad input is refused by name", () => {
  const own = { srcAddresses: ["10.0.0.1/32"] };
  test.each<[string, Wire, string, string]>([
    ["address", wire({ srcAddresses: ["10.0.0.1"] }), "bad-prefix", "10.0.0.1"],
    ["length", wire({ dstAddresses: ["10.0.0.1/99"] }), "bad-prefix", "10.0.0.1/99"],
    ["loopback address", wire({ srcAddresses: ["127.0.0.2/32"] }), "bad-address", "loopback"],
    ["multicast address", wire({ dstAddresses: ["ff02::1/128"] }), "bad-address", "multicast"],
    ["no address", wire({ srcAddresses: ["0.0.0.0/32"] }), "bad-address", "unspecified"],
    ["route", wire({ srcRoutes: [{ prefix: "10/8" }] }), "bad-prefix", "10/8"],
    ["loopback route", wire({ srcRoutes: [{ prefix: "127.0.0.0/8" }] }), "bad-prefix", "127.0.0.0/8"],
    ["next hop", wire({ srcRoutes: [{ prefix: "10.0.0.0/8", nextHop: "x" }] }), "bad-address", '"x"'],
    [
      "next hop of the other family",
      wire({ srcRoutes: [{ prefix: "10.0.0.0/8", nextHop: "fd00::1" }] }),
      "bad-address",
      "fd00::1",
    ],
    ["neighbour", wire({ neighbors: [{ ip: "10.0.0.9", mac: "zz" }] }), "bad-mac", "zz"],
    ["MAC", wire({}, { srcMac: "01:00:00:00:00:01" }), "bad-mac", "01:00:00:00:00:01"],
    ["MTU", wire({}, { mtu: 67 }), "bad-mtu", "67"],
    ["MTU too small for IPv6", wire({ srcAddresses: ["fd00::1/128"] }, { mtu: 1279 }), "bad-mtu", "1280"],
    ["MTU too large", wire(own, { mtu: 65536 }), "bad-mtu", "65536"],
    ["name", wire({}, { client: pod(1, "$(id)") }), "bad-interface-name", "$(id)"],
    ["id", wire({}, { id: "x".repeat(300) }), "bad-wire-id", "xxx"],
    ["VNI", wire({}, { endpoint: { ...vxlan, vni: 2 ** 24 } }), "bad-tunnel", "16777216"],
    ["port", wire({}, { endpoint: { ...vxlan, port: 0 } }), "bad-tunnel", "0"],
    ["tunnel address", wire({}, { endpoint: { ...vxlan, remoteIp: "host" } }), "bad-tunnel", "host"],
    ["tunnel families", wire({}, { endpoint: { ...vxlan, remoteIp: "fd00::1" } }), "bad-tunnel", "fd00::1"],
    [
      "key",
      wire({}, { endpoint: { ...wireguard, remotePublicKey: new Uint8Array(3) } }),
      "bad-tunnel",
      "3 bytes",
    ],
    ["no pod at all", wire({}, { client: vxlan, endpoint: vxlan }), "bad-wire", "w"],
  ])("%s", (_, bad, reason, value) => {
    expect(() => planWire(bad)).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT", reason, message: expect.stringContaining(value) }),
    );
  });

  test("one name for both ends in one namespace", () => {
    const same = wire({}, { client: pod(1, "nsm"), endpoint: pod(1, "nsm") });
    expect(() => planWire(same)).toThrow(
      expect.objectContaining({ code: "ALREADY_EXISTS", reason: "interface-name-taken" }),
    );
  });
});
