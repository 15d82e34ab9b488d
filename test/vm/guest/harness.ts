/** Tests one after another in one process, each reported to the machine outside as it ends. */
import { writeSync } from "node:fs";
import type { Report } from "../report.ts";
import { openWorld } from "./world.ts";
import type { World } from "./world.ts";

export interface Test {
  readonly name: string;
  readonly body: (world: World) => Promise<void>;
}

/** `test` declares a test of `tests`; `runTests` runs them. */
export function createSuite() {
  const tests: Test[] = [];
  return { tests, test: (name: Test["name"], body: Test["body"]) => void tests.push({ name, body }) };
}

/** Tells whoever reads the output something that was found out. */
export function note(text: string): void {
  say({ is: "note", text });
}

/**
 * Runs the tests whose name contains one of the words, or all without words, in one world that each must leave as it was; after a failure
 * there is a new one. A test ends after `limitMs`, by the guest's clock.
 */
export async function runTests(
  tests: readonly Test[],
  words: readonly string[],
  limitMs: number,
): Promise<void> {
  const chosen = tests.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)));
  let world: World | undefined;
  for (const { name, body } of chosen) {
    const startMs = performance.now();
    try {
      world ??= await openWorld();
      await within(limitMs, runIn(world, body));
      say({ is: "passed", name, ms: performance.now() - startMs });
    } catch (error) {
      const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
      say({ is: "failed", name, ms: performance.now() - startMs, message });
      await world?.[Symbol.asyncDispose]();
      world = undefined;
    }
  }
  await world?.[Symbol.asyncDispose]();
  say({ is: "end" });
}

async function runIn(world: World, body: (world: World) => Promise<void>): Promise<void> {
  await body(world);
  await world.clear();
}

async function within(limitMs: number, work: Promise<void>): Promise<void> {
  const limit = Promise.withResolvers<never>();
  const timer = setTimeout(() => limit.reject(new Error(`not done within ${limitMs} ms`)), limitMs);
  await Promise.race([work, limit.promise]).finally(() => clearTimeout(timer));
}

function say(report: Report): void {
  writeSync(1, `${JSON.stringify(report)}\n`);
}
