/** The `nsm` command as a process of a workload, run to its end. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";

const NSM = join(dirname(dirname(import.meta.dirname)), "bin/nsm.js");

export interface NsmOptions {
  /** Name of the network namespace. */
  readonly netns: string;
  /** By which the identity authority knows it. */
  readonly gid: number;
  readonly env: Readonly<Record<string, string>>;
  readonly args: readonly string[];
}

export interface NsmResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export async function runNsm({ netns, gid, env, args }: NsmOptions): Promise<NsmResult> {
  const command = ["setpriv", `--regid=${gid}`, "--clear-groups", "--", process.execPath, NSM, ...args];
  const child = spawn("nsenter", [`--net=/run/netns/${netns}`, "--", ...command], {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data: Buffer) => (stdout += data.toString()));
  child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
  await once(child, "close");
  return { code: child.exitCode, stdout, stderr };
}
