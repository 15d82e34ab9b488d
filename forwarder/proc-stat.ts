/** What the kernel says of a process (proc_pid_stat(5)). */
import { readFileSync } from "node:fs";
import { errnoOf } from "../sdk/errors.ts";

export interface ProcessStat {
  /** `T` stopped, `Z` dead and not yet reaped, … */
  readonly state: string;
  /** In clock ticks since the machine started: tells a process from an earlier one with its pid. */
  readonly startTime: string;
}

/** Undefined when there is none. */
export function readProcessStat(pid: number): ProcessStat | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field is a name in brackets, which may hold anything.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0] ?? "", startTime: fields[19] ?? "" };
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ESRCH") return undefined;
    throw error;
  }
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
