/** The registrations file, kept up to date: read at start, and again whenever it changes. */
import { watch } from "node:fs";
import type { FSWatcher } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Clock } from "../sdk/clock.ts";
import { NsmError, asNsmError, errnoOf, messageOf } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { parseRegistrations } from "./registrations.ts";
import type { Registration } from "./registrations.ts";

/** Notifications can be missed (network file systems, a mounted ConfigMap): the file is compared this often, too. */
const POLL_MS = 5000;

export interface Registrations extends AsyncDisposable {
  readonly path: string;
  current(): readonly Registration[];
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: () => void): Disposable;
}

export interface RegistrationsOptions {
  readonly path: string;
  readonly trustDomain: string;
  readonly log: Logger;
  readonly clock: Clock;
}

/**
 * Throws for a file that is missing or wrong now (NOT_FOUND `no-registrations`, INVALID_ARGUMENT `bad-registrations`,
 * PERMISSION_DENIED `unsafe-registrations`); later on such a file is logged once and the last good one stays in force.
 */
export async function openRegistrations(options: RegistrationsOptions): Promise<Registrations> {
  const { path, log } = options;
  const listeners = new Set<() => void>();
  let text = await readSafely(path);
  let registrations = parse(text, options);
  let complaint = "";

  const refresh = async () => {
    try {
      const changed = await readSafely(path);
      if (changed === text) return;
      registrations = parse(changed, options);
      text = changed;
      complaint = "";
      log.info({ path, registrations: registrations.length }, "registrations changed");
      for (const listener of listeners) listener();
    } catch (err) {
      if (messageOf(err) === complaint) return;
      complaint = messageOf(err);
      log.error({ err, path }, "registrations cannot be used, the last good ones stay in force");
    }
  };
  const watcher = watchFile(options, refresh);
  return {
    path,
    current: () => registrations,
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    [Symbol.asyncDispose]: () => watcher[Symbol.asyncDispose](),
  };
}

function parse(text: string, { path, trustDomain, log }: RegistrationsOptions): readonly Registration[] {
  try {
    const registrations = parseRegistrations(text, trustDomain);
    for (const { id, match } of registrations)
      if (Object.keys(match).join() === "executable")
        log.warn({ id }, "executable alone proves little: anyone who may run the file gets this identity");
    return registrations;
  } catch (error) {
    if (!(error instanceof NsmError)) throw error;
    throw new NsmError(error.code, error.reason, `${path}: ${error.message}`, error);
  }
}

/** Refuses a file that others than root and we could write: it decides who is who. */
async function readSafely(path: string): Promise<string> {
  try {
    const { uid, mode } = await stat(path);
    if ((uid !== 0 && uid !== process.geteuid?.()) || (mode & 0o002) !== 0)
      throw new NsmError(
        "PERMISSION_DENIED",
        "unsafe-registrations",
        `${path} belongs to uid ${uid} with mode ${(mode & 0o777).toString(8)}: it must be root's or ours and not writable by all`,
      );
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT")
      throw new NsmError(
        "NOT_FOUND",
        "no-registrations",
        `${path} (NSM_IDENTITY_REGISTRATIONS) does not exist: it says who gets which identity, for example: registrations: [{ id: "spiffe://nsm.local/nsmgr", match: { uid: 0, gid: 1001 } }]`,
        error,
      );
    throw asNsmError(error, "FAILED_PRECONDITION", "unreadable-registrations", `read ${path}`);
  }
}

/** Calls `changed` after anything happened to the file, one call at a time. */
function watchFile(
  { path, log, clock }: RegistrationsOptions,
  changed: () => Promise<void>,
): AsyncDisposable {
  let isClosed = false;
  let running: Promise<void> | undefined;
  let isStale = false;
  let timer: Disposable | undefined;

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
  const poll = () => {
    trigger();
    if (!isClosed) timer = clock.timer(POLL_MS, poll);
  };
  const watcher = watchDirectory(path, trigger, log);
  timer = clock.timer(POLL_MS, poll);
  return {
    async [Symbol.asyncDispose]() {
      isClosed = true;
      watcher?.close();
      timer?.[Symbol.dispose]();
      await running;
    },
  };
}

/** The directory, because editors and ConfigMaps replace the file instead of writing it. Without it, polling does. */
function watchDirectory(path: string, changed: () => void, log: Logger): FSWatcher | undefined {
  try {
    const watcher = watch(dirname(path), { persistent: false }, (_, name) => {
      if (name === null || name === basename(path) || name === "..data") changed();
    });
    watcher.on("error", (err) => log.warn({ err, path }, "registrations are polled only"));
    return watcher;
  } catch (err) {
    log.warn({ err, path }, "registrations are polled only");
    return undefined;
  }
}
