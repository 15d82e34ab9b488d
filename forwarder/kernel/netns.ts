/** Network namespaces by process and inode: opened for one operation, never kept (an open descriptor keeps a dead pod's devices alive). */
import { closeSync, fstatSync, openSync, readFileSync, readdirSync, statSync } from "node:fs";
import { systemClock } from "../../sdk/clock.ts";
import { NsmError, errnoOf } from "../../sdk/errors.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";
import { closeFd, insideNetns, netnsCookie, openSocket } from "../../sdk/native.ts";
import type { NetnsRef } from "../wire.ts";

/** How long one look through all processes serves. It takes milliseconds, and a node's pods may all end at once. */
const SEEN_MS = 1000;

/** An open namespace; dispose it when the operation ends. */
export interface Netns extends Disposable {
  readonly fd: number;
  readonly inode: bigint;
}

/** Inode of the namespace that this process lives in, the node's. */
export function ownNetnsInode(): bigint {
  return statSync("/proc/thread-self/ns/net", { bigint: true }).ino;
}

/**
 * Opens the namespace of a process for a change.
 *
 * Throws NOT_FOUND `netns-gone` when the process is gone, PERMISSION_DENIED `netns-mismatch` when it lives in another namespace
 * than named, PERMISSION_DENIED `netns-of-node` for the node's own.
 */
export function openNetns(ref: NetnsRef): Netns {
  const netns = tryOpen(`/proc/${ref.pid}/ns/net`);
  if (netns === undefined) throw netnsGone(ref);
  if (netns.inode === ref.inode && netns.inode !== ownNetnsInode()) {
    if (seen?.paths.has(ref.inode) === false) seen = undefined; // made since the last look
    return netns;
  }
  netns[Symbol.dispose]();
  if (netns.inode === ref.inode)
    throw new NsmError(
      "PERMISSION_DENIED",
      "netns-of-node",
      `process ${ref.pid} lives in the node's own network namespace: wires end in pods only`,
    );
  throw new NsmError(
    "PERMISSION_DENIED",
    "netns-mismatch",
    `network namespace ${ref.inode} was named, but process ${ref.pid} lives in ${netns.inode}`,
  );
}

/** Opens a namespace wherever it is still alive, its first process gone or not; undefined when it is no more. */
export function findNetns({ pid, inode, identity }: NetnsRef): Netns | undefined {
  const netns = openIfSame(`/proc/${pid}/ns/net`, inode) ?? openSeen(inode);
  if (netns === undefined || identity === undefined || netnsIdentity(netns) === identity) return netns;
  netns[Symbol.dispose]();
  return undefined;
}

/** The same with its identity, to be remembered; undefined when the process, or this namespace of it, is gone. */
export function identified({ pid, inode }: NetnsRef): NetnsRef | undefined {
  using netns = openIfSame(`/proc/${pid}/ns/net`, inode);
  return netns && { pid, inode, identity: netnsIdentity(netns) };
}

/** A process that lives in that namespace, of this node's or its pods'; undefined when none does. */
export function findProcess(inode: bigint): NetnsRef | undefined {
  return processSeen(inode) ?? lookAgain(() => processSeen(inode));
}

function processSeen(inode: bigint): NetnsRef | undefined {
  const path = whereSeen(inode);
  const pid = Number(/^\/proc\/(\d+)\/ns\/net$/.exec(path ?? "")?.[1] ?? 0);
  return path !== undefined && pid > 0 && inodeAt(path) === inode ? { pid, inode } : undefined;
}

/** What was seen a moment ago may be missing what has come since. */
function lookAgain<T>(look: () => T): T {
  seen = undefined;
  return look();
}

/** NOT_FOUND `netns-gone` when the process has ended or moved since the namespace was opened. */
export function requireAlive(ref: NetnsRef): void {
  if (inodeAt(`/proc/${ref.pid}/ns/net`) !== ref.inode) throw netnsGone(ref);
}

/** Every network namespace of the machine but this process's own: where a process lives or a file is mounted. */
export function listNetns(): { ref: NetnsRef; path: string }[] {
  const found = new Map<bigint, { ref: NetnsRef; path: string }>();
  for (const pid of processIds()) {
    const path = `/proc/${pid}/ns/net`;
    const inode = inodeAt(path);
    if (inode !== undefined && !found.has(inode)) found.set(inode, { ref: { pid, inode }, path });
  }
  for (const { inode, path } of mountedNamespaces())
    if (!found.has(inode)) found.set(inode, { ref: { pid: 0, inode }, path });
  found.delete(ownNetnsInode());
  return [...found.values()];
}

/** Opens a path of `listNetns`; undefined when it is gone meanwhile. */
export function tryOpen(path: string): Netns | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
  let open = true;
  return {
    fd,
    inode: fstatSync(fd, { bigint: true }).ino,
    [Symbol.dispose]() {
      if (open) closeSync(fd);
      open = false;
    },
  };
}

const AF_UNIX = 1;
const SOCK_DGRAM = 2;

/**
 * Tells a namespace from all others since the machine started. Its inode does not: the kernel gives the number of a namespace
 * that ended to the next one. The inode all the same where the kernel has no cookies (before 5.14).
 */
export function netnsIdentity({ fd, inode }: Netns): string {
  return insideNetns(fd, () => {
    const socket = openSocket(AF_UNIX, SOCK_DGRAM, 0);
    try {
      return identityText(inode, netnsCookie(socket));
    } finally {
      closeFd(socket);
    }
  });
}

/** The same by a socket of it, which spares making one. */
export function identityBySocket({ inode }: Netns, socket: Pick<NetlinkSocket, "netnsCookie">): string {
  return identityText(inode, socket.netnsCookie());
}

function identityText(inode: bigint, cookie: bigint | undefined): string {
  return cookie === undefined ? `inode-${inode}` : `cookie-${cookie}`;
}

function netnsGone(ref: NetnsRef): NsmError {
  return new NsmError(
    "NOT_FOUND",
    "netns-gone",
    `network namespace ${ref.inode}: process ${ref.pid} has ended`,
  );
}

/**
 * Where namespaces were when all processes were last looked through. What is missing is no namespace with a device of ours: it
 * did not exist then, and has not been opened for a change since.
 */
let seen: { readonly atMs: number; readonly paths: ReadonlyMap<bigint, string> } | undefined;

function openSeen(inode: bigint): Netns | undefined {
  const path = whereSeen(inode);
  if (path === undefined) return undefined;
  const netns = openIfSame(path, inode);
  if (netns !== undefined) return netns;
  seen = undefined; // the process ended since; the namespace may have others
  const other = whereSeen(inode);
  return other === undefined ? undefined : openIfSame(other, inode);
}

function whereSeen(inode: bigint): string | undefined {
  const nowMs = systemClock.monotonic();
  if (seen === undefined || nowMs - seen.atMs > SEEN_MS)
    seen = { atMs: nowMs, paths: new Map(listNetns().map(({ ref, path }) => [ref.inode, path])) };
  return seen.paths.get(inode);
}

function openIfSame(path: string, inode: bigint): Netns | undefined {
  const netns = tryOpen(path);
  if (netns?.inode === inode) return netns;
  netns?.[Symbol.dispose]();
  return undefined;
}

function processIds(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Bind mounts of namespace files (`ip netns`, container runtimes), by proc_pid_mountinfo(5): the root field is `net:[inode]`. */
function mountedNamespaces(): { inode: bigint; path: string }[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .flatMap((line) => {
      const [, , , root = "", path = ""] = line.split(" ");
      const inode = /^net:\[(\d+)\]$/.exec(root)?.[1];
      return inode === undefined ? [] : [{ inode: BigInt(inode), path: unescapeOctal(path) }];
    });
}

function unescapeOctal(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Undefined when the process or file is gone, or may not be looked at. */
function inodeAt(path: string): bigint | undefined {
  try {
    return statSync(path, { bigint: true }).ino;
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** EACCES: a process without this one's rights over it, which is no pod of ours; ESRCH: ended while being read. */
function isGone(error: unknown): boolean {
  return ["ENOENT", "ESRCH", "EACCES", "EPERM"].includes(errnoOf(error) ?? "");
}
