/** `nsm demo` and `nsm demo down`: options in, words and exit codes out. */
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { ExitCode } from "../exit-code.ts";
import { isRoot } from "../requirements.ts";
import { endRun } from "./down.ts";
import { listRuns, parseRunName, removeUnfinished } from "./record.ts";
import { parseScenarios } from "./scenarios/index.ts";
import { createStory } from "./story.ts";
import { tellScenarios, tellTour, tellUnavailable } from "./tell.ts";
import { runFolder } from "./topology.ts";
import { runOnce } from "./up.ts";
import type { RunResult } from "./up.ts";
import { PINGS_NEEDED } from "./wires.ts";

export interface DemoOptions {
  /** Names, separated by commas. */
  readonly scenarios: string;
  readonly keep: boolean;
  readonly run: string | undefined;
  readonly json: boolean;
}

/** Exit code 0: every scenario worked; 3: with the wires that this machine can have; 130: interrupted; 1: anything else. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const scenarios = parseScenarios(options.scenarios);
  const story = createStory(options.json);
  const stop = new AbortController();
  onInterruption((why) => {
    if (!stop.signal.aborted) story.step(`${why}: removing everything`);
    stop.abort(new NsmError("CANCELLED", "interrupted", why));
  });

  const result = await runOnce({ ...options, scenarios, story, signal: stop.signal });
  const { failure, topology, played, ...document } = result;
  tellScenarios(result, stop.signal.aborted, story);
  tellUnavailable(result.unavailable, story);
  story.document(document);
  if (options.keep && failure === undefined) tellTour(topology, played, story);
  return verdict(result, options, stop.signal.aborted);
}

/** Signals, a reader of our output that went away, and errors of our own: whatever it is, the run must not stay behind. */
function onInterruption(interrupt: (why: string) => void): void {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => interrupt(signal));
  for (const stream of [process.stdout, process.stderr])
    stream.on("error", (error) => interrupt(`nobody reads (${error.message})`));
  process.on("uncaughtException", (error) => interrupt(error.stack ?? error.message));
}

function verdict(result: RunResult, options: DemoOptions, interrupted: boolean): number {
  const { failure, run, wires, scenarios } = result;
  if (failure !== undefined && !interrupted) complain(messageOf(failure));
  const kept = options.keep && failure === undefined;
  if (!kept && !result.removed)
    complain(`something of run ${run} is left: see ${runFolder(run)}, try nsm demo down --run ${run}`);
  if (interrupted) return ExitCode.interrupted;
  if (failure !== undefined || (!kept && !result.removed)) return ExitCode.failed;
  for (const wire of wires.filter(({ pingsReceived }) => pingsReceived < PINGS_NEEDED))
    complain(`${wire.interface}: only ${wire.pingsReceived} of ${wire.pingsSent} pings returned`);
  if (Object.values(scenarios).some(({ ok }) => !ok)) return ExitCode.failed;
  return result.unavailable.length > 0 ? ExitCode.unavailable : ExitCode.ok;
}

export interface DownOptions {
  /** Name of a run, or `all`. */
  readonly run: string;
  readonly json: boolean;
}

/** Ends runs, also those whose driver works still or was killed. Exit code 1 when something is left or the run is unknown. */
export async function runDown(options: DownOptions): Promise<number> {
  if (!isRoot())
    throw new NsmError("FAILED_PRECONDITION", "not-root", "removing a demo needs root: run it with sudo");
  const story = createStory(options.json);
  const known = listRuns();
  const runs = options.run === "all" ? known : [parseRunName(options.run)];
  for (const run of runs)
    if (!known.includes(run))
      throw new NsmError(
        "NOT_FOUND",
        "no-such-run",
        `no run named ${run} is recorded; there ${known.length === 0 ? "is none" : `are: ${known.join(", ")}`}`,
      );

  let removed = true;
  for (const run of runs) {
    const gone = await endRun(run);
    if (gone) story.step(`removed run ${run}`);
    else complain(`something of run ${run} is left: see ${runFolder(run)}`);
    removed &&= gone;
  }
  removeUnfinished();
  if (runs.length === 0) story.step("no run is recorded, nothing to remove");
  story.document({ runs, removed });
  return removed ? ExitCode.ok : ExitCode.failed;
}

function complain(text: string): void {
  process.stderr.write(`nsm demo: ${text}\n`);
}
