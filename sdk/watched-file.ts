/** A configuration file that is kept up to date: read at start, and again whenever it changes. */
import { watch } from "node:fs";
import type { FSWatcher } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Clock } from "./clock.ts";
import { NsmError, asNsmError, errnoOf, messageOf } from "./errors.ts";
import type { Logger } from "./log.ts";

/** Notifications can be missed (network file systems, a mounted ConfigMap): the file is compared this often, too. */
const POLL_MS = 5000;
/** A writer that needs several steps is given this long after the last of them. */
const SETTLE_MS = 50;

export interface WatchedFile<T> extends AsyncDisposable {
  readonly path: string;
  readonly current: () => T;
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: () => void): Disposable;
}

export interface WatchedFileOptions<T> {
  readonly path: string;
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
  const { path, what, log } = options;
  const listeners = new Set<() => void>();
  let complaint = "";
  const complain = (err: unknown, consequence: string) => {
    if (messageOf(err) === complaint) return;
    complaint = messageOf(err);
    log.error({ err, path }, `${what} cannot be used, ${consequence}`);
  };
  let { text, value } = await load(options).catch((error: unknown) => {
    if (options.wrong === undefined) throw error;
    complain(error, "there are none until the file is right");
    return { text: undefined, value: options.wrong };
  });

  const refresh = async () => {
    try {
      const now = await load(options);
      const wasWrong = complaint !== "";
      complaint = "";
      if (now.text === text && wasWrong) log.info({ path }, `${what} are as before`);
      if (now.text === text) return;
      ({ text, value } = now);
      log.info({ path }, `${what} changed`);
      for (const listener of listeners) listener();
    } catch (err) {
      complain(err, "the last good ones stay in force");
    }
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

async function load<T>(options: WatchedFileOptions<T>): Promise<{ text: string | undefined; value: T }> {
  const { path, missing, parse, read = readPlain } = options;
  let text: string;
  try {
    text = await read(path);
  } catch (error) {
    if (missing !== undefined && errnoOf(error) === "ENOENT") return { text: undefined, value: missing };
    throw asNsmError(error, "FAILED_PRECONDITION", "unreadable-file", `read ${path}`);
  }
  try {
    return { text, value: await parse(text) };
  } catch (error) {
    if (!(error instanceof NsmError)) throw error;
    throw new NsmError(error.code, error.reason, `${path}: ${error.message}`, error);
  }
}

function readPlain(path: string): Promise<string> {
  return readFile(path, "utf8");
}

/** Calls `changed` after anything happened to the file, one call at a time. */
function watchFile(
  { path, what, log, clock }: Pick<WatchedFileOptions<unknown>, "path" | "what" | "log" | "clock">,
  changed: () => Promise<void>,
): AsyncDisposable {
  let isClosed = false;
  let running: Promise<void> | undefined;
  let isStale = false;
  let settling: Disposable | undefined;
  let polling: Disposable | undefined;

  const run = async () => {
    while (isStale) {
      isStale = false;
      await changed();
    }
    running = undefined;
  };
  const trigger = () => {
    isStale = !isClosed;
    running ??= run();
  };
  const settle = () => {
    settling?.[Symbol.dispose]();
    if (!isClosed) settling = clock.timer(SETTLE_MS, trigger);
  };
  const poll = () => {
    trigger();
    if (!isClosed) polling = clock.timer(POLL_MS, poll);
  };
  const watcher = watchDirectory(path, settle, () => log.debug({ path }, `${what} are polled only`));
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
