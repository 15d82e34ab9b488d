// Two pods of one node:   [client] nsm-c ======= nsm-e [endpoint]     node: nothing
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createNamespace, inventory, isRoot } from "../support/netns.ts";
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
  const nothingIsLeft = () => expect([node, client, endpoint].map(inventory)).toEqual(before);

  test("carries IPv4 with permanent neighbours, and leaves nothing when removed", async () => {
    await forwarder.apply(wire());
    expect(await reaches(client, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    expect(client.ip("neigh show dev nsm-c")).toMatch(/^172\.16\.1\.2 lladdr 02:\S+ PERMANENT proto 157/);
    expect(endpoint.ip("neigh show dev nsm-e")).toMatch(/^172\.16\.1\.1 lladdr 02:\S+ PERMANENT proto 157/);
    expect(node.ip("-o link").trim().split("\n")).toHaveLength(1);
    expect(client.ip("-d link show nsm-c")).toMatch(/alias nsm:1:wire-1:client:b1/);
    await forwarder.remove("wire-1");
    nothingIsLeft();
  });
});
