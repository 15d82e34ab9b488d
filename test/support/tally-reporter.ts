/** A vitest reporter: what a run came to, as one JSON document in the file that `NSM_TEST_TALLY` names. Used by `test/run.ts`. */
import { writeFileSync } from "node:fs";
import type { SerializedError } from "vitest";
import type { Reporter, TestModule } from "vitest/node";
import { z } from "zod";

export const Tally = z.object({
  passed: z.number(),
  skipped: z.number(),
  /** One line for each failed test, file that did not load, and error outside any test. */
  failures: z.array(z.string()),
});
export type Tally = z.infer<typeof Tally>;

export default class TallyReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly SerializedError[]): void {
    const path = process.env["NSM_TEST_TALLY"];
    if (path !== undefined) writeFileSync(path, JSON.stringify(tallyOf(modules, errors)));
  }
}

function tallyOf(modules: readonly TestModule[], errors: readonly SerializedError[]): Tally {
  const tests = modules.flatMap((module) => [...module.children.allTests()]);
  const count = (state: string) => tests.filter((test) => test.result().state === state).length;
  const failedTests = tests.flatMap((test) => {
    const result = test.result();
    return result.state === "failed"
      ? [`${test.module.relativeModuleId} > ${test.fullName}: ${tellingLine(result.errors[0])}`]
      : [];
  });
  const failedFiles = modules.flatMap((module) =>
    module.errors().map((error) => `${module.relativeModuleId}: ${tellingLine(error)}`),
  );
  const outside = errors.map((error) => `outside any test: ${error.stack ?? error.message}`);
  return {
    passed: count("passed"),
    skipped: count("skipped"),
    failures: [...failedTests, ...failedFiles, ...outside],
  };
}

/** The message's first line; the stack of an error without one, such as of several in one. */
function tellingLine(error: Partial<SerializedError> | undefined): string {
  const line = error?.message?.split("\n", 1)[0] ?? "";
  return line === "" ? (error?.stack ?? error?.name ?? "no message") : line;
}
