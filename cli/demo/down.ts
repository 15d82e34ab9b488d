/**
 * Removes what a run made: processes, namespaces, folders; also after a crash of its driver at any moment.
 *
 * A process belongs to a run when its record names it, when it carries the run's mark in its environment (a child of the
 * driver that had not been recorded yet), or when it is in one of the run's namespaces (what the daemons started, such as
 * user-space WireGuard, and shells that somebody opened there).
 */
import { existsSync, rmSync } from "node:fs";
import {
  argumentsOf,
  findProcesses,
  hasEnvironment,
  isAlive,
  netnsOf,
  netnsOfFile,
  signalAll,
  waitUntilGone,
} from "./processes.ts";
import type { ProcessId } from "./processes.ts";
import { namespaceFile } from "./commands.ts";
import { removeNamespaces } from "./namespaces.ts";
import { isDriven, listRuns, readRecord, removeIfEmpty, removeRunFolder } from "./record.ts";
import type { RunRecord } from "./record.ts";
import { runFolder } from "./topology.ts";

/** Where wireguard-go puts a socket for each device. */
export const WIREGUARD_FOLDER = "/var/run/wireguard";
/** Roles in the order in which they are asked to end: a client closes its wires while the others still serve. */
const STOP_ORDER = [["nsc"], ["nse"], ["forwarder", "nsmgr", "proxy", "registry", "identity"]];
const STOP_WITHIN_MS = 3000;
const DRIVER_STOP_WITHIN_MS = 15_000;

/** Set in the environment of every process that a driver starts. */
export function markOf(run: string): string {
  return `_NSM_DEMO_RUN=${run}`;
}

export function markedEnvironment(run: string): NodeJS.ProcessEnv {
  return { ...plainEnvironment(), _NSM_DEMO_RUN: run };
}

/** Of programs that end before anybody could miss them; another removal must not take them for the run's. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const { PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" } = process.env;
  return { PATH: `${PATH}:/usr/sbin:/sbin`, LC_ALL: "C.UTF-8" };
}

/** Ends a run from outside: asks its driver first, if that still works. True when nothing of the run is left. */
export async function endRun(run: string): Promise<boolean> {
  const record = readRecord(run);
  if (record !== undefined && isDriven(record)) {
    signalAll([record.driver], "SIGTERM");
    await waitUntilGone([record.driver], DRIVER_STOP_WITHIN_MS);
    signalAll([record.driver], "SIGKILL");
    await waitUntilGone([record.driver], STOP_WITHIN_MS);
  }
  const left = readRecord(run);
  if (left !== undefined && (await removeRun(left))) return true;
  // A removal at the same time may have been first, one that was killed may have left a folder without record.
  if (readRecord(run) === undefined) removeRunFolder(run);
  return !listRuns().includes(run);
}

/** Removes everything of a run but its driver. True when it is verified that nothing is left. */
export async function removeRun(record: RunRecord): Promise<boolean> {
  const inodes = new Set(record.namespaces.flatMap((name) => netnsOfFile(namespaceFile(name)) ?? []));
  inodes.delete(netnsOf(process.pid) ?? "");
  const devices = wireGuardDevices(inodes);

  for (const roles of STOP_ORDER) {
    const asked = record.parts.filter((part) => roles.includes(part.role));
    signalAll(asked, "SIGTERM");
    await waitUntilGone(asked, STOP_WITHIN_MS);
  }
  for (const [signal, withinMs] of [
    ["SIGTERM", 1000],
    ["SIGKILL", STOP_WITHIN_MS],
    ["SIGKILL", STOP_WITHIN_MS],
  ] as const) {
    const left = processesOf(record, inodes);
    if (left.length === 0) break;
    signalAll(left, signal);
    await waitUntilGone(left, withinMs);
  }

  await removeNamespaces(record.namespaces, plainEnvironment());
  for (const device of devices) rmSync(`${WIREGUARD_FOLDER}/${device}.sock`, { force: true });
  if (record.ownsWireGuardFolder) removeIfEmpty(WIREGUARD_FOLDER);

  const clean =
    processesOf(record, inodes).length === 0 &&
    !record.namespaces.some((name) => existsSync(namespaceFile(name)));
  if (!clean) return false; // the record stays, so that another attempt can be made
  removeRunFolder(record.run);
  return !existsSync(runFolder(record.run));
}

/** Every living process of the run but its driver and ourselves. */
export function processesOf(record: RunRecord, inodes: ReadonlySet<string>): readonly ProcessId[] {
  const mark = markOf(record.run);
  const found = findProcesses((pid) => {
    if (pid === record.driver.pid) return false;
    return inodes.has(netnsOf(pid) ?? "") || hasEnvironment(pid, mark);
  });
  const recorded = record.parts.filter((part) => isAlive(part) && !found.some(({ pid }) => pid === part.pid));
  return [...found, ...recorded];
}

/** Names of the devices of user-space WireGuard in the run's namespaces, whose sockets outlive a SIGKILL. */
function wireGuardDevices(inodes: ReadonlySet<string>): readonly string[] {
  return findProcesses((pid) => inodes.has(netnsOf(pid) ?? "")).flatMap(({ pid }) => {
    const [program = "", ...args] = argumentsOf(pid);
    const device = args.findLast((word) => !word.startsWith("-"));
    return program.endsWith("wireguard-go") && device !== undefined && !device.includes("/") ? [device] : [];
  });
}
