/** A thread: the data plane whose node is the network namespace that the thread was started in. See `startNode`. */
import { parentPort } from "node:worker_threads";
import { openDataplane } from "../../../forwarder/dataplane.ts";
import type { Dataplane, Wire } from "../../../forwarder/dataplane.ts";
import { ownNetnsInode } from "../../../forwarder/kernel/netns.ts";
import { NsmError, messageOf } from "../../../sdk/errors.ts";
import { createLogger } from "../../../sdk/log.ts";

/** Methods that take and return what can be sent to another thread. */
type Plain = "found" | "remove" | "reserveWireguard" | "reserveVni" | "keepVni" | "release" | "underlayMtu";
export type Call =
  | { readonly id: number; readonly method: "apply"; readonly args: readonly [Wire] }
  | { readonly id: number; readonly method: "sweep"; readonly args: readonly [readonly string[]] }
  | {
      readonly [M in Plain]: {
        readonly id: number;
        readonly method: M;
        readonly args: Parameters<Dataplane[M]>;
      };
    }[Plain];

export interface Hello {
  readonly inode: bigint;
  readonly wireguard: Dataplane["wireguard"];
  readonly vxlan: Dataplane["vxlan"];
}

/** Beside what the method returned, under `value`. */
export interface Answer {
  readonly id: number;
  readonly error?: { readonly code: string; readonly reason: string; readonly message: string };
}

const plane = await openDataplane({ log: createLogger("node", "ERROR") });

parentPort?.on("message", (call: Call) => {
  answer(call).then(
    (value) => send(Object.assign({ id: call.id }, { value })),
    (error: unknown) => send({ id: call.id, error: describe(error) }),
  );
});
send({ inode: ownNetnsInode(), wireguard: plane.wireguard, vxlan: plane.vxlan });

async function answer(call: Call): Promise<unknown> {
  switch (call.method) {
    case "apply":
      return await plane.apply(call.args[0], AbortSignal.timeout(30_000));
    case "sweep":
      return await plane.sweep(new Set(call.args[0]));
    case "remove":
      return await plane.remove(...call.args);
    case "underlayMtu":
      return await plane.underlayMtu(...call.args);
    case "reserveVni":
      return plane.reserveVni(...call.args);
    case "keepVni":
      return plane.keepVni(...call.args);
    case "found":
      return plane.found(...call.args);
    case "release":
      return plane.release(...call.args);
    case "reserveWireguard":
    default:
      return plane.reserveWireguard(...call.args);
  }
}

function send(message: Hello | Answer): void {
  parentPort?.postMessage(message, []);
}

function describe(error: unknown) {
  if (error instanceof NsmError) return { code: error.code, reason: error.reason, message: error.message };
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  return { code: "?", reason: "?", message: `${messageOf(error)}\n${stack}` };
}
