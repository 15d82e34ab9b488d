/** Starts an endpoint's process; it ends with us, however we end, unless it is to be kept. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Child } from "./supply.ts";
import type { Order } from "./template.ts";

/** Between SIGTERM and SIGKILL; less than a daemon may take to stop. */
const STOP_WITHIN_MS = 3000;

export interface StartOptions {
  readonly env: NodeJS.ProcessEnv;
  /** It stays when we end. */
  readonly keep: boolean;
}

/** Output goes where ours goes. */
export function startChild({ command, env }: Order, options: StartOptions): Child {
  // The kernel sends the signal when we die, however that happens.
  const words = options.keep ? command : ["setpriv", "--pdeathsig", "SIGTERM", "--", ...command];
  const [program = "", ...args] = words;
  const child = spawn(program, args, {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...options.env, ...env },
    detached: options.keep,
  });
  if (options.keep) child.unref();
  const ended = once(child, "exit").then(() => child.exitCode ?? child.signalCode ?? "?");
  return {
    pid: child.pid ?? 0,
    ended,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
      await ended.catch(() => undefined);
      clearTimeout(timer);
    },
  };
}
