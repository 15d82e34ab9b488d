/** What the kernel counts of a process: processor time, memory, descriptors (proc_pid_stat(5), proc_pid_status(5)). */
import { readFileSync, readdirSync } from "node:fs";

/** USER_HZ, which is 100 on every architecture that Node runs on. */
const MS_PER_TICK = 10;

/** Processor time of processes, each by its name. */
export type CpuTimes = ReadonlyMap<string, number>;

/** User and system time of all threads so far, those that ended included, in milliseconds. */
export function cpuTimes(processes: readonly { name: string; pid: number }[]): CpuTimes {
  return new Map(processes.map(({ name, pid }) => [name, cpuTicks(pid) * MS_PER_TICK]));
}

/** Milliseconds for one of `count` operations between two moments, of all processes and of each. */
export function costOf(before: CpuTimes, after: CpuTimes, count: number): { total: number; text: string } {
  const each = [...after].map(([name, ms]) => [name, (ms - (before.get(name) ?? 0)) / count] as const);
  const total = each.reduce((sum, [, ms]) => sum + ms, 0);
  const busy = each.filter(([, ms]) => ms >= 0.05).toSorted(([, a], [, b]) => b - a);
  return { total, text: busy.map(([name, ms]) => `${name} ${ms.toFixed(2)}`).join(", ") };
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
