/** A process that does nothing until it is killed. */
import { spawn } from "node:child_process";
import { once } from "node:events";

export interface Sleeper extends Disposable {
  readonly pid: number;
  /** Resolves when it has ended. */
  kill(): Promise<void>;
}

export async function startSleeper(): Promise<Sleeper> {
  const child = spawn("sleep", ["infinity"], { stdio: "ignore" });
  await once(child, "spawn");
  const { pid } = child;
  if (pid === undefined) throw new Error("sleep did not start");
  return {
    pid,
    async kill() {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
    [Symbol.dispose]: () => void child.kill("SIGKILL"),
  };
}
