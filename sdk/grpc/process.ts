/** The process at the other end of a unix socket, told by the kernel (SO_PEERCRED, SO_PEERPIDFD in socket(7), pidfd_open(2)). */
import { existsSync } from "node:fs";
import type { Socket } from "node:net";
import { NsmError } from "../errors.ts";
import type { Clock } from "../clock.ts";
import { closeFd, isPidfdAlive, openPidfd, peerCredentials, watchReadable } from "../native.ts";
import type { PeerCredentials } from "../native.ts";
import type { PeerProcess } from "./peer.ts";

/** A process by its pidfd, which is ours to close. */
export interface OwnedPid extends Pick<PeerProcess, "pid" | "pidfd" | "isAlive">, Disposable {}

/** A PeerProcess whose pidfd is ours to close. */
export interface OwnedProcess extends PeerProcess, Disposable {}

/** Who is connected to `socket`; on the connecting side: who listens. Throws UNAVAILABLE `socket-closed`. */
export function readPeerProcess(socket: Socket): OwnedProcess {
  return ownProcess(peerCredentials(descriptorOf(socket)));
}

/** Takes over the pidfd of `credentials`. */
export function ownProcess({ pid, uid, gid, pidfd }: PeerCredentials): OwnedProcess {
  return { ...ownPid(pid, pidfd), uid, gid };
}

/** Takes over `pidfd`. Once disposed of it is not alive to us: nobody knows who has its pid. */
export function ownPid(pid: number, pidfd: number | undefined): OwnedPid {
  let open = true;
  return {
    pid,
    pidfd,
    isAlive() {
      // The number of a closed descriptor may already be somebody else's.
      if (!open) return false;
      return pidfd === undefined ? existsSync(`/proc/${pid}`) : isPidfdAlive(pidfd);
    },
    [Symbol.dispose]() {
      if (!open) return;
      open = false;
      if (pidfd !== undefined) closeFd(pidfd);
    },
  };
}

/**
 * The same process for longer than its session: a descriptor of our own. Undefined when it has ended, or when the session
 * has, since then nobody knows whether the pid still is that process.
 */
export function holdProcess(process: PeerProcess): OwnedProcess | undefined {
  const pidfd = openPidfd(process.pid);
  if (pidfd === undefined) return undefined;
  // Alive after the opening: so the pid was not recycled before it, and the new descriptor is that very process.
  if (process.isAlive()) return ownProcess({ pid: process.pid, uid: process.uid, gid: process.gid, pidfd });
  closeFd(pidfd);
  return undefined;
}

/** Where a process has no pidfd (kernels before 5.3), how often it is looked for. */
const LOOK_MS = 250;

/**
 * Calls back once, from the event loop, when the process has ended; at once if it has already. Dispose before the process's
 * descriptor is closed.
 */
export function whenEnded(
  { pidfd, isAlive }: Pick<PeerProcess, "pidfd" | "isAlive">,
  clock: Pick<Clock, "timer">,
  onEnded: () => void,
): Disposable {
  if (pidfd !== undefined) {
    const watch = watchReadable(pidfd, () => {
      watch[Symbol.dispose]();
      onEnded();
    });
    return watch;
  }
  const look = () => {
    if (isAlive()) timer = clock.timer(LOOK_MS, look);
    else onEnded();
  };
  let timer = clock.timer(0, look);
  return { [Symbol.dispose]: () => timer[Symbol.dispose]() };
}

/** The file descriptor below a connected socket; Node has no public name for it. Throws UNAVAILABLE `socket-closed`. */
export function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, "_handle");
  if (typeof handle === "object" && handle !== null && "fd" in handle) {
    const { fd } = handle;
    if (typeof fd === "number" && fd >= 0) return fd;
  }
  throw new NsmError("UNAVAILABLE", "socket-closed", "the peer has closed the connection");
}
