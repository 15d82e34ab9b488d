/**
 * WireGuard by the program wireguard-go, one process a wire, for kernels without the module.
 *
 * The process lives in the node's namespace, where its UDP socket is. It makes a TUN device there under a name that only this wire
 * of this node has; that device is then moved into the pod and renamed. Configuration goes over the program's unix socket, which
 * keeps the first name. The process outlives the forwarder and ends when its device is deleted.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readlinkSync, unlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { systemClock, delay } from "../../../sdk/clock.ts";
import { NsmError, errnoOf } from "../../../sdk/errors.ts";
import { closeFd, connectUnixSync, peerCredentials } from "../../../sdk/native.ts";
import { decodeLink, deleteLink, dumpLinks, setLink } from "../../../sdk/netlink/link.ts";
import type { NewDevice } from "../../../sdk/netlink/link.ts";
import { openNetlink } from "../../../sdk/netlink/socket.ts";
import { ownNetnsInode } from "../netns.ts";
import { readLink } from "../observe.ts";
import { busyUdpPorts } from "../udp-ports.ts";
import type { WireguardDriver } from "./driver.ts";
import { allowFragments } from "./outer-packets.ts";
import { GET, askProgram, formatDevice, formatNewPeer, formatPlace, parseState } from "./uapi.ts";

const PROGRAM = "wireguard-go";
/** Built into both programs. */
const SOCKET_DIRECTORY = "/var/run/wireguard";
const START_MS = 5000;
/** wireguard-go looks once a second whether its device, in another namespace by then, is up. */
const UP_MS = 4000;
const END_MS = 3000;

/** Removes first what a forwarder of this node left half made: devices that never reached their pod, sockets of dead processes. */
export async function openUserspaceWireguard(): Promise<WireguardDriver> {
  await removeStrays();
  return {
    mode: "userspace",
    linkKind: "tun",
    async create(wireId, device, shape) {
      const tun = tunName(wireId);
      await end(tun);
      requireFreePort(shape.localPort);
      const pid = await start(tun);
      try {
        await askProgram(socketOf(tun), formatDevice(shape));
        await moveIntoPod(tun, device);
      } catch (error) {
        process.kill(pid, "SIGTERM");
        await end(tun);
        throw error;
      }
    },
    async read(wireId) {
      try {
        return parseState(await askProgram(socketOf(tunName(wireId)), GET));
      } catch (error) {
        if (error instanceof NsmError && error.reason === "wireguard-go-gone") return undefined;
        throw error;
      }
    },
    configure: (wireId, _netns, _ifindex, shape) => tell(wireId, formatDevice(shape)),
    renewPeer: (wireId, _netns, _ifindex, peer) => tell(wireId, formatNewPeer(peer)),
    movePeer: (wireId, _netns, _ifindex, peer) => tell(wireId, formatPlace(peer)),
    // Said anew where the peer is, wireguard-go forgets the address that it sent from, which it keeps to after that has gone.
    beat: (wireId, _netns, _ifindex, peer) => tell(wireId, formatPlace(peer)),
    async ready(wireId, { localPort }, signal) {
      if (await until(() => busyUdpPorts().has(localPort), UP_MS, signal)) {
        const pid = processOf(tunName(wireId));
        if (pid !== undefined) allowFragments(pid);
        return;
      }
      throw new NsmError(
        "UNAVAILABLE",
        "port-busy",
        `wire ${wireId}: ${PROGRAM} did not open UDP port ${localPort} within ${UP_MS} ms: is something else using it?`,
      );
    },
    forget: (wireId) => end(tunName(wireId)),
  };
}

async function tell(wireId: string, words: string): Promise<void> {
  await askProgram(socketOf(tunName(wireId)), words);
}

/** `nsm`, 3 letters of the node, 9 of the wire: 15, as long as a name may be. */
export function tunName(wireId: string): string {
  return `${nodePrefix()}${letters(`${ownNetnsInode()}:${wireId}`).slice(0, 9)}`;
}

function nodePrefix(): string {
  return `nsm${letters(`node ${ownNetnsInode()}`).slice(0, 3)}`;
}

/** Base 32 in lower case. */
function letters(text: string): string {
  const bytes = createHash("sha256").update(text).digest();
  return Array.from(bytes, (byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte & 31]).join("");
}

function socketOf(tun: string): string {
  return join(SOCKET_DIRECTORY, `${tun}.sock`);
}

function requireFreePort(port: number): void {
  if (busyUdpPorts().has(port))
    throw new NsmError(
      "UNAVAILABLE",
      "port-busy",
      `UDP port ${port} is in use on this node: request again to get another one`,
    );
}

/** Resolves with the process id once the program serves its socket; its device exists by then. */
async function start(tun: string): Promise<number> {
  // Any other value of this variable makes the program start itself again.
  const env = { PATH: process.env["PATH"], WG_PROCESS_FOREGROUND: "1", LOG_LEVEL: "silent" };
  const child = spawn(PROGRAM, [tun], { detached: true, stdio: "ignore", cwd: "/", env });
  let failure: string | undefined;
  child.once("error", (error) => (failure = error.message));
  child.once("exit", (code, signal) => (failure ??= `it ended with ${signal ?? code}`));
  child.unref();
  const served = await until(() => failure !== undefined || processOf(tun) !== undefined, START_MS);
  if (served && failure === undefined && child.pid !== undefined) return child.pid;
  child.kill("SIGKILL");
  throw new NsmError(
    "UNAVAILABLE",
    "wireguard-go-failed",
    `${PROGRAM} did not make device ${tun}: ${failure ?? `not ready within ${START_MS} ms`}`,
  );
}

/** Namespace, name and index change in one message; a taken name is found out only after the move. */
async function moveIntoPod(tun: string, { name, ifindex, netnsFd, group, mtu }: NewDevice): Promise<void> {
  using node = openNetlink("route");
  const link = await readLink(node, { name: tun });
  if (link === undefined) throw new NsmError("UNAVAILABLE", "wireguard-go-failed", `device ${tun} is gone`);
  const move = { netnsFd, name, ifindex };
  await node.execute(setLink({ ifindex: link.ifindex, group, ...(mtu > 0 && { mtu }), move }));
}

/** The process behind a UAPI socket; undefined when nobody listens. */
function processOf(tun: string): number | undefined {
  const path = socketOf(tun);
  if (!existsSync(path)) return undefined;
  let fd: number;
  try {
    fd = connectUnixSync(path);
  } catch (error) {
    if (error instanceof NsmError && ["econnrefused", "enoent"].includes(error.reason)) return undefined;
    throw error;
  }
  try {
    const { pid, pidfd } = peerCredentials(fd);
    if (pidfd !== undefined) closeFd(pidfd);
    return pid;
  } finally {
    closeFd(fd);
  }
}

/** Waits for the process to end, which it does by itself once its device is gone, and makes sure that it does. */
async function end(tun: string): Promise<void> {
  if (!existsSync(socketOf(tun))) return;
  const gone = await until(() => !existsSync(socketOf(tun)) || processOf(tun) === undefined, END_MS);
  const pid = gone ? undefined : processOf(tun);
  if (pid !== undefined && isProgram(pid)) {
    process.kill(pid, "SIGKILL");
    await until(() => processOf(tun) === undefined, END_MS);
  }
  removeSocket(tun);
}

function isProgram(pid: number): boolean {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`)) === PROGRAM;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

function removeSocket(tun: string): void {
  try {
    unlinkSync(socketOf(tun));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

async function removeStrays(): Promise<void> {
  using node = openNetlink("route");
  const links = (await node.dump(dumpLinks())).map(decodeLink);
  const strays = links.filter(({ name, kind }) => kind === "tun" && name.startsWith(nodePrefix()));
  await node.batch(strays.map(({ ifindex }) => deleteLink(ifindex)));
  for (const { name } of strays) await end(name);
  const files = existsSync(SOCKET_DIRECTORY) ? readdirSync(SOCKET_DIRECTORY) : [];
  for (const file of files) {
    const tun = basename(file, ".sock");
    if (tun.startsWith(nodePrefix()) && processOf(tun) === undefined) removeSocket(tun);
  }
}

/** Looks every few milliseconds; false after `timeoutMs`. */
async function until(condition: () => boolean, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
  for (const end = systemClock.monotonic() + timeoutMs; !condition(); await delay(5, signal))
    if (systemClock.monotonic() > end) return false;
  return true;
}
