/** One run of the demo, from nothing to nothing. */
import { randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { NsmError } from "../../sdk/errors.ts";
import { WIREGUARD_FOLDER, removeRun } from "./down.ts";
import { checkMachine } from "./machine.ts";
import type { Machine, Unavailable } from "./machine.ts";
import { createParts } from "./parts.ts";
import { processId } from "./processes.ts";
import { createRecord, isDriven, listRuns, parseRunName, readRecord } from "./record.ts";
import type { RunRecord } from "./record.ts";
import { manifestsOf } from "./scenario.ts";
import type { Scenario } from "./scenario.ts";
import type { Story } from "./story.ts";
import { namespaceOf, placesOf } from "./topology.ts";
import type { Topology } from "./topology.ts";
import { playAll } from "./tour.ts";
import type { Progress } from "./tour.ts";

/** Short, as people watch. */
const FAILBACK_DELAY = "2s";

export interface RunOptions {
  /** Its name; made up when undefined. */
  readonly run: string | undefined;
  readonly scenarios: readonly Scenario[];
  readonly keep: boolean;
  readonly story: Story;
  readonly signal: AbortSignal;
}

export interface RunResult extends Progress {
  readonly run: string;
  readonly topology: Topology;
  /** Those that this machine can play. */
  readonly played: readonly Scenario[];
  readonly unavailable: readonly Unavailable[];
  /** What went wrong; the run is not kept then. */
  readonly failure: unknown;
  /** Verified to have left nothing behind. */
  readonly removed: boolean;
}

/** Makes the mesh, plays the scenarios in it and removes it, unless it is to be kept. Whatever fails, nothing is left. */
export async function runOnce(options: RunOptions): Promise<RunResult> {
  const { story } = options;
  const machine = machineFor(options.scenarios, story);
  const run = options.run === undefined ? randomName() : parseRunName(options.run);
  const scenarios = options.scenarios.filter((each) => isPossible(each, machine, story));
  const hasClusters = scenarios.some(({ clusters }) => clusters);
  const make = createParts(run, {
    layout: hasClusters ? "clusters" : "alone",
    logLevel: process.env["NSM_LOG_LEVEL"] || "INFO",
    metrics: options.keep,
    failbackDelay: FAILBACK_DELAY,
    services: ({ cluster = "east" }) =>
      manifestsOf(scenarios.flatMap(({ services }) => services?.[cluster] ?? [])),
  });
  const { sites, folder } = make;
  const castings = scenarios.map((scenario) => ({ scenario, parts: scenario.parts(make, machine) }));
  const parts = [...make.daemons, ...castings.flatMap((casting) => casting.parts)];
  const files = Object.assign({}, make.files, ...scenarios.map((scenario) => scenario.files ?? {}));
  const topology = { run, folder, sites, files, places: placesOf(sites, parts), parts };
  const record = newRecord(topology);
  createRecord(record);
  for (const other of leftRuns(run))
    story.step(
      `run ${other} is there, too, kept or left by a demo that was killed: nsm demo down --run ${other} removes it`,
    );

  const progress: Progress = {
    firstPingMs: null,
    firstPingBetweenClustersMs: null,
    linkMs: null,
    wires: [],
    scenarios: {},
  };
  let failure: unknown;
  try {
    await playAll({ ...options, topology, daemons: make.daemons, castings, machine, record }, progress);
  } catch (error) {
    failure = error;
  }
  const { unavailable } = machine;
  const result = { run, ...progress, topology, played: scenarios, unavailable, failure };
  if (options.keep && failure === undefined) return { ...result, removed: false };
  const removed = await removeRun(readRecord(run) ?? record);
  if (removed)
    story.step(
      `removed ${count(record.namespaces, "namespace")}, ${count(record.parts, "process", "processes")} and ${topology.folder}`,
    );
  return { ...result, removed };
}

function count({ length }: readonly unknown[], one: string, many = `${one}s`): string {
  return `${length} ${length === 1 ? one : many}`;
}

function machineFor(scenarios: readonly Scenario[], story: Story): Machine {
  const wanted = new Set(scenarios.flatMap(({ mechanisms }) => mechanisms));
  const tools = scenarios.flatMap((scenario) => scenario.tools ?? []);
  const machine = checkMachine(wanted, tools, (line) => story.step(line));
  for (const { mechanism, reason } of machine.unavailable) story.step(`no ${mechanism} wire: ${reason}`);
  return machine;
}

/** Says so when it is not. */
function isPossible({ name, clusters, mechanisms }: Scenario, machine: Machine, story: Story): boolean {
  if (!clusters || mechanisms.every((each) => machine.mechanisms.has(each))) return true;
  story.step(`scenario ${name} is left out: this machine cannot have its wires`);
  return false;
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
