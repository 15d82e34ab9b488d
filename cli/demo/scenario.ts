/** What a scenario of the demo is: workloads that it adds to the nodes, what happens with them, and its figures. */
import type { Tool } from "../requirements.ts";
import type { Machine } from "./machine.ts";
import type { Parts } from "./parts.ts";
import type { ScenarioName } from "./scenario-names.ts";
import type { Stage } from "./stage.ts";
import type { ClusterName, MechanismName, Part } from "./topology.ts";
import type { WireReport } from "./wires.ts";

/** A network service as its administrator writes it (docs/protocol.md, "Registry"). */
export interface ServiceManifest {
  readonly name: string;
  readonly spec: Readonly<Record<string, unknown>>;
}

export interface Scenario {
  readonly name: ScenarioName;
  /** Whether it needs both clusters; else it plays on node1 and node2. */
  readonly clusters: boolean;
  /** Kinds of wires that it wants; it plays with those that the machine can have. One that needs both clusters needs all of them. */
  readonly mechanisms: readonly MechanismName[];
  /** Its processes, each in a namespace of its own. Names must differ from those of all other scenarios. */
  parts(make: Parts, machine: Machine): readonly Part[];
  /** Programs that it needs beside those of every run. */
  readonly tools?: readonly Tool[];
  /** Names of parts that it starts itself ({@link Stage.start}); the others are started before it plays. */
  readonly later?: readonly string[];
  /** By the cluster whose registry has them, `east` also of a mesh that is alone; an endpoint without one registers a plain service itself. */
  readonly services?: Readonly<Partial<Record<ClusterName, readonly ServiceManifest[]>>>;
  /** Services that a cluster lets the other one use, beside those whose manifests say so. */
  readonly exports?: Readonly<Partial<Record<ClusterName, readonly string[]>>>;
  /** Contents of files below the run's folder (`pods/name.yaml`). */
  readonly files?: Readonly<Record<string, string>>;
  /** What to look at in a mesh that is kept: a command in a namespace. */
  readonly look: readonly { readonly place: string; readonly command: string }[];
  /** What to ask the manager of node 1 in a mesh that is kept: words after `nsm`. */
  readonly ask: readonly string[];
  /** What happens. Throws when it does not work out. */
  play(stage: Stage): Promise<Outcome>;
}

/** Figures of a scenario; null where it has none. */
export interface Outcome {
  readonly ok: boolean;
  /** From the start of its processes until all its wires were up. */
  readonly setupMs: number | null;
  /** The longest time in which no probe came back over a wire that was healed. */
  readonly healGapMs: number | null;
  /** The same when it went back to where it had been. */
  readonly failBackGapMs: number | null;
  /** Probes or pings that did not come back. */
  readonly packetsLost: number | null;
  /** Of its clients, as they were before anything was killed. */
  readonly wires: readonly WireReport[];
}

/** What the JSON says of a scenario that was begun. */
export interface ScenarioReport extends Omit<Outcome, "wires"> {
  /** The longest of its wires'. */
  readonly rttMs: number | null;
}

export const FAILED: ScenarioReport = {
  ok: false,
  setupMs: null,
  rttMs: null,
  healGapMs: null,
  failBackGapMs: null,
  packetsLost: null,
};

export function scenarioReport({ wires, ...outcome }: Outcome): ScenarioReport {
  const rtts = wires.flatMap(({ rttMs }) => rttMs ?? []);
  return { ...outcome, rttMs: rtts.length === 0 ? null : Math.max(...rtts) };
}

/** Manifests as a file for a registry (JSON is YAML); undefined when there are none. */
export function manifestsOf(services: readonly ServiceManifest[]): string | undefined {
  if (services.length === 0) return undefined;
  return services
    .map(({ name, spec }) => `---\n${JSON.stringify({ kind: "NetworkService", metadata: { name }, spec })}\n`)
    .join("");
}
