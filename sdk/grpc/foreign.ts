/**
 * Unix sockets of processes in other mount namespaces, opened so that nobody can lead us elsewhere (openat2(2), proc(5)).
 *
 * A path below `/proc/<pid>/root` must not be opened plainly: a symbolic link in there resolves in *our* root, and a recycled
 * pid is somebody else. Here the path is resolved once inside that root without following any link, and the descriptor is
 * kept: whatever happens to the file later, we go on talking to the socket that was found.
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { NsmError, errnoOf, messageOf } from "../errors.ts";
import { closeFd, connectUnixSync, openInRoot, openPidfd, peerCredentials } from "../native.ts";
import type { PeerProcess } from "./peer.ts";
import { ownPid, ownProcess } from "./process.ts";
import type { OwnedPid, OwnedProcess } from "./process.ts";
import type { Target } from "./sessions.ts";

/** fcntl.h; Node does not name it. */
const O_PATH = 0x200000;
const FOREIGN_URL = /^unix:\/\/\/proc\/([1-9]\d{0,9})\/root(\/.*)$/;

/** A socket as its process names it. */
export interface ForeignPath {
  readonly pid: number;
  /** Absolute, in that process's root. */
  readonly path: string;
}

export interface ForeignSocket extends Disposable {
  /** To call whoever listens there, as long as this is not disposed of. */
  readonly target: Pick<Target, "url" | "key">;
  /** The process that was named; its end makes the path mean nothing. */
  readonly owner: Pick<PeerProcess, "pid" | "pidfd" | "isAlive">;
  /** The process that called listen(2). Its namespaces are the endpoint's, whatever the owner says. */
  readonly listener: PeerProcess;
}

/** Reads `unix:///proc/<pid>/root/<path>`; undefined for other urls. */
export function parseForeignUrl(url: string): ForeignPath | undefined {
  const [, pid, path] = FOREIGN_URL.exec(url) ?? [];
  return pid === undefined || path === undefined ? undefined : { pid: Number(pid), path };
}

let opened = 0;

/**
 * Finds the socket and who listens on it.
 *
 * Throws NOT_FOUND `process-ended` or `no-socket`, PERMISSION_DENIED `symlink-refused` or `not-a-socket`, and UNAVAILABLE
 * `not-listening`.
 */
export function openForeignSocket({ pid, path }: ForeignPath): ForeignSocket {
  using failed = new DisposableStack();
  const owner = failed.use(openOwner(pid, path));
  const fd = failed.adopt(openPath(owner, path), closeFd);
  const own = `/proc/self/fd/${fd}`;
  const listener = failed.use(readListener(own, `${path} of process ${pid}`));
  const resources = failed.move();
  return {
    target: { url: `unix://${own}`, key: `foreign-${++opened}` },
    owner,
    listener,
    [Symbol.dispose]: () => resources.dispose(),
  };
}

function openOwner(pid: number, path: string): OwnedPid {
  const pidfd = openPidfd(pid);
  if (pidfd === undefined) throw ended(pid, path);
  return ownPid(pid, pidfd);
}

function openPath(owner: ForeignSocket["owner"], path: string): number {
  const root = openRoot(owner.pid, path);
  try {
    // Alive after the opening: so that root is this process's and not that of a successor with its pid.
    if (!owner.isAlive()) throw ended(owner.pid, path);
    // Without O_NOFOLLOW, with which the last link of the path would be opened itself instead of being refused.
    const fd = openInRoot(root, path, O_PATH);
    if (fstatSync(fd).isSocket()) return fd;
    closeFd(fd);
    throw new NsmError(
      "PERMISSION_DENIED",
      "not-a-socket",
      `${path} of process ${owner.pid} is not a socket`,
    );
  } catch (error) {
    throw explained(error, owner.pid, path);
  } finally {
    closeSync(root);
  }
}

function openRoot(pid: number, path: string): number {
  try {
    return openSync(`/proc/${pid}/root`, O_PATH | constants.O_DIRECTORY);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") throw ended(pid, path);
    const why = `cannot look into the root directory of process ${pid} for ${path}: ${messageOf(error)}`;
    throw new NsmError("PERMISSION_DENIED", "no-access", `${why}; CAP_SYS_PTRACE is needed`, error);
  }
}

function explained(error: unknown, pid: number, path: string): unknown {
  if (!(error instanceof NsmError)) return error;
  const socket = `${path} of process ${pid}`;
  if (error.reason === "enoent" || error.reason === "enotdir")
    return new NsmError("NOT_FOUND", "no-socket", `${socket} does not exist`, error);
  if (error.reason === "eloop")
    return new NsmError(
      "PERMISSION_DENIED",
      "symlink-refused",
      `${socket} leads through a symbolic link`,
      error,
    );
  return error;
}

/** A bare connection, closed before anything is sent, tells who listens. */
function readListener(path: string, name: string): OwnedProcess {
  const fd = connectOrExplain(path, name);
  try {
    return ownProcess(peerCredentials(fd));
  } finally {
    closeFd(fd);
  }
}

function connectOrExplain(path: string, name: string): number {
  try {
    return connectUnixSync(path);
  } catch (error) {
    throw new NsmError(
      "UNAVAILABLE",
      "not-listening",
      `nobody listens on ${name}: ${messageOf(error)}`,
      error,
    );
  }
}

function ended(pid: number, path: string): NsmError {
  return new NsmError("NOT_FOUND", "process-ended", `process ${pid} with the socket ${path} has ended`);
}
