// Policy routes:   [client] rules -> tables -> nsm-c ======= nsm-e [endpoint]
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Wire } from "../../forwarder/dataplane.ts";
import { createNamespace, eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { joinPodNetwork } from "../support/pod-network.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";

type Policy = NonNullable<Wire["ip"]["policies"]>[number];

const policy = (more: Partial<Policy>): Policy => ({
  from: "",
  proto: "",
  srcPort: "",
  dstPort: "",
  routes: [],
  ...more,
});

describe.skipIf(!isRoot)("policy routes of a wire (need root)", () => {
  let node: Namespace, client: Namespace, endpoint: Namespace, forwarder: Node, before: string[][];

  beforeEach(async () => {
    [node, client, endpoint] = [
      createNamespace("node"),
      createNamespace("client"),
      createNamespace("endpoint"),
    ];
    // A pod has a network of its own, and may have rules of its own.
    await joinPodNetwork(client);
    client.ip("rule add from 10.66.0.1 table 2");
    before = [node, client, endpoint].map(inventory);
    forwarder = await startNode(node);
  });
  afterEach(async () => {
    await forwarder.kill();
    await Promise.all([node, client, endpoint].map((ns) => ns.kill()));
  });

  const wire = (policies: readonly Policy[]): Wire =>
    wireOf("wire-1", kernelSide(client, "nsm-c"), kernelSide(endpoint, "nsm-e"), {
      ip: {
        srcAddresses: ["172.16.1.1/32", "172.16.2.201/32", "fd00::1/128"],
        dstAddresses: ["172.16.1.2/32", "fd00::2/128"],
        policies,
      },
    });
  /** Of another endpoint, which assigns the same addresses. */
  const secondWire = (policies: readonly Policy[]): Wire =>
    wireOf("wire-2", kernelSide(client, "nsm-d"), kernelSide(endpoint, "nsm-f"), { ip: { policies } });
  const way = (question: string) => client.ip(`route get ${question}`).split("\n")[0]?.trim();
  const rules = () =>
    [...client.ip("rule").split("\n"), ...client.ip("-6 rule").split("\n")]
      .filter((line) => line.includes("proto 157"))
      .map((line) =>
        line
          .replaceAll(/\s+/g, " ")
          .replace(/^\d+: /, "")
          .trim(),
      );
  const expectNothingLeft = () => expect([node, client, endpoint].map(inventory)).toEqual(before);

  const all: readonly [Policy, Policy, Policy, Policy] = [
    policy({ from: "172.16.2.201/32", proto: "6", dstPort: "6666" }),
    policy({ proto: "17", dstPort: "5000-5555", routes: [{ prefix: "10.7.0.0/16", nextHop: "172.16.1.2" }] }),
    policy({ proto: "17", srcPort: "7777", routes: [{ prefix: "10.8.0.0/16" }, { prefix: "10.9.0.0/16" }] }),
    policy({ from: "fd00::1/128", proto: "6", dstPort: "80", routes: [{ prefix: "fd99::/64" }] }),
  ];

  test("protocols, ports, ranges, sources, both families: each has the lowest free table", async () => {
    await forwarder.apply(wire(all));
    const via = "via 172.16.1.2 dev nsm-c";
    expect(way("8.8.8.8 from 172.16.2.201 ipproto tcp dport 6666")).toContain(`${via} table 1`);
    expect(way("8.8.8.8 from 172.16.2.201 ipproto tcp dport 6667")).toContain("dev eth0");
    expect(way("8.8.8.8 ipproto tcp dport 6666")).toContain("dev eth0");
    // Table 2 is the pod's.
    for (const port of [5000, 5300, 5555])
      expect(way(`10.7.1.1 ipproto udp dport ${port}`)).toContain(`${via} table 3`);
    expect(way("10.7.1.1 ipproto udp dport 5556")).toContain("dev eth0");
    expect(way("10.8.1.1 ipproto udp sport 7777")).toContain(`${via} table 4`);
    expect(way("10.9.1.1 ipproto udp sport 7777")).toContain(`${via} table 4`);
    expect(way("fd99::9 from fd00::1 ipproto tcp dport 80")).toContain("via fd00::2 dev nsm-c table 5");
    expect(rules()).toHaveLength(4);
    await forwarder.remove("wire-1");
    expectNothingLeft();
  });

  test("a policy without source and routes is one of all the families that the client has", async () => {
    await forwarder.apply(wire([policy({ proto: "6", dstPort: "443" })]));
    expect(rules()).toEqual([
      "from all ipproto tcp dport 443 lookup 1 proto 157",
      "from all ipproto tcp dport 443 lookup 1 proto 157",
    ]);
    expect(way("1.1.1.1 ipproto tcp dport 443")).toContain("via 172.16.1.2 dev nsm-c table 1");
    expect(way("2606::1 ipproto tcp dport 443")).toContain("via fd00::2 dev nsm-c table 1");
    await forwarder.remove("wire-1");
    expectNothingLeft();
  });

  test("a refresh adds, changes and removes policies and their routes, and keeps the device and what stays", async () => {
    const [first, second, third, fourth] = all;
    await forwarder.apply(wire([first, second]));
    const link = client.ip("-o link show nsm-c");
    const changed = { ...second, routes: [{ prefix: "10.7.0.0/16" }, { prefix: "10.17.0.0/16" }] };
    await forwarder.apply(wire([changed, third, fourth]));
    expect(client.ip("-o link show nsm-c")).toBe(link);
    expect(way("8.8.8.8 from 172.16.2.201 ipproto tcp dport 6666")).toContain("dev eth0");
    expect(way("10.17.1.1 ipproto udp dport 5000")).toContain("dev nsm-c table 3");
    expect(way("10.8.1.1 ipproto udp sport 7777")).toContain("dev nsm-c table");
    await forwarder.apply(wire([second]));
    expect(way("10.17.1.1 ipproto udp dport 5000")).toContain("dev eth0");
    expect(way("10.7.1.1 ipproto udp dport 5000")).toContain("dev nsm-c table 3");
    expect(rules()).toHaveLength(1);
    await forwarder.apply(wire([]));
    expect(rules()).toEqual([]);
    await forwarder.remove("wire-1");
    expectNothingLeft();
  });

  test("a policy that the kernel refuses leaves those that were there", async () => {
    await forwarder.apply(wire(all));
    const good = inventory(client);
    const bad = policy({ dstPort: "1", routes: [{ prefix: "10.1.0.0/16", nextHop: "172.16.1.1" }] });
    await expect(forwarder.apply(wire([...all.slice(2), bad]))).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "refused-by-kernel",
      message: expect.stringContaining("10.1.0.0/16 via 172.16.1.1"),
    });
    expect(inventory(client).toSorted()).toEqual(good.toSorted());
    await expect(forwarder.apply(secondWire([bad]))).rejects.toMatchObject({
      reason: "refused-by-kernel",
    });
    expect(inventory(client).toSorted()).toEqual(good.toSorted());
    await forwarder.remove("wire-1");
    expectNothingLeft();
  });

  test("two wires at once do not share a table, and the end of one leaves the other's", async () => {
    const other = [policy({ proto: "6", dstPort: "9999", routes: [{ prefix: "10.3.0.0/16" }] })];
    await Promise.all([forwarder.apply(wire(all)), forwarder.apply(secondWire(other))]);
    expect(new Set(rules().map((rule) => /lookup (\d+)/.exec(rule)?.[1])).size).toBe(5);
    await forwarder.remove("wire-1");
    expect(rules()).toHaveLength(1);
    expect(way("10.3.1.1 ipproto tcp dport 9999")).toContain("dev nsm-d table");
    await forwarder.remove("wire-2");
    expectNothingLeft();
  });

  test("a restarted forwarder takes the rules over, and removes those of a wire that nobody claims", async () => {
    await forwarder.apply(wire(all));
    const rulesBefore = rules();
    await forwarder.kill();
    forwarder = await startNode(node);
    await forwarder.apply(wire(all));
    expect(rules()).toEqual(rulesBefore);
    await forwarder.kill();
    forwarder = await startNode(node);
    expect(await forwarder.sweep([])).toEqual(["wire-1"]);
    expectNothingLeft();
  });

  test("rules whose device went with the other pod go with the wire, or are made anew with it", async () => {
    await forwarder.apply(wire(all));
    await endpoint.kill();
    await eventually("the device is gone", () => !client.ip("-o link").includes("nsm-c"));
    expect(rules()).toHaveLength(4);
    const spare = createNamespace("spare");
    const again = { ...wire(all), endpoint: kernelSide(spare, "nsm-s") };
    await forwarder.apply(again);
    expect(rules()).toHaveLength(4);
    expect(way("8.8.8.8 from 172.16.2.201 ipproto tcp dport 6666")).toContain("dev nsm-c table 1");
    await spare.kill();
    await eventually("the device is gone", () => !client.ip("-o link").includes("nsm-c"));
    await forwarder.remove("wire-1");
    expect(inventory(client)).toEqual(before[1]);
  });
});
