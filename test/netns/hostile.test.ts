// An endpoint that asks too much of a pod:   eth0 [client] nsm-c ======= nsm-e [endpoint]
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Wire } from "../../forwarder/dataplane.ts";
import { createNamespace, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";
import { joinPodNetwork } from "../support/pod-network.ts";
import { reaches } from "../support/udp.ts";

type More = NonNullable<Parameters<typeof wireOf>[3]>;

describe.skipIf(!isRoot)("hostile answers (need root)", () => {
  let node: Namespace, client: Namespace, endpoint: Namespace, forwarder: Node, before: string[][];

  beforeEach(async () => {
    [node, client, endpoint] = [
      createNamespace("node"),
      createNamespace("client"),
      createNamespace("endpoint"),
    ];
    await joinPodNetwork(client);
    before = [node, client, endpoint].map(inventory);
    forwarder = await startNode(node);
  });
  afterEach(async () => {
    await forwarder.kill();
    await Promise.all([node, client, endpoint].map((ns) => ns.kill()));
  });

  const wire = (more: More = {}, acceptsDefaultRoute = false): Wire =>
    wireOf(
      "wire-1",
      { ...kernelSide(client, "nsm-c"), acceptsDefaultRoute },
      kernelSide(endpoint, "nsm-e"),
      more,
    );
  const routes = (...prefixes: string[]): More => ({
    ip: { srcRoutes: prefixes.map((prefix) => ({ prefix })) },
  });
  const way = (to: string) => client.ip(`route get ${to}`).split("\n")[0]?.trim() ?? "";
  const expectNothingLeft = () => expect([node, client, endpoint].map(inventory)).toEqual(before);

  test.each<[string, More, string]>([
    ["a default route", routes("0.0.0.0/0"), "route-not-allowed"],
    ["a default route in halves", routes("0.0.0.0/1", "128.0.0.0/1"), "route-not-allowed"],
    ["a default route of IPv6", routes("::/0"), "route-not-allowed"],
    ["the pod's network", routes("10.244.1.0/24"), "route-not-allowed"],
    ["the pod's gateway", routes("10.244.1.1/32"), "route-not-allowed"],
    ["the pod's gateway of IPv6", routes("fd44::1/128"), "route-not-allowed"],
    ["a metadata service", routes("169.254.169.254/32"), "route-not-allowed"],
    ["the pod's address", { ip: { srcAddresses: ["10.244.1.5/32"] } }, "address-not-allowed"],
    ["a peer with the gateway's address", { ip: { dstAddresses: ["10.244.1.1/32"] } }, "route-not-allowed"],
    [
      "a policy for the pod's own address",
      {
        ip: { policies: [{ from: "10.244.1.5/32", proto: "", srcPort: "", dstPort: "", routes: [] }] },
      },
      "policy-not-allowed",
    ],
    ["an MTU of 67", { mtu: 67 }, "bad-mtu"],
    ["an MTU of 65536", { mtu: 65536 }, "bad-mtu"],
  ])("%s is refused, at first and at a refresh, and the pod is as before", async (_, more, reason) => {
    await expect(forwarder.apply(wire(more))).rejects.toMatchObject({ reason });
    expectNothingLeft();
    await forwarder.apply(wire());
    const good = [client, endpoint].map(inventory);
    await expect(forwarder.apply(wire(more))).rejects.toMatchObject({ reason });
    expect([client, endpoint].map(inventory)).toEqual(good);
    await forwarder.remove("wire-1");
    expectNothingLeft();
  });

  test("larger networks are fine, the pod's own stay its own", async () => {
    await forwarder.apply(wire(routes("10.0.0.0/8", "169.254.0.0/16", "fd00::/8")));
    expect(way("10.1.1.1")).toContain("dev nsm-c");
    expect(way("10.244.1.9")).toContain("dev eth0");
    expect(way("8.8.8.8")).toContain("via 10.244.1.1 dev eth0");
    await forwarder.remove("wire-1");
    expectNothingLeft();
  });

  test("metadata services and what the client protects go where they went, as long as the wire is there", async () => {
    const keeping = (...addresses: string[]): Wire => {
      const plain = wire({
        ip: {
          srcAddresses: ["169.254.0.1/16", "172.16.1.1/32"],
          dstAddresses: ["169.254.0.2/32", "172.16.1.2/32"],
          srcRoutes: [{ prefix: "10.0.0.0/8" }, { prefix: "fd00::/8" }],
          policies: [{ from: "", proto: "6", srcPort: "", dstPort: "80", routes: [] }],
        },
      });
      return { ...plain, client: { ...kernelSide(client, "nsm-c"), protectedAddresses: addresses } };
    };
    await forwarder.apply(keeping("10.96.0.10"));
    for (const to of ["10.96.0.10", "169.254.169.254", "169.254.170.2", "10.96.0.10 ipproto tcp dport 80"])
      expect(way(to), to).toContain("via 10.244.1.1 dev eth0");
    expect(way("fd00:ec2::254")).toContain("via fd44::1 dev eth0");
    for (const to of ["10.96.0.11", "169.254.0.9", "8.8.8.8 ipproto tcp dport 80"])
      expect(way(to), to).toContain("dev nsm-c");
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    const made = inventory(client);
    const messages = await forwarder.applyStepped(keeping("10.96.0.10"), 100, "abort");
    expect(messages).toBe(1);
    // A restarted forwarder takes the routes over as they are, and changes what the client says now.
    await forwarder.kill();
    forwarder = await startNode(node);
    await forwarder.apply(keeping("10.96.0.10"));
    expect(inventory(client)).toEqual(made);
    await forwarder.apply(keeping("10.96.0.11"));
    expect(way("10.96.0.10")).toContain("dev nsm-c");
    expect(way("10.96.0.11")).toContain("dev eth0");
    await forwarder.remove("wire-1");
    expectNothingLeft();
  });

  test("an accepted default route holds as long as the wire, and the pod's own comes back", async () => {
    await forwarder.apply(wire(routes("0.0.0.0/0"), true));
    expect(way("8.8.8.8")).toContain("via 172.16.1.2 dev nsm-c");
    expect(way("10.244.1.9")).toContain("dev eth0");
    expect(client.ip("route show default")).toContain("via 10.244.1.1 dev eth0");
    await forwarder.apply(wire(routes("0.0.0.0/0"), true));
    await forwarder.remove("wire-1");
    expect(way("8.8.8.8")).toContain("via 10.244.1.1 dev eth0");
    expectNothingLeft();
  });

  test("of two wires with the same route the first has it, then the second", async () => {
    const second = wireOf("wire-2", kernelSide(client, "nsm-d"), kernelSide(endpoint, "nsm-f"), {
      ip: { dstAddresses: ["172.16.1.3/32", "fd01::3/128"], srcAddresses: ["172.16.1.9/32", "fd01::9/128"] },
    });
    const both = { srcRoutes: [{ prefix: "10.7.0.0/16" }, { prefix: "fd77::/64" }] };
    const first = wire({
      ip: {
        srcAddresses: ["172.16.1.1/32", "fd01::1/128"],
        dstAddresses: ["172.16.1.2/32", "fd01::2/128"],
        ...both,
      },
    });
    await forwarder.apply(first);
    await forwarder.apply({ ...second, ip: { ...second.ip, ...both } });
    for (const to of ["10.7.1.1", "fd77::9"]) expect(way(to)).toContain("dev nsm-c");
    await forwarder.apply({ ...first, mtu: 1400 });
    for (const to of ["10.7.1.1", "fd77::9"]) expect(way(to)).toContain("dev nsm-c");
    await forwarder.remove("wire-1");
    for (const to of ["10.7.1.1", "fd77::9"]) expect(way(to)).toContain("dev nsm-d");
    expect(await reaches(client, "172.16.1.9", endpoint, "172.16.1.3")).toBe(true);
    await forwarder.remove("wire-2");
    expectNothingLeft();
  });

  test("a client gets no route of the endpoint's pod by an answer that repeats its request", async () => {
    await joinPodNetwork(endpoint);
    const dstRoutes = [{ prefix: "10.244.1.1/32" }];
    const repeated = wire({ ip: { dstRoutes, brought: ["10.244.1.1/32"] } });
    const joined = inventory(endpoint);
    await expect(forwarder.apply(repeated)).rejects.toMatchObject({ reason: "route-not-allowed" });
    expect(inventory(endpoint)).toEqual(joined);
    await forwarder.apply(wire({ ip: { dstRoutes } }));
    // A refresh brings all that there is.
    await forwarder.apply({ ...repeated, mtu: 1400 });
    expect(endpoint.ip("route get 10.244.1.1")).toContain("dev nsm-e");
    await forwarder.remove("wire-1");
    expect(inventory(endpoint)).toEqual(joined);
  });
});
