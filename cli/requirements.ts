/** Programs that the mesh and its tests need from the system: finds what is missing and installs it where it can. */
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { NsmError } from "../sdk/errors.ts";

export interface Tool {
  readonly command: string;
  /** Its package in Debian and Ubuntu. */
  readonly package: string;
  readonly why: string;
}

export const ip: Tool = { command: "ip", package: "iproute2", why: "makes the nodes and pods" };
export const nft: Tool = {
  command: "nft",
  package: "nftables",
  why: "source filter of VXLAN wires, rules of firewalls",
};
/** What WIREGUARD wires need where the kernel has no WireGuard of its own. */
export const userspaceWireGuard: readonly Tool[] = [
  { command: "wireguard-go", package: "wireguard-go", why: "this kernel has no WireGuard" },
];
export const wg: Tool = {
  command: "wg",
  package: "wireguard-tools",
  why: "looks at WireGuard devices from outside",
};
/** Part of every Linux system; never installed by us. */
const utilLinux: readonly Tool[] = ["unshare", "nsenter", "setpriv"].map((command) => ({
  command,
  package: "util-linux",
  why: "enters the nodes and pods",
}));

export const baseTools: readonly Tool[] = [ip, ...utilLinux];

/** What the tests need. They plumb user-space WireGuard on every kernel. */
export function testTools(): readonly Tool[] {
  return [...baseTools, nft, ...userspaceWireGuard];
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** Absolute path of a program on PATH or in the folders of system programs. */
export function findProgram(command: string): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
  return folders.map((folder) => join(folder, command)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What decides whether packages can be installed, and does it; tests bring their own. */
export interface Installer {
  readonly isRoot: boolean;
  /** Undefined on a system without apt-get. */
  readonly aptGet:
    ((args: readonly string[]) => { readonly status: number | null; readonly text: string }) | undefined;
  /** Whether package lists were ever fetched. */
  readonly hasLists: boolean;
  /** Path of a program; see `findProgram`. */
  readonly find: (command: string) => string | undefined;
}

/**
 * Installs what is missing with apt-get, as root on a system that has it; `say` gets the one line that tells.
 * Throws FAILED_PRECONDITION `tools-missing` that names the packages where it can't.
 */
export function provide(
  tools: readonly Tool[],
  say: (line: string) => void,
  installer: Installer = thisSystem(),
): void {
  const missing = tools.filter((tool) => installer.find(tool.command) === undefined);
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((tool) => tool.package))];
  const needed = missing.map((tool) => `${tool.command} (${tool.why})`).join(", ");
  if (!installer.isRoot || installer.aptGet === undefined)
    throw toolsMissing(
      `missing: ${needed}. Install the packages ${packages.join(" ")} (names of Debian and Ubuntu)`,
    );
  say(`installing ${packages.join(" ")} with apt-get: missing ${needed}`);
  const failure = install(packages, installer);
  const still = missing.filter((tool) => installer.find(tool.command) === undefined);
  if (still.length === 0) return;
  const why = failure ?? `apt-get installed ${packages.join(" ")} and they are not there`;
  throw toolsMissing(`missing: ${needed}. ${why}. Install the packages ${packages.join(" ")} by hand`);
}

/** What went wrong, if anything did. Fetches the package lists when there are none or they are too old. */
function install(packages: readonly string[], { aptGet, hasLists }: Installer): string | undefined {
  const install = ["install", "--yes", "--no-install-recommends", ...packages];
  if (aptGet === undefined || (hasLists && aptGet(install).status === 0)) return undefined;
  for (const args of [["update"], install]) {
    const { status, text } = aptGet(args);
    if (status !== 0) return `apt-get ${args.join(" ")} failed: ${lastLines(text, 3)}`;
  }
  return undefined;
}

function toolsMissing(text: string): NsmError {
  return new NsmError("FAILED_PRECONDITION", "tools-missing", text);
}

function thisSystem(): Installer {
  const folder = "/var/lib/apt/lists";
  return {
    isRoot: isRoot(),
    aptGet: findProgram("apt-get") === undefined ? undefined : aptGet,
    find: findProgram,
    hasLists: existsSync(folder) && readdirSync(folder).some((name) => name.includes("_Packages")),
  };
}

function aptGet(args: readonly string[]): { status: number | null; text: string } {
  const run = spawnSync("apt-get", ["-q", "-o", "DPkg::Lock::Timeout=120", ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C.UTF-8" },
  });
  return { status: run.status, text: run.stdout + run.stderr };
}

function lastLines(text: string, count: number): string {
  return text.trim().split("\n").slice(-count).join(" / ");
}
