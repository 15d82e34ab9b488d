/** Processes that live in the recorded network namespaces: pids beyond any real one, so that `/proc` can be answered for them. */

/** Above the kernel's PID_MAX_LIMIT (linux/threads.h). */
const FIRST_PID = 2 ** 22 + 1;

const inodes: bigint[] = [];

/** A process whose namespace has that inode. */
export function pidIn(inode: bigint): number {
  const known = inodes.indexOf(inode);
  return FIRST_PID + (known === -1 ? inodes.push(inode) - 1 : known);
}

/** The inode behind `/proc/<pid>/ns/net`; undefined for paths of the real system. */
export function inodeBehind(path: unknown): bigint | undefined {
  const pid = /^\/proc\/(\d+)\/ns\/net$/.exec(String(path))?.[1];
  return pid === undefined ? undefined : inodes[Number(pid) - FIRST_PID];
}

/** The inode of `inode://<device>/<inode>`; 0 where nothing is named. */
export function inodeIn(url: unknown): bigint {
  return BigInt(/^inode:\/\/\d+\/(\d+)$/.exec(String(url))?.[1] ?? 0);
}
