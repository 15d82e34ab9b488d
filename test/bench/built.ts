/** The built package that the bench runs: made anew when a source is younger than it. */
import { execFileSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../cli/package-root.ts";

const SOURCES = ["api", "cli", "forwarder", "identity", "nsc", "nse", "nsmgr", "registry", "sdk"];

/** The arguments for Node that start the built `nsm`. */
export function builtNsm(): readonly string[] {
  const root = packageRoot();
  const built = join(root, "dist/nsm.js");
  const builtMs = modifiedMs(built);
  const isStale = SOURCES.some((folder) => youngestMs(join(root, folder)) > builtMs);
  if (isStale) execFileSync(process.execPath, [join(root, "cli/build.ts")], { stdio: "inherit" });
  return [built];
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
