import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  mkdtempSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { Session } from "node:inspector/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  closeFd,
  connectUnixSync,
  isPidfdAlive,
  openInRoot,
  openPidfd,
  peerCredentials,
  watchReadable,
} from "./native.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "native-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

test("the connecting side learns which process listens on a unix socket", async () => {
  const path = join(directory, "s");
  const server = createServer().listen(path);
  await once(server, "listening");
  const fd = connectUnixSync(path);
  const peer = peerCredentials(fd);
  expect(peer).toMatchObject({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  if (peer.pidfd === undefined) throw new Error("this kernel has no SO_PEERPIDFD");
  expect(isPidfdAlive(peer.pidfd)).toBe(true);
  closeFd(peer.pidfd);
  closeFd(fd);
  server.close();
});

test("connecting where nobody listens names the path and the errno", () => {
  const path = join(directory, "none");
  expect(() => connectUnixSync(path)).toThrow(
    expect.objectContaining({ code: "NOT_FOUND", reason: "enoent" }),
  );
  expect(() => connectUnixSync("/x".repeat(60))).toThrow(
    expect.objectContaining({ reason: "bad-socket-path" }),
  );
});

test("a pidfd tells that its process ended, and wakes the event loop", async () => {
  const child = spawn("sleep", ["60"]);
  const pidfd = openPidfd(child.pid ?? 0);
  if (pidfd === undefined) throw new Error("no pidfd");
  expect(isPidfdAlive(pidfd)).toBe(true);
  const died = new Promise<void>((resolve) => {
    const watch = watchReadable(pidfd, () => {
      watch[Symbol.dispose]();
      resolve();
    });
  });
  child.kill("SIGKILL");
  await Promise.all([died, once(child, "exit")]);
  expect(isPidfdAlive(pidfd)).toBe(false);
  closeFd(pidfd);
});

test("there is no pidfd of a process that does not exist", () => {
  expect(openPidfd(2 ** 22 + 1)).toBeUndefined();
});

test("a path is opened below its root only, without symbolic links", () => {
  mkdirSync(join(directory, "run"));
  writeFileSync(join(directory, "run/file"), "inside");
  symlinkSync("file", join(directory, "run/link"));
  symlinkSync("/etc", join(directory, "etc"));
  const root = openSync(directory, "r");
  const fd = openInRoot(root, "/run/../../../run/file", 0);
  expect(readFileSync(fd, "utf8")).toBe("inside");
  closeFd(fd);
  for (const [path, reason] of [
    ["/run/link", "eloop"],
    ["/etc/passwd", "eloop"],
    ["/run/none", "enoent"],
  ] as const)
    expect(() => openInRoot(root, path, 0)).toThrow(expect.objectContaining({ reason }));
  closeSync(root);
});

test("a process is not taken for dead when a signal interrupts the question", async () => {
  const pidfd = openPidfd(process.pid);
  if (pidfd === undefined) throw new Error("this process has no pidfd");
  const session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.setSamplingInterval", { interval: 50 });
  await session.post("Profiler.start"); // a SIGPROF at each tick
  try {
    for (const end = performance.now() + 500; performance.now() < end;)
      expect(isPidfdAlive(pidfd)).toBe(true);
  } finally {
    await session.post("Profiler.stop");
    session.disconnect();
    closeFd(pidfd);
  }
});
