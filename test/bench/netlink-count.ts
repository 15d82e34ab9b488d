/** Counts the netlink messages that a process sends, by strace(1), where there is one. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { findProgram } from "../../cli/requirements.ts";

const ATTACH_WITHIN_MS = 10_000;

/** Messages that the process sent while `body` ran; undefined when strace is missing or may not trace. */
export async function countNetlink(pid: number, body: () => Promise<void>): Promise<number | undefined> {
  const program = findProgram("strace");
  if (program === undefined) return undefined;
  const tracer = spawn(program, ["-f", "-e", "trace=sendto,sendmsg", "-p", String(pid)], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = once(tracer, "exit");
  const attached = Promise.withResolvers<boolean>();
  let messages = 0;
  createInterface({ input: tracer.stderr }).on("line", (line) => {
    if (line.includes(" attached")) attached.resolve(true);
    messages += line.split("nlmsg_type=").length - 1;
  });
  void ended.then(() => attached.resolve(false));
  const late = setTimeout(() => attached.resolve(false), ATTACH_WITHIN_MS);
  try {
    if (!(await attached.promise)) return undefined;
    await body();
  } finally {
    clearTimeout(late);
    tracer.kill("SIGINT");
    await ended;
  }
  return messages;
}
