/** The first run in a fresh checkout: compiles every daemon once, instead of each of ten processes on its own. */
import { existsSync, readdirSync } from "node:fs";
import module from "node:module";
import { roles } from "../roles.ts";

/** Fills an empty compile cache, in about a second; returns whether it did. Built JavaScript starts fast without. */
export async function warmUp(): Promise<boolean> {
  const cache = module.getCompileCacheDir();
  if (cache === undefined || !import.meta.filename.endsWith(".ts")) return false;
  if (existsSync(cache) && readdirSync(cache).length > 0) return false;
  for (const role of roles) await role.load();
  module.flushCompileCache();
  return true;
}
