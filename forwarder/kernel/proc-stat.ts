/** What the kernel says of a process (proc_pid_stat(5)). */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { errnoOf } from "../../sdk/errors.ts";

export interface ProcessStat {
  /** `T` stopped, `Z` dead and not yet reaped, … */
  readonly state: string;
  /** In clock ticks since the machine started: tells a process from an earlier one with its pid. */
  readonly startTime: string;
}

/** Undefined when there is none. */
export function readProcessStat(pid: number): ProcessStat | undefined {
  return unlessEnded(() => parseStat(readFileSync(`/proc/${pid}/stat`, "latin1")));
}

function unlessEnded<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ESRCH") return undefined;
    throw error;
  }
}

/** The second field is a name in brackets, which may hold anything. */
function parseStat(stat: string): ProcessStat {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", startTime: fields[19] ?? "" };
}

/** Looks at one process again and again, at a quarter of the price; never at a later one with its pid. */
export interface ProcessLook extends Disposable {
  /** Undefined once it has ended. */
  read(): ProcessStat | undefined;
}

/** Undefined when there is none. */
export function openProcessLook(pid: number): ProcessLook | undefined {
  const fd = unlessEnded(() => openSync(`/proc/${pid}/stat`, "r"));
  if (fd === undefined) return undefined;
  const line = Buffer.alloc(1024);
  let isOpen = true;
  return {
    read: () =>
      unlessEnded(() => parseStat(line.toString("latin1", 0, readSync(fd, line, 0, line.length, 0)))),
    [Symbol.dispose]() {
      if (isOpen) closeSync(fd);
      isOpen = false;
    },
  };
}

/** A process, told from an earlier one with its pid. */
export interface ProcessStart {
  readonly pid: number;
  readonly startTime: string;
}

/** Undefined when there is none. */
export function processOf(pid: number): ProcessStart | undefined {
  const stat = readProcessStat(pid);
  return stat && { pid, startTime: stat.startTime };
}

/** Also of one that its parent has not waited for. */
export function hasEnded({ pid, startTime }: ProcessStart): boolean {
  const stat = readProcessStat(pid);
  return stat === undefined || stat.startTime !== startTime || stat.state === "Z" || stat.state === "X";
}
