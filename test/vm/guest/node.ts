/**
 * A node of a test: a data plane in a thread of its own, which lives in the node's namespace. A thread starts many times faster than a
 * process here, and knows as little of an earlier one.
 */
import { Worker } from "node:worker_threads";
import type { Dataplane, FoundDevice, Wire } from "../../../forwarder/dataplane.ts";
import type { Namespace } from "../../support/netns.ts";
import type { Answer, Call, Hello } from "./node-thread.ts";

export type WireguardKeys = ReturnType<Dataplane["reserveWireguard"]>;

export interface Node extends Pick<Hello, "wireguard" | "vxlan">, AsyncDisposable {
  apply(wire: Wire): Promise<void>;
  remove(wireId: string): Promise<void>;
  found(wireId: string): Promise<FoundDevice[]>;
  sweep(claimed: readonly string[]): Promise<string[]>;
  reserveWireguard(wireId: string): Promise<WireguardKeys>;
  release(wireId: string): Promise<void>;
  underlayMtu(remoteIp: string): Promise<number>;
  /** Ends the thread wherever it is, as a crash. */
  kill(): Promise<void>;
}

/** Rejections carry `code`, `reason` and `message` of the NsmError over there. */
export async function startNode(ns: Namespace): Promise<Node> {
  // The new thread inherits the namespace of the one that starts it.
  const worker = ns.inside(() => new Worker(new URL("node-thread.js", import.meta.url)));
  const hello = await new Promise<Hello>((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  if (hello.inode !== ns.inode) throw new Error(`the thread of ${ns.name} lives in another namespace`);
  const waiting = new Map<number, (answer: Answer) => void>();
  let lastId = 0;
  worker.on("message", (answer: Answer) => waiting.get(answer.id)?.(answer));
  const call = <T>(method: Call["method"], ...args: readonly unknown[]) =>
    new Promise<T>((resolve, reject) => {
      const id = ++lastId;
      waiting.set(id, (answer) => {
        waiting.delete(id);
        if (answer.error) reject(Object.assign(new Error(answer.error.message), answer.error));
        else resolve(Reflect.get(answer, "value"));
      });
      worker.postMessage({ id, method, args }, []);
    });
  const kill = async () => {
    await worker.terminate();
  };
  return {
    wireguard: hello.wireguard,
    vxlan: hello.vxlan,
    apply: (wire) => call("apply", wire),
    remove: (wireId) => call("remove", wireId),
    found: (wireId) => call("found", wireId),
    sweep: (claimed) => call("sweep", claimed),
    reserveWireguard: (wireId) => call("reserveWireguard", wireId),
    release: (wireId) => call("release", wireId),
    underlayMtu: (remoteIp) => call("underlayMtu", remoteIp),
    kill,
    [Symbol.asyncDispose]: kill,
  };
}
