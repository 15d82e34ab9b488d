/** Which WireGuard this node has: the kernel's, else a program's, else none. */
import { accessSync, closeSync, constants, openSync } from "node:fs";
import { delimiter, join } from "node:path";
import { errnoOf } from "../../../sdk/errors.ts";
import { kernelKnows } from "../underlay.ts";
import type { WireguardSupport } from "./driver.ts";
import { openKernelWireguard } from "./kernel.ts";
import { openUserspaceWireguard } from "./userspace.ts";

/** Kernel first: it is many times faster and has no process to lose. */
export async function openWireguard(): Promise<WireguardSupport> {
  if (await kernelKnows("wireguard")) return { mode: "kernel", driver: await openKernelWireguard() };
  if (!isInstalled("wireguard-go"))
    return {
      mode: "none",
      reason: "the kernel has no WireGuard and wireguard-go is not installed",
      remedy:
        "load the kernel module (modprobe wireguard), or apt-get install --no-install-recommends wireguard-go",
    };
  const tun = whyNoTun();
  if (tun !== undefined)
    return {
      mode: "none",
      reason: `the kernel has no WireGuard, and wireguard-go cannot open /dev/net/tun (${tun})`,
      remedy: "load the kernel module (modprobe wireguard or tun), or give the container /dev/net/tun",
    };
  return { mode: "userspace", driver: await openUserspaceWireguard() };
}

function isInstalled(program: string): boolean {
  return (process.env["PATH"] ?? "").split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      // Not in this directory.
      return false;
    }
  });
}

function whyNoTun(): string | undefined {
  try {
    closeSync(openSync("/dev/net/tun", "r+"));
    return undefined;
  } catch (error) {
    return errnoOf(error) ?? String(error);
  }
}
