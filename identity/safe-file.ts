/** Files that decide who is who: refused when others than root and we could write them. */
import { readFile, stat } from "node:fs/promises";
import { NsmError, asNsmError } from "../sdk/errors.ts";

/** Its text. Throws PERMISSION_DENIED `unsafe-<what>`, FAILED_PRECONDITION `unreadable-<what>`; ENOENT as it is. */
export async function readSafeFile(path: string, what: string): Promise<string> {
  const { uid, mode } = await stat(path);
  if ((uid !== 0 && uid !== process.geteuid?.()) || (mode & 0o002) !== 0)
    throw new NsmError(
      "PERMISSION_DENIED",
      `unsafe-${what}`,
      `${path} belongs to uid ${uid} with mode ${(mode & 0o777).toString(8)}: it must be root's or ours and not writable by all`,
    );
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw asNsmError(error, "FAILED_PRECONDITION", `unreadable-${what}`, `read ${path}`);
  }
}
