// Wires whose pods, names and callers go away while they are made:   [client] nsm-c ======= nsm-e [endpoint]
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Wire } from "../../forwarder/dataplane.ts";
import { createNamespace, eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";
import { reaches } from "../support/udp.ts";

/** More than any wire takes. */
const STEPS = 25;

describe.skipIf(!isRoot)("races of plumbing (need root)", () => {
  let node: Namespace, client: Namespace, endpoint: Namespace, forwarder: Node, before: string[][];

  beforeEach(async () => {
    node = createNamespace("node");
    client = createNamespace("client");
    endpoint = createNamespace("endpoint");
    node.ip("addr add 10.9.0.1/32 dev lo");
    before = [node, client, endpoint].map(inventory);
    forwarder = await startNode(node);
  });
  afterEach(async () => {
    await forwarder.kill();
    await Promise.all([node, client, endpoint].map((ns) => ns.kill()));
  });

  const veth = (from: Namespace, to: Namespace): Wire =>
    wireOf("wire-1", kernelSide(from, "nsm-c"), kernelSide(to, "nsm-e"));
  const vxlan = (from: Namespace): Wire =>
    wireOf(
      "wire-1",
      kernelSide(from, "nsm-c"),
      { kind: "vxlan", localIp: "10.9.0.1", remoteIp: "10.9.0.2", port: 4789, vni: 100 },
      { payload: "ETHERNET" },
    );
  const outcomeOf = (made: Promise<number>) =>
    made.then(
      (sends) => ({ reason: "made", sends }),
      (error: unknown) => ({ reason: String(Reflect.get(Object(error), "reason")), sends: STEPS }),
    );
  const expectNothingLeft = () =>
    eventually("nothing is left", () => {
      const now = [node, client, endpoint].map(inventory);
      return JSON.stringify(now) === JSON.stringify(before);
    });

  test.each([
    ["a veth pair, its client", (doomed: Namespace) => veth(doomed, endpoint)],
    ["a veth pair, its endpoint", (doomed: Namespace) => veth(client, doomed)],
    ["a VXLAN device", (doomed: Namespace) => vxlan(doomed)],
  ])("a namespace that goes between any two steps: %s", async (_, wire) => {
    const outcomes: string[] = [];
    for (let step = 1, sends = STEPS; step <= sends; step++) {
      const doomed = createNamespace("doomed");
      const outcome = await outcomeOf(forwarder.applyStepped(wire(doomed), step, () => doomed.kill()));
      outcomes.push(outcome.reason);
      await doomed.kill();
      sends = Math.min(sends, outcome.sends + 1);
      await forwarder.remove("wire-1");
      await expectNothingLeft();
    }
    // After the last message of the plumbing the wire was made; that its namespace is gone is an event then.
    const made = outcomes.indexOf("made");
    expect(made).toBeGreaterThan(4);
    expect(new Set(outcomes.slice(0, made))).toEqual(new Set(["netns-gone"]));
    expect(new Set(outcomes.slice(made))).toEqual(new Set(["made"]));
  });

  test.each([
    ["a veth pair", () => veth(client, endpoint)],
    ["a VXLAN device", () => vxlan(client)],
  ])("a caller that leaves between any two steps: %s", async (_, wire) => {
    let made = 0;
    for (let step = 1; made === 0; step++) {
      expect(step).toBeLessThan(STEPS);
      const outcome = await forwarder.applyStepped(wire(), step, "abort").then(
        () => "made",
        (error: unknown) => String(error),
      );
      expect(outcome).toMatch(/^made$|abort/i);
      if (outcome === "made") made = step;
      else await expectNothingLeft();
    }
    expect(made).toBeGreaterThan(4);
    await forwarder.remove("wire-1");
    await expectNothingLeft();
  });

  test("the name of a wire in a namespace that ended is free in the next one of the same inode", async () => {
    const doomed = createNamespace("doomed");
    await forwarder.apply(veth(doomed, endpoint));
    await doomed.kill();
    await using others = new AsyncDisposableStack();
    const again = () => others.use(createNamespace("again"));
    let heir = again();
    await eventually("the inode is given to another", () => {
      if (heir.inode !== doomed.inode) heir = again();
      return heir.inode === doomed.inode;
    });
    const next = (id: string): Wire =>
      wireOf(id, kernelSide(heir, "nsm-c"), kernelSide(endpoint, `nsm-${id}`));
    await forwarder.apply(next("wire-2"));
    expect(await reaches(heir, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    // What the dead wire still has to say does not concern the living one.
    await forwarder.remove("wire-1");
    expect(await reaches(heir, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    await expect(forwarder.apply(next("wire-3"))).rejects.toMatchObject({
      reason: "interface-name-taken",
    });
    await forwarder.remove("wire-2");
    await expectNothingLeft();
  });

  test("five hundred requests for one name: one wire, the rest are told, a stranger's link is untouched", async () => {
    client.ip("link add mine type veth peer name other");
    client.ip("link set mine alias nsm:1:wire-1:client:b2");
    before = [node, client, endpoint].map(inventory);
    const outcomes = await Promise.all(
      Array.from({ length: 500 }, (_, i) =>
        outcomeOf(forwarder.apply({ ...veth(client, endpoint), id: `wire-${i}` })),
      ),
    );
    expect(outcomes.filter(({ reason }) => reason === "made")).toHaveLength(1);
    expect(outcomes.filter(({ reason }) => reason === "interface-name-taken")).toHaveLength(499);
    const taken = wireOf("wire-x", kernelSide(client, "mine"), kernelSide(endpoint, "nsm-x"));
    await expect(forwarder.apply(taken)).rejects.toMatchObject({ reason: "interface-name-taken" });
    await forwarder.remove(`wire-${outcomes.findIndex(({ reason }) => reason === "made")}`);
    await expectNothingLeft();
  });

  test("five hundred requests of one id: one wire, made once", async () => {
    await forwarder.apply(veth(client, endpoint));
    const link = client.ip("-o link show nsm-c");
    await Promise.all(Array.from({ length: 500 }, () => forwarder.apply(veth(client, endpoint))));
    expect(client.ip("-o link show nsm-c")).toBe(link);
    await forwarder.remove("wire-1");
    await expectNothingLeft();
  });
});
