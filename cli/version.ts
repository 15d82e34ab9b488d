/** The version of this package, and what `nsm version` prints. */
import { readFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { packageRoot } from "./package-root.ts";

export function packageVersion(): string {
  const text = readFileSync(join(packageRoot(), "package.json"), "utf8");
  return /"version":\s*"([^"]+)"/.exec(text)?.[1] ?? "unknown";
}

export function versionText(): string {
  return `nsm ${packageVersion()} (Node ${process.versions.node}, Linux ${release()}, ${process.arch})`;
}
