/** A node of a test: a data plane in a process of its own, in a namespace of its own, called over IPC. */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import type { Dataplane, FoundDevice, KernelSide, Wire, WireguardSide } from "../../forwarder/dataplane.ts";
import { COMPILE_CACHE } from "./compile-cache.ts";
import { createNamespace, inventory, joinNamespaces } from "./netns.ts";
import type { Namespace } from "./netns.ts";

export type WireguardKeys = ReturnType<Dataplane["reserveWireguard"]>;

export interface Node extends AsyncDisposable {
  readonly pid: number;
  modes(): Promise<Pick<Dataplane, "wireguard" | "vxlan">>;
  /** Milliseconds that it took; the signal aborts after `timeoutMs`. */
  apply(wire: Wire, timeoutMs?: number): Promise<number>;
  /**
   * `apply`, interrupted before the `step`th message to the kernel: `event` is waited for, or "abort" lets the caller leave.
   * Answers how many messages it took; `event` did not happen when there are fewer.
   */
  applyStepped(wire: Wire, step: number, event: "abort" | (() => Promise<void>)): Promise<number>;
  remove(wireId: string): Promise<number>;
  found(wireId: string): Promise<FoundDevice[]>;
  sweep(claimed: string[]): Promise<string[]>;
  reserveWireguard(wireId: string): Promise<WireguardKeys>;
  reserveVni(wireId: string, parity: "even" | "odd", port: number): Promise<number>;
  keepVni(wireId: string, vni: number): Promise<void>;
  release(wireId: string): Promise<void>;
  underlayMtu(remoteIp: string): Promise<number>;
  stats(wireIds?: string[]): ReturnType<Dataplane["stats"]>;
  /** Milliseconds that the event loop was not idle since the last question. */
  busy(): Promise<number>;
  /** SIGKILL, as a crash. */
  kill(): Promise<void>;
}

/** Rejections carry `code`, `reason` and `message` of the NsmError over there. */
export async function startNode(
  ns: Namespace,
  environment: { UNFILTERED?: "true"; OLD_KERNEL?: "true"; SESSION_MS?: string } = {},
): Promise<Node> {
  const child = fork(new URL("node-process.ts", import.meta.url), [], {
    env: { ...process.env, ...COMPILE_CACHE, ...environment },
    execPath: "nsenter",
    execArgv: [
      `--net=/run/netns/${ns.name}`,
      process.execPath,
      "--import",
      new URL("step-hooks.ts", import.meta.url).pathname,
    ],
    serialization: "advanced",
  });
  const call = createCalls(child);
  await once(child, "message");
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  return {
    pid: child.pid ?? 0,
    modes: () => call("modes"),
    apply: (wire, timeoutMs = 30_000) => call("apply", wire, timeoutMs),
    async applyStepped(wire, step, event) {
      const isPaused = (message: { paused?: true }) => {
        if (message.paused === true && event !== "abort") void event().finally(() => void call("go"));
      };
      child.on("message", isPaused);
      try {
        return await call("applyStepped", wire, step, event === "abort" ? "abort" : "pause");
      } finally {
        child.off("message", isPaused);
      }
    },
    remove: (wireId) => call("remove", wireId),
    found: (wireId) => call("found", wireId),
    sweep: (claimed) => call("sweep", claimed),
    reserveWireguard: (wireId) => call("reserveWireguard", wireId),
    reserveVni: (wireId, parity, port) => call("reserveVni", wireId, parity, port),
    keepVni: (wireId, vni) => call("keepVni", wireId, vni),
    release: (wireId) => call("release", wireId),
    underlayMtu: (remoteIp) => call("underlayMtu", remoteIp),
    stats: (...wireIds) => call("stats", ...wireIds),
    busy: () => call("busy"),
    kill,
    [Symbol.asyncDispose]: kill,
  };
}

type Answer = { id: number; error?: { code: string; reason: string; message: string } };

function createCalls(child: ChildProcess): <T>(method: string, ...args: unknown[]) => Promise<T> {
  const waiting = new Map<number, (answer: Answer) => void>();
  let lastId = 0;
  child.on("message", (answer: Answer) => waiting.get(answer.id)?.(answer));
  child.on("exit", () => {
    const error = { code: "?", reason: "node-ended", message: "the process of the node ended" };
    for (const [id, settle] of waiting) settle({ id, error });
  });
  return (method, ...args) =>
    new Promise((resolve, reject) => {
      const id = ++lastId;
      waiting.set(id, (answer) => {
        waiting.delete(id);
        if (answer.error) reject(Object.assign(new Error(answer.error.message), answer.error));
        else resolve(Reflect.get(answer, "value"));
      });
      child.send({ id, method, args });
    });
}

export function kernelSide(ns: Namespace, interfaceName: string, binding = "b1"): KernelSide {
  return { kind: "kernel", netns: { pid: ns.pid, inode: ns.inode }, interfaceName, binding };
}

/** One node's end of a tunnel between the nodes of `startTwoNodes`; `v6`: they reach each other by IPv6. */
export function wireguardSide(
  from: 1 | 2,
  own: WireguardKeys,
  peer: WireguardKeys,
  v6 = false,
): WireguardSide {
  return {
    kind: "wireguard",
    localIp: v6 ? `fd09::${from}` : `10.9.0.${from}`,
    remoteIp: v6 ? `fd09::${3 - from}` : `10.9.0.${3 - from}`,
    localPort: own.port,
    remotePort: peer.port,
    privateKey: own.privateKey,
    remotePublicKey: peer.publicKey,
  };
}

/** A wire with one IPv4 address at each end unless told otherwise. */
export function wireOf(
  id: string,
  client: Wire["client"],
  endpoint: Wire["endpoint"],
  more: Partial<Omit<Wire, "ip">> & { ip?: Partial<Wire["ip"]> } = {},
): Wire {
  const ip = {
    srcAddresses: ["172.16.1.1/32"],
    dstAddresses: ["172.16.1.2/32"],
    srcRoutes: [],
    dstRoutes: [],
    neighbors: [],
    ...more.ip,
  };
  return { id, payload: "IP", mtu: 0, client, endpoint, ...more, ip };
}

/**
 * Two nodes on one underlay, each with its data plane, and the pods of a client (on the first) and of an endpoint.
 *
 *     [nsc]                                            [nse]
 *       :                                                :
 *     [node 1] u0 10.9.0.1, fd09::1 ==== 10.9.0.2, fd09::2 u0 [node 2]
 */
export interface TwoNodes extends AsyncDisposable {
  readonly node1: Namespace;
  readonly node2: Namespace;
  readonly nsc: Namespace;
  readonly nse: Namespace;
  readonly one: Node;
  readonly two: Node;
  readonly all: readonly Namespace[];
  /** The inventory of all four, before anything was made. */
  readonly before: readonly (readonly string[])[];
}

export async function startTwoNodes(): Promise<TwoNodes> {
  const [node1, node2] = [createNamespace("n1"), createNamespace("n2")];
  const [nsc, nse] = [createNamespace("nsc"), createNamespace("nse")];
  const all = [node1, node2, nsc, nse];
  await joinNamespaces(node1, node2);
  const [one, two] = await Promise.all([startNode(node1), startNode(node2)]);
  return {
    node1,
    node2,
    nsc,
    nse,
    one,
    two,
    all,
    before: all.map(inventory),
    async [Symbol.asyncDispose]() {
      await Promise.all([one.kill(), two.kill()]);
      await Promise.all(all.map((ns) => ns.kill()));
    },
  };
}
