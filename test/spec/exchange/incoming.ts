/** A recorded call as our handlers see it: the recorded certificate and metadata, and what they do to it. */
import { pid } from "node:process";
import { NsmError } from "../../../sdk/errors.ts";
import type { Caller } from "../../../sdk/grpc/caller.ts";
import type { Bench } from "./bench.ts";
import { certificateOf, componentOf } from "./recording.ts";
import type { RecordedCall } from "./recording.ts";

export interface Incoming {
  readonly caller: Caller;
  /** Header of the answer. */
  readonly header: Readonly<Record<string, string>>;
  /** The caller leaves a stream. */
  leave(): void;
}

export function createIncoming({ recorded, clock, own }: Bench, call: RecordedCall): Incoming {
  const client = componentOf(recorded, call.client);
  const left = new AbortController();
  const header: Record<string, string> = {};
  // Behind every recorded socket is this process: alive, and with a pid that the kernel knows.
  const process = { pid, uid: 0, gid: 0, pidfd: undefined, isAlive: () => true };
  return {
    header,
    leave: () => left.abort(new NsmError("CANCELLED", "caller-left", `${client.name} has left the call`)),
    caller: {
      peer: {
        session: client.name,
        spiffeId: client.spiffeId,
        certificate: certificateOf(client),
        own,
        transport: call.network,
        process: call.network === "unix" ? process : undefined,
      },
      metadata: { get: (key) => call.metadata[key] ?? [] },
      signal: left.signal,
      deadlineMs: call.timeoutMs === undefined ? undefined : clock.now() + call.timeoutMs,
      sendHeader: (values) => void Object.assign(header, values),
    },
  };
}
