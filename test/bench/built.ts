/** The built package that the bench runs: made anew when a source is younger than it, and laid out as npm would install it. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../cli/package-root.ts";

const SOURCES = ["api", "cli", "forwarder", "identity", "nsc", "nse", "nsmgr", "proxy", "registry", "sdk"];

export function buildIfStale(): void {
  const root = packageRoot();
  const builtMs = modifiedMs(join(root, "dist/nsm.js"));
  const isStale = SOURCES.some((folder) => youngestMs(join(root, folder)) > builtMs);
  if (isStale) execFileSync(process.execPath, [join(root, "cli/build.ts")], { stdio: "inherit" });
}

/** Path of the executable of a package below `folder` that has what was built and no sources, which it would prefer. */
export function installPackage(folder: string): string {
  const root = packageRoot();
  const executable = join(folder, "package/bin/nsm.js");
  mkdirSync(join(folder, "package/bin"), { recursive: true });
  copyFileSync(join(root, "bin/nsm.js"), executable);
  copyFileSync(join(root, "package.json"), join(folder, "package/package.json"));
  for (const name of ["dist", "node_modules"]) symlinkSync(join(root, name), join(folder, "package", name));
  return executable;
}

function youngestMs(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => /(?<!\.test)\.(ts|js)$/.test(path))
    .reduce((youngest, path) => Math.max(youngest, modifiedMs(join(folder, path))), 0);
}

/** 0 when there is no such file. */
function modifiedMs(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
