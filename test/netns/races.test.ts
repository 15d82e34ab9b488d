// Wires whose pods, names and callers go away while they are made:   [client] nsm-c ======= nsm-e [endpoint]
import { readFileSync, readdirSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Wire } from "../../forwarder/dataplane.ts";
import { createNamespace, eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";
import { reaches } from "../support/udp.ts";

/** More than any wire takes. */
const STEPS = 25;
/** As long as a tunnel's program is given to end by itself: nothing may wait for one that cannot. */
const ENDED_MS = 3000;
/** The kernel removes namespaces one after the other, those of everybody on the machine. */
const CLEANED_WITHIN_MS = 25_000;

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
  const wireguard = async (from: Namespace): Promise<Wire> => {
    const { port, privateKey } = await forwarder.reserveWireguard("wire-1");
    const other = await forwarder.reserveWireguard("wire-2");
    const remote = { remoteIp: "10.9.0.2", remotePort: 51820, remotePublicKey: other.publicKey };
    const own = { localIp: "10.9.0.1", localPort: port, privateKey };
    const tunnel = { kind: "wireguard", ...own, ...remote } as const;
    return wireOf("wire-1", kernelSide(from, "nsm-c"), tunnel, { mtu: 1420 });
  };
  const outcomeOf = (made: Promise<number>) =>
    made.then(
      (sends) => ({ reason: "made", sends }),
      (error: unknown) => {
        const [code, reason] = ["code", "reason"].map((key) => String(Reflect.get(Object(error), key)));
        return { reason: `${code} ${reason}`, sends: STEPS };
      },
    );
  /** Also no process of a tunnel, and none that waits for its parent. */
  const programs = () =>
    readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && commandOf(pid) === "wireguard-go");
  const expectNothingLeft = () =>
    eventually("nothing is left", () => {
      const now = [node, client, endpoint].map(inventory);
      return JSON.stringify(now) === JSON.stringify(before) && programs().length === 0;
    });

  test.each([
    ["a veth pair, its client", (doomed: Namespace) => veth(doomed, endpoint)],
    ["a veth pair, its endpoint", (doomed: Namespace) => veth(client, doomed)],
    ["a VXLAN device", (doomed: Namespace) => vxlan(doomed)],
    ["a WireGuard device", (doomed: Namespace) => wireguard(doomed)],
  ])("a namespace that goes between any two steps: %s", async (_, wire) => {
    const outcomes: string[] = [];
    for (let step = 1, sends = STEPS; step <= sends; step++) {
      const doomed = createNamespace("doomed");
      const made = forwarder.applyStepped(await wire(doomed), step, () => doomed.kill());
      const startedMs = performance.now();
      const outcome = await outcomeOf(made);
      outcomes.push(outcome.reason);
      expect(performance.now() - startedMs).toBeLessThan(ENDED_MS);
      await doomed.kill();
      sends = Math.min(sends, outcome.sends + 1);
      await forwarder.remove("wire-1");
      await expectNothingLeft();
    }
    // After the last message of the plumbing the wire was made; that its namespace is gone is an event then.
    const made = outcomes.indexOf("made");
    expect(made).toBeGreaterThan(4);
    expect(new Set(outcomes.slice(0, made))).toEqual(new Set(["NOT_FOUND netns-gone"]));
    expect(new Set(outcomes.slice(made))).toEqual(new Set(["made"]));
  });

  test.each([
    ["a veth pair", () => veth(client, endpoint)],
    ["a VXLAN device", () => vxlan(client)],
    ["a WireGuard device", () => wireguard(client)],
  ])("a caller that leaves between any two steps: %s", async (_, wire) => {
    let made = 0;
    for (let step = 1; made === 0; step++) {
      expect(step).toBeLessThan(STEPS);
      const outcome = await forwarder.applyStepped(await wire(), step, "abort").then(
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
    // Several: somebody else on the machine may be given one of their inodes first.
    const doomed = Array.from({ length: 5 }, () => createNamespace("doomed"));
    for (const [i, pod] of doomed.entries())
      await forwarder.apply(
        wireOf(`doomed-${i}`, kernelSide(pod, "nsm-c"), kernelSide(endpoint, `nsm-d${i}`)),
      );
    await Promise.all(doomed.map((pod) => pod.kill()));
    await using others = new AsyncDisposableStack();
    const again = () => others.use(createNamespace("again"));
    let heir = again();
    const lost = () => doomed.findIndex(({ inode }) => inode === heir.inode);
    await eventually("the namespaces end", () => !endpoint.ip("link").includes("nsm-d"), CLEANED_WITHIN_MS);
    await eventually(
      "an inode is given to another",
      () => {
        if (lost() < 0) heir = again();
        return lost() >= 0;
      },
      CLEANED_WITHIN_MS,
    );
    const next = (id: string): Wire =>
      wireOf(id, kernelSide(heir, "nsm-c"), kernelSide(endpoint, `nsm-${id}`));
    await forwarder.apply(next("wire-2"));
    expect(await reaches(heir, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    // What the dead wire still has to say does not concern the living one.
    await forwarder.remove(`doomed-${lost()}`);
    expect(await reaches(heir, "172.16.1.1", endpoint, "172.16.1.2")).toBe(true);
    await expect(forwarder.apply(next("wire-3"))).rejects.toMatchObject({
      reason: "interface-name-taken",
    });
    for (const id of ["wire-2", ...doomed.keys().map((i) => `doomed-${i}`)]) await forwarder.remove(id);
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
    expect(outcomes.filter(({ reason }) => reason === "ALREADY_EXISTS interface-name-taken")).toHaveLength(
      499,
    );
    await forwarder.remove(`wire-${outcomes.findIndex(({ reason }) => reason === "made")}`);
    const wires = [veth(client, endpoint), vxlan(client), await wireguard(client)];
    for (const wire of wires) {
      const taken = { ...wire, client: kernelSide(client, "mine") };
      await expect(forwarder.apply(taken)).rejects.toMatchObject({ reason: "interface-name-taken" });
      await forwarder.remove("wire-1");
    }
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

/** Undefined when it ended meanwhile. */
function commandOf(pid: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return undefined;
  }
}
