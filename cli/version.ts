/** What `nsm version` prints. */
import { readFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { packageRoot } from "./package-root.ts";

export function versionText(): string {
  const text = readFileSync(join(packageRoot(), "package.json"), "utf8");
  const version = /"version":\s*"([^"]+)"/.exec(text)?.[1] ?? "unknown";
  return `nsm ${version} (Node ${process.versions.node}, Linux ${release()}, ${process.arch})`;
}
