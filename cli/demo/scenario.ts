/** What a scenario of the demo is: workloads that it adds to the two nodes, what happens with them, and its figures. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { Tool } from "../requirements.ts";
import type { ScenarioName } from "./scenario-names.ts";
import type { Machine } from "./machine.ts";
import type { Stage } from "./stage.ts";
import type { Parts } from "./parts.ts";
import type { MechanismName, Part } from "./topology.ts";
import type { WireReport } from "./wires.ts";

export interface Scenario {
  readonly name: ScenarioName;
  /** Kinds of wires that it wants; it plays with those that the machine can have. */
  readonly mechanisms: readonly MechanismName[];
  /** Its processes, each in a namespace of its own. Names must differ from those of all other scenarios. */
  parts(make: Parts, machine: Machine): readonly Part[];
  /** Programs that it needs beside those of every run. */
  readonly tools?: readonly Tool[];
  /** Names of parts that it starts itself ({@link Stage.start}); the others are started before it plays. */
  readonly later?: readonly string[];
  /** Registered before its parts start; an endpoint without one registers a plain service itself. */
  readonly services?: readonly MessageInitShape<typeof NetworkServiceSchema>[];
  /** Contents of files below the run's folder (`pods/name.yaml`), there before its parts start. */
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
  /** Probes or pings that did not come back. */
  readonly packetsLost: number | null;
  /** Of its clients, as they were before anything was killed. */
  readonly wires: readonly WireReport[];
}

/** What the JSON says of a scenario that was begun. */
export type ScenarioReport = Omit<Outcome, "wires">;

export const FAILED: ScenarioReport = { ok: false, setupMs: null, healGapMs: null, packetsLost: null };
