import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { PeerProcess } from "../sdk/grpc/peer.ts";
import { findRegistration, fits, parseCgroup, readCaller } from "./attest.ts";
import type { Caller } from "./attest.ts";
import type { Match } from "./registrations.ts";

let proc: string;
beforeEach(() => {
  proc = mkdtempSync(join(tmpdir(), "proc-"));
  mkdirSync(join(proc, "7/ns"), { recursive: true });
  writeFileSync(join(proc, "7/ns/net"), "");
  writeFileSync(join(proc, "7/cgroup"), "0::/system.slice/x.service\n");
  writeFileSync(join(proc, "binary"), "");
  symlinkSync(join(proc, "binary"), join(proc, "7/exe"));
});
afterEach(() => rmSync(proc, { recursive: true }));

function caller(options: Partial<PeerProcess> = {}): PeerProcess {
  return { pid: 7, uid: 0, gid: 1001, pidfd: undefined, isAlive: () => true, ...options };
}

test("facts are read from the process, and only while it lives", () => {
  const { dev, ino } = statSync(join(proc, "7/ns/net"), { bigint: true });
  const binary = statSync(join(proc, "binary"), { bigint: true });
  expect(readCaller(caller(), proc)).toEqual({
    pid: 7,
    uid: 0,
    gid: 1001,
    netns: { dev, ino },
    cgroup: "system.slice/x.service",
    executable: { dev: binary.dev, ino: binary.ino, path: join(proc, "binary") },
  });
  let wasAsked = false;
  const dying = caller({ isAlive: () => ((wasAsked = true), false) });
  expect(() => readCaller(dying, proc)).toThrow(
    expect.objectContaining({ code: "UNAVAILABLE", reason: "caller-gone" }),
  );
  expect(wasAsked).toBe(true);
});

test("facts that cannot be read fit nothing", () => {
  rmSync(join(proc, "7"), { recursive: true });
  const unknown = readCaller(caller(), proc);
  expect(unknown).toMatchObject({ netns: undefined, cgroup: undefined, executable: undefined });
  expect(fits({ netns: 1 }, unknown)).toBe(false);
  expect(fits({ netns: "/no/such/path" }, unknown)).toBe(false);
  expect(fits({ cgroup: "x" }, unknown)).toBe(false);
  expect(fits({ executable: "/no/such/path" }, unknown)).toBe(false);
  expect(fits({ gid: 1001 }, unknown)).toBe(true);
});

test.each([
  ["0::/system.slice/x.service\n", "system.slice/x.service"],
  ["0::/\n", ""],
  ["12:cpu,cpuacct:/a\n1:name=systemd:/b/c.service\n", "b/c.service"],
  ["12:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c\n", "c"],
  ["0::/../outside\n", "../outside"],
  ["0::/with:colon\n", "with:colon"],
  ["3:cpu:/a\n", undefined],
  ["", undefined],
])("the cgroup of %j is %j", (text, cgroup) => {
  expect(parseCgroup(text)).toBe(cgroup);
});

describe("every selector that is given must fit", () => {
  const seen: Caller = {
    pid: 7,
    uid: 0,
    gid: 1001,
    netns: { dev: 4n, ino: 4026531840n },
    cgroup: "system.slice/x.service/sub",
    executable: undefined,
  };
  test.each<[match: Match, isFit: boolean]>([
    [{ uid: 0 }, true],
    [{ uid: 1 }, false],
    [{ uid: 0, gid: 1001 }, true],
    [{ uid: 0, gid: 1002 }, false],
    [{ netns: 4026531840 }, true],
    [{ netns: 4026531841 }, false],
    [{ cgroup: "system.slice/x.service" }, true],
    [{ cgroup: "system.slice/x" }, false],
    [{ cgroup: "system.slice/x.service/sub/deeper" }, false],
    [{ uid: 0, gid: 1001, netns: 4026531840, cgroup: "system.slice" }, true],
    [{ uid: 0, gid: 1001, netns: 4026531840, cgroup: "user.slice" }, false],
  ])("%j: %s", (match, isFit) => {
    expect(fits(match, seen)).toBe(isFit);
  });

  test("a namespace of the same inode on another device is another one", () => {
    const path = join(proc, "7/ns/net");
    const { dev, ino } = statSync(path, { bigint: true });
    expect(fits({ netns: path }, { ...seen, netns: { dev, ino } })).toBe(true);
    expect(fits({ netns: path }, { ...seen, netns: { dev: dev + 1n, ino } })).toBe(false);
  });

  test("nobody gets an identity by two registrations", () => {
    const one = { id: "spiffe://a.test/one", match: { uid: 0 } };
    const two = { id: "spiffe://a.test/two", match: { gid: 1001 } };
    expect(findRegistration(seen, [one], "file")).toBe(one);
    expect(() => findRegistration(seen, [one, two], "file")).toThrow(
      expect.objectContaining({ code: "PERMISSION_DENIED", reason: "ambiguous-registration" }),
    );
    expect(() => findRegistration({ ...seen, uid: 5, gid: 5 }, [one, two], "file")).toThrow(
      /a\.test\/my-workload/,
    );
  });
});
