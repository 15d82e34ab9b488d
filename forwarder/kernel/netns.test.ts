import type { PathLike } from "node:fs";
import { beforeEach, expect, test, vi } from "vitest";
import { findNetns } from "./netns.ts";

const reads = vi.hoisted(() => ({ proc: 0 }));
vi.mock("node:fs", async (load) => {
  const fs = await load<typeof import("node:fs")>();
  const readdirSync = (path: PathLike) => {
    if (path === "/proc") reads.proc++;
    return fs.readdirSync(path);
  };
  return { ...fs, readdirSync };
});
beforeEach(() => {
  reads.proc = 0;
});

/** Above the kernel's largest. */
const NO_PID = 4_194_305;

test("the namespaces of a thousand ends of dead pods are looked for once", () => {
  for (let inode = 1n; inode <= 1000n; inode++) expect(findNetns({ pid: NO_PID, inode })).toBeUndefined();
  expect(reads.proc).toBeLessThan(10);
});
