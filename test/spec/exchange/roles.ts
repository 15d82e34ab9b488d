/** The components that a recording may have, and those of them that are ours to replay. */
import type { Bench } from "./bench.ts";
import type { Playback } from "./playback.ts";
import type { RecordedCall, RecordedStep } from "./recording.ts";
import type { JsonValue } from "@bufbuild/protobuf";

/** A component of ours, built from the production code. */
export interface Running extends AsyncDisposable {
  /** By service name, as the daemon serves them. */
  readonly handlers: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  /** The recorded request as our component's neighbour would have sent it. */
  readonly incoming?: (call: RecordedCall, json: JsonValue) => JsonValue;
  /** Checks beside the messages, after a call was served; one line a fault. */
  readonly after?: (call: RecordedCall, succeeded: boolean) => readonly string[];
  /** Does what somebody asked the recorded component to do. */
  readonly step?: (step: RecordedStep) => Promise<void> | void;
  /** True for recorded calls that a person or program made by hand, with the component's identity. */
  readonly isByHand?: (call: RecordedCall) => boolean;
}

export type Start = (bench: Bench, playback: Playback) => Running;
