/**
 * What the kernel says of a caller, and which registration that fits.
 *
 * Read from the process behind the socket: user and group as of its connect(2), network namespace, cgroup and the file that it
 * executes. Never its arguments, environment or working directory, which it writes itself. docs/identity.md says what each proves.
 */
import { readFileSync, readlinkSync, statSync } from "node:fs";
import { NsmError, errnoOf } from "../sdk/errors.ts";
import type { PeerProcess } from "../sdk/grpc/peer.ts";
import { isWithin } from "./registrations.ts";
import type { Match, Registration, Selector } from "./registrations.ts";

/** A file of the kernel's: device and inode. */
export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** Facts that could not be read (no permission) are undefined and fit no selector. */
export interface Caller {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  readonly netns: FileIdentity | undefined;
  /** Relative to the root of the hierarchy, no slash in front. */
  readonly cgroup: string | undefined;
  readonly executable: (FileIdentity & { readonly path: string }) | undefined;
}

/** Reads the facts. Throws UNAVAILABLE `caller-gone` when the process ended meanwhile, so that a successor's facts do not count. */
export function readCaller(process: PeerProcess, proc = "/proc"): Caller {
  const { pid, uid, gid } = process;
  const home = `${proc}/${pid}`;
  const caller: Caller = {
    pid,
    uid,
    gid,
    netns: readable(() => identityOf(`${home}/ns/net`)),
    cgroup: readable(() => parseCgroup(readFileSync(`${home}/cgroup`, "utf8"))),
    executable: readable(() => ({ ...identityOf(`${home}/exe`), path: readlinkSync(`${home}/exe`) })),
  };
  if (!process.isAlive())
    throw new NsmError("UNAVAILABLE", "caller-gone", `process ${pid} ended while it was looked at`);
  return caller;
}

/**
 * The registration that fits. Throws PERMISSION_DENIED: `not-registered` says what was seen and how to register it;
 * `ambiguous-registration` when two fit (two paths may turn out to be one file).
 */
export function findRegistration(
  caller: Caller,
  registrations: readonly Registration[],
  file: string,
): Registration {
  const [first, ...others] = registrations.filter(({ match }) => fits(match, caller));
  if (first === undefined) throw notRegistered(caller, registrations, file);
  if (others.length === 0) return first;
  const ids = [first, ...others].map(({ id }) => id).join(" and ");
  throw new NsmError(
    "PERMISSION_DENIED",
    "ambiguous-registration",
    `${ids} both fit ${describeCaller(caller)}: correct ${file}`,
  );
}

/** A selector that is not given fits everybody. */
const SELECTORS: Readonly<Record<Selector, (match: Match, caller: Caller) => boolean>> = {
  uid: ({ uid }, caller) => uid === undefined || uid === caller.uid,
  gid: ({ gid }, caller) => gid === undefined || gid === caller.gid,
  netns: ({ netns }, caller) => {
    if (typeof netns === "number") return caller.netns?.ino === BigInt(netns);
    return netns === undefined || isSameFile(caller.netns, currentIdentityOf(netns));
  },
  cgroup: ({ cgroup }, caller) =>
    cgroup === undefined || (caller.cgroup !== undefined && isWithin(caller.cgroup, cgroup)),
  executable: ({ executable }, caller) =>
    executable === undefined || isSameFile(caller.executable, currentIdentityOf(executable)),
};

export function fits(match: Match, caller: Caller): boolean {
  return Object.values(SELECTORS).every((fits) => fits(match, caller));
}

/** The cgroup of version 2, or of systemd's named hierarchy of version 1 (cgroups(7)). */
export function parseCgroup(text: string): string | undefined {
  const lines = text.split("\n").map((line) => /^\d+:([^:]*):\/(.*)$/.exec(line));
  const found = lines.find((line) => line?.[1] === "") ?? lines.find((line) => line?.[1] === "name=systemd");
  return found?.[2];
}

function identityOf(path: string): FileIdentity {
  const { dev, ino } = statSync(path, { bigint: true });
  return { dev, ino };
}

/** Undefined when there is no such file now: a namespace that is not made yet fits nobody. */
function currentIdentityOf(path: string): FileIdentity | undefined {
  return readable(() => identityOf(path));
}

function isSameFile(a: FileIdentity | undefined, b: FileIdentity | undefined): boolean {
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

const UNREADABLE = new Set(["ENOENT", "ESRCH", "EACCES", "EPERM", "ENOTDIR", "ELOOP"]);

function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (UNREADABLE.has(errnoOf(error) ?? "")) return undefined;
    throw error;
  }
}

/** `uid 0, gid 1001, netns 4026531840, cgroup system.slice/x.service, executable /usr/bin/x` */
export function describeCaller({ pid, uid, gid, netns, cgroup, executable }: Caller): string {
  return [
    `process ${pid}: uid ${uid}`,
    `gid ${gid}`,
    `netns ${netns?.ino ?? "not readable"}`,
    `cgroup ${cgroup === undefined ? "not readable" : JSON.stringify(cgroup)}`,
    `executable ${executable === undefined ? "not readable" : JSON.stringify(executable.path)}`,
  ].join(", ");
}

function notRegistered(caller: Caller, registrations: readonly Registration[], file: string): NsmError {
  const example = `- { id: "spiffe://${trustDomainOf(registrations)}/my-workload", match: { uid: ${caller.uid}, gid: ${caller.gid} } }`;
  return new NsmError(
    "PERMISSION_DENIED",
    "not-registered",
    `no registration fits ${describeCaller(caller)}. Add one to ${file}, for example: ${example}`,
  );
}

function trustDomainOf([first]: readonly Registration[]): string {
  return first?.id.split("/")[2] ?? "nsm.local";
}
