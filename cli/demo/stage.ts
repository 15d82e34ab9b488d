/** Where a scenario of the demo plays: a running mesh, the means to start, kill and measure, and somebody to tell. */
import { delay } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import { AWAY_LABEL } from "../../sdk/prefer.ts";
import { monotonicMs } from "../probe/main.ts";
import { canConnect, checkProber, startListener, startProber, startReflector } from "../probe/start.ts";
import type { ProbeOptions, Prober, Reflector } from "../probe/start.ts";
import type { Board } from "./board.ts";
import { cutClusters, mendClusters } from "./border.ts";
import type { Cast } from "./cast.ts";
import type { ClientLogs } from "./client-logs.ts";
import { markedEnvironment } from "./down.ts";
import type { Machine } from "./machine.ts";
import { namespaceFile } from "./commands.ts";
import { removeNamespaces } from "./namespaces.ts";
import { runAsOperator } from "./operator.ts";
import type { Scenario } from "./scenario.ts";
import { complaints, lastComplaints } from "./start.ts";
import type { Story } from "./story.ts";
import { namespaceOf, underlay } from "./topology.ts";
import type { ClusterName, Part, Topology } from "./topology.ts";
import { pingWire, readDeviceIndexes, readDevices, reportOf } from "./wires.ts";
import type { Established, WireReport } from "./wires.ts";

/** How long a scenario may take. */
const SCENARIO_WITHIN_MS = 60_000;
const SELF_CHECK_MS = 300;

export interface Stage {
  readonly run: string;
  /** The run's. */
  readonly folder: string;
  readonly machine: Machine;
  readonly story: Story;
  /** Aborts when the run is interrupted, a part ends that should not, or it takes too long. */
  readonly signal: AbortSignal;
  /** When the scenario began, on the clock of {@link monotonicMs}. */
  readonly startMs: number;
  /** Starts parts of the scenario. */
  start(...names: readonly string[]): void;
  /** SIGKILL, as a crash; its end is no failure of the run. */
  kill(name: string): Promise<void>;
  /** Removes the namespace of a part that was killed, as when a pod goes away. */
  removeNamespace(place: string): Promise<void>;
  /** Resolves when a cluster knows an endpoint, of its own or of the other one (`name@west`). */
  known(endpoint: string, cluster: ClusterName): Promise<void>;
  /** Resolves when a cluster has noticed that the domain of an endpoint that it knows does not answer. */
  away(endpoint: string, cluster: ClusterName): Promise<void>;
  /** The first line about a wire, said already or to come, that a client of the scenario logs and that fits. */
  established(client: string, test: (wire: Established) => boolean): Promise<Established>;
  /** Looks at the wire's device and pings over it. */
  ping(client: string, wire: Established): Promise<WireReport>;
  /** Cuts the clusters off from one another: packets between them vanish. */
  cut(): Promise<void>;
  /** Ends that. */
  mend(): Promise<void>;
  reflector(name: string, place: string): Promise<Reflector>;
  prober(place: string, address: string): Promise<Prober>;
  /** Greets whoever connects by TCP to one of its own addresses. */
  listener(place: string, address: string, ports: readonly number[]): Promise<AsyncDisposable>;
  /** Whether a listener has greeted. */
  canConnect(place: string, address: string, port: number): Promise<boolean>;
  /** Names and indexes of the devices of a namespace, without loopback. */
  deviceIndexes(place: string): Promise<ReadonlyMap<string, number>>;
  /** Says what the prober sees over the bare underlay. */
  checkProber(): Promise<void>;
}

export interface StageOptions {
  readonly topology: Topology;
  readonly machine: Machine;
  readonly cast: Cast;
  readonly story: Story;
  readonly logs: ClientLogs;
  readonly board: Board;
  readonly signal: AbortSignal;
  /** Called for replies to pings. */
  readonly onReply: (wire: Established) => void;
}

/** Starts the scenario's parts and plays it. */
export async function play(scenario: Scenario, parts: readonly Part[], options: StageOptions) {
  const { topology, cast } = options;
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(tooLate(scenario, parts, topology)), SCENARIO_WITHIN_MS);
  const signal = AbortSignal.any([options.signal, cast.failed, late.signal]);
  try {
    const startMs = monotonicMs();
    const stage = createStage(parts, { ...options, signal }, startMs);
    const atOnce = parts.filter(({ name }) => scenario.later?.includes(name) !== true);
    stage.start(...atOnce.map(({ name }) => name));
    return await scenario.play(stage);
  } finally {
    clearTimeout(timer);
  }
}

function createStage(parts: readonly Part[], options: StageOptions, startMs: number): Stage {
  const { topology, machine, cast, story, board, logs, signal, onReply } = options;
  const { run, folder } = topology;
  const env = markedEnvironment(run);
  const probeIn = (place: string): ProbeOptions => ({ netns: namespaceFile(namespaceOf(run, place)), env });
  return {
    run,
    folder,
    machine,
    story,
    signal,
    startMs,
    start(...names) {
      for (const name of names) {
        const part = parts.find((each) => each.name === name);
        if (part === undefined)
          throw new NsmError("INTERNAL", "no-such-part", `the scenario has no part ${name}`);
        cast.start(part);
        if (part.role === "nsc") logs.follow(name);
      }
      story.step(`started ${names.join(", ")}`);
    },
    kill: (name) => cast.kill(name),
    removeNamespace: (place) => removeNamespaces([namespaceOf(run, place)], env),
    async known(endpoint, cluster) {
      const words = ["get", "endpoints", endpoint];
      while ((await runAsOperator(topology, cluster, words, signal)).code !== 0) await delay(100, signal);
    },
    async away(endpoint, cluster) {
      const words = ["get", "endpoints", endpoint, "-o", "json"];
      const isKnownHere = async () => {
        const { code, stdout } = await runAsOperator(topology, cluster, words, signal);
        return code === 0 && !stdout.includes(`"${AWAY_LABEL}"`);
      };
      while (await isKnownHere()) await delay(100, signal);
    },
    established: (client, test) => logs.established(client, test, signal),
    cut: () => cutClusters(run, "everything", env),
    mend: () => mendClusters(run, env),
    async ping(client, wire) {
      const namespace = namespaceOf(run, `pod-${client}`);
      const device = (await readDevices(namespace, env)).find(({ name }) => name === wire.interface);
      if (device === undefined)
        throw new NsmError(
          "NOT_FOUND",
          "no-device",
          `${client} has no device ${wire.interface}, which it announced`,
        );
      const pings = await pingWire(namespace, wire, device, signal, () => onReply(wire));
      const report = reportOf(client, wire, device, pings);
      board.measured(report);
      return report;
    },
    reflector: (name, place) => startReflector(name, probeIn(place)),
    prober: (place, address) => startProber(address, probeIn(place)),
    listener: (place, address, ports) => startListener(address, ports, probeIn(place)),
    canConnect: (place, address, port) => canConnect(address, port, probeIn(place)),
    deviceIndexes: (place) => readDeviceIndexes(namespaceOf(run, place), env),
    async checkProber() {
      const { lost, gapMs, sent } = await checkProber(
        probeIn("node1"),
        probeIn("node2"),
        underlay.node2,
        SELF_CHECK_MS,
        signal,
      );
      story.step(
        `prober over the bare underlay: ${lost} of ${sent} lost, longest gap ${gapMs.toFixed(1)} ms (the mesh has no part in it)`,
      );
    },
  };
}

/** What the scenario's parts said last, and what daemons complained of. */
function tooLate(scenario: Scenario, parts: readonly Part[], { folder, parts: all }: Topology): NsmError {
  const daemons = all.filter(({ role }) => role !== "nse" && role !== "nsc");
  const said = [
    ...daemons.flatMap(({ name }) => complaints(folder, name, 1).map((line) => `${name}: ${line}`)),
    ...parts.flatMap(({ name }) => lastComplaints(folder, name, 2).map((line) => `${name}: ${line}`)),
  ];
  return new NsmError(
    "DEADLINE_EXCEEDED",
    "wires-missing",
    `scenario ${scenario.name} was not done after ${SCENARIO_WITHIN_MS / 1000} s. The parts said last:\n  ${said.join("\n  ")}`,
  );
}
