/**
 * `npm run build`: the plain-JavaScript package in dist/.
 *
 * One entry and a chunk for each subcommand, libraries included; only koffi stays outside, because it loads its native
 * part from beside itself. Node does not strip types below node_modules, so an installed package needs this.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { packageRoot } from "./package-root.ts";

const root = packageRoot();
const dist = join(root, "dist");

/** CommonJS libraries in an ES module still ask for Node's own modules by `require`. */
const REQUIRE =
  'import { createRequire as nsmRequire } from "node:module"; const require = nsmRequire(import.meta.url);';

rmSync(dist, { recursive: true, force: true });
const result = await build({
  entryPoints: { nsm: join(root, "cli/main.ts") },
  outdir: dist,
  chunkNames: "chunks/[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node24",
  external: ["koffi"],
  banner: { js: REQUIRE },
  legalComments: "linked",
  metafile: true,
  logLevel: "warning",
});
const outputs = Object.values(result.metafile.outputs);
const bytes = outputs.reduce((sum, output) => sum + output.bytes, 0);
console.log(`dist: ${outputs.length} files, ${Math.round(bytes / 1024)} KiB`);
