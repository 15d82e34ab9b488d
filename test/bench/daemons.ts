/** Processes of the bench: daemons from the built package, each in a namespace and with a group of its own. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { NamedNamespace } from "../support/netns.ts";

/** How every daemon of a run is started. */
export interface Launch {
  /** The words that start `nsm`. */
  readonly nsm: readonly string[];
  /** For sockets and logs. */
  readonly folder: string;
  /** Compiled code, shared by all daemons of a run. */
  readonly cache: string;
}

export interface DaemonOptions {
  readonly role: string;
  /** Unique; names the log. */
  readonly name: string;
  /** The bench's own namespace when undefined. */
  readonly ns?: NamedNamespace;
  readonly gid: number;
  readonly env: Readonly<Record<string, string>>;
}

export interface BenchDaemon extends AsyncDisposable {
  readonly name: string;
  readonly role: string;
  readonly pid: number;
}

const STOP_WITHIN_MS = 5000;

/** Disposing sends SIGTERM, and SIGKILL to what does not stop. */
export function startDaemon({ nsm, folder, cache }: Launch, options: DaemonOptions): BenchDaemon {
  const { role, name, ns, gid, env } = options;
  const [program, ...args] = [...inPlace(ns, gid), ...nsm, role];
  const log = openSync(join(folder, `${name}.log`), "a");
  const child = spawn(program, args, {
    stdio: ["ignore", log, log],
    env: { PATH: process.env["PATH"], NODE_COMPILE_CACHE: cache, ...env },
  });
  closeSync(log);
  const ended = once(child, "exit");
  let stopping = false;
  void ended.then(() => {
    if (!stopping) console.error(`${name} ended by itself:\n${tail(folder, name)}`);
  });
  return {
    name,
    role,
    pid: child.pid ?? 0,
    async [Symbol.asyncDispose]() {
      stopping = true;
      const force = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
      child.kill("SIGTERM");
      await ended;
      clearTimeout(force);
    },
  };
}

/** The words before a command that put it into a namespace and a group. */
export function inPlace(ns: NamedNamespace | undefined, gid: number): readonly [string, ...string[]] {
  const group = ["setpriv", `--regid=${gid}`, "--clear-groups", "--"] as const;
  return ns === undefined ? group : ["nsenter", `--net=/run/netns/${ns.name}`, "--", ...group];
}

/** The last lines of a daemon's log. */
export function tail(folder: string, name: string, lines = 10): string {
  return readFileSync(join(folder, `${name}.log`), "utf8")
    .trim()
    .split("\n")
    .slice(-lines)
    .join("\n");
}
