/**
 * The virtual machine: qemu without KVM, so that it runs anywhere and always in the same way.
 *
 * Its time is the count of its instructions (`-icount`), and while all of it waits, time goes on to the next timer at once
 * (`sleep=off`): minutes of WireGuard's own timers cost a second or two here, and a busy machine around it changes nothing inside.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Packages } from "./packages.ts";

export interface MachineOptions {
  readonly packages: Packages;
  /** File descriptor of the guest's file system. */
  readonly image: number;
  /** File descriptor of a file: what the guest's kernel says goes there. */
  readonly console: number;
  /** Each line that the guest's program writes. */
  readonly onLine: (line: string) => void;
  /** Ends the machine at once. */
  readonly signal: AbortSignal;
}

/** Resolves when the machine is off, whatever the reason. */
export async function runMachine({
  packages,
  image,
  console,
  onLine,
  signal,
}: MachineOptions): Promise<void> {
  // Ends with this process even when that is killed.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "qemu-system-x86_64", ...hardware(packages)], {
    stdio: ["ignore", "pipe", "inherit", image, console],
    signal,
    killSignal: "SIGKILL",
  });
  // Nothing but the signal: a program that is missing was found out before.
  child.on("error", () => undefined);
  const closed = new Promise((resolve) => child.once("close", resolve));
  if (child.stdout === null) throw new Error("a child without standard output");
  createInterface({ input: child.stdout }).on("line", (line) => onLine(line.trimEnd()));
  await closed;
}

function hardware({ kernel, release }: Packages): string[] {
  const fixed =
    "-nodefaults -display none -no-reboot -cpu max -smp 1 -m 1G " +
    "-accel tcg -icount shift=0,sleep=off -rtc base=2026-01-01T00:00:00,clock=vm " +
    // ttyS0, ttyS1
    "-serial file:/proc/self/fd/4 -serial stdio -initrd /proc/self/fd/3";
  const image = join(kernel, `boot/vmlinuz-${release}`);
  return [...fixed.split(" "), "-kernel", image, "-append", "console=ttyS0 panic=-1 loglevel=5"];
}
