/** Two endpoints that pass on in one network namespace would clear each other's rules: the second one does not start. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createNamespace, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";

const MODULE = new URL("../../nse/passthrough/only-one.ts", import.meta.url).href;
/** Says `in` and stays, or says why not. */
const SCRIPT = `
  import { beOnlyOne } from ${JSON.stringify(MODULE)};
  try {
    const held = await beOnlyOne();
    process.on("SIGTERM", async () => { await held[Symbol.asyncDispose](); process.stdout.write("out"); process.exit(0); });
    process.stdout.write("in");
  } catch (error) {
    process.stdout.write(error.code + " " + error.reason + " " + error.message);
  }`;

describe.skipIf(!isRoot)("endpoints that pass on (needs root)", () => {
  let [here, there]: Namespace[] = [];
  const children: ChildProcess[] = [];
  beforeAll(() => {
    [here, there] = ["here", "there"].map(createNamespace);
  });
  afterAll(async () => {
    for (const child of children) child.kill("SIGKILL");
    for (const ns of [here, there]) await ns?.kill();
  });
  const start = async (ns: Namespace | undefined) => {
    const child = spawn(
      "nsenter",
      [`--net=/run/netns/${ns?.name}`, process.execPath, "--input-type=module", "-e", SCRIPT],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    children.push(child);
    const [said] = await once(child.stdout, "data");
    return { child, said: String(said) };
  };

  test("are one per network namespace, and the second one says who is there", async () => {
    const first = await start(here);
    expect(first.said).toBe("in");
    const second = await start(here);
    expect(second.said).toMatch(
      new RegExp(`^FAILED_PRECONDITION namespace-taken .*process ${first.child.pid} "\\w.*", user 0`),
    );
    expect((await start(there)).said).toBe("in");
  });

  test("make room however they end", async () => {
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const child = children.find(
        ({ exitCode, signalCode, pid }) => exitCode === null && signalCode === null && pid,
      );
      const ended = child && once(child, "exit");
      child?.kill(signal);
      await ended;
      const next = await start(here);
      expect(next.said, signal).toBe("in");
      children.unshift(next.child);
    }
  });
});
