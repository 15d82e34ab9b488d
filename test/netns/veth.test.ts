// Two pods of one node:   [client] nsm-c ======= nsm-e [endpoint]     node: nothing
import { execFileSync } from "node:child_process";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createNamespace, eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";
import { reaches } from "../support/udp.ts";

describe.skipIf(!isRoot)("a wire inside a node (needs root)", () => {
  let node: Namespace, client: Namespace, endpoint: Namespace, forwarder: Node;
  let before: string[][];

  beforeEach(async () => {
    [node, client, endpoint] = [createNamespace("node"), createNamespace("nsc"), createNamespace("nse")];
    forwarder = await startNode(node);
    before = [node, client, endpoint].map(inventory);
  });
  afterEach(async () => {
    await forwarder.kill();
    await Promise.all([node, client, endpoint].map((ns) => ns.kill()));
  });

  const wire = (more: Parameters<typeof wireOf>[3] = {}) =>
    wireOf("wire-1", kernelSide(client, "nsm-c"), kernelSide(endpoint, "nsm-e"), more);
  const expectNothingLeft = () => expect([node, client, endpoint].map(inventory)).toEqual(before);
  const ifindexes = () =>
    [client, endpoint].map((ns) => /^(\d+): nsm-/m.exec(ns.ip("-o link"))?.[1] ?? "no interface");

  test("carries IPv4 with permanent neighbours, and leaves nothing when removed", async () => {
    await forwarder.apply(wire());
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    expect(client.ip("neigh show dev nsm-c")).toMatch(/^172\.16\.1\.2 lladdr 02:\S+ PERMANENT proto 157/);
    expect(endpoint.ip("neigh show dev nsm-e")).toMatch(/^172\.16\.1\.1 lladdr 02:\S+ PERMANENT proto 157/);
    expect(node.ip("-o link").trim().split("\n")).toHaveLength(1);
    expect(client.ip("-d link show nsm-c")).toMatch(/alias nsm:1:wire-1:client:b1/);
    expect(client.ip("-d link show nsm-c")).toMatch(/numtxqueues 1 numrxqueues 1/);
    await forwarder.remove("wire-1");
    expectNothingLeft();
  });

  test.each([
    ["IPv6", { srcAddresses: ["fd00::1/128"], dstAddresses: ["fd00::2/128"] }],
    [
      "both families",
      {
        srcAddresses: ["172.16.1.1/32", "fd00::1/128"],
        dstAddresses: ["172.16.1.2/32", "fd00::2/128"],
        srcRoutes: [{ prefix: "172.16.1.2/32" }, { prefix: "10.0.0.0/8" }, { prefix: "fd01::/16" }],
        dstRoutes: [{ prefix: "172.16.1.1/32" }, { prefix: "fd00::1/128" }],
      },
    ],
  ])("carries %s at once, though the container has IPv6 off", async (_, ip) => {
    client.exec("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    await forwarder.apply(wire({ ip }));
    expect(await reaches(client, "fd00::1", endpoint, "fd00::2")).toBe(true);
    expect(client.ip("-6 addr show dev nsm-c")).not.toMatch(/fe80|tentative/);
    expect(client.exec("cat", "/proc/sys/net/ipv6/conf/nsm-c/accept_ra")).toBe("0\n");
    const v4 = await reaches(client, "172.16.1.1", endpoint, "172.16.1.2").catch(() => false);
    expect(v4).toBe(ip.srcAddresses.includes("172.16.1.1/32"));
  });

  test("carries Ethernet, with ARP, link-local addresses and the MACs of the context", async () => {
    const macs = { srcMac: "02:00:00:00:00:0a", dstMac: "02:00:00:00:00:0b" };
    await forwarder.apply(wire({ payload: "ETHERNET", mtu: 9000, ...macs }));
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    expect(client.ip("neigh show dev nsm-c")).toMatch(
      /172\.16\.1\.2 lladdr 02:00:00:00:00:0b (REACHABLE|DELAY|STALE)/,
    );
    expect(client.ip("link show nsm-c")).toMatch(/mtu 9000[^]*link\/ether 02:00:00:00:00:0a/);
    expect(client.ip("addr show nsm-c")).toMatch(/fe80::ff:fe00:a/);
  });

  test("routes through the endpoint: default route, next hop, a prefix that holds it", async () => {
    const srcRoutes = [
      { prefix: "0.0.0.0/0" },
      { prefix: "10.1.2.3/8", nextHop: "172.16.1.77" },
      { prefix: "172.16.1.2/32" },
    ];
    const accepting = { ...kernelSide(client, "nsm-c"), acceptsDefaultRoute: true };
    await forwarder.apply(wire({ ip: { srcRoutes }, client: accepting }));
    expect(client.ip("route show").replace(/ +$/gm, "").trim().split("\n")).toEqual([
      "default via 172.16.1.2 dev nsm-c proto 157 onlink",
      "10.0.0.0/8 via 172.16.1.77 dev nsm-c proto 157 onlink",
      "172.16.1.2 dev nsm-c proto 157",
    ]);
    expect(endpoint.ip("route show").replace(/ +$/gm, "").trim()).toBe(
      "172.16.1.1 dev nsm-e proto 157 scope link",
    );
  });

  test("programs of the client may ping while a wire is there, unless its owner has said who may", async () => {
    const groups = (ns: Namespace) =>
      ns.exec("cat", "/proc/sys/net/ipv4/ping_group_range").trim().replaceAll(/\s+/g, " ");
    const other = wireOf("wire-2", kernelSide(client, "nsm-d"), kernelSide(endpoint, "nsm-f"));
    await forwarder.apply(wire());
    await forwarder.apply(other);
    expect([client, endpoint].map(groups)).toEqual(["0 2147483646", "1 0"]);
    await forwarder.remove("wire-1");
    expect(groups(client)).toBe("0 2147483646");
    await forwarder.kill();
    forwarder = await startNode(node);
    await forwarder.remove("wire-2");
    expect(groups(client)).toBe("1 0");
    client.exec("sh", "-c", "echo 0 0 > /proc/sys/net/ipv4/ping_group_range");
    await forwarder.apply(wire());
    await forwarder.remove("wire-1");
    expect(groups(client)).toBe("0 0");
  });

  test("both ends in one namespace work when their names differ", async () => {
    const both = wireOf("wire-1", kernelSide(client, "nsm-a"), kernelSide(client, "nsm-b"));
    await forwarder.apply(both);
    expect(client.ip("-o link")).toMatch(/nsm-a@nsm-b[^]*nsm-b@nsm-a|nsm-b@nsm-a[^]*nsm-a@nsm-b/);
    await forwarder.remove("wire-1");
    expectNothingLeft();
    const same = wireOf("wire-1", kernelSide(client, "nsm-a"), kernelSide(client, "nsm-a"));
    await expect(forwarder.apply(same)).rejects.toMatchObject({ reason: "interface-name-taken" });
  });

  test("a refresh changes addresses, routes, neighbours and MTU in place", async () => {
    const first = { srcRoutes: [{ prefix: "10.0.0.0/8" }, { prefix: "10.9.0.0/16" }] };
    const second = {
      srcAddresses: ["172.16.1.9/32", "fd00::9/128"],
      dstAddresses: ["172.16.1.2/32", "fd00::2/128"],
      srcRoutes: [{ prefix: "10.9.0.0/16", nextHop: "172.16.1.3" }],
      neighbors: [{ ip: "172.16.1.3", mac: "02:00:00:00:00:03" }],
    };
    await forwarder.apply(wire({ ip: first }));
    const indexes = ifindexes();
    await forwarder.apply(wire({ ip: second, mtu: 1400 }));
    expect(ifindexes()).toEqual(indexes);
    expect(await reaches(client, "172.16.1.9", endpoint, "172.16.1.2")).toBe(true);
    expect(await reaches(client, "fd00::9", endpoint, "fd00::2")).toBe(true);
    expect(client.ip("route show")).not.toMatch(/10\.0\.0\.0/);
    expect(client.ip("route show")).toMatch(/10\.9\.0\.0\/16 via 172\.16\.1\.3/);
    expect(client.ip("-4 addr show nsm-c")).not.toMatch(/172\.16\.1\.1\b/);
    expect(client.ip("neigh show dev nsm-c")).toMatch(/172\.16\.1\.3 lladdr 02:00:00:00:00:03 PERMANENT/);
    expect(endpoint.ip("neigh show dev nsm-e")).not.toMatch(/172\.16\.1\.1\b/);
    for (const ns of [client, endpoint]) expect(ns.ip("link")).toMatch(/nsm-.*mtu 1400/);

    await forwarder.apply(wire({ ip: first, mtu: 1400 }));
    expect(ifindexes()).toEqual(indexes);
    expect(client.ip("neigh show dev nsm-c")).not.toMatch(/172\.16\.1\.3/);
    expect(client.ip("-6 addr show nsm-c")).toBe("");
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
  });

  test("makes the wire again when somebody deleted it", async () => {
    await forwarder.apply(wire());
    endpoint.ip("link del nsm-e");
    await forwarder.apply(wire());
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
  });

  test("moves the wire to another endpoint and another name", async () => {
    const other = createNamespace("nse2");
    await forwarder.apply(wire());
    await forwarder.apply(wireOf("wire-1", kernelSide(client, "nsm-new"), kernelSide(other, "nsm-e")));
    expect(endpoint.ip("-o link")).not.toMatch(/nsm-/);
    expect(client.ip("-o link")).not.toMatch(/nsm-c/);
    expect(await reaches(client, "172.16.1.1", other, "172.16.1.2")).toBe(true);
    await forwarder.remove("wire-1");
    await other.kill();
    expectNothingLeft();
  });

  test.each(["client", "endpoint"])(
    "a name taken by a stranger at the %s is refused, the stranger stays",
    async (side) => {
      const ns = side === "client" ? client : endpoint;
      const name = side === "client" ? "nsm-c" : "nsm-e";
      ns.ip(`link add ${name} type bridge`);
      before = [node, client, endpoint].map(inventory);
      await expect(forwarder.apply(wire())).rejects.toMatchObject({
        code: "ALREADY_EXISTS",
        reason: "interface-name-taken",
        message: expect.stringMatching(new RegExp(`${name} .*another name or remove`)),
      });
      expectNothingLeft();
    },
  );

  test("a name taken by another wire is refused", async () => {
    await forwarder.apply(wire());
    const other = wireOf("wire-2", kernelSide(client, "nsm-c"), kernelSide(endpoint, "nsm-f"));
    await expect(forwarder.apply(other)).rejects.toMatchObject({ reason: "interface-name-taken" });
    await forwarder.remove("wire-1");
    await forwarder.apply(other);
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
  });

  test("a route that the kernel refuses is named, and nothing is left of the wire", async () => {
    const bad = wire({ ip: { srcRoutes: [{ prefix: "10.0.0.0/8", nextHop: "172.16.1.1" }] } });
    await expect(forwarder.apply(bad)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("10.0.0.0/8 via 172.16.1.1"),
    });
    expectNothingLeft();
  });

  test("a refresh that the kernel refuses leaves the wire as it was", async () => {
    await forwarder.apply(wire({ mtu: 1400 }));
    const good = [client, endpoint].map(inventory);
    const bad = wire({ mtu: 1300, ip: { srcRoutes: [{ prefix: "10.0.0.0/8", nextHop: "172.16.1.1" }] } });
    await expect(forwarder.apply(bad)).rejects.toMatchObject({ reason: "refused-by-kernel" });
    expect([client, endpoint].map(inventory)).toEqual(good);
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
  });

  test("an aborted request leaves nothing", async () => {
    await expect(forwarder.apply(wire(), 0)).rejects.toThrow(/abort|timeout/i);
    expectNothingLeft();
  });

  test.each([
    ["netns-gone", () => ({ pid: 2 ** 22 - 1, inode: client.inode })],
    ["netns-mismatch", () => ({ pid: client.pid, inode: endpoint.inode })],
    ["netns-of-node", () => ({ pid: node.pid, inode: node.inode })],
  ])("the namespace of a side is proven: %s", async (reason, netns) => {
    const side = { ...kernelSide(client, "nsm-c"), netns: netns() };
    const bad = wireOf("wire-1", side, kernelSide(endpoint, "nsm-e"));
    await expect(forwarder.apply(bad)).rejects.toMatchObject({ reason });
    expectNothingLeft();
  });

  test("a pod that dies takes the wire with it, and the other pod and later calls do not mind", async () => {
    await forwarder.apply(wire());
    await endpoint.kill();
    await eventually("the client's end is gone", () => !client.ip("-o link").includes("nsm-c"));
    await expect(forwarder.apply(wire())).rejects.toMatchObject({ code: "NOT_FOUND", reason: "netns-gone" });
    await forwarder.remove("wire-1");
    expect(inventory(client)).toEqual(before[1]);
  });

  test("a pod killed while its wire is made leaves nothing in the other one", async () => {
    const outcomes: unknown[] = [];
    for (let round = 0; round < 5; round++) {
      const doomed = createNamespace("doomed");
      const applied = forwarder.apply(
        wireOf(`wire-${round}`, kernelSide(client, "nsm-c"), kernelSide(doomed, "nsm-e")),
      );
      await new Promise((resolve) => setTimeout(resolve, round / 2));
      await doomed.kill();
      outcomes.push(
        await applied.then(
          () => "made",
          (error: unknown) => Reflect.get(Object(error), "reason"),
        ),
      );
      await eventually("the client's end is gone", () => !client.ip("-o link").includes("nsm-c"));
      await forwarder.remove(`wire-${round}`);
    }
    expect(["made", "netns-gone"]).toEqual(expect.arrayContaining(outcomes));
    expect([node, client].map(inventory)).toEqual(before.slice(0, 2));
  });

  test("a hundred wires at once are made, and their removal does not hold the event loop", async () => {
    const ids = Array.from({ length: 100 }, (_, i) => i);
    const wireNo = (i: number) =>
      wireOf(`wire-${i}`, kernelSide(client, `nsm-c${i}`), kernelSide(endpoint, `nsm-e${i}`));
    await Promise.all(ids.map((i) => forwarder.apply(wireNo(i))));
    expect(client.ip("-o link").match(/nsm-c/g)).toHaveLength(100);
    await forwarder.busy();
    await Promise.all(ids.map((i) => forwarder.remove(`wire-${i}`)));
    // One deletion keeps the kernel busy for 16 ms: in the event loop they would take 1600. Half of that is for a busy machine.
    expect(await forwarder.busy()).toBeLessThan(1200);
    expectNothingLeft();
  });

  test("descriptors are closed after every operation", async () => {
    const count = () =>
      execFileSync("ls", [`/proc/${forwarder.pid}/fd`])
        .toString()
        .trim()
        .split("\n").length;
    await forwarder.apply(wire());
    const descriptors = count();
    for (let i = 0; i < 5; i++) await forwarder.apply(wire({ mtu: 1400 + i }));
    await forwarder.remove("wire-1");
    expect(count()).toBeLessThanOrEqual(descriptors);
  });
});
