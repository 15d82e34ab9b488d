/**
 * One process of the program wireguard-go, with its device and its socket.
 *
 * The process lives in the node's namespace, where its UDP socket is. It makes a TUN device there under a name that nothing else of
 * the machine has, and a unix socket of that name, over which it is configured. It outlives the forwarder, and ends when its device
 * is deleted.
 */
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync, readlinkSync, unlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { delay, systemClock } from "../../../sdk/clock.ts";
import { NsmError, errnoOf } from "../../../sdk/errors.ts";
import { closeFd, connectUnixSync, peerCredentials } from "../../../sdk/native.ts";
import { decodeLink, deleteLink, dumpLinks } from "../../../sdk/netlink/link.ts";
import { openNetlink } from "../../../sdk/netlink/socket.ts";
import { WIRE_IFINDEX } from "../../wire.ts";
import { ownNetnsInode } from "../netns.ts";

export const PROGRAM = "wireguard-go";
/** Built into both programs. */
const SOCKET_DIRECTORY = "/var/run/wireguard";
const START_MS = 5000;
const END_MS = 3000;
const LOOK_MS = 2;

export interface Program {
  /** The first name of its device, and the name of its socket. */
  readonly tun: string;
  readonly pid: number;
  readonly hasEnded: () => boolean;
  /** The namespace that its device waits in, instead of the node's. */
  readonly parkedIn?: number;
}

/** Serves its socket when this resolves; its device is there then, down and without a key. Owned by the caller. */
export async function startProgram(): Promise<Program> {
  const tun = newName();
  // Any other value of this variable makes the program start itself again.
  const env = { PATH: process.env["PATH"], WG_PROCESS_FOREGROUND: "1", LOG_LEVEL: "silent" };
  const child = spawn(PROGRAM, [tun], { detached: true, stdio: "ignore", cwd: "/", env });
  let failure: string | undefined;
  child.once("error", (error) => (failure = error.message));
  child.once("exit", (code, signal) => (failure ??= `it ended with ${signal ?? code}`));
  child.unref();
  const served = await until(() => failure !== undefined || processOf(tun) !== undefined, START_MS);
  if (served && failure === undefined && child.pid !== undefined)
    return { tun, pid: child.pid, hasEnded: () => failure !== undefined || processOf(tun) === undefined };
  child.kill("SIGKILL");
  throw new NsmError(
    "UNAVAILABLE",
    "wireguard-go-failed",
    `${PROGRAM} did not make device ${tun}: ${failure ?? `not ready within ${START_MS} ms`}`,
  );
}

/** Ends it with its device, wherever that is. */
export async function stopProgram({ tun, pid, hasEnded }: Program): Promise<void> {
  if (!hasEnded()) process.kill(pid, "SIGTERM");
  await endOf(tun);
}

/** Waits for the process to end, which it does by itself once its device is gone, and makes sure that it does. */
export async function endOf(tun: string): Promise<void> {
  if (!existsSync(socketOf(tun))) return;
  const gone = await until(() => !existsSync(socketOf(tun)) || processOf(tun) === undefined, END_MS);
  const pid = gone ? undefined : processOf(tun);
  if (pid !== undefined && isProgram(pid)) {
    process.kill(pid, "SIGKILL");
    await until(() => processOf(tun) === undefined, END_MS);
  }
  removeSocket(`${tun}.sock`);
}

/** What a forwarder of this node left when it ended: devices that never reached a pod, sockets that nobody serves. */
export async function removeStrays(): Promise<void> {
  using node = openNetlink("route");
  const links = (await node.dump(dumpLinks())).map(decodeLink);
  const strays = links.filter(({ name, kind }) => kind === "tun" && name.startsWith(nodePrefix()));
  await node.batch(strays.map(({ ifindex }) => deleteLink(ifindex)));
  for (const { name } of strays) await endOf(name);
  for (const file of ownSockets()) if (processOf(basename(file, ".sock")) === undefined) removeSocket(file);
}

export function socketOf(tun: string): string {
  return join(SOCKET_DIRECTORY, `${tun}.sock`);
}

/** Files of programs that forwarders of this node started. */
export function ownSockets(): readonly string[] {
  const files = existsSync(SOCKET_DIRECTORY) ? readdirSync(SOCKET_DIRECTORY) : [];
  const prefix = nodePrefix();
  return files.filter((file) => file.startsWith(prefix) && file.endsWith(".sock"));
}

/**
 * The index of its device in a pod: known to nobody who has neither the pod nor the node. No two programs of a node have the same.
 */
export function ifindexOf(tun: string): number {
  const { first, last } = WIRE_IFINDEX;
  return first + (hashOf(tun).readUInt32BE() % (last - first));
}

/** `nsm`, 3 letters of the node, 9 by chance: 15, as long as a name may be. */
function newName(): string {
  const taken = new Set(ownSockets().map((file) => ifindexOf(basename(file, ".sock"))));
  for (;;) {
    const name = `${nodePrefix()}${letters(randomBytes(9))}`;
    if (!taken.has(ifindexOf(name))) return name;
  }
}

function nodePrefix(): string {
  return `nsm${letters(hashOf(`node ${ownNetnsInode()}`)).slice(0, 3)}`;
}

function hashOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** Base 32 in lower case. */
function letters(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte & 31]).join("");
}

function removeSocket(file: string): void {
  try {
    unlinkSync(join(SOCKET_DIRECTORY, file));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

/** Looks every few milliseconds; false after `timeoutMs`. */
export async function until(
  condition: () => boolean,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<boolean> {
  for (const end = systemClock.monotonic() + timeoutMs; !condition(); await delay(LOOK_MS, signal))
    if (systemClock.monotonic() > end) return false;
  return true;
}

/** The process behind a UAPI socket; undefined when nobody listens. */
export function processOf(tun: string): number | undefined {
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

function isProgram(pid: number): boolean {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`)) === PROGRAM;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}
