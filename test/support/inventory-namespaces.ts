/** All network namespaces that this process can find: named ones, those of processes, those held by a descriptor. */
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { errnoOf } from "../../sdk/errors.ts";

export interface FoundNamespace {
  /** Its name below /run/netns, `own`, or `without name, of <programs>`. */
  readonly label: string;
  /** A path that nsenter(1) takes. */
  readonly path: string;
}

export function allNamespaces(): readonly FoundNamespace[] {
  const found = new Map<string, FoundNamespace>();
  const own = readlinkSync("/proc/self/ns/net");
  found.set(own, { label: "own", path: "/proc/self/ns/net" });
  for (const name of entries("/run/netns")) {
    const path = join("/run/netns", name);
    const { dev, ino } = statSync(path);
    // A file that is no namespace is what a killed `ip netns add` leaves.
    const isNamespace = dev === statSync("/proc/self/ns/net").dev;
    found.set(isNamespace ? `net:[${ino}]` : path, {
      label: isNamespace ? name : `${name} (no namespace)`,
      path,
    });
  }
  for (const pid of entries("/proc").filter((name) => /^\d+$/.test(name))) {
    const links = [`/proc/${pid}/ns/net`, ...entries(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`)];
    for (const path of links) {
      const target = link(path);
      if (target?.startsWith("net:[") !== true || found.has(target)) continue;
      found.set(target, { label: `without name, of ${link(`/proc/${pid}/exe`) ?? "?"}`, path });
    }
  }
  return [...found.values()];
}

export function entries(folder: string): readonly string[] {
  return unlessGone(() => readdirSync(folder)) ?? [];
}

export function link(path: string): string | undefined {
  return unlessGone(() => readlinkSync(path));
}

/** Undefined for what belongs to a process or file that has just gone. */
export function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (["ENOENT", "ESRCH", "EACCES", "EINVAL", "ENOTDIR"].includes(errnoOf(error) ?? "")) return undefined;
    throw error;
  }
}
