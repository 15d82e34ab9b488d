//  [nsc] nsm-c                          nsm-e [nse]       the devices are in the pods, UDP sockets and, where the
//          :                              :               kernel has no WireGuard, a wireguard-go each in the nodes
//       [node 1] u0 10.9.0.1 ==== 10.9.0.2 u0 [node 2]
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Wire } from "../../forwarder/dataplane.ts";
import { eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, startTwoNodes, wireOf, wireguardSide } from "../support/node.ts";
import type { Node, TwoNodes, WireguardKeys as Keys } from "../support/node.ts";
import { bindUdp, reaches, startEcho, startStream } from "../support/udp.ts";

describe.skipIf(!isRoot)("a WireGuard wire between nodes (needs root)", () => {
  let node1: Namespace, node2: Namespace, nsc: Namespace, nse: Namespace, one: Node, two: Node;
  let nodes: TwoNodes, all: TwoNodes["all"], before: TwoNodes["before"];

  beforeEach(async () => {
    nodes = await startTwoNodes();
    ({ node1, node2, nsc, nse, one, two, all, before } = nodes);
  });
  afterEach(async () => {
    await nodes[Symbol.asyncDispose]();
    await eventually("no process of this test is left", () => programs().length === 0);
    await eventually("no socket file of this test is left", () => sockets().length === 0);
  });

  const wires = (keys1: Keys, keys2: Keys, v6 = false): [Wire, Wire] => {
    const more = {
      mtu: 1420,
      ip: { srcAddresses: ["172.16.1.1/32", "fd00::1/128"], dstAddresses: ["172.16.1.2/32", "fd00::2/128"] },
    };
    return [
      wireOf("w1", kernelSide(nsc, "nsm-c"), wireguardSide(1, keys1, keys2, v6), more),
      wireOf("w2", wireguardSide(2, keys2, keys1, v6), kernelSide(nse, "nsm-e"), more),
    ];
  };
  const reserve = () => Promise.all([one.reserveWireguard("w1"), two.reserveWireguard("w2")]);
  const carries = () => reaches(nsc, "172.16.1.1", nse, "172.16.1.2");
  /** wireguard-go processes whose node is one of this test's. */
  const programs = () => processesNamed("wireguard-go");

  test.each([
    ["IPv4", false],
    ["IPv6", true],
  ])("carries both families over %s, and leaves nothing when removed", async (_, v6) => {
    const [wire1, wire2] = wires(...(await reserve()), v6);
    await two.apply(wire2);
    await one.apply(wire1);
    expect(await carries()).toBe(true);
    expect(await reaches(nsc, "fd00::1", nse, "fd00::2")).toBe(true);
    expect(node1.ip("-o link")).not.toMatch(/: nsm/);
    expect(nsc.ip("addr show nsm-c")).toMatch(/mtu 1420/);
    expect(nsc.ip("addr show nsm-c")).not.toMatch(/fe80/);
    await Promise.all([one.remove("w1"), two.remove("w2")]);
    expect(all.map(inventory)).toEqual(before);
    expect(programs()).toEqual([]);
    expect(sockets()).toEqual([]);
  });

  test("keys are in no argument list and no environment", async () => {
    const [keys1, keys2] = await reserve();
    const [wire1] = wires(keys1, keys2);
    await one.apply(wire1);
    const secrets = [
      Buffer.from(keys1.privateKey).toString("base64"),
      Buffer.from(keys1.privateKey).toString("hex"),
    ];
    const texts = programs().map(
      (pid) =>
        readFileSync(`/proc/${pid}/cmdline`, "latin1") + readFileSync(`/proc/${pid}/environ`, "latin1"),
    );
    for (const secret of secrets) expect(texts.join()).not.toContain(secret);
  });

  test("a restarted forwarder adopts the tunnel with its keys: same device, not one packet lost", async () => {
    const keys = await reserve();
    const [wire1, wire2] = wires(...keys);
    await two.apply(wire2);
    await one.apply(wire1);
    expect(await carries()).toBe(true);
    const link = nsc.ip("-o link show nsm-c");
    using echo = startEcho(nse, "172.16.1.2");
    const stream = startStream(nsc, "172.16.1.1", "172.16.1.2", echo.port, 5);
    await one.kill();
    one = await startNode(node1);
    expect(await one.found("w1")).toMatchObject([
      { interfaceName: "nsm-c", side: "client", binding: "b1", port: keys[0].port, remotePort: keys[1].port },
    ]);
    expect(await one.reserveWireguard("w1")).toEqual(keys[0]);
    await one.apply(wire1);
    await one.apply({ ...wire1, mtu: 1400 });
    const { sent, lost } = await stream.stop();
    expect(sent).toBeGreaterThan(20);
    expect(lost).toBe(0);
    expect(nsc.ip("-o link show nsm-c")).toBe(link.replace("1420", "1400"));
    await Promise.all([one.remove("w1"), two.remove("w2")]);
    expect(all.map(inventory)).toEqual(before);
    expect(programs()).toEqual([]);
  });

  test("a new key of the peer is taken without a new device", async () => {
    const [keys1, keys2] = await reserve();
    const [wire1, wire2] = wires(keys1, keys2);
    await two.apply(wire2);
    await one.apply(wire1);
    expect(await carries()).toBe(true);
    const link = nsc.ip("-o link show nsm-c");
    await two.remove("w2");
    const fresh = await two.reserveWireguard("w2");
    expect(fresh.publicKey).not.toEqual(keys2.publicKey);
    const [again1, again2] = wires(keys1, fresh);
    await two.apply(again2);
    await one.apply(again1);
    expect(nsc.ip("-o link show nsm-c")).toBe(link);
    expect(await carries()).toBe(true);
  });

  test("a wire whose process died is made again by a refresh", async () => {
    if ((await one.modes()).wireguard.mode !== "userspace") return;
    const [wire1, wire2] = wires(...(await reserve()));
    await two.apply(wire2);
    await one.apply(wire1);
    for (const pid of programs()) process.kill(pid, "SIGKILL");
    await eventually(
      "the devices are gone",
      () => !nsc.ip("link").includes("nsm-c") && !nse.ip("link").includes("nsm-e"),
    );
    await two.apply(wire2);
    await one.apply(wire1);
    expect(await carries()).toBe(true);
  });

  test("a pod that dies takes device, process and socket file with it", async () => {
    const [wire1] = wires(...(await reserve()));
    await one.apply(wire1);
    await nsc.kill();
    await eventually("the process ends", () => programs().length === 0);
    await eventually(
      "no zombie is left",
      () => !readFileSync(`/proc/${one.pid}/task/${one.pid}/children`, "utf8").trim(),
    );
    await one.remove("w1");
    expect(sockets()).toEqual([]);
  });

  test("a name taken in the pod and a port taken on the node are refused, and nothing is left", async () => {
    const [keys1, keys2] = await reserve();
    const [wire1] = wires(keys1, keys2);
    nsc.ip("link add nsm-c type bridge");
    const beside = all.map(inventory);
    await expect(one.apply(wire1)).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "interface-name-taken",
    });
    expect(all.map(inventory)).toEqual(beside);
    expect(programs()).toEqual([]);
    nsc.ip("link del nsm-c");

    const holder = bindUdp(node1, "0.0.0.0", keys1.port);
    await expect(one.apply(wire1)).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "port-busy" });
    expect(all.map(inventory)).toEqual(before);
    await one.release("w1");
    expect((await one.reserveWireguard("w1")).port).not.toBe(keys1.port);
    holder.close();
  });

  test("what a crash left half made is removed at the next start", async () => {
    if ((await one.modes()).wireguard.mode !== "userspace") return;
    const [wire1] = wires(...(await reserve()));
    const applied = one.apply(wire1).catch(() => undefined);
    await eventually("the program runs", () => programs().length === 1);
    await one.kill();
    await applied;
    one = await startNode(node1);
    // Killed late, it had marked the device already: then that is there to be adopted or swept.
    await one.sweep([]);
    await eventually("the program ends", () => programs().length === 0);
    expect(all.map(inventory)).toEqual(before);
  });

  test("two wires of one node have ports, processes and devices of their own", async () => {
    const [a, b] = [await one.reserveWireguard("wa"), await one.reserveWireguard("wb")];
    expect(a.port).not.toBe(b.port);
    expect(await one.reserveWireguard("wa")).toEqual(a);
    await one.apply(wireOf("wa", kernelSide(nsc, "nsm-a"), wireguardSide(1, a, b)));
    await one.apply(wireOf("wb", kernelSide(nse, "nsm-b"), wireguardSide(1, b, a)));
    await one.remove("wa");
    expect(nse.ip("-o link")).toMatch(/nsm-b/);
    await one.remove("wb");
    expect(all.map(inventory)).toEqual(before);
  });

  function processesNamed(name: string): number[] {
    const inodes = new Set([node1, node2].map((ns) => String(ns.inode)));
    return readdirSync("/proc")
      .filter((entry) => /^\d+$/.test(entry) && isIn(entry, name, inodes))
      .map(Number);
  }

  /** UAPI sockets that no living process of somebody else's serves. */
  function sockets(): string[] {
    const others = execFileSync(
      "sh",
      ["-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' || true"],
      { encoding: "utf8" },
    );
    const files = existsSync("/var/run/wireguard") ? readdirSync("/var/run/wireguard") : [];
    return files.filter((file) => !others.includes(file.replace(".sock", "")));
  }
});

function isIn(pid: string, name: string, netns: ReadonlySet<string>): boolean {
  try {
    if (readFileSync(`/proc/${pid}/comm`, "utf8").trim() !== name) return false;
    const link = execFileSync("readlink", [`/proc/${pid}/ns/net`], { encoding: "utf8" });
    return netns.has(/\d+/.exec(link)?.[0] ?? "");
  } catch {
    // It ended meanwhile.
    return false;
  }
}
