/** Settings of a device that only /proc/sys has (ip-sysctl.rst), written from inside its namespace through our own /proc. */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { errnoOf } from "../sdk/errors.ts";
import { insideNetns } from "../sdk/native.ts";

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
