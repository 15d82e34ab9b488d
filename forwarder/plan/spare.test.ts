import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatPrefix, hostPrefix, isInside, parseIp, prefixOf } from "../../sdk/prefix.ts";
import type { Prefix } from "../../sdk/prefix.ts";
import { checkWanted, fitIn } from "./guard.ts";
import { planWire } from "./plan.ts";
import { around } from "./spare.ts";
import type { WireIp, WirePolicy } from "../wire.ts";

const texts = (prefixes: readonly Prefix[]) => prefixes.map(formatPrefix);

describe("around", () => {
  const bits = fc.bigInt({ min: 0n, max: (1n << 32n) - 1n });
  const prefix = fc
    .record({ address: bits, length: fc.integer({ min: 0, max: 32 }) })
    .map(({ address, length }): Prefix => {
      const host = BigInt(32 - length);
      return { family: 4, address: (address >> host) << host, length };
    });

  test("every address is in one of the networks, or spared, and none is in both or in two", () => {
    fc.assert(
      fc.property(prefix, fc.array(prefix, { maxLength: 4 }), bits, (whole, spared, at) => {
        const holes = spared.filter((each) => isInside(each, whole) && each.length > whole.length);
        const parts = around(whole, spared);
        const probes = [at, ...holes.flatMap(({ address }) => [address, address - 1n, address + 1n])];
        for (const address of [...probes, whole.address]) {
          const host = hostPrefix({ family: 4, address });
          const wanted = isInside(host, whole) && !holes.some((hole) => isInside(host, hole)) ? 1 : 0;
          expect(parts.filter((part) => isInside(host, part))).toHaveLength(wanted);
        }
      }),
    );
  });

  test("what holds nothing of it stays the very same", () => {
    const whole = prefixOf("10.0.0.0/8");
    expect(around(whole, [prefixOf("192.0.2.1/32"), prefixOf("0.0.0.0/0"), prefixOf("::/0")])[0]).toBe(whole);
  });
});

const NOTHING = { addresses: [], routes: [] };
const anyPolicy: WirePolicy = { from: "", proto: "", srcPort: "", dstPort: "", routes: [] };

/** The client's end of a wire with these addresses and routes, in a pod with nothing else. */
function fitted(
  ip: Partial<WireIp>,
  protectedAddresses: readonly string[] = [],
  acceptsDefaultRoute = false,
) {
  const pod = (pid: number) =>
    ({ kind: "kernel", netns: { pid, inode: BigInt(pid) }, interfaceName: "nsm-1", binding: "b" }) as const;
  const wanted = planWire({
    id: "w",
    payload: "IP",
    mtu: 0,
    client: { ...pod(1), protectedAddresses, acceptsDefaultRoute },
    endpoint: pod(2),
    ip: {
      srcAddresses: ["172.16.1.1/32"],
      dstAddresses: ["172.16.1.2/32"],
      srcRoutes: [],
      dstRoutes: [],
      neighbors: [],
      ...ip,
    },
  });
  checkWanted(wanted);
  const [client] = wanted.ends;
  if (client === undefined) throw new Error("no client");
  return { before: client, after: fitIn(client, NOTHING) };
}
const leads = (routes: readonly { readonly prefix: Prefix }[], to: string) => {
  const address = parseIp(to);
  return routes.some(({ prefix }) => address !== undefined && isInside(address, prefix));
};
const route = (prefix: string) => ({ srcRoutes: [{ prefix }] });

describe("routes around what stays the pod's own", () => {
  test.for([
    ["169.254.0.0/16", [], ["169.254.169.254", "169.254.170.2", "169.254.170.23"], "169.254.169.1"],
    ["100.64.0.0/10", [], ["100.100.100.200"], "100.100.100.201"],
    ["fd00::/8", [], ["fd00:ec2::254", "fd00:ec2::23"], "fd00:ec3::254"],
    ["10.0.0.0/8", ["10.96.0.10", "10.96.0.1"], ["10.96.0.10", "10.96.0.1"], "10.96.0.11"],
    ["fd96::/16", ["fd96::a"], ["fd96::a"], "fd96::b"],
  ] as const)("%s", ([prefix, kept, own, wires]) => {
    const { routes } = fitted(route(prefix), kept).after;
    for (const to of own) expect(leads(routes, to), to).toBe(false);
    expect(leads(routes, wires)).toBe(true);
  });

  test("an address whose network holds it is one without network", () => {
    const { addresses, routes } = fitted({ srcAddresses: ["169.254.0.1/16", "10.9.0.1/24"] }).after;
    expect(texts(addresses)).toEqual(["169.254.0.1/32", "10.9.0.1/24"]);
    expect(leads(routes, "169.254.169.254")).toBe(false);
    expect(leads(routes, "169.254.3.3")).toBe(true);
    expect(leads(routes, "10.9.0.2")).toBe(false); // the kernel's own route of the address does
  });

  test("a policy for packets of the pod leads around it, too; one for the wire's own need not", () => {
    const policies = [
      { ...anyPolicy, proto: "6", dstPort: "80" },
      { ...anyPolicy, from: "172.16.1.1/32" },
    ];
    const [ofPod, ofWire] = fitted({ policies }, ["8.8.8.8"]).after.policies;
    for (const to of ["169.254.169.254", "8.8.8.8"]) expect(leads(ofPod?.routes ?? [], to)).toBe(false);
    expect(leads(ofPod?.routes ?? [], "8.8.4.4")).toBe(true);
    expect(texts(ofWire?.routes.map(({ prefix }) => prefix) ?? [])).toEqual(["0.0.0.0/0"]);
  });

  test("a default route that the owner accepts is one", () => {
    const { routes } = fitted(route("0.0.0.0/0"), ["10.96.0.10"], true).after;
    expect(texts(routes.map(({ prefix }) => prefix))).toEqual(["172.16.1.2/32", "0.0.0.0/0"]);
  });

  test("a wire without such routes is as it was", () => {
    const { before, after } = fitted(route("10.0.0.0/8"), ["192.0.2.53", "fd96::a"]);
    expect(after).toEqual(before);
  });

  test.for([
    ["a route to a name server", route("10.96.0.10/32"), "route-not-allowed"],
    ["a route to one of IPv6", route("fd96::a/128"), "route-not-allowed"],
    ["an endpoint with its address", { dstAddresses: ["10.96.0.10/32"] }, "route-not-allowed"],
    ["a wire with its address", { srcAddresses: ["10.96.0.10/24"] }, "address-not-allowed"],
    [
      "a policy to it",
      { policies: [{ ...anyPolicy, dstPort: "80", routes: [{ prefix: "10.96.0.10/32" }] }] },
      "route-not-allowed",
    ],
    ["a task's metadata service", route("169.254.170.2/32"), "route-not-allowed"],
    ["another cloud's", route("100.100.100.200/32"), "route-not-allowed"],
  ] as const)("%s is refused, whatever its owner says of default routes", ([, ip, reason]) => {
    for (const accepts of [false, true])
      expect(() => fitted(ip, ["10.96.0.10", "fd96::a"], accepts)).toThrow(
        expect.objectContaining({ code: "PERMISSION_DENIED", reason }),
      );
  });
});
