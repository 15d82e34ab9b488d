// Namespaces that are looked for through all processes of the machine.
import { describe, expect, test } from "vitest";
import { findNetns, openNetns } from "../../forwarder/netns.ts";
import { startSleeper } from "../support/sleeper.ts";
import { createNamespace, isRoot } from "../support/netns.ts";

/** Above the kernel's largest. */
const NO_PID = 4_194_305;

describe.skipIf(!isRoot)("a namespace whose process has ended (needs root)", () => {
  const lookAround = () => expect(findNetns({ pid: NO_PID, inode: 1n })).toBeUndefined();

  test("is found where it is mounted, also when it was made after the last look", async () => {
    lookAround();
    await using ns = createNamespace("pod");
    const ref = { pid: ns.pid, inode: ns.inode };
    openNetns(ref)[Symbol.dispose]();
    process.kill(ns.pid, "SIGKILL");
    using found = findNetns({ ...ref, pid: NO_PID });
    expect(found?.inode).toBe(ns.inode);
  });

  test("is found at another of its processes than the last time", async () => {
    await using ns = createNamespace("pod");
    using first = await ns.inside(startSleeper);
    using second = await ns.inside(startSleeper);
    const ref = { pid: NO_PID, inode: ns.inode };
    openNetns({ ...ref, pid: ns.pid })[Symbol.dispose]();
    await ns.kill();
    findNetns(ref)?.[Symbol.dispose]();
    for (const victim of [first, second]) {
      using found = findNetns(ref);
      expect(found?.inode).toBe(ns.inode);
      await victim.kill();
    }
    expect(findNetns(ref)).toBeUndefined();
  });
});
