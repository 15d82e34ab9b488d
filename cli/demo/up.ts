/** One run of the demo, from nothing to nothing. */
import { randomInt } from "node:crypto";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NsmError } from "../../sdk/errors.ts";
import { WIREGUARD_FOLDER, markedEnvironment, removeRun } from "./down.ts";
import { followLines } from "./follow.ts";
import { checkMachine } from "./machine.ts";
import type { Unavailable } from "./machine.ts";
import { makeNamespaces } from "./namespaces.ts";
import { processId } from "./processes.ts";
import { createRecord, listRuns, parseRunName, readRecord, updateRecord } from "./record.ts";
import type { RunRecord } from "./record.ts";
import { registrationsOf } from "./registrations.ts";
import { lastComplaints, logFile, startPart } from "./start.ts";
import type { StartedPart } from "./start.ts";
import type { Story } from "./story.ts";
import { CLIENT, FOLDERS, namespaceOf, topologyOf, underlay } from "./topology.ts";
import type { MechanismName, Topology, WantedWire } from "./topology.ts";
import { warmUp } from "./warm-up.ts";
import { medianOf, parseEstablished, pingWire, readDevices } from "./wires.ts";
import type { Established } from "./wires.ts";

/** How long the mesh may take to bring all wires up. */
const WIRES_WITHIN_MS = 60_000;

export interface WireReport {
  readonly client: string;
  readonly service: string;
  readonly endpoint: string;
  readonly mechanism: MechanismName | "?";
  readonly interface: string;
  readonly addresses: readonly string[];
  /** Addresses at the endpoint's side. */
  readonly peers: readonly string[];
  readonly path: readonly string[];
  readonly mtu: number;
  /** Median of the pings; null when none returned. */
  readonly rttMs: number | null;
  readonly pingsSent: number;
  readonly pingsReceived: number;
}

export interface RunReport {
  readonly run: string;
  /** From the command to the first reply. */
  readonly firstPingMs: number | undefined;
  readonly wires: readonly WireReport[];
  readonly unavailable: readonly Unavailable[];
}

export interface RunOptions {
  /** Its name; made up when undefined. */
  readonly run: string | undefined;
  readonly keep: boolean;
  readonly story: Story;
  /** Called when the wires were pinged, before anything is removed. */
  readonly onReport: (report: RunReport) => void;
  readonly signal: AbortSignal;
}

export interface RunResult {
  readonly report: RunReport | undefined;
  readonly failure: unknown;
  /** The run's name; undefined when nothing was made. */
  readonly run: string | undefined;
  /** Verified to have left nothing behind. */
  readonly removed: boolean;
}

/** Makes the mesh, has its wires pinged and removes it, unless it is to be kept. Whatever fails, nothing is left. */
export async function runOnce(options: RunOptions): Promise<RunResult> {
  const { story, signal } = options;
  const machine = checkMachine((line) => story.step(line));
  for (const fault of machine.unavailable) story.step(`no ${fault.mechanism} wire: ${fault.reason}`);
  const run = options.run === undefined ? randomName() : parseRunName(options.run);
  const topology = topologyOf(run, machine.wires, process.env["NSM_LOG_LEVEL"] || "INFO");
  const record = newRecord(topology);
  createRecord(record);

  let report: RunReport | undefined;
  let failure: unknown;
  try {
    const wires = await bringUp(topology, record, machine.wires, story, signal);
    report = { run: record.run, ...wires, unavailable: machine.unavailable };
    options.onReport(report);
  } catch (error) {
    failure = error;
  }
  if (options.keep && failure === undefined) return { report, failure, run: record.run, removed: false };
  const removed = await removeRun(readRecord(record.run) ?? record);
  if (removed)
    story.step(
      `removed ${record.namespaces.length} namespaces, ${record.parts.length} processes and ${topology.folder}`,
    );
  return { report, failure, run: record.run, removed };
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

async function bringUp(
  topology: Topology,
  record: RunRecord,
  wanted: readonly WantedWire[],
  story: Story,
  signal: AbortSignal,
): Promise<Pick<RunReport, "firstPingMs" | "wires">> {
  story.step(`run ${topology.run}, recorded in ${topology.folder}`);
  for (const folder of FOLDERS) mkdirSync(join(topology.folder, folder), { mode: 0o700 });
  const namespaces = makeNamespaces(topology, markedEnvironment(topology.run));
  const [warmed] = await Promise.all([warmUp(), namespaces]);
  if (warmed) story.step("compiled the daemons, once for this checkout");
  story.step(`node1 (${underlay.node1}) and node2 (${underlay.node2}) joined, ${wanted.length + 1} pods`);
  signal.throwIfAborted();

  writeFileSync(join(topology.folder, "registrations.yaml"), registrationsOf(topology));
  const failed = new AbortController();
  const started = topology.parts.map((part) => {
    const running = startPart(topology, part);
    record.parts.push({
      name: part.name,
      role: part.role,
      namespace: namespaceOf(topology.run, part.place),
      pid: running.pid,
      startTime: running.startTime,
    });
    updateRecord(record);
    running.child.once("exit", (code, by) => failed.abort(endedEarly(topology, running, code ?? by)));
    return running;
  });
  story.step(`started ${started.map(({ part }) => part.name).join(", ")}`);

  const deadline = setTimeout(() => failed.abort(tooLate(topology)), WIRES_WITHIN_MS);
  try {
    return await useWires(topology, wanted, story, AbortSignal.any([signal, failed.signal]));
  } finally {
    clearTimeout(deadline);
    for (const { child } of started) child.removeAllListeners("exit");
  }
}

/** Waits for each wire and pings over it, all at the same time. */
async function useWires(
  topology: Topology,
  wanted: readonly WantedWire[],
  story: Story,
  signal: AbortSignal,
): Promise<Pick<RunReport, "firstPingMs" | "wires">> {
  const established = new Map(wanted.map((wire) => [wire.interface, Promise.withResolvers<Established>()]));
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => undefined); // also when nobody waits any more
  signal.addEventListener("abort", () => aborted.reject(signal.reason), { once: true });
  using resources = new DisposableStack();
  resources.use(
    followLines(logFile(topology.folder, CLIENT), (line) => {
      const wire = parseEstablished(line);
      if (wire !== undefined) established.get(wire.interface)?.resolve(wire);
    }),
  );
  let firstPingMs: number | undefined;
  const all = wanted.map(async (wire) => {
    const promise = established.get(wire.interface)?.promise ?? aborted.promise;
    const news = await Promise.race([promise, aborted.promise]);
    story.step(`${wire.interface} is up: ${news.service} at ${news.nse}`);
    return useWire(topology, news, signal, () => {
      if (firstPingMs !== undefined) return;
      firstPingMs = Math.round(performance.now());
      story.step(`first ping over ${wire.interface}`);
    });
  });
  const wires = await Promise.all(all);
  story.step(`pinged over ${wires.length} wires`);
  return { firstPingMs, wires };
}

async function useWire(
  topology: Topology,
  wire: Established,
  signal: AbortSignal,
  onReply: () => void,
): Promise<WireReport> {
  const namespace = namespaceOf(topology.run, `pod-${CLIENT}`);
  const devices = await readDevices(namespace, markedEnvironment(topology.run));
  const device = devices.find(({ name }) => name === wire.interface);
  if (device === undefined)
    throw new NsmError(
      "NOT_FOUND",
      "no-device",
      `the client has no device ${wire.interface}, which it announced`,
    );
  const { sent, received, rttsMs } = await pingWire(namespace, wire, device, signal, onReply);
  const rttMs = medianOf(rttsMs);
  return {
    client: CLIENT,
    service: wire.service,
    endpoint: wire.nse,
    mechanism: device.mechanism,
    interface: device.name,
    addresses: device.addresses,
    peers: wire.peerAddresses,
    path: wire.path,
    mtu: device.mtu,
    rttMs: rttMs === undefined ? null : Math.round(rttMs * 1000) / 1000,
    pingsSent: sent,
    pingsReceived: received,
  };
}

function endedEarly(topology: Topology, { part }: StartedPart, how: number | string | null): NsmError {
  const said = lastComplaints(topology.folder, part.name, 3).join("\n  ");
  return new NsmError("UNAVAILABLE", "part-ended", `${part.name} ended (${String(how)}):\n  ${said}`);
}

function tooLate(topology: Topology): NsmError {
  const said = topology.parts.flatMap((part) =>
    lastComplaints(topology.folder, part.name, 2).map((line) => `${part.name}: ${line}`),
  );
  return new NsmError(
    "DEADLINE_EXCEEDED",
    "wires-missing",
    `not all wires were up after ${WIRES_WITHIN_MS / 1000} s. The parts said last:\n  ${said.join("\n  ")}`,
  );
}
