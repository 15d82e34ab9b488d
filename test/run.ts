/**
 * `npm test`: installs what the tests need, runs them and ends with a line for each failure and the line `N passed, N failed`.
 *
 *     npm test                          everything
 *     npm test -- e2e heal              the tests of one project, those whose file name contains "heal"
 *     npm test -- --without-root        leave out the projects that change the kernel (they fail otherwise)
 *     npm run test:long                 those that have a long form (test/support/long.ts), in that form: about an hour
 *
 * Projects that make namespaces, links and processes run in a sandbox of their own (test/support/sandbox.ts).
 */
import { spawn } from "node:child_process";
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, sep } from "node:path";
import { isRoot, provide, testTools } from "../cli/requirements.ts";
import { messageOf } from "../sdk/errors.ts";
import { insideSandbox } from "./support/sandbox.ts";
import { Tally as VitestTally } from "./support/tally-reporter.ts";

const root = dirname(import.meta.dirname);
const PLAIN = ["unit", "vectors", "fuzz", "architecture", "build"];
const PRIVILEGED = ["netns", "e2e"];

interface Tally {
  readonly passed: number;
  readonly failed: number;
  readonly failures: readonly string[];
}

async function main(args: readonly string[]): Promise<number> {
  const isLong = args.includes("--long");
  if (isLong) process.env["NSM_TEST_LONG"] = "1";
  const words = args.filter((arg) => !["--without-root", "--long"].includes(arg));
  const named = words.filter((word) => [...PLAIN, ...PRIVILEGED].includes(word));
  const others = words.filter((word) => !named.includes(word));
  const projects = named.length === 0 ? [...PLAIN, ...PRIVILEGED] : named;
  const asked = isLong ? longForms(projects, others) : { projects, rest: others };
  const among = (names: readonly string[]) => names.filter((name) => asked.projects.includes(name));

  const tallies = [await runVitest(among(PLAIN), asked.rest, (command) => command)];
  if (!args.includes("--without-root")) tallies.push(await runPrivileged(among(PRIVILEGED), asked.rest));

  const passed = tallies.reduce((sum, tally) => sum + tally.passed, 0);
  const failed = tallies.reduce((sum, tally) => sum + tally.failed, 0);
  for (const failure of tallies.flatMap((tally) => tally.failures)) console.log(`FAILED: ${failure}`);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

/**
 * The files of these projects that have a long form, with their projects, and options of vitest as they are. `words`: parts of names
 * of files, if not all are meant, and then such options.
 */
function longForms(projects: readonly string[], words: readonly string[]) {
  const { files: all, options } = filesOf(projects, words);
  const files = all.filter((file) => readFileSync(join(root, file), "utf8").includes('/support/long.ts"'));
  return { projects: [...new Set(files.map(projectOf))], rest: [...files, ...options] };
}

/** Files of projects that lie below test/, by parts of their names as vitest takes them, and the options behind those. */
function filesOf(projects: readonly string[], words: readonly string[]) {
  const at = words.findIndex((word) => word.startsWith("-"));
  const [names, options] = at < 0 ? [words, []] : [words.slice(0, at), words.slice(at)];
  const files = globSync("test/*/**/*.test.ts", { cwd: root })
    .map((file) => file.split(sep).join("/"))
    .filter(
      (file) =>
        projects.includes(projectOf(file)) &&
        (names.length === 0 || names.some((name) => file.includes(name))),
    );
  return { files, options };
}

function projectOf(file: string): string {
  return file.split("/")[1] ?? "";
}

async function runPrivileged(projects: readonly string[], rest: readonly string[]): Promise<Tally> {
  if (projects.length === 0) return { passed: 0, failed: 0, failures: [] };
  if (!isRoot()) {
    return refused(
      `the projects ${projects.join(" and ")} make network namespaces and need root: run "sudo npm test", ` +
        `or leave them out with "npm test -- --without-root"`,
    );
  }
  try {
    provide(testTools(), (line) => console.error(line));
  } catch (error) {
    return refused(messageOf(error));
  }
  return await runVitest(projects, rest, insideSandbox);
}

function refused(why: string): Tally {
  return { passed: 0, failed: 1, failures: [why] };
}

/** Runs the projects and counts what vitest saw. In CI a skipped test counts as failed. */
async function runVitest(
  projects: readonly string[],
  rest: readonly string[],
  wrap: (command: readonly string[]) => readonly string[],
): Promise<Tally> {
  if (projects.length === 0) return { passed: 0, failed: 0, failures: [] };
  const folder = mkdtempSync(join(tmpdir(), "nsm-test-"));
  try {
    const tally = join(folder, "tally.json");
    const [command = "", ...args] = wrap([
      process.execPath,
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      ...projects.flatMap((name) => ["--project", name]),
      "--reporter=default",
      `--reporter=${join(root, "test/support/tally-reporter.ts")}`,
      ...rest,
    ]);
    const child = spawn(command, args, {
      cwd: root,
      stdio: "inherit",
      env: { ...process.env, NSM_TEST_TALLY: tally },
      signal: interrupted.signal,
      killSignal: "SIGKILL", // the sandbox ends with the first process, and all that is in it
    });
    child.on("error", (error) => console.error(messageOf(error))); // the report is missing then
    await new Promise((resolve) => child.once("close", resolve));
    return readTally(tally, child.exitCode === 0);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function readTally(path: string, success: boolean): Tally {
  const { passed, skipped, failures } = readReport(path);
  const unseen = success || failures.length > 0 ? [] : ["vitest failed and named no failure: see above"];
  const skips = process.env["CI"]
    ? Array<string>(skipped).fill("a test was skipped: in CI that is a failure")
    : [];
  const all = [...failures, ...unseen, ...skips];
  return { passed, failed: all.length, failures: all };
}

function readReport(path: string): VitestTally {
  try {
    return VitestTally.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch (error) {
    return { passed: 0, skipped: 0, failures: [`vitest wrote no report: ${messageOf(error)}`] };
  }
}

const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => interrupted.abort());
process.exitCode = await main(process.argv.slice(2));
