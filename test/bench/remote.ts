/** Functions that another process of the bench runs: both ends of its pipe. All arguments and results are plain JSON. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { messageOf } from "../../sdk/errors.ts";

/** What such a process can be asked to do. */
export type Functions<C> = { readonly [K in keyof C]: (...args: never[]) => Promise<unknown> };

export interface Remote<C extends Functions<C>> extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  /** It has said that it can be asked. */
  readonly ready: Promise<void>;
  /** Rejects with what went wrong over there, or when the process ends. */
  call<M extends keyof C>(method: M, ...args: Parameters<C[M]>): ReturnType<C[M]>;
}

interface Call {
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

/** Disposing lets go of the process, which then ends by itself. */
export function remoteOf<C extends Functions<C>>(name: string, child: ChildProcess): Remote<C> {
  const waiting = new Map<number, (answer: Answer) => void>();
  const ended = once(child, "exit").then(() => {
    for (const [id, settle] of waiting) settle({ id, error: "the process has ended" });
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
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the other end answers with what its commands say
      return answered as ReturnType<C[typeof method]>;
    },
    async [Symbol.asyncDispose]() {
      if (child.connected) child.disconnect();
      await ended;
    },
  };
}

/** The other end: says when it is ready, and does what it is asked for until it is let go. */
export async function serveCommands<C extends Functions<C>>(open: () => Promise<C>): Promise<void> {
  // Calls in progress when the bench lets go of us are nobody's affair any more.
  process.once("disconnect", () => process.exit());
  const commands = await open();
  process.on("message", (call: Call) => void answer(commands, call).then((result) => process.send?.(result)));
  process.send?.("ready");
}

async function answer(commands: object, { id, method, args }: Call): Promise<Answer> {
  try {
    const command: unknown = Reflect.get(commands, method);
    if (typeof command !== "function") throw new Error(`no command ${method}`);
    return { id, value: await Reflect.apply(command, undefined, args) };
  } catch (error) {
    return { id, error: messageOf(error) };
  }
}
