// Namespaces that are looked for through all processes of the machine.
import { describe, expect, test } from "vitest";
import { netnsOfCaller } from "../../forwarder/elements/namespaces.ts";
import { findNetns, openNetns, ownNetnsInode } from "../../forwarder/kernel/netns.ts";
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

describe.skipIf(!isRoot)("a client below a manager that names no process (needs root)", () => {
  const named = (inode: bigint) => ({ inodeURL: `inode://4/${inode}` });

  test("is any process of the namespace that it names, also of one that is new", async () => {
    await using first = createNamespace("pod");
    expect(netnsOfCaller(named(first.inode), true).inode).toBe(first.inode);
    await using second = createNamespace("pod");
    const ref = netnsOfCaller(named(second.inode), true);
    expect(ref).toEqual({ pid: second.pid, inode: second.inode });
    openNetns(ref)[Symbol.dispose]();
    await first.kill();
    expect(() => netnsOfCaller(named(first.inode), true)).toThrow(
      expect.objectContaining({ code: "NOT_FOUND", reason: "netns-gone" }),
    );
  });

  test("is refused the node's own, without a name, and to anybody but a manager", async () => {
    await using ns = createNamespace("pod");
    const reason = (parameters: Record<string, string>, fromManager = true) => {
      try {
        return netnsOfCaller(parameters, fromManager);
      } catch (error) {
        return Reflect.get(Object(error), "reason");
      }
    };
    expect(reason(named(ownNetnsInode()))).toBe("netns-of-node");
    expect(reason(named(1n))).toBe("netns-gone");
    expect(reason({})).toBe("netns-unproven");
    expect(reason({ inodeURL: "file:///proc/1/ns/net" })).toBe("netns-unproven");
    expect(reason(named(ns.inode), false)).toBe("netns-unproven");
    // Our manager's word that no process of this node asks.
    expect(reason({ ...named(ns.inode), peerPID: "0" })).toBe("netns-unproven");
  });
});
