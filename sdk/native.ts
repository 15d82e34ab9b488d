/**
 * System calls that Node has no API for, through koffi: namespaces, peer credentials, pidfds, openat2, netlink sockets.
 *
 * Numbers are those of Linux on x86_64 and arm64 (include/uapi); every descriptor made here is close-on-exec.
 */
import { closeSync, openSync } from "node:fs";
import koffi from "koffi";
import { errnoName, errnoText } from "./errno.ts";
import { NsmError } from "./errors.ts";
import type { CodeName } from "./errors.ts";

const libc = koffi.load(null);
const c = {
  setns: libc.func("int setns(int fd, int kind)"),
  socket: libc.func("int socket(int domain, int type, int protocol)"),
  bind: libc.func("int bind(int fd, const void *address, uint32_t length)"),
  connect: libc.func("int connect(int fd, const void *address, uint32_t length)"),
  send: libc.func("intptr_t send(int fd, const void *bytes, size_t length, int flags)"),
  recv: libc.func("intptr_t recv(int fd, void *bytes, size_t length, int flags)"),
  poll: libc.func("int poll(void *fds, unsigned long count, int timeoutMs)"),
  getsockopt: libc.func("int getsockopt(int fd, int level, int name, void *value, void *length)"),
  setsockopt: libc.func("int setsockopt(int fd, int level, int name, const void *value, uint32_t length)"),
  memfdCreate: libc.func("int memfd_create(const char *name, unsigned int flags)"),
  pidfdOpen: libc.func("syscall", "long", ["long", "int", "unsigned int"]),
  pidfdGetfd: libc.func("syscall", "long", ["long", "int", "int", "unsigned int"]),
  openat2: libc.func("syscall", "long", ["long", "int", "str", "void *", "size_t"]),
};
/** The same on both architectures. */
const SYS = { pidfd_open: 434, openat2: 437, pidfd_getfd: 438 };

const CLONE_NEWNET = 0x40000000;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERPIDFD = 77;
const SO_NETNS_COOKIE = 71;
const MSG_DONTWAIT = 0x40;
const POLLIN = 1;
const O_CLOEXEC = 0x80000;
const MFD_CLOEXEC = 1;
/** linux/openat2.h: RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_IN_ROOT */
const RESOLVE_STRICT_IN_ROOT = 0x02 | 0x04 | 0x10;

const CODES: Readonly<Record<string, CodeName>> = {
  ENOENT: "NOT_FOUND",
  ESRCH: "NOT_FOUND",
  EACCES: "PERMISSION_DENIED",
  EPERM: "PERMISSION_DENIED",
  ELOOP: "PERMISSION_DENIED",
  EXDEV: "PERMISSION_DENIED",
  EINVAL: "INVALID_ARGUMENT",
  ECONNREFUSED: "UNAVAILABLE",
  EAGAIN: "UNAVAILABLE",
  EMFILE: "RESOURCE_EXHAUSTED",
  ENFILE: "RESOURCE_EXHAUSTED",
  ENOBUFS: "RESOURCE_EXHAUSTED",
  ENOMEM: "RESOURCE_EXHAUSTED",
};

/** The error of a failed call; `reason` is the errno's name in lower case (`enoent`). */
export function systemError(call: string, errno: number): NsmError {
  const name = errnoName(errno);
  return new NsmError(
    CODES[name] ?? "INTERNAL",
    name.toLowerCase(),
    `${call}: ${name} (${errnoText(errno)})`,
  );
}

/** `result`, or the error of `call` when it is negative. */
function checked(call: string, result: number): number {
  if (result < 0) throw systemError(call, koffi.errno());
  return result;
}

/** Closes a descriptor that this module opened. */
export function closeFd(fd: number): void {
  closeSync(fd);
}

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** The caller closes it. Undefined where the kernel has no SO_PEERPIDFD (before 6.5) or the peer is gone. */
  readonly pidfd: number | undefined;
}

/** Who is at the other end of a connected unix socket (unix(7)). On the connecting side: who called listen(). */
export function peerCredentials(fd: number): PeerCredentials {
  const ucred = socketOption(fd, SOL_SOCKET, SO_PEERCRED, 12);
  const pidfd = Buffer.alloc(4);
  const length = Buffer.from(Uint32Array.of(4).buffer);
  const known = Number(c.getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, pidfd, length)) === 0;
  return {
    pid: ucred.readInt32LE(0),
    uid: ucred.readUInt32LE(4),
    gid: ucred.readUInt32LE(8),
    pidfd: known ? pidfd.readInt32LE(0) : undefined,
  };
}

/** A descriptor of the process; undefined when there is no such process. Throws for other failures. */
export function openPidfd(pid: number): number | undefined {
  const fd = Number(c.pidfdOpen(SYS.pidfd_open, pid, 0));
  if (fd < 0 && errnoName(koffi.errno()) === "ESRCH") return undefined;
  return checked(`pidfd_open ${pid}`, fd);
}

/**
 * A descriptor of another process, as one of ours for the same open file: an option of a socket that is set here counts there. The
 * caller closes it. PERMISSION_DENIED `eperm` for processes that this one may not trace.
 */
export function descriptorOf(pidfd: number, fd: number): number {
  return checked(`pidfd_getfd ${fd}`, Number(c.pidfdGetfd(SYS.pidfd_getfd, pidfd, fd, 0)));
}

/** False once the process has ended, even while its parent has not waited for it. */
export function isPidfdAlive(pidfd: number): boolean {
  const pollfd = Buffer.alloc(8);
  pollfd.writeInt32LE(pidfd, 0);
  pollfd.writeInt16LE(POLLIN, 4);
  for (;;) {
    const ready = Number(c.poll(pollfd, 1, 0));
    // A signal at this very moment (the end of a child, a profiler's tick) interrupts even a poll that does not wait.
    if (ready < 0 && errnoName(koffi.errno()) === "EINTR") continue;
    return checked("poll", ready) === 0;
  }
}

/**
 * Calls `onReadable` from the event loop while `fd` has something to read (a pidfd: once its process has ended).
 * Disposing stops it and leaves `fd` open; dispose before closing `fd`. Does not keep the process alive.
 */
export function watchReadable(fd: number, onReadable: () => void): Disposable {
  const handle = koffi.node.poll(fd, { readable: true }, () => onReadable());
  handle.unref();
  let open = true;
  return {
    [Symbol.dispose]() {
      if (!open) return;
      open = false;
      handle.stop();
      handle.close();
    },
  };
}

/**
 * Opens `path` as if `rootFd` were the root directory; symbolic and magic links anywhere in it are refused (ELOOP).
 * `flags` as of open(2). Throws with the errno's name as reason.
 */
export function openInRoot(rootFd: number, path: string, flags: number): number {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt(RESOLVE_STRICT_IN_ROOT), 16);
  return checked(`openat2 ${path}`, Number(c.openat2(SYS.openat2, rootFd, path, how, how.length)));
}

/** A file in memory that no path leads to, for secrets that a program reads from its standard input; the caller closes it. */
export function openMemoryFile(name: string): number {
  return checked("memfd_create", Number(c.memfdCreate(name, MFD_CLOEXEC)));
}

/** A stream socket connected to a listener of the file system; the caller closes it. EAGAIN when its backlog is full. */
export function connectUnixSync(path: string): number {
  const name = Buffer.from(path);
  if (name.length > 107 || name.includes(0))
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-socket-path",
      `unix socket path ${path}: at most 107 bytes, no NUL`,
    );
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  const fd = openSocket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  try {
    checked(`connect ${path}`, Number(c.connect(fd, address, name.length + 3)));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

/** socket(2), close-on-exec, in the calling thread's network namespace; the caller closes it. */
export function openSocket(domain: number, type: number, protocol: number): number {
  return checked("socket", Number(c.socket(domain, type | SOCK_CLOEXEC, protocol)));
}

export function bindSocket(fd: number, address: Uint8Array): void {
  checked("bind", Number(c.bind(fd, address, address.length)));
}

/** connect(2); sets the peer of a datagram or raw socket, at once. */
export function connectSocket(fd: number, address: Uint8Array): void {
  checked("connect", Number(c.connect(fd, address, address.length)));
}

/** An option of `length` bytes. */
export function socketOption(fd: number, level: number, name: number, length: number): Buffer {
  const value = Buffer.alloc(length);
  const size = Buffer.from(Uint32Array.of(length).buffer);
  checked(`getsockopt ${level}/${name}`, Number(c.getsockopt(fd, level, name, value, size)));
  return value.subarray(0, size.readUInt32LE(0));
}

export function setSocketOption(fd: number, level: number, name: number, value: number | Buffer): void {
  const bytes = typeof value === "number" ? Buffer.from(Int32Array.of(value).buffer) : value;
  checked(`setsockopt ${level}/${name}`, Number(c.setsockopt(fd, level, name, bytes, bytes.length)));
}

/** Tells the network namespace of a socket from all others since the machine started; undefined before Linux 5.14. */
export function netnsCookie(fd: number): bigint | undefined {
  try {
    return socketOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, 8).readBigUInt64LE();
  } catch (error) {
    if (error instanceof NsmError && error.reason === "enoprotoopt") return undefined;
    throw error;
  }
}

/** send(2) on the calling thread; a short write is an error of a datagram socket and cannot happen. */
export function sendSync(fd: number, bytes: Uint8Array): void {
  checked("send", Number(c.send(fd, bytes, bytes.length, 0)));
}

/** Sends at once on threads of libuv's pool, which files and name resolution need as well; koffi itself allows 64 calls. */
const CONCURRENT_SENDS = 12;
let sending = 0;
const waiting: (() => void)[] = [];

/**
 * send(2) on a thread of libuv's pool: for requests that keep the kernel busy (deleting a device: 16 ms). In turn when many
 * come at once.
 */
export async function send(fd: number, bytes: Uint8Array): Promise<void> {
  if (sending === CONCURRENT_SENDS) await new Promise<void>((resolve) => waiting.push(resolve));
  else sending++;
  try {
    await sendInPool(fd, bytes);
  } finally {
    // A turn is handed on, not given back, so that nobody jumps the queue.
    const next = waiting.shift();
    if (next) next();
    else sending--;
  }
}

function sendInPool(fd: number, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    c.send.async(fd, bytes, bytes.length, 0, (error: Error | null, sent: number) => {
      if (error) reject(error);
      else if (sent < 0) reject(systemError("send", koffi.errno()));
      else resolve();
    });
  });
}

/** One datagram into `buffer`, without waiting; undefined when there is none. */
export function receive(fd: number, buffer: Uint8Array): number | undefined {
  const length = Number(c.recv(fd, buffer, buffer.length, MSG_DONTWAIT));
  if (length < 0 && errnoName(koffi.errno()) === "EAGAIN") return undefined;
  return checked("recv", length);
}

let ownNetns: number | undefined;

/**
 * Runs `body` with the calling thread in the network namespace of `netnsFd`, microseconds long.
 *
 * `body` must be synchronous and must not start processes, workers or thread pool jobs: a thread made inside inherits the
 * namespace. libuv's pool must exist before the first call (any asynchronous file operation). A process that cannot come
 * back would go on in a foreign namespace: it aborts.
 */
export function insideNetns<T>(netnsFd: number, body: () => T): T {
  ownNetns ??= openSync("/proc/thread-self/ns/net", "r");
  checked("setns", Number(c.setns(netnsFd, CLONE_NEWNET)));
  try {
    return body();
  } finally {
    if (Number(c.setns(ownNetns, CLONE_NEWNET)) !== 0) process.abort();
  }
}
