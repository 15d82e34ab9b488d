/** Processes as the kernel shows them in /proc, safe against recycled pids. */
import { readFileSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { errnoOf } from "../../sdk/errors.ts";
import { delay } from "../../sdk/clock.ts";

/** One process for good: a recycled pid has another start time. */
export interface ProcessId {
  readonly pid: number;
  /** Clock ticks since boot (proc_pid_stat(5), field 22); survives exec. */
  readonly startTime: string;
}

/** Undefined when there is no such process or it has ended and only waits for its parent. */
export function processId(pid: number): ProcessId | undefined {
  const stat = readProc(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  const [state, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const startTime = rest[18];
  if (state === "Z" || state === "X" || startTime === undefined) return undefined;
  return { pid, startTime };
}

export function isAlive(process: ProcessId): boolean {
  return processId(process.pid)?.startTime === process.startTime;
}

/** All processes but our own for which `test` holds. */
export function findProcesses(test: (pid: number) => boolean): readonly ProcessId[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && test(pid))
    .flatMap((pid) => processId(pid) ?? []);
}

/** `VARIABLE=value` as the process was started with. */
export function hasEnvironment(pid: number, assignment: string): boolean {
  return readProc(`/proc/${pid}/environ`)?.split("\0").includes(assignment) ?? false;
}

export function argumentsOf(pid: number): readonly string[] {
  return readProc(`/proc/${pid}/cmdline`)?.split("\0").slice(0, -1) ?? [];
}

/** `net:[4026531840]`; undefined when the process is gone. */
export function netnsOf(pid: number): string | undefined {
  return vanishing(() => readlinkSync(`/proc/${pid}/ns/net`));
}

/** The same for a namespace file (`/run/netns/name`); undefined when it is missing or no namespace. */
export function netnsOfFile(path: string): string | undefined {
  return vanishing(() => {
    const { dev, ino } = statSync(path);
    return dev === statSync("/proc/self/ns/net").dev ? `net:[${ino}]` : undefined;
  });
}

/** Sends the signal to those that still live. */
export function signalAll(processes: readonly ProcessId[], signal: NodeJS.Signals): void {
  for (const { pid } of processes.filter(isAlive)) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (errnoOf(error) !== "ESRCH") throw error;
    }
  }
}

/** Waits until none lives; false when some still do after `withinMs`. */
export async function waitUntilGone(processes: readonly ProcessId[], withinMs: number): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  while (processes.some(isAlive)) {
    if (performance.now() > deadline) return false;
    await delay(10);
  }
  return true;
}

function readProc(path: string): string | undefined {
  return vanishing(() => readFileSync(path, "latin1"));
}

/** Undefined for what belongs to a process that has just gone (or is the kernel's). */
function vanishing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (["ENOENT", "ESRCH", "EACCES"].includes(errnoOf(error) ?? "")) return undefined;
    throw error;
  }
}
