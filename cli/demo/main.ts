/** `nsm demo` and `nsm demo down`: options in, words and exit codes out. */
import { join } from "node:path";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { ExitCode } from "../exit-code.ts";
import { packageRoot } from "../package-root.ts";
import { isRoot } from "../requirements.ts";
import { endRun } from "./down.ts";
import { listRuns, parseRunName, removeUnfinished } from "./record.ts";
import { formatTable, terminalWidth } from "../table.ts";
import { createStory } from "./story.ts";
import type { Story } from "./story.ts";
import { CLIENT, namespaceOf, runFolder } from "./topology.ts";
import { runOnce } from "./up.ts";
import type { RunReport, RunResult, WireReport } from "./up.ts";
import { PINGS_NEEDED } from "./wires.ts";

export interface DemoOptions {
  readonly keep: boolean;
  readonly run: string | undefined;
  readonly json: boolean;
}

/** Exit code 0: every wire works; 3: those that this machine can have work; 130: interrupted; 1: anything else. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const story = createStory(options.json);
  const stop = new AbortController();
  onInterruption((why) => {
    if (!stop.signal.aborted) story.step(`${why}: removing everything`);
    stop.abort(new NsmError("CANCELLED", "interrupted", why));
  });

  const result = await runOnce({
    ...options,
    story,
    signal: stop.signal,
    onReport: (report) => tell(report, story),
  });
  const { report, run } = result;
  story.document({
    ...(report ?? { run, wires: [], unavailable: [] }),
    firstPingMs: report?.firstPingMs ?? null,
    removed: result.removed,
  });
  if (options.keep && report !== undefined) story.print(tour(report.run));
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
  const { report, failure, run } = result;
  if (failure !== undefined && !interrupted) complain(messageOf(failure));
  const kept = options.keep && failure === undefined;
  if (!kept && !result.removed)
    complain(`something of run ${run} is left: see ${runFolder(run ?? "")}, try nsm demo down --run ${run}`);
  if (interrupted) return ExitCode.interrupted;
  if (report === undefined || (!kept && !result.removed)) return ExitCode.failed;
  const broken = report.wires.filter((wire) => wire.pingsReceived < PINGS_NEEDED);
  for (const wire of broken)
    complain(`${wire.interface}: only ${wire.pingsReceived} of ${wire.pingsSent} pings returned`);
  if (broken.length > 0) return ExitCode.failed;
  return report.unavailable.length > 0 ? ExitCode.unavailable : ExitCode.ok;
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

function tell(report: RunReport, story: Story): void {
  const { wires } = report;
  const width = terminalWidth();
  const devices = formatTable(
    wires,
    [
      { title: "INTERFACE", value: (wire) => wire.interface },
      { title: "ADDRESSES", value: (wire) => wire.addresses.join(" ") },
      { title: "MTU", value: (wire) => String(wire.mtu) },
    ],
    [],
    width,
  );
  story.print([
    "",
    `Interfaces of the client (namespace ${namespaceOf(report.run, `pod-${CLIENT}`)})`,
    ...devices,
  ]);
  const table = formatTable(
    wires,
    [
      { title: "CLIENT", value: (wire) => wire.client },
      { title: "SERVICE", value: (wire) => wire.service },
      { title: "ENDPOINT", value: (wire) => wire.endpoint },
      { title: "MECHANISM", value: (wire) => wire.mechanism },
      { title: "ADDRESSES", value: addresses },
      { title: "MTU", value: (wire) => String(wire.mtu) },
      { title: "RTT", value: (wire) => (wire.rttMs === null ? "none" : `${wire.rttMs.toFixed(2)} ms`) },
      { title: "PINGS", value: (wire) => `${wire.pingsReceived}/${wire.pingsSent}` },
    ],
    [{ title: "PATH", value: (wire) => wire.path.join(" → ") }],
    width,
  );
  const missing = report.unavailable.flatMap((fault) => [
    `No ${fault.mechanism} wire on this machine: ${fault.reason}`,
    `    ${fault.remedy}`,
  ]);
  story.print(["", "Wires", ...table, "", ...missing]);
}

function addresses(wire: WireReport): string {
  const plain = (list: readonly string[]) => list.map((address) => address.split("/")[0]).join(",");
  return `${plain(wire.addresses)} → ${plain(wire.peers)}`;
}

/** What to look at in a mesh that was kept. */
function tour(run: string): readonly string[] {
  const inside = (place: string, command: string) => `  ip netns exec ${namespaceOf(run, place)} ${command}`;
  return [
    "The mesh is running. Look around:",
    inside(`pod-${CLIENT}`, "ip address"),
    inside(`pod-${CLIENT}`, "ip -details link show nsm-3"),
    inside("node1", "ip address"),
    inside("node1", "nft list ruleset"),
    `  tail -f ${runFolder(run)}/logs/*.log`,
    "End it:",
    `  ${ourName()} demo down --run ${run}`,
  ];
}

/** How this command can be called from any folder. */
function ourName(): string {
  const isCheckout = import.meta.filename.endsWith(".ts");
  return isCheckout ? `node ${join(packageRoot(), "bin/nsm.js")}` : "nsm";
}

function complain(text: string): void {
  process.stderr.write(`nsm demo: ${text}\n`);
}
