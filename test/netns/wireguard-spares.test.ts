// Where WireGuard is a program: processes that wait for wires, and devices that are in their pod before the wire is known.
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Wire, WireguardSide } from "../../forwarder/dataplane.ts";
import { eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { kernelSide, startNode, startTwoNodes, wireOf } from "../support/node.ts";
import type { Node, TwoNodes } from "../support/node.ts";
import { reaches } from "../support/udp.ts";

const SPARES = 2;

describe.skipIf(!isRoot)("programs that wait for WireGuard wires (needs root)", () => {
  let nodes: TwoNodes, nsc: Namespace, nse: Namespace, one: Node, two: Node;
  let sockets: readonly string[];

  beforeEach(async () => {
    sockets = allSockets();
    nodes = await startTwoNodes();
    ({ nsc, nse } = nodes);
    await Promise.all([nodes.one.kill(), nodes.two.kill()]);
    [one, two] = await Promise.all([start(nodes.node1), start(nodes.node2)]);
  });
  afterEach(async () => {
    await Promise.all([one.stop(), two.stop()]);
    await Promise.all([one.kill(), two.kill()]);
    await nodes[Symbol.asyncDispose]();
    await eventually("no process of this test is left", () => programs().length === 0);
    await eventually("no socket of this test is left", () => newSockets().length === 0);
  });

  const start = (node: Namespace) => startNode(node, { SPARES: String(SPARES) });
  const place = ({ pid, inode }: Namespace) => ({ pid, inode });
  const side = (from: 1 | 2, keys: readonly Keys[]): WireguardSide => {
    const [own, peer] = [keys[from - 1], keys[2 - from]];
    if (own === undefined || peer === undefined) throw new Error("two ends have keys");
    return {
      kind: "wireguard",
      localIp: `10.9.0.${from}`,
      remoteIp: `10.9.0.${3 - from}`,
      localPort: own.port,
      remotePort: peer.port,
      privateKey: own.privateKey,
      remotePublicKey: peer.publicKey,
    };
  };
  const reserve = (n = 0) => Promise.all([one.reserveWireguard(`c${n}`), two.reserveWireguard(`e${n}`)]);
  const wires = (keys: readonly Keys[], n = 0): [Wire, Wire] => {
    const ip = { srcAddresses: [`172.16.${n}.1/32`], dstAddresses: [`172.16.${n}.2/32`] };
    return [
      wireOf(`c${n}`, kernelSide(nsc, `nsm-c${n}`), side(1, keys), { ip }),
      wireOf(`e${n}`, side(2, keys), kernelSide(nse, `nsm-e${n}`), { ip }),
    ];
  };
  const make = async (n = 0) => {
    const [client, endpoint] = wires(await reserve(n), n);
    await two.apply(endpoint);
    await one.apply(client);
  };
  const programs = () => programsIn([nodes.node1, nodes.node2]);
  const ofOne = () => programsIn([nodes.node1]).length;
  const newSockets = () => allSockets().filter((file) => !sockets.includes(file));
  const inUserspace = async () => (await one.modes()).wireguard.mode === "userspace";
  /** The spares go a moment after the last wire. */
  const expectNothing = async () => {
    await eventually("no program runs", () => programs().length === 0);
    await eventually("no socket is left", () => newSockets().length === 0);
    expect(nodes.all.map(inventory)).toEqual(nodes.before);
  };

  test("wait while there are wires, and go with the last one", async () => {
    if (!(await inUserspace())) return;
    expect(programs()).toEqual([]);
    await make(0);
    await eventually("spares wait", () => ofOne() === 1 + SPARES);
    await eventually("in no place that anybody sees", () => waiting(nodes.node1) === undefined);
    await make(1);
    expect(await reaches(nsc, "172.16.1.1", nse, "172.16.1.2")).toBe(true);
    await eventually("they are replaced", () => ofOne() === 2 + SPARES);
    for (const n of [0, 1]) await Promise.all([one.remove(`c${n}`), two.remove(`e${n}`)]);
    await expectNothing();
  });

  test("a device that was prepared becomes the wire's, whichever end has asked", async () => {
    if (!(await inUserspace())) return;
    await Promise.all([one.prepare("c0", place(nsc)), two.prepare("e0", place(nse))]);
    await eventually(
      "devices wait in both pods",
      () => waiting(nsc) !== undefined && waiting(nse) !== undefined,
    );
    const indexes = [waiting(nsc), waiting(nse)];
    await make();
    expect([indexIn(nsc, "nsm-c0"), indexIn(nse, "nsm-e0")]).toEqual(indexes);
    expect([waiting(nsc), waiting(nse)]).toEqual([undefined, undefined]);
    expect(await reaches(nsc, "172.16.0.1", nse, "172.16.0.2")).toBe(true);
    await Promise.all([one.unprepare("c0"), two.unprepare("e0")]);
    expect(await reaches(nsc, "172.16.0.1", nse, "172.16.0.2")).toBe(true);
    await Promise.all([one.remove("c0"), two.remove("e0")]);
    await expectNothing();
  });

  test("a wire that does not come about leaves nothing of what was prepared for it", async () => {
    if (!(await inUserspace())) return;
    await one.reserveWireguard("c0");
    await one.prepare("c0", place(nsc));
    await eventually("a device waits", () => waiting(nsc) !== undefined);
    await one.unprepare("c0");
    expect(waiting(nsc)).toBeUndefined();
    // Given up before it is in the pod, and for a pod that there is not.
    await one.prepare("c1", place(nsc));
    await one.unprepare("c1");
    await one.prepare("c2", { pid: nsc.pid, inode: 1n });
    await one.unprepare("c2");
    await expectNothing();
  });

  test("a name that is taken in the pod is refused as without a prepared device", async () => {
    if (!(await inUserspace())) return;
    nsc.ip("link add nsm-c0 type bridge");
    const [client] = wires(await reserve());
    await one.prepare("c0", place(nsc));
    await expect(one.apply(client)).rejects.toMatchObject({ reason: "interface-name-taken" });
    await one.unprepare("c0");
    nsc.ip("link del nsm-c0");
    await expectNothing();
  });

  test("a forwarder that is killed with spares and a prepared device leaves nothing to the next one's life", async () => {
    if (!(await inUserspace())) return;
    await make();
    await eventually("spares wait", () => ofOne() === 1 + SPARES);
    await one.prepare("c1", place(nsc));
    await eventually("a device waits", () => waiting(nsc) !== undefined);
    await one.kill();
    expect(ofOne()).toBeGreaterThan(1);
    one = await start(nodes.node1);
    expect(waiting(nsc)).toBeUndefined();
    expect(await one.found("c0")).toHaveLength(1);
    expect(await reaches(nsc, "172.16.0.1", nse, "172.16.0.2")).toBe(true);
    // The wire of before was found, so there are spares again, its own.
    await eventually("spares wait", () => ofOne() === 1 + SPARES);
    await one.sweep([]);
    await two.remove("e0");
    await expectNothing();
  });

  test("a forwarder that ends takes its spares along, and leaves its wires", async () => {
    if (!(await inUserspace())) return;
    await make();
    await eventually("spares wait", () => ofOne() === 1 + SPARES);
    await one.prepare("c1", place(nsc));
    await one.stop();
    await eventually("only the wire's program runs", () => ofOne() === 1);
    expect(await reaches(nsc, "172.16.0.1", nse, "172.16.0.2")).toBe(true);
    await Promise.all([one.remove("c0"), two.remove("e0")]);
    await expectNothing();
  });

  test("spares that somebody has ended cost no wire", async () => {
    if (!(await inUserspace())) return;
    await make(0);
    await eventually("spares wait", () => ofOne() === 1 + SPARES);
    const [client, endpoint] = wires(await reserve(1), 1);
    const spares = programsIn([nodes.node1]).filter((pid) => !serves(pid, "nsm-c0"));
    for (const pid of spares) process.kill(Number(pid), "SIGKILL");
    await eventually("they have ended", () => spares.every((pid) => !existsSync(`/proc/${pid}`)));
    await one.apply(client);
    await two.apply(endpoint);
    expect(await reaches(nsc, "172.16.1.1", nse, "172.16.1.2")).toBe(true);
    for (const n of [0, 1]) await Promise.all([one.remove(`c${n}`), two.remove(`e${n}`)]);
    await expectNothing();
  });

  test("twenty pairs at once all carry, and leave nothing", async () => {
    const all = Array.from({ length: 20 }, (_, n) => n);
    await Promise.all(
      all.map(async (n) => {
        await Promise.all([one.prepare(`c${n}`, place(nsc)), two.prepare(`e${n}`, place(nse))]);
        await make(n);
        await Promise.all([one.unprepare(`c${n}`), two.unprepare(`e${n}`)]);
      }),
    );
    for (const n of [0, 7, 19]) expect(await reaches(nsc, `172.16.${n}.1`, nse, `172.16.${n}.2`)).toBe(true);
    await Promise.all(all.flatMap((n) => [one.remove(`c${n}`), two.remove(`e${n}`)]));
    await expectNothing();
  });
});

type Keys = Awaited<ReturnType<Node["reserveWireguard"]>>;

/** Index of a device that no wire has yet. */
function waiting(pod: Namespace): string | undefined {
  return /^(\d+): nsm[a-z2-7]{12}:/m.exec(pod.ip("-o link"))?.[1];
}

function indexIn(pod: Namespace, name: string): string | undefined {
  return new RegExp(`^(\\d+): ${name}:`, "m").exec(pod.ip("-o link"))?.[1];
}

/** True for the program of that device (proc(5), fdinfo). */
function serves(pid: string, device: string): boolean {
  const files = readdirSync(`/proc/${pid}/fdinfo`);
  return files.some((fd) => readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8").includes(`iff:\t${device}\n`));
}

function allSockets(): readonly string[] {
  return existsSync("/var/run/wireguard") ? readdirSync("/var/run/wireguard") : [];
}

function programsIn(places: readonly Namespace[]): readonly string[] {
  const inodes = new Set(places.map(({ inode }) => inode));
  return readdirSync("/proc").filter((pid) => {
    try {
      const isProgram = readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "wireguard-go";
      return isProgram && inodes.has(statSync(`/proc/${pid}/ns/net`, { bigint: true }).ino);
    } catch {
      return false; // no process, or one that has ended
    }
  });
}
