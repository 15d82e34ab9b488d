/**
 * Records of runs: `/run/nsm-demo/<run>/record.json`, there before anything else of the run is made.
 *
 * The folder appears by one rename with the record in it, so that a driver killed at any moment leaves either nothing, a
 * folder `.new-<pid>-<run>`, or a run that `nsm demo down` can remove. A record is replaced by rename as well.
 */
import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { NsmError, errnoOf } from "../../sdk/errors.ts";
import { isAlive, processId } from "./processes.ts";
import { RUNS_FOLDER, runFolder } from "./topology.ts";

const RUN_NAME = /^[a-z0-9]{1,8}$/;

const ProcessRecord = z.object({ pid: z.number(), startTime: z.string() });

const RunRecord = z.object({
  run: z.string().regex(RUN_NAME),
  /** The `nsm demo` process. */
  driver: ProcessRecord,
  startedAt: z.string(),
  /** Full names. */
  namespaces: z.array(z.string().startsWith("nsm-")),
  /** Whether the run has to remove the folder of user-space WireGuard's sockets when it is empty. */
  ownsWireGuardFolder: z.boolean(),
  parts: z.array(ProcessRecord.extend({ name: z.string(), role: z.string(), namespace: z.string() })),
});
export type RunRecord = z.infer<typeof RunRecord>;

export function parseRunName(text: string): string {
  if (RUN_NAME.test(text)) return text;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "bad-run-name",
    `${JSON.stringify(text)} is no name of a run: use 1 to 8 lower-case letters and digits`,
  );
}

/** Makes the run's folder with its record. Throws ALREADY_EXISTS `run-exists` when the name is taken. */
export function createRecord(record: RunRecord): void {
  const fresh = join(RUNS_FOLDER, `.new-${record.driver.pid}-${record.run}`);
  retryOn("ENOENT", () => {
    mkdirSync(RUNS_FOLDER, { recursive: true, mode: 0o755 });
    mkdirSync(fresh, { mode: 0o755 });
  });
  writeFileSync(join(fresh, "record.json"), JSON.stringify(record));
  try {
    renameSync(fresh, runFolder(record.run)); // fails on a folder that is not empty: every run's has its record
  } catch (error) {
    rmSync(fresh, { recursive: true });
    if (!["ENOTEMPTY", "EEXIST"].includes(errnoOf(error) ?? "")) throw error;
    throw new NsmError(
      "ALREADY_EXISTS",
      "run-exists",
      `a run named ${record.run} exists: end it with "nsm demo down --run ${record.run}" or choose another name`,
    );
  }
}

export function updateRecord(record: RunRecord): void {
  const path = join(runFolder(record.run), "record.json");
  writeFileSync(`${path}.new`, JSON.stringify(record));
  renameSync(`${path}.new`, path);
}

/** Names of the recorded runs. */
export function listRuns(): readonly string[] {
  return entries().filter((name) => RUN_NAME.test(name));
}

/** Undefined when there is no such run. */
export function readRecord(run: string): RunRecord | undefined {
  try {
    return RunRecord.parse(JSON.parse(readFileSync(join(runFolder(run), "record.json"), "utf8")));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Removes the run's folder, what killed drivers never finished, and the folder of all runs when it is empty. */
export function removeRunFolder(run: string): void {
  rmSync(runFolder(run), { recursive: true, force: true });
  removeUnfinished();
}

export function removeUnfinished(): void {
  for (const name of entries()) {
    const pid = /^\.new-(\d+)-[a-z0-9]+$/.exec(name)?.[1];
    if (pid !== undefined && processId(Number(pid)) === undefined)
      rmSync(join(RUNS_FOLDER, name), { recursive: true, force: true });
  }
  removeIfEmpty(RUNS_FOLDER);
}

/** Whether the driver of the run still works. */
export function isDriven(record: RunRecord): boolean {
  return record.driver.pid !== process.pid && isAlive(record.driver);
}

export function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch (error) {
    if (!["ENOTEMPTY", "EEXIST", "ENOENT"].includes(errnoOf(error) ?? "")) throw error;
  }
}

function entries(): readonly string[] {
  try {
    return readdirSync(RUNS_FOLDER);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Another run may remove the common folder between two steps of ours. */
function retryOn(code: string, body: () => void): void {
  for (let attempts = 1; ; attempts++) {
    try {
      body();
      return;
    } catch (error) {
      if (errnoOf(error) !== code || attempts === 5) throw error;
    }
  }
}
