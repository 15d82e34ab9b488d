/** Files that only we may read: 0600 in a directory 0700, replaced as a whole, never half-written after a power failure. */
import { randomUUID } from "node:crypto";
import { link, lstat, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { NsmError, errnoOf, messageOf } from "./errors.ts";

/** Makes the directory if it is missing; `variable` names it in the environment. Throws FAILED_PRECONDITION `bad-state`, also when others may look into it. */
export async function preparePrivateDirectory(directory: string, variable: string): Promise<void> {
  try {
    await mkdir(dirname(directory), { recursive: true, mode: 0o755 });
    await mkdir(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw badState(`${directory} cannot be made: ${messageOf(error)}; set ${variable}`, error);
  }
  await checkPrivate(directory, "directory", "chmod 700");
}

/** Undefined when there is no such file. Throws FAILED_PRECONDITION `bad-state` when it is not ours alone. */
export async function readPrivateFile(path: string): Promise<string | undefined> {
  try {
    await checkPrivate(path, "file", "chmod 600");
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Leaves a file that is there already as it is: of two processes that begin at once the first one's stays. */
export async function createPrivateFile(path: string, text: string): Promise<void> {
  await write(path, text, async (draft) => {
    try {
      await link(draft, path);
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
    }
  });
}

export async function replacePrivateFile(path: string, text: string): Promise<void> {
  await write(path, text, (draft) => rename(draft, path));
}

async function write(path: string, text: string, place: (draft: string) => Promise<void>): Promise<void> {
  const draft = `${path}.${randomUUID()}`;
  try {
    {
      await using file = await open(draft, "wx", 0o600);
      await file.writeFile(text);
      await file.sync();
    }
    await place(draft);
  } catch (error) {
    throw badState(`${path} cannot be written: ${messageOf(error)}`, error);
  } finally {
    await rm(draft, { force: true });
  }
  await using directory = await open(dirname(path), "r");
  await directory.sync();
}

async function checkPrivate(path: string, kind: "directory" | "file", remedy: string): Promise<void> {
  const found = await lstat(path);
  if (kind === "directory" ? !found.isDirectory() : !found.isFile())
    throw badState(`${path} is not a ${kind}`);
  if (found.uid !== process.geteuid?.()) throw badState(`${path} belongs to uid ${found.uid}, not to us`);
  if ((found.mode & 0o077) !== 0) throw badState(`${path} is open to other users: ${remedy} ${path}`);
}

export function badState(message: string, cause?: unknown): NsmError {
  return new NsmError("FAILED_PRECONDITION", "bad-state", message, cause);
}
