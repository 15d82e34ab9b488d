/**
 * `npm test`: installs what the tests need, runs them and ends with the line `N passed, N failed`.
 *
 *     npm test                          everything
 *     npm test -- e2e heal              the tests of one project, those whose file name contains "heal"
 *     npm test -- --without-root        leave out the projects that change the kernel (they fail otherwise)
 *
 * Projects that make namespaces, links and processes run in a sandbox of their own (test/support/sandbox.ts).
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { z } from "zod";
import { isRoot, provide, testTools } from "../cli/requirements.ts";
import { messageOf } from "../sdk/errors.ts";
import { insideSandbox } from "./support/sandbox.ts";

const root = dirname(import.meta.dirname);
const PLAIN = ["unit", "vectors", "fuzz", "architecture", "build"];
const PRIVILEGED = ["netns", "e2e"];

interface Tally {
  readonly passed: number;
  readonly failed: number;
}

function main(args: readonly string[]): number {
  const words = args.filter((arg) => arg !== "--without-root");
  const projects = words.filter((word) => [...PLAIN, ...PRIVILEGED].includes(word));
  const rest = words.filter((word) => !projects.includes(word));
  const asked = (names: readonly string[]) =>
    projects.length === 0 ? names : names.filter((n) => projects.includes(n));

  const tallies = [runVitest(asked(PLAIN), rest, (command) => command)];
  if (!args.includes("--without-root")) tallies.push(runPrivileged(asked(PRIVILEGED), rest));

  const passed = tallies.reduce((sum, tally) => sum + tally.passed, 0);
  const failed = tallies.reduce((sum, tally) => sum + tally.failed, 0);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

function runPrivileged(projects: readonly string[], rest: readonly string[]): Tally {
  if (projects.length === 0) return { passed: 0, failed: 0 };
  if (!isRoot()) {
    console.error(
      `the projects ${projects.join(" and ")} make network namespaces and need root: run "sudo npm test", ` +
        `or leave them out with "npm test -- --without-root"`,
    );
    return { passed: 0, failed: 1 };
  }
  try {
    provide(testTools(), (line) => console.error(line));
  } catch (error) {
    console.error(messageOf(error));
    return { passed: 0, failed: 1 };
  }
  return runVitest(projects, rest, insideSandbox);
}

/** Runs the projects and counts by vitest's own report. In CI a skipped test counts as failed. */
function runVitest(
  projects: readonly string[],
  rest: readonly string[],
  wrap: (command: readonly string[]) => readonly string[],
): Tally {
  if (projects.length === 0) return { passed: 0, failed: 0 };
  const folder = mkdtempSync(join(tmpdir(), "nsm-test-"));
  try {
    const report = join(folder, "report.json");
    const [command = "", ...args] = wrap([
      process.execPath,
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      ...projects.flatMap((name) => ["--project", name]),
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${report}`,
      ...rest,
    ]);
    const { status } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
    return readTally(report, status === 0);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function readTally(report: string, success: boolean): Tally {
  const counts = readReport(report);
  const skipped = counts.numPendingTests + counts.numTodoTests;
  if (skipped > 0 && process.env["CI"])
    console.error(`${skipped} tests were skipped: in CI they count as failed`);
  const failed = counts.numFailedTests + (process.env["CI"] ? skipped : 0);
  // A file that does not load, or an error outside any test, fails the run without a failed test.
  return { passed: counts.numPassedTests, failed: success ? failed : Math.max(1, failed) };
}

/** The part of vitest's JSON report that we use. */
const Counts = z.object({
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numTodoTests: z.number(),
});

function readReport(report: string): z.infer<typeof Counts> {
  try {
    return Counts.parse(JSON.parse(readFileSync(report, "utf8")));
  } catch (error) {
    console.error(`vitest wrote no report: ${messageOf(error)}`);
    return { numPassedTests: 0, numFailedTests: 1, numPendingTests: 0, numTodoTests: 0 };
  }
}

process.exitCode = main(process.argv.slice(2));
