// What a forwarder that was killed left behind, in the eyes of the next one on the same node.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createNamespace, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";
import { reaches, startEcho, startStream } from "../support/udp.ts";

describe.skipIf(!isRoot)("a restarted forwarder (needs root)", () => {
  let node: Namespace, client: Namespace, endpoint: Namespace, forwarder: Node;
  let all: Namespace[], before: string[][];

  beforeEach(async () => {
    all = [node, client, endpoint] = [
      createNamespace("node"),
      createNamespace("nsc"),
      createNamespace("nse"),
    ];
    forwarder = await startNode(node);
    before = all.map(inventory);
  });
  afterEach(async () => {
    await forwarder.kill();
    await Promise.all(all.map((ns) => ns.kill()));
  });

  const restart = async () => {
    await forwarder.kill();
    forwarder = await startNode(node);
  };
  const wire = (id = "wire-1", binding = "b1") =>
    wireOf(id, kernelSide(client, "nsm-c", binding), kernelSide(endpoint, "nsm-e", binding), {
      ip: { srcRoutes: [{ prefix: "10.0.0.0/8" }] },
    });

  test("adopts a wire: same devices, same state, not one packet lost", async () => {
    await forwarder.apply(wire());
    const made = all.map(inventory);
    using echo = startEcho(endpoint, "172.16.1.2");
    const stream = startStream(client, "172.16.1.1", "172.16.1.2", echo.port);
    await restart();
    const found = await forwarder.found("wire-1");
    expect(
      found.map((device) => [device.side, device.kind, device.interfaceName, device.binding].join()),
    ).toEqual(expect.arrayContaining(["client,veth,nsm-c,b1", "endpoint,veth,nsm-e,b1"]));
    await forwarder.apply(wire());
    expect(await forwarder.found("wire-1")).toEqual([]);
    await forwarder.apply(wire());
    const { sent, lost } = await stream.stop();
    expect(sent).toBeGreaterThan(50);
    expect(lost).toBe(0);
    expect(all.map(inventory)).toEqual(made);
    await forwarder.remove("wire-1");
    expect(all.map(inventory)).toEqual(before);
  });

  test("puts right what differs from the wire, without a new device", async () => {
    await forwarder.apply(wire());
    const made = all.map(inventory);
    await forwarder.kill();
    client.ip("addr add 192.168.9.9/32 dev nsm-c");
    client.ip("route del 10.0.0.0/8");
    client.ip("route add 192.168.0.0/16 via 172.16.1.2 dev nsm-c onlink");
    endpoint.ip("link set nsm-e mtu 1280");
    endpoint.ip("neigh del 172.16.1.1 dev nsm-e");
    forwarder = await startNode(node);
    await forwarder.apply({ ...wire(), mtu: 1500 });
    client.ip("route del 192.168.0.0/16");
    expect(all.map(inventory)).toEqual(made);
  });

  test("removes a wire that it was only told to close", async () => {
    await forwarder.apply(wire());
    await restart();
    await forwarder.remove("wire-1");
    expect(all.map(inventory)).toEqual(before);
  });

  test("sweeps what nobody claims, and nothing else", async () => {
    await forwarder.apply(wireOf("kept", kernelSide(client, "nsm-k"), kernelSide(endpoint, "nsm-k")));
    await forwarder.apply(wireOf("claimed", kernelSide(client, "nsm-l"), kernelSide(endpoint, "nsm-l")));
    await forwarder.apply(wire("orphan"));
    await restart();
    await forwarder.apply(wireOf("kept", kernelSide(client, "nsm-k"), kernelSide(endpoint, "nsm-k")));
    expect(await forwarder.sweep(["claimed"])).toEqual(["orphan"]);
    expect(client.ip("-o link")).toMatch(/nsm-k[^]*nsm-l|nsm-l[^]*nsm-k/);
    expect(client.ip("-o link")).not.toMatch(/nsm-c/);
    expect(await forwarder.sweep([])).toEqual(["claimed"]);
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
  });

  test("gives a wire to nobody else: another binding is refused", async () => {
    await forwarder.apply(wire());
    await restart();
    await expect(forwarder.apply(wire("wire-1", "b2"))).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "foreign-device",
    });
    expect(await forwarder.found("wire-1")).toHaveLength(2);
    await forwarder.apply(wire());
  });

  test.for(["client", "endpoint"] as const)(
    "gives it to nobody in another pod: another %s is refused, and nothing is lost or left",
    async (side) => {
      await using other = createNamespace("other");
      await forwarder.apply(wire());
      await restart();
      const moved = {
        ...wire(),
        [side]: kernelSide(other, side === "client" ? "nsm-c" : "nsm-e"),
      };
      await expect(forwarder.apply(moved)).rejects.toMatchObject({
        code: "PERMISSION_DENIED",
        reason: "foreign-device",
      });
      expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
      expect(await forwarder.found("wire-1")).toHaveLength(2);
      expect(await forwarder.sweep([])).toEqual(["wire-1"]);
      expect(all.map(inventory)).toEqual(before);
    },
  );

  test("makes a wire anew whose former pod is no more", async () => {
    await using other = createNamespace("other");
    await forwarder.apply(wire());
    await restart();
    await client.kill();
    await forwarder.apply({ ...wire(), client: kernelSide(other, "nsm-c") });
    expect(await reaches(other, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    expect(await forwarder.found("wire-1")).toEqual([]);
  });

  test("refuses the name of a wire that nobody has claimed yet", async () => {
    await forwarder.apply(wire());
    await restart();
    const other = wire("wire-2", "b2");
    await expect(forwarder.apply(other)).rejects.toMatchObject({ reason: "interface-name-taken" });
    expect(await forwarder.found("wire-1")).toHaveLength(2);
  });

  test("removes a device that was created and not marked", async () => {
    await forwarder.apply(wire());
    for (const [ns, name] of [
      [client, "nsm-c"],
      [endpoint, "nsm-e"],
    ] as const)
      ns.exec("sh", "-c", `ip link set ${name} alias ""`);
    await restart();
    expect(all.map(inventory)).toEqual(before);
  });

  test("leaves the wires of another node's forwarder alone", async () => {
    const node2 = createNamespace("node2");
    const other = await startNode(node2);
    await forwarder.apply(wire());
    const made = all.map(inventory);
    await other.kill();
    const again = await startNode(node2);
    expect(await again.found("wire-1")).toEqual([]);
    expect(await again.sweep([])).toEqual([]);
    await again.remove("wire-1");
    expect(all.map(inventory)).toEqual(made);
    await again.kill();
    await node2.kill();
  });

  test("finds a wire whose pod has no process left but a mounted namespace", async () => {
    await forwarder.apply(wire());
    process.kill(client.pid, "SIGKILL");
    await forwarder.kill();
    forwarder = await startNode(node);
    expect(await forwarder.found("wire-1")).toHaveLength(2);
    await forwarder.remove("wire-1");
    expect(all.map(inventory)).toEqual(before);
  });
});
