/** Child process: a data plane whose node is the namespace that this process was started in. See `startNode`. */
import { flushCompileCache } from "node:module";
import { openDataplane } from "../../forwarder/dataplane.ts";
import type { Wire } from "../../forwarder/dataplane.ts";
import { SESSION_TIMES } from "../../forwarder/plan/session.ts";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { createLogger } from "../../sdk/log.ts";
import { sendsSoFar, stopBefore } from "./stepped-native.ts";

export type Call =
  | { id: number; method: "modes" | "busy" }
  | { id: number; method: "applyStepped"; args: [wire: Wire, step: number, event: "abort" | "pause"] }
  | { id: number; method: "go" }
  | { id: number; method: "apply"; args: [wire: Wire, timeoutMs: number] }
  | { id: number; method: "remove" | "release" | "reserveWireguard" | "found"; args: [wireId: string] }
  | { id: number; method: "reserveVni"; args: [wireId: string, parity: "even" | "odd", port: number] }
  | { id: number; method: "keepVni"; args: [wireId: string, vni: number] }
  | { id: number; method: "stats"; args: [wireIds?: string[]] }
  | { id: number; method: "sweep"; args: [claimed: string[]] }
  | { id: number; method: "underlayMtu"; args: [remoteIp: string] };

const sessionMs = process.env["SESSION_MS"];
const options = {
  log: createLogger("node", process.env["LOG"] ?? "ERROR"),
  vxlanUnfiltered: process.env["UNFILTERED"] === "true",
  ...(process.env["OLD_KERNEL"] === "true" && { liveRename: false }),
  ...(sessionMs !== undefined && { sessionTimes: { ...SESSION_TIMES, sessionMs: Number(sessionMs) } }),
};
const dataplane = await openDataplane(options);

/** Event loop of this process since the last question. */
let utilization = performance.eventLoopUtilization();

process.on("message", (call: Call) => {
  answer(call).then(
    (value) => process.send?.({ id: call.id, value }),
    (error: unknown) => process.send?.({ id: call.id, error: describe(error) }),
  );
});
process.on("disconnect", () => process.exit());
flushCompileCache(); // it ends by SIGKILL
process.send?.({ id: 0 });

async function answer(call: Call): Promise<unknown> {
  const startedMs = performance.now();
  switch (call.method) {
    case "modes":
      return { wireguard: dataplane.wireguard, vxlan: dataplane.vxlan };
    case "busy": {
      const { active } = performance.eventLoopUtilization(utilization);
      utilization = performance.eventLoopUtilization();
      return active;
    }
    case "apply":
      await dataplane.apply(call.args[0], AbortSignal.timeout(call.args[1]));
      return performance.now() - startedMs;
    case "applyStepped":
      return await applyStepped(...call.args);
    case "go":
      goOn();
      return undefined;
    case "remove":
      await dataplane.remove(...call.args);
      return performance.now() - startedMs;
    case "sweep":
      return await dataplane.sweep(new Set(call.args[0]));
    case "stats":
      return await dataplane.stats(call.args[0]);
    case "underlayMtu":
      return await dataplane.underlayMtu(...call.args);
    case "reserveVni":
      return dataplane.reserveVni(...call.args);
    case "keepVni":
      return dataplane.keepVni(...call.args);
    case "found":
    case "release":
    case "reserveWireguard":
    default:
      return dataplane[call.method](...call.args);
  }
}

let goOn = () => {};

/** Before the `step`th send of an `apply`: its caller leaves, or `{ paused }` is sent and `go` waited for. Answers how many sends it took. */
async function applyStepped(wire: Wire, step: number, event: "abort" | "pause"): Promise<number> {
  const controller = new AbortController();
  stopBefore(step, async () => {
    if (event === "abort") controller.abort();
    else
      await new Promise<void>((resolve) => {
        goOn = resolve;
        process.send?.({ id: 0, paused: true });
      });
  });
  try {
    await dataplane.apply(wire, controller.signal);
    return sendsSoFar();
  } finally {
    stopBefore(0, () => Promise.resolve());
  }
}

function describe(error: unknown) {
  if (error instanceof NsmError) return { code: error.code, reason: error.reason, message: error.message };
  return {
    code: "?",
    reason: "?",
    message: `${messageOf(error)}\n${error instanceof Error ? error.stack : ""}`,
  };
}
