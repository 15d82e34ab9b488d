// Counters of wires:   [client] nsm-c ======= nsm-e [endpoint]
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createNamespace, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";
import { probe, startEcho } from "../support/udp.ts";

/** IPv4 and UDP headers within an Ethernet frame. */
const HEADERS = 14 + 20 + 8;

describe.skipIf(!isRoot)("counters of wires (need root)", () => {
  let node: Namespace, client: Namespace, endpoint: Namespace, forwarder: Node;

  beforeEach(async () => {
    [node, client, endpoint] = [
      createNamespace("node"),
      createNamespace("client"),
      createNamespace("endpoint"),
    ];
    forwarder = await startNode(node);
  });
  afterEach(async () => {
    await forwarder.kill();
    await Promise.all([node, client, endpoint].map((ns) => ns.kill()));
  });

  const wire = (i: number) =>
    wireOf(`wire-${i}`, kernelSide(client, `nsm-c${i}`), kernelSide(endpoint, `nsm-e${i}`), {
      ip: { srcAddresses: [`172.16.${i}.1/32`], dstAddresses: [`172.16.${i}.2/32`] },
    });
  const ends = (i: number, packets: number, bytes: number) => {
    const both = { rxPackets: packets, txPackets: packets, rxBytes: bytes, txBytes: bytes };
    const bad = { rxErrors: 0, txErrors: 0, rxDropped: 0, txDropped: 0 };
    return [
      { side: "client", interfaceName: `nsm-c${i}`, ...both, ...bad },
      { side: "endpoint", interfaceName: `nsm-e${i}`, ...both, ...bad },
    ];
  };

  test("each end says what its pod sent and received, also after a restart of the forwarder", async () => {
    await forwarder.apply(wire(1));
    await forwarder.apply(wire(2));
    {
      using echo = startEcho(endpoint, "172.16.1.2");
      await probe(client, "172.16.1.1", "172.16.1.2", echo.port, { count: 5, size: 100 });
    }
    const carried = ends(1, 5, 5 * (100 + HEADERS));
    expect(await forwarder.stats()).toEqual(
      new Map([
        ["wire-1", carried],
        ["wire-2", ends(2, 0, 0)],
      ]),
    );
    expect(await forwarder.stats(["wire-1", "wire-9"])).toEqual(new Map([["wire-1", carried]]));
    await forwarder.kill();
    forwarder = await startNode(node);
    const unclaimed = await forwarder.stats(["wire-1"]);
    expect(unclaimed.get("wire-1")?.toSorted((a, b) => a.side.localeCompare(b.side))).toEqual(carried);
    await forwarder.apply(wire(1));
    expect(await forwarder.stats(["wire-1"])).toEqual(new Map([["wire-1", carried]]));
    await forwarder.remove("wire-1");
    await forwarder.remove("wire-2");
    expect(await forwarder.stats()).toEqual(new Map());
  });

  test("a device or a namespace that is gone is left out", async () => {
    await forwarder.apply(wire(1));
    await forwarder.apply(wire(2));
    client.ip("link del nsm-c1");
    expect([...(await forwarder.stats()).keys()]).toEqual(["wire-2"]);
    expect(await forwarder.stats(["wire-1"])).toEqual(new Map());
    await client.kill();
    await endpoint.kill();
    expect(await forwarder.stats()).toEqual(new Map());
  });
});
