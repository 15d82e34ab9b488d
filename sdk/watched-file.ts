/** A configuration file that is kept up to date: read at start, and again whenever it changes. */
import { watch } from "node:fs";
import type { FSWatcher } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Clock } from "./clock.ts";
import { NsmError, asNsmError, errnoOf, messageOf } from "./errors.ts";
import type { Logger } from "./log.ts";

/** Notifications can be missed (network file systems, a mounted ConfigMap): the file is compared this often, too. */
const POLL_MS = 5000;
/** A writer that needs several steps is given this long after the last of them. */
const SETTLE_MS = 50;
/** The same for one that has emptied the file first, as shells and editors do: nobody means nothing by it for longer. */
const EMPTY_MS = 500;

export interface WatchedFile<T> extends AsyncDisposable {
  readonly path: string;
  readonly current: () => T;
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: () => void): Disposable;
}

export interface WatchedFileOptions<T> {
  readonly path: string;
  /** The environment variable that names it, for messages. */
  readonly variable?: string;
  /** What the file holds, in the plural, for the log: `registrations`. */
  readonly what: string;
  /** Throws an NsmError for a text that is wrong. The path is put before its message. */
  readonly parse: (text: string) => T | Promise<T>;
  /** What holds without a file; undefined makes a missing file an error. */
  readonly missing?: T;
  /** What holds while the file has been wrong since the start; undefined makes that an error of the start. */
  readonly wrong?: T;
  /** Instead of plain reading. */
  readonly read?: (path: string) => Promise<string>;
  readonly log: Logger;
  readonly clock: Clock;
}

/**
 * Rejects for a file that is missing or wrong now, unless the options say what holds then. Later on such a fault is logged once
 * and the last good value stays in force.
 */
export async function openWatchedFile<T>(options: WatchedFileOptions<T>): Promise<WatchedFile<T>> {
  const { path, what, log, clock } = options;
  const listeners = new Set<() => void>();
  let complaint = "";
  const complain = (err: unknown, consequence: string) => {
    if (messageOf(err) === complaint) return;
    complaint = messageOf(err);
    log.error({ err, path }, `${what} cannot be used, ${consequence}`);
  };
  const reader = createReader(options);
  /** Of the last good one; null as long as there was none. */
  let text: string | null | undefined = null;
  let value: T;
  /** Of the last one, good or not; null when it could not be read. */
  let latest: string | null | undefined = null;
  try {
    latest = await reader.read();
    value = await parse(latest, options);
    text = latest;
  } catch (error) {
    if (options.wrong === undefined) throw error;
    complain(error, "there are none until the file is right");
    value = options.wrong;
  }

  const accept = async (now: string | undefined) => {
    const isKnown = now === latest && (now === text) === (complaint === "");
    latest = now;
    if (isKnown) return;
    if (now !== text) {
      value = await parse(now, options);
      text = now;
      log.info({ path }, `${what} changed`);
      for (const listener of listeners) listener();
    } else if (complaint !== "") log.info({ path }, `${what} are as before`);
    complaint = "";
  };
  let emptySinceMs: number | undefined;
  const refresh = async (isNoticed: boolean): Promise<boolean> => {
    try {
      if (!isNoticed && emptySinceMs === undefined && (await reader.isUnchanged())) return false;
      const now = await reader.read();
      if (now?.trim() === "" && text?.trim() !== "") emptySinceMs ??= clock.monotonic();
      else emptySinceMs = undefined;
      if (emptySinceMs !== undefined && clock.monotonic() - emptySinceMs < EMPTY_MS) return true;
      emptySinceMs = undefined;
      await accept(now);
    } catch (err) {
      if (reader.failed) latest = null;
      complain(err, "the last good ones stay in force");
    }
    return false;
  };
  const watcher = watchFile(options, refresh);
  return {
    path,
    current: () => value,
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    [Symbol.asyncDispose]: () => watcher[Symbol.asyncDispose](),
  };
}

interface Reader {
  /** Undefined without a file, where that is allowed. */
  read(): Promise<string | undefined>;
  /** True when the last reading failed. */
  readonly failed: boolean;
  /** True when reading would show what it showed the last two times. */
  isUnchanged(): Promise<boolean>;
}

/**
 * A change within the same tick of the kernel's clock leaves no trace but the text, so a file is read twice before its looks are
 * believed; what could not be read is read again always.
 */
function createReader<T>(options: WatchedFileOptions<T>): Reader {
  const { path, missing, read = readPlain } = options;
  let last = "";
  let times = 0;
  return {
    async read() {
      const stamp = await stampOf(path);
      times = stamp === last ? times + 1 : 1;
      last = stamp;
      try {
        return await read(path);
      } catch (error) {
        if (missing !== undefined && errnoOf(error) === "ENOENT") return undefined;
        times = 0; // also says that it failed
        throw asNsmError(error, "FAILED_PRECONDITION", "unreadable-file", `cannot read ${nameOf(options)}`);
      }
    },
    get failed() {
      return times === 0;
    },
    isUnchanged: async () => times > 1 && (await stampOf(path)) === last,
  };
}

/** Differs when the file was written or replaced, or others may read or write it; empty for one that cannot be looked at. */
async function stampOf(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
  } catch (error) {
    return errnoOf(error) ?? "";
  }
}

async function parse<T>(text: string | undefined, options: WatchedFileOptions<T>): Promise<T> {
  if (text === undefined && options.missing !== undefined) return options.missing;
  try {
    return await options.parse(text ?? "");
  } catch (error) {
    if (!(error instanceof NsmError)) throw error;
    throw new NsmError(error.code, error.reason, `${nameOf(options)}: ${error.message}`, error);
  }
}

function nameOf({ path, variable }: Pick<WatchedFileOptions<unknown>, "path" | "variable">): string {
  return variable === undefined ? path : `${path} (${variable})`;
}

function readPlain(path: string): Promise<string> {
  return readFile(path, "utf8");
}

/** Calls `changed` after anything happened to the file, and from time to time, one call at a time; true: look again soon. */
function watchFile(
  { path, what, log, clock }: Pick<WatchedFileOptions<unknown>, "path" | "what" | "log" | "clock">,
  changed: (isNoticed: boolean) => Promise<boolean>,
): AsyncDisposable {
  let isClosed = false;
  let running: Promise<void> | undefined;
  let isStale = false;
  let isNoticed = false;
  let settling: Disposable | undefined;
  let polling: Disposable | undefined;

  const run = async () => {
    while (isStale) {
      const wasNoticed = isNoticed;
      isStale = isNoticed = false;
      if (await changed(wasNoticed)) settle(EMPTY_MS);
    }
    running = undefined;
  };
  const trigger = () => {
    isStale = !isClosed;
    running ??= run();
  };
  const settle = (afterMs: number) => {
    settling?.[Symbol.dispose]();
    if (isClosed) return;
    settling = clock.timer(afterMs, () => {
      isNoticed = true;
      trigger();
    });
  };
  const poll = () => {
    trigger();
    if (!isClosed) polling = clock.timer(POLL_MS, poll);
  };
  const watcher = watchDirectory(
    path,
    () => settle(SETTLE_MS),
    () => log.debug({ path }, `${what} are polled only`),
  );
  polling = clock.timer(POLL_MS, poll);
  return {
    async [Symbol.asyncDispose]() {
      isClosed = true;
      watcher?.close();
      settling?.[Symbol.dispose]();
      polling?.[Symbol.dispose]();
      await running;
    },
  };
}

/** The directory, because editors and ConfigMaps replace the file instead of writing it. Without it, polling does. */
function watchDirectory(path: string, changed: () => void, isPolled: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(dirname(path), { persistent: false }, (_, name) => {
      if (name === null || name === basename(path) || name === "..data") changed();
    });
    watcher.on("error", isPolled);
    return watcher;
  } catch {
    isPolled();
    return undefined;
  }
}
