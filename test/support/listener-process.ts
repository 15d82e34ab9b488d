/** Processes that listen on a unix socket: alone, or where nobody but them sees the file. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";

const LISTEN = `require("net").createServer((s) => s.on("error", () => {}).resume()).listen(process.argv[1], () => console.log("up"))`;

export interface ListenerProcess extends AsyncDisposable {
  readonly pid: number;
  /** Ends it so that its socket file stays. */
  kill(): Promise<void>;
}

/** Resolves when it listens on `path`. */
export function startListener(path: string): Promise<ListenerProcess> {
  return started(spawn(process.execPath, ["-e", LISTEN, path], { stdio: ["ignore", "pipe", "inherit"] }));
}

/** The same in a mount namespace with a file system of its own on `directory`. Needs root. */
export function startHiddenListener(directory: string, path: string): Promise<ListenerProcess> {
  const script = `mount -t tmpfs none "$1" && exec "$2" -e "$3" "$4"`;
  const shell = ["sh", "-c", script, "sh", directory, process.execPath, LISTEN, path];
  return started(spawn("unshare", ["--mount", ...shell], { stdio: ["ignore", "pipe", "inherit"] }));
}

async function started(child: ChildProcess): Promise<ListenerProcess> {
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once("data", () => resolve());
    void ended.then(() => reject(new Error("the listener ended before it listened")));
  });
  const { pid } = child;
  if (pid === undefined) throw new Error("no process");
  const kill = () => {
    child.kill("SIGKILL");
    return ended;
  };
  return { pid, kill, [Symbol.asyncDispose]: kill };
}
