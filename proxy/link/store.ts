/** The links on disk: one file that is ours alone, replaced as a whole. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { oneAtATime } from "../../sdk/one-at-a-time.ts";
import {
  badState,
  preparePrivateDirectory,
  readPrivateFile,
  replacePrivateFile,
} from "../../sdk/private-file.ts";
import { LinkState, NO_LINKS } from "./state.ts";

const FILE = "links.json";

export interface LinkStore {
  current(): LinkState;
  /**
   * Takes the change at once, so that of two at the same time the second sees the first; resolves when it is on disk. Throws what
   * `change` throws, and FAILED_PRECONDITION `bad-state` when it cannot be written: then it is in force until the process ends.
   */
  update(change: (state: LinkState) => LinkState): Promise<void>;
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: () => void): Disposable;
}

/** Throws FAILED_PRECONDITION `bad-state`: not readable as links, or open to other users. */
export async function openLinkStore(directory: string): Promise<LinkStore> {
  await preparePrivateDirectory(directory, "NSM_PROXY_STATE_DIR");
  const path = join(directory, FILE);
  await removeDrafts(directory);
  let state = parseState(path, await readPrivateFile(path));
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
      await inTurn(() => replacePrivateFile(path, `${JSON.stringify(state, undefined, 2)}\n`));
    },
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  };
}

/** Of a process that was killed while it wrote. */
async function removeDrafts(directory: string): Promise<void> {
  for (const name of await readdir(directory))
    if (name.startsWith(`${FILE}.`)) await rm(join(directory, name), { force: true });
}

function parseState(path: string, text: string | undefined): LinkState {
  if (text === undefined) return NO_LINKS;
  try {
    return LinkState.parse(JSON.parse(text));
  } catch (error) {
    throw badState(`${path} is damaged: restore it, or remove it and link the domains again`, error);
  }
}
