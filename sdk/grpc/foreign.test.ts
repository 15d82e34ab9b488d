/** Sockets in other processes' roots: found, kept, and never followed elsewhere. */
import { existsSync } from "node:fs";
import { mkdir, rename, symlink, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../../api/gen/connection_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { descriptorCount, descriptorsFellTo, openBed, until } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import { startHiddenListener, startListener } from "../../test/support/listener-process.ts";
import { openForeignSocket, parseForeignUrl } from "./foreign.ts";

const isRoot = process.geteuid?.() === 0;
const request = create(NetworkServiceRequestSchema);

function fileOf(bed: Bed, name: string): string {
  return join(bed.dir, `${name}.sock`);
}

/** A server that answers with its name. */
function serveAs(bed: Bed, name: string) {
  return bed.serve({
    listen: [bed.url(name)],
    service: { request: () => Promise.resolve(create(ConnectionSchema, { id: name })) },
  });
}

test("urls of other processes' sockets are recognised", () => {
  expect(parseForeignUrl("unix:///proc/17/root/run/nse.sock")).toEqual({ pid: 17, path: "/run/nse.sock" });
  for (const url of [
    "unix:///run/nse.sock",
    "unix:///proc/self/root/a",
    "unix:///proc/0/root/a",
    "unix:///proc/1/fd/3",
  ])
    expect(parseForeignUrl(url)).toBeUndefined();
});

test("calls go to the socket that was found, also after its file was swapped", async () => {
  await using bed = await openBed();
  await serveAs(bed, "endpoint");
  await serveAs(bed, "thief");
  using socket = openForeignSocket({ pid: process.pid, path: fileOf(bed, "endpoint") });
  expect(socket.owner.pid).toBe(process.pid);
  expect(socket.listener).toMatchObject({ pid: process.pid, uid: process.getuid?.() });
  await unlink(fileOf(bed, "endpoint"));
  await rename(fileOf(bed, "thief"), fileOf(bed, "endpoint"));
  for (const pool of [bed.pool(await bed.source("/a")), bed.pool(await bed.source("/b"))])
    expect((await pool.unary(socket.target, NetworkService.method.request, request)).response.id).toBe(
      "endpoint",
    );
});

test("the listener is the process that listens, whoever names the path, and its end is seen", async () => {
  await using bed = await openBed();
  await using child = await startListener(fileOf(bed, "nse"));
  using socket = openForeignSocket({ pid: process.pid, path: fileOf(bed, "nse") });
  expect(socket.listener.pid).toBe(child.pid);
  expect(socket.listener.isAlive()).toBe(true);
  await child.kill();
  expect(socket.listener.isAlive()).toBe(false);
  expect(socket.owner.isAlive()).toBe(true);
});

test("a process that has ended, or never was, is not found", async () => {
  await using bed = await openBed();
  const child = await startListener(fileOf(bed, "nse"));
  await child.kill();
  const path = fileOf(bed, "nse");
  // The second is above the kernel's largest pid.
  for (const pid of [child.pid, 4_194_305])
    expect(() => openForeignSocket({ pid, path })).toThrow(
      expect.objectContaining({ code: "NOT_FOUND", reason: "process-ended" }),
    );
  expect(() => openForeignSocket({ pid: process.pid, path })).toThrow(
    expect.objectContaining({ code: "UNAVAILABLE", reason: "not-listening" }),
  );
});

test("links are refused anywhere in the path, and what is no socket", async () => {
  await using bed = await openBed();
  await serveAs(bed, "victim");
  await symlink(fileOf(bed, "victim"), fileOf(bed, "link"));
  await symlink(bed.dir, join(bed.dir, "way"));
  await writeFile(fileOf(bed, "file"), "");
  await mkdir(join(bed.dir, "directory"));
  const open = (path: string) => () => openForeignSocket({ pid: process.pid, path });
  const before = await descriptorCount();
  const denied = (reason: string) => expect.objectContaining({ code: "PERMISSION_DENIED", reason });
  expect(open(fileOf(bed, "link"))).toThrow(denied("symlink-refused"));
  expect(open(join(bed.dir, "way", "victim.sock"))).toThrow(denied("symlink-refused"));
  expect(open(`/proc/self/root${fileOf(bed, "victim")}`)).toThrow(denied("symlink-refused"));
  expect(open(fileOf(bed, "file"))).toThrow(denied("not-a-socket"));
  expect(open(join(bed.dir, "directory"))).toThrow(denied("not-a-socket"));
  expect(open(fileOf(bed, "nothing"))).toThrow(
    expect.objectContaining({ code: "NOT_FOUND", reason: "no-socket" }),
  );
  // Upwards there is only that process's root.
  openForeignSocket({ pid: process.pid, path: `/../../..${fileOf(bed, "victim")}` })[Symbol.dispose]();
  expect(await descriptorsFellTo(before)).toBe(true);
});

test.skipIf(!isRoot)("a socket in another mount namespace is reached (needs root)", async () => {
  await using bed = await openBed();
  const directory = join(bed.dir, "hidden");
  await mkdir(directory);
  const path = join(directory, "nse.sock");
  await using child = await startHiddenListener(directory, path);
  expect(existsSync(path)).toBe(false);
  using socket = openForeignSocket({ pid: child.pid, path });
  expect(socket.listener.pid).toBe(child.pid);
  await child.kill();
  await until("its end", () => !socket.owner.isAlive());
});
