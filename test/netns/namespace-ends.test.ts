import { closeSync, openSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openNamespaceEnds } from "../../forwarder/kernel/namespace-ends.ts";
import type { NamespaceEnds } from "../../forwarder/kernel/namespace-ends.ts";
import { netnsIdentity, tryOpen } from "../../forwarder/kernel/netns.ts";
import { silentLogger } from "../../sdk/log.ts";
import { createNamespace, eventually, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";

/** A descriptor that is open, and no network namespace's. */
const NO_NAMESPACE = 2;

describe.skipIf(!isRoot)("the end of network namespaces (need root)", () => {
  let ends: NamespaceEnds;
  let ended: string[];
  beforeEach(() => {
    ends = openNamespaceEnds(silentLogger);
    ended = [];
  });
  afterEach(() => ends[Symbol.dispose]());

  const watch = async (namespace: Namespace, name: string): Promise<Disposable> => {
    const fd = openSync(`/run/netns/${namespace.name}`, "r");
    try {
      return await ends.watch(fd, () => ended.push(name));
    } finally {
      closeSync(fd);
    }
  };

  test("is told once to everybody who watches, and to nobody who has stopped", async () => {
    const [one, other] = [createNamespace("one"), createNamespace("other")];
    await watch(one, "one");
    await watch(one, "one, again");
    await watch(other, "other");
    const stopped = await watch(one, "stopped");
    stopped[Symbol.dispose]();
    await one.kill();
    await eventually("the end is told", () => ended.length === 2);
    expect(ended).toEqual(["one", "one, again"]);
    await other.kill();
    await eventually("the other's end is told", () => ended.length === 3);
    expect(ended).toEqual(["one", "one, again", "other"]);
  });

  test("a number that the kernel gives again is another namespace's", async () => {
    for (let i = 1; i <= 20; i++) {
      const namespace = createNamespace(`n${i}`);
      await watch(namespace, `n${i}`);
      await namespace.kill();
      await eventually(`the end of n${i} is told`, () => ended.length === i);
    }
    expect(ended).toEqual(Array.from({ length: 20 }, (_, i) => `n${i + 1}`));
  });

  test("one whose identity is known is asked for its number once, and told like the others", async () => {
    const [one, next] = [createNamespace("one"), createNamespace("next")];
    const path = `/run/netns/${one.name}`;
    using open = tryOpen(path);
    if (open === undefined) throw new Error(`${path} is not there`);
    const identity = netnsIdentity(open);
    await ends.watch(open.fd, () => ended.push("first"), identity);
    await ends.watch(NO_NAMESPACE, () => ended.push("second"), identity); // the kernel is not asked
    await expect(ends.watch(NO_NAMESPACE, () => undefined, "cookie-of-another")).rejects.toThrow(
      "get namespace id",
    );
    open[Symbol.dispose]();
    await one.kill();
    await eventually("the end is told", () => ended.length === 2);
    // Its number is free again, and the next one's.
    await watch(next, "next");
    await expect(ends.watch(NO_NAMESPACE, () => undefined, identity)).rejects.toThrow("get namespace id");
    await next.kill();
    await eventually("the next one's end is told", () => ended.length === 3);
    expect(ended).toEqual(["first", "second", "next"]);
  });

  test("of many at once, none is missed", async () => {
    const namespaces = Array.from({ length: 40 }, (_, i) => createNamespace(`m${i}`));
    for (const [i, namespace] of namespaces.entries()) await watch(namespace, `m${i}`);
    await Promise.all(namespaces.map((namespace) => namespace.kill()));
    await eventually("all ends are told", () => ended.length === namespaces.length, 20_000);
    expect(new Set(ended).size).toBe(namespaces.length);
  });
});
