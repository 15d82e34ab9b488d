/** The links on disk: one file, 0600 in a directory 0700, replaced as a whole. */
import { randomUUID } from "node:crypto";
import { lstat, mkdir, open, readFile, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { NsmError, errnoOf, messageOf } from "../../sdk/errors.ts";
import { oneAtATime } from "../../sdk/one-at-a-time.ts";
import { LinkState, NO_LINKS } from "./state.ts";

const FILE = "links.json";

export interface LinkStore {
  current(): LinkState;
  /**
   * Takes the change at once, so that of two at the same time the second sees the first; resolves when it is on disk. Throws what
   * `change` throws, and INTERNAL `links-not-saved`, with which the change stays in force until the process ends.
   */
  update(change: (state: LinkState) => LinkState): Promise<void>;
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: () => void): Disposable;
}

/** Throws FAILED_PRECONDITION `bad-state`: not readable as links, or open to other users. */
export async function openLinkStore(directory: string): Promise<LinkStore> {
  await prepareDirectory(directory);
  const path = join(directory, FILE);
  await removeDrafts(directory);
  let state = await readState(path);
  const listeners = new Set<() => void>();
  const inTurn = oneAtATime();
  return {
    current: () => state,
    async update(change) {
      const before = state;
      state = change(state);
      if (state === before) return;
      for (const listener of listeners) listener();
      // The newest, whichever change is the one whose turn it is.
      await inTurn(() => writeState(path, state));
    },
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  };
}

async function prepareDirectory(directory: string): Promise<void> {
  try {
    await mkdir(dirname(directory), { recursive: true, mode: 0o755 });
    await mkdir(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw badState(`${directory} cannot be made: ${messageOf(error)}; set NSM_PROXY_STATE_DIR`, error);
  }
  await checkPrivate(directory, "directory", "chmod 700");
}

async function checkPrivate(path: string, kind: "directory" | "file", remedy: string): Promise<void> {
  const found = await lstat(path);
  if (kind === "directory" ? !found.isDirectory() : !found.isFile())
    throw badState(`${path} is not a ${kind}`);
  if (found.uid !== process.geteuid?.()) throw badState(`${path} belongs to uid ${found.uid}, not to us`);
  if ((found.mode & 0o077) !== 0) throw badState(`${path} is open to other users: ${remedy} ${path}`);
}

/** Of a process that was killed while it wrote. */
async function removeDrafts(directory: string): Promise<void> {
  for (const name of await readdir(directory))
    if (name.startsWith(`${FILE}.`)) await rm(join(directory, name), { force: true });
}

async function readState(path: string): Promise<LinkState> {
  let content: string;
  try {
    await checkPrivate(path, "file", "chmod 600");
    content = await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return NO_LINKS;
    throw error;
  }
  try {
    return LinkState.parse(JSON.parse(content));
  } catch (error) {
    throw badState(`${path} is damaged: restore it, or remove it and link the domains again`, error);
  }
}

/** Never a half-written file, also after a power failure. */
async function writeState(path: string, state: LinkState): Promise<void> {
  const draft = `${path}.${randomUUID()}`;
  try {
    {
      await using file = await open(draft, "wx", 0o600);
      await file.writeFile(`${JSON.stringify(state, undefined, 2)}\n`);
      await file.sync();
    }
    await rename(draft, path);
    await using directory = await open(dirname(path), "r");
    await directory.sync();
  } catch (error) {
    await rm(draft, { force: true });
    throw new NsmError(
      "INTERNAL",
      "links-not-saved",
      `${path} cannot be written: ${messageOf(error)}`,
      error,
    );
  }
}

function badState(message: string, cause?: unknown): NsmError {
  return new NsmError("FAILED_PRECONDITION", "bad-state", message, cause);
}
