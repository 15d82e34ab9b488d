/** Processes, descriptors, files and mounts, as lines that can be compared. */
import { spawnSync } from "node:child_process";
import { lstatSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { entries, link, unlessGone } from "./inventory-namespaces.ts";

/** Command lines of all processes but this one and its ancestors. */
export function processLines(): readonly string[] {
  const excluded = new Set([process.pid, ...ancestors()]);
  return entries("/proc")
    .filter((name) => /^\d+$/.test(name) && !excluded.has(Number(name)))
    .flatMap((pid) => {
      const [state, parent] = statFields(pid) ?? [];
      // This process has not yet waited for a child of its own that has just ended.
      if (state === "Z")
        return Number(parent) === process.pid ? [] : ["a process that nobody has waited for"];
      const text = unlessGone(() => readFileSync(`/proc/${pid}/cmdline`, "latin1")) ?? "";
      return text === "" ? [] : [text.split("\0").slice(0, -1).join(" ")];
    });
}

function ancestors(): readonly number[] {
  const found: number[] = [];
  for (let pid = process.ppid; pid > 0; pid = parentOf(pid)) found.push(pid);
  return found;
}

function parentOf(pid: number): number {
  return Number(statFields(String(pid))?.[1] ?? 0);
}

/** proc_pid_stat(5) from the third field on. */
function statFields(pid: string): readonly string[] | undefined {
  const stat = unlessGone(() => readFileSync(`/proc/${pid}/stat`, "latin1"));
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/** Open descriptors by kind: `socket`, `pipe`, `anon_inode:[eventpoll]`, a path, `net` namespace. */
export function descriptorLines(pid: number): readonly string[] {
  return entries(`/proc/${pid}/fd`).map((fd) => {
    const target = link(`/proc/${pid}/fd/${fd}`) ?? "gone";
    return target.startsWith("/") ? target : target.replace(/:\[\d+\]$/, "");
  });
}

/** Files below /run, the temporary folder and the given ones: kind, mode, owner, path. */
export function fileLines(folders: readonly string[]): readonly string[] {
  const roots = new Set(["/run", tmpdir(), ...folders]);
  return [...roots].flatMap((root) =>
    below(
      root,
      [...roots].filter((other) => other !== root),
    ),
  );
}

/** `ip netns` makes and keeps this folder; its entries are counted as namespaces. */
const NAMESPACES = "/run/netns";

function below(folder: string, elsewhere: readonly string[]): readonly string[] {
  return entries(folder).flatMap((name) => {
    const path = join(folder, name);
    const stat = unlessGone(() => lstatSync(path));
    if (stat === undefined || path === NAMESPACES || elsewhere.includes(path)) return [];
    const mode = (stat.mode & 0o7777).toString(8).padStart(4, "0");
    const kind = stat.isDirectory()
      ? "folder"
      : stat.isSocket()
        ? "socket"
        : stat.isFile()
          ? "file"
          : "other";
    return [
      `${kind} ${mode} ${stat.uid}:${stat.gid} ${path}`,
      ...(stat.isDirectory() ? below(path, elsewhere) : []),
    ];
  });
}

/** What the kernel says when it lost count of something. */
export function kernelLogLines(): readonly string[] {
  const { stdout } = spawnSync("dmesg", ["--notime"], { encoding: "utf8" });
  return (stdout ?? "")
    .split("\n")
    .filter((line) => /leak|refcount|unregister_netdevice: waiting/.test(line));
}

/** Mount points with their file systems, without those of named namespaces. */
export function mountLines(): readonly string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .flatMap((line) => {
      const [before = "", after = ""] = line.split(" - ");
      const point = before.split(" ")[4] ?? "";
      return point.startsWith(NAMESPACES) ? [] : [`${point} ${after.split(" ")[0]}`];
    });
}
