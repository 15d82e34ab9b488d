import { describe, expect, test } from "vitest";
import { bringsNews, checkBrought, checkWanted, fitIn } from "./guard.ts";
import type { Surroundings } from "./guard.ts";
import { formatPrefix, prefixOf as prefix } from "../../sdk/prefix.ts";
import type { FoundRoute } from "../../sdk/netlink/route.ts";
import { planWire } from "./plan.ts";
import type { WantedEnd } from "./plan.ts";
import type { Wire, WireIp, WirePolicy } from "../wire.ts";
import { WIRE_IFINDEX } from "../wire.ts";

const anyPolicy: WirePolicy = { from: "", proto: "", srcPort: "", dstPort: "", routes: [] };

function wire(ip: Partial<WireIp>, acceptsDefaultRoute = false): Wire {
  const pod = (pid: number) =>
    ({
      kind: "kernel",
      netns: { pid, inode: BigInt(pid) },
      interfaceName: "nsm-1",
      binding: "b",
      acceptsDefaultRoute,
    }) as const;
  const none = { srcRoutes: [], dstRoutes: [], neighbors: [] };
  const pair = { srcAddresses: ["169.254.0.1/32", "fd01::1/128"], dstAddresses: ["169.254.0.0/32"] };
  return {
    id: "w",
    payload: "IP",
    mtu: 0,
    client: pod(1),
    endpoint: pod(2),
    ip: { ...none, ...pair, ...ip },
  };
}

const verdict = (subject: Wire): string => {
  try {
    checkWanted(planWire(subject));
    return "taken";
  } catch (error) {
    return String(Reflect.get(Object(error), "reason"));
  }
};
const routes = (...prefixes: string[]): Partial<WireIp> => ({
  srcRoutes: prefixes.map((prefix) => ({ prefix })),
});
const policies = (...some: Partial<WirePolicy>[]): Partial<WireIp> => ({
  policies: some.map((policy) => ({ ...anyPolicy, ...policy })),
});

const firstBytes = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => `${from + i}.0.0.0/8`).filter((text) => text !== "10.0.0.0/8");
const inParts: Partial<WireIp> = {
  srcAddresses: ["20.0.0.1/8", "21.0.0.1/8", "22.0.0.1/8"],
  ...routes("23.0.0.0/8", "24.0.0.0/8"),
};

describe("what no answer may ask for, whatever the pod", () => {
  test.each<[string, Partial<WireIp>, string]>([
    [
      "the addresses and networks that wires usually have",
      routes("169.254.0.0/16", "10.0.0.0/8", "fc00::/7"),
      "taken",
    ],
    ["a default route", routes("0.0.0.0/0"), "route-not-allowed"],
    ["half a default route", routes("128.0.0.0/1"), "route-not-allowed"],
    ["a default route of IPv6", routes("::/0"), "route-not-allowed"],
    ["the IPv4 internet by its IPv6 addresses", routes("64:ff9b::/96"), "route-not-allowed"],
    ["half of it", routes("64:ff9b::8000:0/97"), "route-not-allowed"],
    ["a network around it", routes("64:ff9b::/32"), "route-not-allowed"],
    ["a private network by such addresses", routes("64:ff9b::a00:0/104"), "taken"],
    ["all global addresses of IPv6", routes("2000::/3"), "route-not-allowed"],
    ["a default route in many parts", routes(...firstBytes(2, 60)), "route-not-allowed"],
    ["one of IPv6", routes("2400::/7", "2600::/7", "2800::/7", "2a00::/7"), "route-not-allowed"],
    ["one made of addresses and routes", inParts, "route-not-allowed"],
    [
      "the private networks of IPv4",
      routes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
      "taken",
    ],
    ["one for the endpoint", { dstRoutes: [{ prefix: "0.0.0.0/0" }] }, "route-not-allowed"],
    ["an address that is a default route", { srcAddresses: ["10.0.0.1/0"] }, "route-not-allowed"],
    ["a peer that is one", { dstAddresses: ["10.0.0.2/1"] }, "route-not-allowed"],
    ["loopback", routes("127.0.0.0/8"), "bad-prefix"],
    ["a part of loopback", routes("127.0.0.53/32"), "bad-prefix"],
    ["loopback of IPv6", routes("::1/128"), "bad-prefix"],
    ["multicast", routes("224.0.0.0/8"), "route-not-allowed"],
    ["multicast of IPv6", routes("ff02::/16"), "route-not-allowed"],
    ["link-local of IPv6", routes("fe80::/64"), "route-not-allowed"],
    ["a metadata service", routes("169.254.169.254/32"), "route-not-allowed"],
    ["its network", routes("169.254.169.0/24"), "route-not-allowed"],
    ["its address", { srcAddresses: ["169.254.169.254/32"] }, "address-not-allowed"],
    ["the endpoint at its address", { dstAddresses: ["169.254.169.254/32"] }, "route-not-allowed"],
    ["a metadata service of IPv6", routes("fd00:ec2::254/128"), "route-not-allowed"],
    ["a policy by the wire's own address", policies({ from: "169.254.0.1/32" }), "taken"],
    ["a policy by port", policies({ proto: "6", dstPort: "80-90" }), "taken"],
    ["a policy by another address of the pod", policies({ from: "10.244.1.5/32" }), "policy-not-allowed"],
    ["a policy by a network around the wire's", policies({ from: "169.254.0.0/16" }), "policy-not-allowed"],
    ["a policy for everything", policies({}), "policy-not-allowed"],
    ["a policy for all of a protocol", policies({ proto: "17" }), "policy-not-allowed"],
    [
      "a policy for what programs send from any port",
      policies({ proto: "17", srcPort: "1-65535" }),
      "policy-not-allowed",
    ],
    [
      "a policy by the port of the pod's own server",
      policies({ proto: "6", srcPort: "443" }),
      "policy-not-allowed",
    ],
    ["a policy by both ports", policies({ proto: "17", srcPort: "1-65535", dstPort: "5000" }), "taken"],
    ["a policy for nearly all ports", policies({ dstPort: "54-65535" }), "policy-not-allowed"],
    [
      "policies for nearly all ports in parts",
      policies(...["1024-1600", "1601-2200"].map((dstPort) => ({ proto: "6", dstPort }))),
      "policy-not-allowed",
    ],
    ["a policy for name queries", policies({ proto: "17", dstPort: "1-100" }), "policy-not-allowed"],
    [
      "a policy's route to a metadata service",
      policies({ dstPort: "80", routes: [{ prefix: "169.254.169.254/32" }] }),
      "route-not-allowed",
    ],
    ["a policy with port 0", policies({ dstPort: "0-80" }), "bad-policy"],
    ["a policy with protocol 256", policies({ proto: "256", dstPort: "1" }), "bad-policy"],
  ])("%s", (_, ip, expected) => {
    expect(verdict(wire(ip))).toBe(expected);
  });

  test.each<[string, Partial<WireIp>, string]>([
    ["default routes", routes("0.0.0.0/0", "::/0"), "taken"],
    ["policies for everything", policies({}), "taken"],
    ["name queries by policy", policies({ dstPort: "53" }), "taken"],
    ["a policy by source port", policies({ srcPort: "1-65535" }), "taken"],
    ["a default route in many parts", routes(...firstBytes(2, 60)), "taken"],
    ["a metadata service", routes("169.254.169.254/32"), "route-not-allowed"],
    ["multicast", routes("224.0.0.0/8"), "route-not-allowed"],
    ["a policy by another address", policies({ from: "10.244.1.5/32" }), "policy-not-allowed"],
  ])("a pod that accepts a default route: %s", (_, ip, expected) => {
    expect(verdict(wire(ip, true))).toBe(expected);
  });

  test.each([65536, 67, -1, 1.5])("MTU %d", (mtu) => {
    expect(verdict({ ...wire({}), mtu })).toBe("bad-mtu");
  });

  test.each(["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"])("neighbour's MAC %s", (mac) => {
    expect(verdict(wire({ neighbors: [{ ip: "169.254.0.0", mac }] }))).toBe("bad-mac");
  });
});

/** eth0 of a pod, and what is behind it. */
function podWith(
  ifindex: number,
  addresses: string[],
  found: [string, (string | undefined)?, number?][],
): Surroundings {
  return {
    addresses: addresses.map((text) => ({ ...prefix(text), ifindex, scope: 0 })),
    routes: found.map(([text, gateway, metric]): FoundRoute => ({
      prefix: prefix(text),
      gateway,
      scope: "universe",
      ifindex,
      table: 254,
      protocol: 3,
      mtu: undefined,
      ...(metric !== undefined && { metric }),
    })),
  };
}

describe("what goes well with a pod", () => {
  const flat = podWith(
    2,
    ["10.244.1.5/24", "fd44::5/64"],
    [
      ["10.244.1.0/24"],
      ["0.0.0.0/0", "10.244.1.1"],
      ["10.244.0.0/16", "10.244.1.1"],
      ["fd44::/64", undefined, 256],
      ["::/0", "fd44::1", 1024],
    ],
  );
  const routed = podWith(2, ["10.0.3.4/32"], [["169.254.1.1/32"], ["0.0.0.0/0", "169.254.1.1"]]);
  const end = (ip: Partial<WireIp>, accepts = false): WantedEnd => {
    const [client] = planWire(wire(ip, accepts)).ends;
    if (client === undefined) throw new Error("no client");
    return client;
  };
  const fitted = (ip: Partial<WireIp>, pod: Surroundings, accepts = false) => {
    try {
      return fitIn(end(ip, accepts), pod).routes.map((route) =>
        `${formatPrefix(route.prefix)} ${route.metric ?? ""}`.trim(),
      );
    } catch (error) {
      return String(Reflect.get(Object(error), "reason"));
    }
  };
  const own = ["169.254.0.0/32"];

  test.each<[string, Partial<WireIp>, Surroundings, string | string[]]>([
    ["a larger network than the pod's", routes("10.0.0.0/8"), flat, ["169.254.0.0/32", "10.0.0.0/8"]],
    ["the pod's network", routes("10.244.1.0/24"), flat, "route-not-allowed"],
    ["a part of it", routes("10.244.1.128/25"), flat, "route-not-allowed"],
    ["the pod's gateway", routes("10.244.1.1/32"), flat, "route-not-allowed"],
    ["a route that the pod has itself", routes("10.244.0.0/16"), flat, "route-not-allowed"],
    ["the pod's address for the wire", { srcAddresses: ["10.244.1.5/32"] }, flat, "address-not-allowed"],
    ["the gateway's", { srcAddresses: ["10.244.1.1/32"] }, flat, "address-not-allowed"],
    ["one whose network is the pod's", { srcAddresses: ["10.244.1.77/24"] }, flat, "route-not-allowed"],
    ["a peer in it", { dstAddresses: ["10.244.1.9/32"] }, flat, "route-not-allowed"],
    ["the pod's network of IPv6", routes("fd44::/96"), flat, "route-not-allowed"],
    [
      "the usual pool around a gateway of its own route",
      routes("169.254.0.0/16"),
      routed,
      [
        "169.254.0.0/32",
        // Around 169.254.169.240/28 and 169.254.170.0/27.
        "169.254.0.0/17",
        "169.254.128.0/19",
        "169.254.160.0/21",
        "169.254.168.0/24",
        "169.254.169.0/25",
        "169.254.169.128/26",
        "169.254.169.192/27",
        "169.254.169.224/28",
        "169.254.170.32/27",
        "169.254.170.64/26",
        "169.254.170.128/25",
        "169.254.171.0/24",
        "169.254.172.0/22",
        "169.254.176.0/20",
        "169.254.192.0/18",
      ],
    ],
    [
      "a policy's route to the pod's gateway",
      policies({ srcPort: "1-65535", routes: [{ prefix: "10.244.1.1/32" }] }),
      flat,
      "route-not-allowed",
    ],
    [
      "a policy's route by the wire's own address",
      policies({ from: "169.254.0.1/32", routes: [{ prefix: "10.244.1.1/32" }] }),
      flat,
      ["169.254.0.0/32"],
    ],
    ["the gateway's own route", routes("169.254.1.1/32"), routed, "route-not-allowed"],
    ["a route to the pod itself", routes("10.0.3.4/32"), routed, "route-not-allowed"],
  ])("%s", (_, ip, pod, expected) => {
    expect(fitted(ip, pod)).toEqual(expected);
  });

  const endpointTakes = (ip: Partial<WireIp>, brought: string[], pod = flat) => {
    const [, endpoint] = planWire(wire({ ...ip, brought })).ends;
    if (endpoint === undefined) throw new Error("no endpoint");
    try {
      checkBrought(endpoint, pod);
      return "taken";
    } catch (error) {
      expect(bringsNews(endpoint)).toBe(true);
      return String(Reflect.get(Object(error), "reason"));
    }
  };
  const gateway = { dstRoutes: [{ prefix: "10.244.1.1/32" }] };
  const neighbor = { dstAddresses: ["10.244.1.9/32"] };

  test.each<[string, Partial<WireIp>, string[], string]>([
    ["a route to its gateway, of its own", gateway, [], "taken"],
    ["a route to its gateway, of the client's", gateway, ["10.244.1.1/32"], "route-not-allowed"],
    [
      "a client that says to be its gateway",
      { srcAddresses: ["10.244.1.1/24"] },
      ["10.244.1.1/24"],
      "route-not-allowed",
    ],
    ["an address of its network, of its own", neighbor, [], "taken"],
    ["an address of its network, of the client's", neighbor, ["10.244.1.9/32"], "route-not-allowed"],
    ["its own address, of the client's", { dstAddresses: ["10.244.1.5/32"] }, ["10.244.1.5/32"], "taken"],
    [
      "what the client had of another endpoint",
      {},
      ["169.254.0.0/32", "169.254.0.1/32", "fd01::1/128"],
      "taken",
    ],
  ])("the endpoint's pod: %s", (_, ip, brought, expected) => {
    expect(endpointTakes(ip, brought)).toBe(expected);
  });

  test("what a client brought is news in its endpoint's pod until it is there", () => {
    const brought = ["10.244.1.9/32", "10.7.0.0/24"];
    const ip = { dstAddresses: ["10.244.1.9/32"], dstRoutes: [{ prefix: "10.7.0.0/24" }] };
    const [, endpoint] = planWire(wire({ ...ip, brought })).ends;
    if (endpoint === undefined) throw new Error("no endpoint");
    const { addresses, routes: all } = endpoint;
    expect(bringsNews({ ...endpoint, brought: [] })).toBe(false);
    expect(bringsNews(endpoint)).toBe(true);
    expect(bringsNews(endpoint, { addresses, routes: [] })).toBe(true);
    expect(bringsNews(endpoint, { addresses: [], routes: all })).toBe(true);
    expect(bringsNews(endpoint, { addresses, routes: all })).toBe(false);
  });

  test("an accepted default route leaves the pod's own in place, and is whole where there is none", () => {
    expect(fitted(routes("0.0.0.0/0", "::/0"), flat, true)).toEqual([
      ...own,
      "::/1",
      "8000::/1",
      "0.0.0.0/1",
      "128.0.0.0/1",
    ]);
    expect(fitted(routes("0.0.0.0/0"), podWith(2, [], []), true)).toEqual([...own, "0.0.0.0/0"]);
  });

  test("other wires' addresses and routes are no reason to refuse, and IPv6 routes go behind theirs", () => {
    const wires = podWith(
      WIRE_IFINDEX.first,
      ["169.254.0.1/32"],
      [["10.0.0.0/8"], ["fd09::/64", "fd01::2", 1024], ["fd09::/64", "fd01::3", 1025]],
    );
    expect(fitted(routes("10.0.0.0/8", "fd09::/64", "fd0a::/64"), wires)).toEqual([
      ...own,
      "fd09::/64 1026",
      "fd0a::/64",
      "10.0.0.0/8",
    ]);
  });
});
