import { chown, lstat, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { failureOf, openBed, until } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import { startListener } from "../../test/support/listener-process.ts";
import { openListener } from "./listener.ts";

const isRoot = process.geteuid?.() === 0;

/** Listens on a file of the bed's directory; nobody is expected to connect. */
function listen(bed: Bed, name: string, mode = 0o666) {
  return openListener({ kind: "unix", path: join(bed.dir, name) }, mode, (socket) => socket.destroy());
}

/** A socket file whose listener has died. */
async function staleSocket(path: string): Promise<void> {
  await (await startListener(path)).kill();
}

test("the socket file has the mode asked for, in a directory that is made, and is removed at the end", async () => {
  await using bed = await openBed();
  const path = join(bed.dir, "a/b/nsm.sock");
  {
    await using listener = await listen(bed, "a/b/nsm.sock", 0o600);
    expect(listener.address).toEqual({ kind: "unix", path });
    expect((await lstat(path)).mode & 0o7777).toBe(0o600);
    expect((await lstat(join(bed.dir, "a"))).mode & 0o777).toBe(0o755 & ~process.umask());
  }
  await until("the file gone", async () => (await lstat(path).catch(() => undefined)) === undefined);
});

test("a socket that nobody listens on any more is taken over", async () => {
  await using bed = await openBed();
  const path = join(bed.dir, "nsm.sock");
  await staleSocket(path);
  const { ino } = await lstat(path);
  await using _ = await listen(bed, "nsm.sock");
  expect((await lstat(path)).isSocket()).toBe(true);
  expect(ino).toBeGreaterThan(0);
});

test("a socket that somebody listens on is left alone", async () => {
  await using bed = await openBed();
  await using _ = await listen(bed, "nsm.sock");
  const before = await lstat(join(bed.dir, "nsm.sock"));
  const failure = await failureOf(listen(bed, "nsm.sock"));
  expect(failure).toMatchObject({ code: "ALREADY_EXISTS", reason: "address-in-use" });
  expect((await lstat(join(bed.dir, "nsm.sock"))).ino).toBe(before.ino);
});

test("what is no socket is left alone: a file, a directory, a link to a socket", async () => {
  await using bed = await openBed();
  await writeFile(join(bed.dir, "file"), "precious");
  await mkdir(join(bed.dir, "directory"));
  await staleSocket(join(bed.dir, "socket"));
  await symlink(join(bed.dir, "socket"), join(bed.dir, "link"));
  for (const name of ["file", "directory", "link"])
    expect(await failureOf(listen(bed, name))).toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "not-a-socket",
      message: expect.stringContaining(join(bed.dir, name)),
    });
  expect(await readFile(join(bed.dir, "file"), "utf8")).toBe("precious");
  expect((await lstat(join(bed.dir, "link"))).isSymbolicLink()).toBe(true);
});

test.skipIf(!isRoot)("another user's socket is left alone (needs root)", async () => {
  await using bed = await openBed();
  const path = join(bed.dir, "nsm.sock");
  await staleSocket(path);
  await chown(path, 65534, 65534);
  expect(await failureOf(listen(bed, "nsm.sock"))).toMatchObject({
    code: "PERMISSION_DENIED",
    reason: "foreign-socket",
    message: expect.stringContaining("65534"),
  });
  expect((await lstat(path)).uid).toBe(65534);
});

test("a port in use is ALREADY_EXISTS, an address that is not ours INVALID_ARGUMENT", async () => {
  const holder = createServer();
  await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
  await using _ = { [Symbol.asyncDispose]: () => new Promise<void>((done) => holder.close(() => done())) };
  const address = holder.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const tcp = (host: string, port: number) =>
    openListener({ kind: "tcp", host, port }, 0, (socket) => socket.destroy());
  expect(await failureOf(tcp("127.0.0.1", address.port))).toMatchObject({ code: "ALREADY_EXISTS" });
  expect(await failureOf(tcp("192.0.2.1", 0))).toMatchObject({
    code: "INVALID_ARGUMENT",
    reason: "cannot-listen",
  });
});

test("a path that is too long for a socket is refused before anything is made", async () => {
  await using bed = await openBed();
  expect(await failureOf(listen(bed, `folder/${"x".repeat(107)}.sock`))).toMatchObject({
    code: "INVALID_ARGUMENT",
    reason: "bad-address",
    message: expect.stringContaining("expected at most 107"),
  });
  expect(await lstat(join(bed.dir, "folder")).catch(() => undefined)).toBe(undefined);
});
