/** Settings of a device that only /proc/sys has (ip-sysctl.rst), written from inside its namespace through our own /proc. */
import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from "node:fs";
import { errnoOf } from "../../sdk/errors.ts";
import { insideNetns } from "../../sdk/native.ts";

/**
 * Before the device is up: no router advertisement of the other end changes the pod's routes, and IPv6 works even where the
 * container runtime turned it off. There is no netlink message for either.
 */
export function prepareSysctls(netnsFd: number, name: string, ipv6: boolean): void {
  insideNetns(netnsFd, () => {
    writeSysctl(`/proc/sys/net/ipv6/conf/${name}/accept_ra`, "0", true);
    if (ipv6) writeSysctl(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, "0", false);
  });
}

const PING_GROUPS = "/proc/sys/net/ipv4/ping_group_range";
/** The kernel's own value: nobody. */
const NOBODY = "1 0";
/** All groups but the last: what only we write, so that it can be told from anybody's own setting, also after a restart. */
const EVERYBODY = "0 2147483646";

/**
 * Lets programs without privileges send ICMP echo requests (icmp(7)): clients that probe their wires need it. A namespace whose
 * owner has set anything is left alone, and one whose settings cannot be written.
 */
export function allowPing(netnsFd: number): void {
  insideNetns(netnsFd, () => exchangeSysctl(PING_GROUPS, NOBODY, EVERYBODY));
}

/** Takes that back. */
export function disallowPing(netnsFd: number): void {
  insideNetns(netnsFd, () => exchangeSysctl(PING_GROUPS, EVERYBODY, NOBODY));
}

/** True while a namespace has what `allowPing` wrote. */
export function isPingAllowed(netnsFd: number): boolean {
  return insideNetns(netnsFd, () => readSysctl(PING_GROUPS) === EVERYBODY);
}

function readSysctl(path: string): string | undefined {
  try {
    return normal(readFileSync(path, "latin1"));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function exchangeSysctl(path: string, from: string, to: string): void {
  if (readSysctl(path) !== from) return;
  try {
    writeFileSync(path, to);
  } catch (error) {
    if (!["EACCES", "EPERM", "EROFS"].includes(errnoOf(error) ?? "")) throw error;
  }
}

function normal(text: string): string {
  return text.trim().replaceAll(/\s+/g, " ");
}

function writeSysctl(path: string, value: string, optional: boolean): void {
  let fd: number;
  try {
    fd = openSync(path, "r+");
  } catch (error) {
    // A kernel without IPv6 has neither the file nor the need.
    if (optional && errnoOf(error) === "ENOENT") return;
    throw error;
  }
  try {
    const now = Buffer.alloc(16);
    const length = readSync(fd, now, 0, now.length, 0);
    if (now.toString("latin1", 0, length).trim() !== value) writeSync(fd, value, 0);
  } finally {
    closeSync(fd);
  }
}
