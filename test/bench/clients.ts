/** Client processes of the bench, seen from the bench: one identity and one namespace each. */
import { fork } from "node:child_process";
import type { NamedNamespace } from "../support/netns.ts";
import type { Commands } from "./commands.ts";
import { inPlace } from "./daemons.ts";
import { remoteOf } from "./remote.ts";
import type { Remote } from "./remote.ts";

export interface ClientOptions {
  /** Own path segment name. */
  readonly name: string;
  readonly ns: NamedNamespace;
  readonly gid: number;
  readonly spiffeSocket: string;
  readonly managerUrl: string;
}

/** It is ready when it has its identity and a session with the manager. */
export interface BenchClient extends Remote<Commands> {
  readonly ns: NamedNamespace;
}

export function startClient(options: ClientOptions): BenchClient {
  const { name, ns, gid, spiffeSocket, managerUrl } = options;
  const [execPath, ...execArgv] = [...inPlace(ns, gid), process.execPath];
  const child = fork(
    new URL("client.ts", import.meta.url),
    [JSON.stringify({ name, spiffeSocket, managerUrl })],
    { execPath, execArgv },
  );
  return { ...remoteOf<Commands>(name, child), ns };
}
