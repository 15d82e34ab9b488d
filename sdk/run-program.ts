/** The few programs that daemons need: started without a shell, fed on standard input, bounded in time. */
import { spawn } from "node:child_process";
import { closeSync, writeSync } from "node:fs";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { NsmError, errnoOf } from "./errors.ts";
import { openMemoryFile } from "./native.ts";

const TIMEOUT_MS = 10_000;

/**
 * Standard output of a program that ended well. Throws FAILED_PRECONDITION `program-missing`, or INTERNAL `program-failed` with
 * what it said. `input` (keys) is in no argument, file system or error.
 */
export async function runProgram(file: string, args: readonly string[], input = ""): Promise<string> {
  // Not a pipe: Node's are sockets, which `wg` cannot open by the name /dev/stdin.
  const stdin = openMemoryFile(file);
  try {
    writeSync(stdin, input, 0);
    const child = spawn(file, args, { stdio: [stdin, "pipe", "pipe"], timeout: TIMEOUT_MS });
    const ended = new Promise<string>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => resolve(code === 0 ? "" : `ended with ${signal ?? code}`));
    });
    const [failure, stdout, stderr] = await Promise.all([ended, read(child.stdout), read(child.stderr)]);
    if (failure === "") return stdout;
    throw new NsmError(
      "INTERNAL",
      "program-failed",
      `${file} ${args.join(" ")}: ${stderr.trim() || failure}`,
    );
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new NsmError("FAILED_PRECONDITION", "program-missing", `program ${file} is not installed`);
  } finally {
    closeSync(stdin);
  }
}

async function read(stream: Readable | null): Promise<string> {
  return stream === null ? "" : await text(stream);
}
