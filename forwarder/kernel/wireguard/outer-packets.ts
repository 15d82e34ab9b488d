/**
 * Outer packets of wireguard-go may be cut into pieces on their way, as those of the kernel's WireGuard and of VXLAN may
 * (docs/protocol.md, "Wires").
 *
 * A UDP socket forbids it by itself (ip(7), IP_MTU_DISCOVER) and relies on ICMP, which many networks lose: where the way is narrower
 * than the node's own link says, large packets would then vanish without a word. The program has no option for it.
 */
import { readdirSync, readlinkSync } from "node:fs";
import { NsmError, errnoOf } from "../../../sdk/errors.ts";
import { closeFd, descriptorOf, openPidfd, setSocketOption, socketOption } from "../../../sdk/native.ts";

const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_DOMAIN = 39;
const SOCK_DGRAM = 2;
const AF_INET = 2;
const IPPROTO_IP = 0;
const IP_MTU_DISCOVER = 10;
const IP_PMTUDISC_DONT = 0;
/** The process or its socket has ended, or may not be looked into: then its packets stay whole. */
const NO_MATTER = ["esrch", "ebadf", "eperm", "enosys"];

/** For the sockets that the process has now. IPv6 knows no routers that cut. */
export function allowFragments(pid: number): void {
  const pidfd = openPidfd(pid);
  if (pidfd === undefined) return;
  try {
    for (const fd of socketsOf(pid)) setUp(pidfd, fd);
  } finally {
    closeFd(pidfd);
  }
}

function socketsOf(pid: number): readonly number[] {
  const directory = `/proc/${pid}/fd`;
  return unlessGone(() => readdirSync(directory), [])
    .filter((fd) => unlessGone(() => readlinkSync(`${directory}/${fd}`), "").startsWith("socket:"))
    .map(Number);
}

function setUp(pidfd: number, fd: number): void {
  let socket: number;
  try {
    socket = descriptorOf(pidfd, fd);
  } catch (error) {
    if (error instanceof NsmError && NO_MATTER.includes(error.reason)) return;
    throw error;
  }
  try {
    const option = (name: number) => socketOption(socket, SOL_SOCKET, name, 4).readInt32LE(0);
    if (option(SO_DOMAIN) === AF_INET && option(SO_TYPE) === SOCK_DGRAM)
      setSocketOption(socket, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
  } finally {
    closeFd(socket);
  }
}

function unlessGone<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch (error) {
    if (["ENOENT", "ESRCH", "EACCES"].includes(errnoOf(error) ?? "")) return otherwise;
    throw error;
  }
}
