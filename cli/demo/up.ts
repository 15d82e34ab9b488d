/** One run of the demo, from nothing to nothing. */
import { randomInt } from "node:crypto";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { NsmError } from "../../sdk/errors.ts";
import { createCast } from "./cast.ts";
import { WIREGUARD_FOLDER, markedEnvironment, removeRun } from "./down.ts";
import { checkMachine } from "./machine.ts";
import type { Machine, Unavailable } from "./machine.ts";
import { makeNamespaces } from "./namespaces.ts";
import { processId } from "./processes.ts";
import { createRecord, isDriven, listRuns, parseRunName, readRecord } from "./record.ts";
import type { RunRecord } from "./record.ts";
import { operator, writeRegistrations } from "./registrations.ts";
import { FAILED } from "./scenario.ts";
import type { Scenario, ScenarioReport } from "./scenario.ts";
import { play } from "./stage.ts";
import type { Story } from "./story.ts";
import { createParts, writeFiles } from "./parts.ts";
import { foldersOf, namespaceOf, placesOf, underlay } from "./topology.ts";
import type { Part, Topology } from "./topology.ts";
import { warmUp } from "./warm-up.ts";
import type { WireReport } from "./wires.ts";

export interface RunOptions {
  /** Its name; made up when undefined. */
  readonly run: string | undefined;
  readonly scenarios: readonly Scenario[];
  readonly keep: boolean;
  readonly story: Story;
  readonly signal: AbortSignal;
}

export interface RunResult {
  readonly run: string;
  /** From the command to the first reply over a wire. */
  readonly firstPingMs: number | null;
  /** One of each kind where `local` plays, else those of the other scenarios. */
  readonly wires: readonly WireReport[];
  readonly unavailable: readonly Unavailable[];
  /** Of those that were begun. */
  readonly scenarios: Readonly<Record<string, ScenarioReport>>;
  /** What went wrong; the run is not kept then. */
  readonly failure: unknown;
  /** Verified to have left nothing behind. */
  readonly removed: boolean;
}

/** A scenario with the parts that it has on this machine. */
interface Casting {
  readonly scenario: Scenario;
  readonly parts: readonly Part[];
}

/** Makes the mesh, plays the scenarios in it and removes it, unless it is to be kept. Whatever fails, nothing is left. */
export async function runOnce(options: RunOptions): Promise<RunResult> {
  const { story } = options;
  const wanted = new Set(options.scenarios.flatMap(({ mechanisms }) => mechanisms));
  const tools = options.scenarios.flatMap((scenario) => scenario.tools ?? []);
  const machine = checkMachine(wanted, tools, (line) => story.step(line));
  for (const fault of machine.unavailable) story.step(`no ${fault.mechanism} wire: ${fault.reason}`);
  const run = options.run === undefined ? randomName() : parseRunName(options.run);
  const make = createParts(run, {
    layout: "alone",
    logLevel: process.env["NSM_LOG_LEVEL"] || "INFO",
    metrics: options.keep,
  });
  const castings = options.scenarios.map((scenario) => ({ scenario, parts: scenario.parts(make, machine) }));
  const parts = [...make.daemons, ...castings.flatMap((casting) => casting.parts)];
  const { sites, folder } = make;
  const topology = { run, folder, sites, places: placesOf(sites, parts), parts };
  const record = newRecord(topology);
  createRecord(record);
  for (const other of leftRuns(run))
    story.step(
      `run ${other} is there, too, kept or left by a demo that was killed: nsm demo down --run ${other} removes it`,
    );

  const progress: Progress = { firstPingMs: null, wires: [], scenarios: {} };
  let failure: unknown;
  try {
    await playAll({ ...options, topology, daemons: make.daemons, castings, machine, record }, progress);
  } catch (error) {
    failure = error;
  }
  const result = { run, ...progress, unavailable: machine.unavailable, failure };
  if (options.keep && failure === undefined) return { ...result, removed: false };
  const removed = await removeRun(readRecord(run) ?? record);
  if (removed)
    story.step(
      `removed ${record.namespaces.length} namespaces, ${record.parts.length} processes and ${topology.folder}`,
    );
  return { ...result, removed };
}

function newRecord(topology: Topology): RunRecord {
  const driver = processId(process.pid);
  if (driver === undefined) throw new NsmError("INTERNAL", "no-proc", "/proc does not show this process");
  return {
    run: topology.run,
    driver,
    startedAt: new Date().toISOString(),
    namespaces: topology.places.map((place) => namespaceOf(topology.run, place)),
    ownsWireGuardFolder:
      !existsSync(WIREGUARD_FOLDER) ||
      listRuns().some((run) => readRecord(run)?.ownsWireGuardFolder === true),
    parts: [],
  };
}

function randomName(): string {
  return randomInt(36 ** 3, 36 ** 4).toString(36);
}

/** What was seen so far, also when a later scenario fails. */
interface Progress {
  firstPingMs: number | null;
  wires: readonly WireReport[];
  scenarios: Record<string, ScenarioReport>;
}

interface Play extends RunOptions {
  readonly topology: Topology;
  readonly daemons: readonly Part[];
  readonly castings: readonly Casting[];
  readonly machine: Machine;
  readonly record: RunRecord;
}

async function playAll(run: Play, progress: Progress): Promise<void> {
  const { topology, story, signal } = run;
  story.step(`run ${topology.run}, recorded in ${topology.folder}`);
  for (const folder of foldersOf(topology.sites)) mkdirSync(join(topology.folder, folder), { mode: 0o700 });
  const namespaces = makeNamespaces(topology, markedEnvironment(topology.run));
  const [warmed] = await Promise.all([warmUp(), namespaces]);
  if (warmed) story.step("compiled the daemons, once for this checkout");
  const pods = topology.places.filter((place) => place.startsWith("pod-"));
  story.step(`node1 (${underlay.node1}) and node2 (${underlay.node2}) joined, ${pods.length} pods`);
  signal.throwIfAborted();

  writeRegistrations(topology, (site) => [operator(site)]);
  writeFiles(topology);
  const cast = createCast(topology, run.record);
  const onReply = () => {
    if (progress.firstPingMs !== null) return;
    progress.firstPingMs = Math.round(performance.now());
    story.step("first reply over a wire");
  };
  try {
    for (const part of run.daemons) cast.start(part);
    const hasLocal = run.castings.some(({ scenario }) => scenario.name === "local");
    for (const { scenario, parts } of run.castings) {
      progress.scenarios[scenario.name] = FAILED;
      const { wires, ...report } = await play(scenario, parts, { ...run, cast, onReply });
      progress.scenarios[scenario.name] = report;
      if (scenario.name === "local" || !hasLocal) progress.wires = [...progress.wires, ...wires];
    }
  } finally {
    cast.dismiss();
  }
}

/** Names of other runs that nobody drives any more; one whose record cannot be read is nobody's, either. */
function leftRuns(own: string): readonly string[] {
  return listRuns().filter((name) => {
    if (name === own) return false;
    try {
      const record = readRecord(name);
      return record !== undefined && !isDriven(record);
    } catch {
      return true;
    }
  });
}
