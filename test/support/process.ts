/** Real daemons for tests: started in a namespace with a group of their own, their log read, always ended. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";

const NSM = [process.execPath, join(dirname(dirname(import.meta.dirname)), "bin/nsm.js")];

/** One JSON line of the log; what is no JSON has only `msg`. */
export interface LogLine {
  readonly msg: string;
  readonly [field: string]: unknown;
}

export interface DaemonOptions {
  /** The words that start `nsm`; default those of this checkout. */
  readonly nsm?: readonly string[] | undefined;
  /** Words after `nsm`. */
  readonly command: readonly string[];
  /** For messages of the test. */
  readonly name: string;
  /** All of its environment beside PATH. */
  readonly env: Readonly<Record<string, string>>;
  /** A path that nsenter(1) takes, such as /run/netns/name; the test's own namespace when undefined. */
  readonly netns?: string;
  readonly gid?: number;
  /** Those that it may have, as setpriv(1) names them; all when undefined. */
  readonly capabilities?: readonly string[];
}

export interface DaemonProcess extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  /** Everything it has said so far. */
  readonly log: readonly LogLine[];
  /** The first line, said already or to come, for which `matches` holds or whose msg contains the words. */
  waitFor(matches: string | ((line: LogLine) => boolean), withinMs?: number): Promise<LogLine>;
  /** SIGTERM; its exit code, or the name of the signal that ended it. */
  stop(withinMs?: number): Promise<number | string>;
  /** SIGKILL, as a crash; resolves when it is gone. */
  kill(): Promise<void>;
  /** SIGSTOP, SIGCONT and the like. */
  signal(name: NodeJS.Signals): void;
  /** Resolves when it has ended, by itself or not. */
  readonly ended: Promise<number | string>;
}

/** Starts without waiting for anything. Disposing stops it, by force after 6 s, which fails the test. */
export function startDaemon(options: DaemonOptions): DaemonProcess {
  const { name, env, netns, gid, capabilities } = options;
  const bounds = capabilities?.map((each) => `+${each}`);
  const privileges = [
    ...(gid === undefined ? [] : [`--regid=${gid}`, "--clear-groups"]),
    ...(bounds === undefined ? [] : [`--bounding-set=${["-all", ...bounds].join(",")}`]),
  ];
  const command = [
    ...(netns === undefined ? [] : ["nsenter", `--net=${netns}`, "--"]),
    ...(privileges.length === 0 ? [] : ["setpriv", ...privileges, "--"]),
    ...(options.nsm ?? NSM),
    ...options.command,
  ];
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const { log, changed } = collectLog(child);
  const ended = endOf(child);
  let isOver = false;
  void ended.then(() => (isOver = true));

  const excerpt = () =>
    log
      .slice(-20)
      .map((line) => `\n  ${JSON.stringify(line)}`)
      .join("");
  const stop = async (withinMs = 6000) => {
    if (!isOver) child.kill("SIGTERM");
    const how = await within(ended, withinMs);
    if (how !== undefined) return how;
    child.kill("SIGKILL");
    await ended;
    throw new Error(`${name} did not stop within ${withinMs} ms; its log:${excerpt()}`);
  };

  return {
    name,
    pid: child.pid ?? 0,
    log,
    ended,
    async waitFor(matches, withinMs = 10_000) {
      const test = typeof matches === "string" ? (line: LogLine) => line.msg.includes(matches) : matches;
      const deadline = AbortSignal.timeout(withinMs);
      for (let seen = 0; ;) {
        const found = log.slice(seen).find(test);
        if (found !== undefined) return found;
        seen = log.length;
        if (isOver)
          throw new Error(`${name} ended (${String(await ended)}) without it; its log:${excerpt()}`);
        if (deadline.aborted)
          throw new Error(
            `${name} did not say ${String(matches)} within ${withinMs} ms; its log:${excerpt()}`,
          );
        await Promise.race([changed(), ended, aborted(deadline)]);
      }
    },
    stop,
    async kill() {
      if (!isOver) child.kill("SIGKILL");
      await ended;
    },
    signal: (signal) => void child.kill(signal),
    [Symbol.asyncDispose]: async () => void (await stop()),
  };
}

function collectLog(child: ChildProcess): { log: LogLine[]; changed: () => Promise<void> } {
  const log: LogLine[] = [];
  let next = Promise.withResolvers<void>();
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    createInterface({ input: stream }).on("line", (line) => {
      log.push(parseLine(line));
      next.resolve();
      next = Promise.withResolvers();
    });
  }
  return { log, changed: () => next.promise };
}

function parseLine(line: string): LogLine {
  if (!line.startsWith("{")) return { msg: line };
  const value: unknown = JSON.parse(line);
  return typeof value === "object" && value !== null ? { msg: "", ...value } : { msg: line };
}

async function endOf(child: ChildProcess): Promise<number | string> {
  await once(child, "close");
  return child.exitCode ?? child.signalCode ?? "?";
}

/** Undefined when it takes longer. */
async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const timer = new AbortController();
  const late = aborted(AbortSignal.any([timer.signal, AbortSignal.timeout(ms)])).then(() => undefined);
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
