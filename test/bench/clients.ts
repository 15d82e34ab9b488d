/** Client processes of the bench, seen from the bench: one identity and one namespace each. */
import { fork } from "node:child_process";
import { once } from "node:events";
import type { NamedNamespace } from "../support/netns.ts";
import type { Answer, Commands } from "./commands.ts";
import { inPlace } from "./daemons.ts";

export interface ClientOptions {
  /** Own path segment name. */
  readonly name: string;
  readonly ns: NamedNamespace;
  readonly gid: number;
  readonly spiffeSocket: string;
  readonly managerUrl: string;
}

export interface BenchClient extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly ns: NamedNamespace;
  /** It has its identity and a session with the manager. */
  readonly ready: Promise<void>;
  /** Rejects with what went wrong over there, or when the process ends. */
  call<M extends keyof Commands>(method: M, ...args: Parameters<Commands[M]>): ReturnType<Commands[M]>;
}

export function startClient(options: ClientOptions): BenchClient {
  const { name, ns, gid, spiffeSocket, managerUrl } = options;
  const [execPath, ...execArgv] = [...inPlace(ns, gid), process.execPath];
  const child = fork(
    new URL("client.ts", import.meta.url),
    [JSON.stringify({ name, spiffeSocket, managerUrl })],
    { execPath, execArgv },
  );
  const waiting = new Map<number, (answer: Answer) => void>();
  const ended = once(child, "exit").then(() => {
    for (const [id, settle] of waiting) settle({ id, error: `${name} has ended` });
  });
  child.on("message", (answer: Answer) => waiting.get(answer.id)?.(answer));
  const ready = Promise.race([
    once(child, "message").then(() => undefined),
    ended.then(() => Promise.reject(new Error(`${name} has ended`))),
  ]);
  ready.catch(() => undefined); // also for those who do not wait for it
  let lastId = 0;
  return {
    name,
    ns,
    ready,
    pid: child.pid ?? 0,
    call(method, ...args) {
      const id = ++lastId;
      const answered = new Promise((resolve, reject) => {
        waiting.set(id, ({ error, value }) => {
          waiting.delete(id);
          if (error === undefined) resolve(value);
          else reject(new Error(`${name}: ${error}`));
        });
      });
      child.send({ id, method, args });
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- client.ts answers with what Commands says
      return answered as ReturnType<Commands[typeof method]>;
    },
    async [Symbol.asyncDispose]() {
      if (child.connected) child.disconnect();
      await ended;
    },
  };
}
