/** Where this package lies: the checkout, or the installed package whose code is one bundle in dist/. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** The folder of our package.json. */
export function packageRoot(): string {
  for (let folder = import.meta.dirname; folder !== dirname(folder); folder = dirname(folder))
    if (existsSync(join(folder, "package.json"))) return folder;
  throw new Error(`no package.json above ${import.meta.dirname}`);
}

/** The words that start `nsm` again with this very Node. */
export function selfCommand(): readonly string[] {
  return [process.execPath, join(packageRoot(), "bin/nsm.js")];
}
