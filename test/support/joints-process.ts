/** Child process: joins devices of the namespace that it was started in, as it is told over IPC. See test/netns/joints.test.ts. */
import { flushCompileCache } from "node:module";
import { createLogger } from "../../sdk/log.ts";
import { openJoints } from "../../nse/passthrough/joints.ts";
import type { Joint } from "../../nse/passthrough/joints.ts";

export type JointsCall =
  | { readonly do: "join"; readonly key: string; readonly joint: Joint }
  | { readonly do: "part"; readonly key: string }
  | { readonly do: "hold" | "release"; readonly device: string }
  | { readonly do: "stop" };

const [mark] = process.argv.slice(2);
const joints = await openJoints(
  createLogger("joints", "ERROR"),
  mark === undefined ? undefined : { value: Number(mark), mask: Number(mark) },
);

process.on("message", (call: JointsCall) => {
  void answer(call).then(() => process.connected && process.send?.("done"));
});
flushCompileCache(); // some end by SIGKILL
process.send?.("done");

async function answer(call: JointsCall): Promise<void> {
  if (call.do === "join") await joints.join(call.key, call.joint);
  else if (call.do === "part") await joints.part(call.key);
  else if (call.do === "hold") await joints.hold(call.device);
  else if (call.do === "release") await joints.release(call.device);
  else {
    await joints[Symbol.asyncDispose]();
    process.disconnect();
  }
}
