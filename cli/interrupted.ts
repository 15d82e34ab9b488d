/** A signal for commands that go on until somebody stops them: Ctrl-C, SIGTERM, or a reader that went away. */
import { NsmError } from "../sdk/errors.ts";

export interface Interruption extends Disposable {
  readonly signal: AbortSignal;
}

/** Until it is disposed, the process does not end by these signals itself. */
export function untilInterrupted(): Interruption {
  const controller = new AbortController();
  const stop = (why: string) => controller.abort(new NsmError("CANCELLED", "interrupted", why));
  const onSignal = (name: NodeJS.Signals) => stop(name);
  const onBroken = (error: Error) => stop(`nobody reads (${error.message})`);
  for (const name of SIGNALS) process.on(name, onSignal);
  process.stdout.on("error", onBroken);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of SIGNALS) process.off(name, onSignal);
      process.stdout.off("error", onBroken);
      // Of what is still to be written nobody hears; without a listener that error would end the process as a fault.
      if (controller.signal.aborted) process.stdout.on("error", () => undefined);
    },
  };
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
