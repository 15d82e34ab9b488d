/**
 * Debian's kernel and busybox for the guest, unpacked into a cache folder: nothing of them is installed on this machine.
 *
 * The first run downloads them with apt-get (29 MB); later ones need no network.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../../cli/requirements.ts";

export interface Packages {
  /** Folder with `boot/vmlinuz-<release>` and `lib/modules/<release>`. */
  readonly kernel: string;
  readonly release: string;
  readonly busybox: string;
}

/** The one for virtual machines is half the size; both have WireGuard, VXLAN, veth and nftables as modules. */
const KERNELS = ["linux-image-cloud-amd64", "linux-image-amd64"];

/** `say` gets a line when something is downloaded. Throws an error that names the remedy. */
export function preparePackages(cache: string, say: (line: string) => void): Packages {
  const kernel = join(cache, "kernel");
  const busybox = join(cache, "busybox");
  if (!existsSync(kernel) || !existsSync(busybox)) download(kernel, busybox, cache, say);
  const [release] = readdirSync(join(kernel, "lib/modules"));
  if (release === undefined) throw new Error(`no modules in ${kernel}: remove that folder and try again`);
  return { kernel, release, busybox: join(busybox, "bin/busybox") };
}

function download(kernel: string, busybox: string, cache: string, say: (line: string) => void): void {
  for (const program of ["apt-get", "dpkg-deb"])
    if (findProgram(program) === undefined)
      throw new Error(
        `the virtual machine boots Debian's kernel, and without ${program} it cannot be fetched: copy the folder ${cache} ` +
          "from a run on Debian 12 or later (x86_64)",
      );
  const image = findKernelPackage(say);
  say(`downloading ${image} and busybox-static with apt-get into ${cache}`);
  unpack(image, kernel, cache);
  unpack("busybox-static", busybox, cache);
}

/** `linux-image-cloud-amd64` only depends on the package that holds the kernel of the day. */
function findKernelPackage(say: (line: string) => void): string {
  const named = () =>
    KERNELS.map((name) => /Depends: (linux-image-\d\S+)/.exec(run("apt-cache", ["depends", name]).text)?.[1]);
  let found = named().find((name) => name !== undefined);
  if (found === undefined) {
    say("apt-get update: no package list knows a Debian kernel");
    run("apt-get", ["-q", "update"]);
    found = named().find((name) => name !== undefined);
  }
  if (found !== undefined) return found;
  throw new Error(
    `apt-get knows none of ${KERNELS.join(", ")}: the tests in a virtual machine need Debian's package archive`,
  );
}

/** All or nothing: what is in the cache is complete. */
function unpack(name: string, folder: string, cache: string): void {
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  const fetched = run("apt-get", ["-q", "download", name], partial);
  const [archive] = readdirSync(partial).filter((file) => file.endsWith(".deb"));
  if (fetched.status !== 0 || archive === undefined)
    throw new Error(
      `apt-get download ${name} failed: ${fetched.text.trim().split("\n").slice(-2).join(" / ")}`,
    );
  const unpacked = run("dpkg-deb", ["-x", archive, "."], partial);
  if (unpacked.status !== 0)
    throw new Error(`dpkg-deb -x ${join(cache, archive)} failed: ${unpacked.text.trim()}`);
  rmSync(join(partial, archive));
  rmSync(folder, { recursive: true, force: true });
  renameSync(partial, folder);
}

function run(command: string, args: readonly string[], cwd = "/"): { status: number | null; text: string } {
  const env = { ...process.env, LC_ALL: "C.UTF-8" };
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, env, encoding: "utf8" });
  return { status, text: stdout + stderr };
}
