/** What the kernel counts of a process: processor time, memory, descriptors (proc_pid_stat(5), proc_pid_status(5)). */
import { readFileSync, readdirSync } from "node:fs";

/** USER_HZ, which is 100 on every architecture that Node runs on. */
const MS_PER_TICK = 10;

/** User and system time of all threads of the processes together, those that ended included. */
export function cpuMs(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuTicks(pid) * MS_PER_TICK, 0);
}

function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // From the third field on: the second, the name, may contain blanks.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

export function rssMiB(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kib === undefined) throw new Error(`process ${pid} has no memory: it has ended`);
  return Number(kib) / 1024;
}

export function descriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}
